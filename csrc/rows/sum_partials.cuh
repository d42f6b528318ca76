// Column sums from the partial sums of blocks, in a fixed order.
#pragma once

#include "cuda/simt.cuh"

namespace sslk {

constexpr int kSumColumns = 32, kSumRows = 16;

// out[j] = factor * sum over blocks of partials[block, j], in an order that depends on `blocks` alone.
template <typename Score>
__global__ void __launch_bounds__(kSumColumns* kSumRows)
    sum_partials_kernel(const double* partials, int64_t blocks, int64_t d, double factor, Score* out) {
  __shared__ double sums[kSumRows][kSumColumns];
  const int lane = threadIdx.x % kSumColumns, row = threadIdx.x / kSumColumns;
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kSumColumns + lane;
  double sum = 0.0;
  if (j < d) {
#pragma unroll 4
    for (int64_t b = row; b < blocks; b += kSumRows) {
      sum += partials[b * d + j];
    }
  }
  sums[row][lane] = sum;
  __syncthreads();
  if (row == 0 && j < d) {
    for (int r = 1; r < kSumRows; ++r) {
      sum += sums[r][lane];
    }
    narrow(sum * factor, out + j);
  }
}

}  // namespace sslk
