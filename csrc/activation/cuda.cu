// sslk::activating_mask, activation_counts and row_moments on CUDA.
#include "activation/kernels.cuh"
#include "cuda/device.h"
#include "rows/args.h"

namespace sslk {
namespace {

template <typename Op>
void run(const OnDeviceOf& device, const Rows& rows, const Op& op) {
  with_row_kernel<Op>(rows, device.multiprocessors(),
                      [&](auto kernel, int64_t grid, int64_t block) { launch(device, kernel, grid, block, rows, op); });
}

Tensor activating_mask_cuda(const Tensor& h_in, double eps, bool two_sided) {
  check_representations("sslk::activating_mask", h_in);
  check_eps("sslk::activating_mask", eps);
  Tensor mask = torch::stable::new_empty(h_in, {h_in.size(0), h_in.size(1)}, ScalarType::Bool);
  if (mask.numel() == 0) {
    return mask;
  }
  const OnDeviceOf device(h_in);
  const Tensor h = with_adjacent_columns(h_in);
  run(device, rows_of(h), MaskOp{{}, {eps, two_sided}, static_cast<uint8_t*>(mask.mutable_data_ptr())});
  return mask;
}

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
  run(device, rows_of(h),
      CountsOp{{eps, two_sided},
               static_cast<unsigned long long*>(features.mutable_data_ptr()),
               static_cast<int*>(per_row.mutable_data_ptr())});
  return {features, per_row};
}

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
  run(device, rows_of(h),
      MomentsOp{{}, mean.mutable_data_ptr(), deviation.mutable_data_ptr(), norm.mutable_data_ptr()});
  return {mean, deviation, norm};
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CUDA, m) {
  m.impl("activating_mask", TORCH_BOX(&sslk::activating_mask_cuda));
  m.impl("activation_counts", TORCH_BOX(&sslk::activation_counts_cuda));
  m.impl("row_moments", TORCH_BOX(&sslk::row_moments_cuda));
}
