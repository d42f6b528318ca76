// Matrix products of plain buffers by torch's own routine (MKL, OpenBLAS, Accelerate: whatever this torch was built
// on).
#pragma once

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>

#include "sslk.h"

namespace sslk {

// A buffer as a matrix; it must outlive the view.
inline Tensor matrix_view(const void* data, int64_t rows, int64_t cols, int64_t row_stride, int64_t col_stride,
                          ScalarType type) {
  const torch::stable::Device cpu(torch::headeronly::DeviceType::CPU);
  return torch::stable::from_blob(const_cast<void*>(data), {rows, cols}, {row_stride, col_stride}, cpu, type);
}

// out = alpha a b, added to out where `accumulate`.
//
// Never inside a parallel loop of ours, nor any other routine of BLAS or LAPACK: they have threads of their own, and
// one that was told their number (torch.set_num_threads) may wait for ever for a team that a parallel region does not
// give.
inline void multiply(const Tensor& out, const Tensor& a, const Tensor& b, bool accumulate = false, double alpha = 1.0) {
  SSLK_TORCH_CHECK(aoti_torch_cpu_addmm_out(out.get(), out.get(), a.get(), b.get(), accumulate ? 1.0 : 0.0, alpha));
}

}  // namespace sslk
