// sslk::activating_mask on CUDA.
#include "activation/kernels.cuh"
#include "rows/args.h"
#include "rows/launch.cuh"

namespace sslk {
namespace {

Tensor activating_mask_cuda(const Tensor& h_in, double eps, bool two_sided) {
  check_representations("sslk::activating_mask", h_in);
  check_eps("sslk::activating_mask", eps);
  Tensor mask = torch::stable::new_empty(h_in, {h_in.size(0), h_in.size(1)}, ScalarType::Bool);
  if (mask.numel() == 0) {
    return mask;
  }
  const OnDeviceOf device(h_in);
  const Tensor h = with_adjacent_columns(h_in);
  launch_rows(device, rows_of(h), MaskOp{{}, {eps, two_sided}, static_cast<uint8_t*>(mask.mutable_data_ptr())});
  return mask;
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CUDA, m) { m.impl("activating_mask", TORCH_BOX(&sslk::activating_mask_cuda)); }
