// sslk::activation_counts on CUDA.
#include "activation/kernels.cuh"
#include "rows/args.h"
#include "rows/launch.cuh"

namespace sslk {
namespace {

std::tuple<Tensor, Tensor> activation_counts_cuda(const Tensor& h_in, double eps, bool two_sided) {
  check_representations("sslk::activation_counts", h_in);
  check_eps("sslk::activation_counts", eps);
  Tensor features = torch::stable::new_zeros(h_in, {h_in.size(1)}, ScalarType::Long);
  Tensor per_row = torch::stable::new_empty(h_in, {h_in.size(0)}, ScalarType::Int);
  if (h_in.numel() == 0) {
    return {features, per_row};
  }
  const OnDeviceOf device(h_in);
  const Tensor h = with_adjacent_columns(h_in);
  launch_rows(device, rows_of(h),
              CountsOp{{eps, two_sided},
                       static_cast<unsigned long long*>(features.mutable_data_ptr()),
                       static_cast<int*>(per_row.mutable_data_ptr())});
  return {features, per_row};
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CUDA, m) { m.impl("activation_counts", TORCH_BOX(&sslk::activation_counts_cuda)); }
