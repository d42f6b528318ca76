// Column sums from the partial sums of blocks, in a fixed order.
#pragma once

#include "cuda/simt.cuh"

namespace sslk {

constexpr int kSumColumns = 16, kSumRows = 32;

// out[j] = factor * sum over blocks of partials[block, j], in an order that depends on `blocks` alone.
template <typename Score>
__global__ void __launch_bounds__(kSumColumns* kSumRows)
    sum_partials_kernel(const double* partials, int64_t blocks, int64_t d, double factor, Score* out) {
  __shared__ double sums[kSumRows][kSumColumns];
  const int lane = threadIdx.x % kSumColumns, row = threadIdx.x / kSumColumns;
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kSumColumns + lane;
  double sum = 0.0;
  if (j < d) {
    // All loads of a round are under way together. Past the last block the first one is loaded again: a predicate for
    // each would let the compiler wait for one load before the next.
    constexpr int kLoads = 8;
    const int64_t step = kSumRows * d;
    const double* first = partials + row * d + j;
#pragma unroll 1
    for (int64_t b = row; b < blocks; b += kLoads * kSumRows, first += kLoads * step) {
      double loaded[kLoads];
#pragma unroll
      for (int u = 0; u < kLoads; ++u) {
        loaded[u] = first[b + u * kSumRows < blocks ? u * step : 0];
      }
#pragma unroll
      for (int u = 0; u < kLoads; ++u) {
        sum += b + u * kSumRows < blocks ? loaded[u] : 0.0;
      }
    }
  }
  sums[row][lane] = sum;
  __syncthreads();
  if (row == 0 && j < d) {
    double quarters[4] = {};  // four short chains of additions
#pragma unroll
    for (int r = 0; r < kSumRows; ++r) {
      quarters[r % 4] += sums[r][lane];
    }
    narrow(((quarters[0] + quarters[1]) + (quarters[2] + quarters[3])) * factor, out + j);
  }
}

}  // namespace sslk
