// sslk::row_moments on CUDA.
#include "activation/kernels.cuh"
#include "rows/args.h"
#include "rows/launch.cuh"

namespace sslk {
namespace {

std::tuple<Tensor, Tensor, Tensor> row_moments_cuda(const Tensor& h_in) {
  check_representations("sslk::row_moments", h_in);
  const auto output = [&] {
    return torch::stable::new_empty(h_in, {h_in.size(0)}, accumulation_type(h_in.scalar_type()));
  };
  Tensor mean = output(), deviation = output(), norm = output();
  if (h_in.numel() == 0) {
    return {mean, deviation, norm};
  }
  const OnDeviceOf device(h_in);
  const Tensor h = with_adjacent_columns(h_in);
  launch_rows(device, rows_of(h),
              MomentsOp{{}, mean.mutable_data_ptr(), deviation.mutable_data_ptr(), norm.mutable_data_ptr()});
  return {mean, deviation, norm};
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CUDA, m) { m.impl("row_moments", TORCH_BOX(&sslk::row_moments_cuda)); }
