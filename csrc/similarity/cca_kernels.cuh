// CCA on CUDA between the decompositions and the products.
#pragma once

#include "similarity/product_sums.cuh"

namespace sslk {

// r [D, D] keeps its upper triangle only.
static __global__ void __launch_bounds__(256) keep_upper_kernel(double* r, int64_t d) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k < d * d && k % d < k / d) {
    r[k] = 0.0;
  }
}

struct RankSums {
  double squares, own;
  SSLK_DEVICE void merge(const RankSums& other) { squares += other.squares, own += other.own; }
};

// From the singular values s [K], largest first: the rank, at most N - 1 because of the centring; the ridge factors
// s / sqrt(s^2 + ridge term), 1 without ridge, 0 past the rank; the sum of their fourth powers.
static __global__ void __launch_bounds__(Block::kMaxThreads)
    rank_kernel(const double* s, int64_t k_count, int64_t most, int64_t d, double rtol, double ridge, double* factors,
                int64_t* rank, double* own) {
  __shared__ Block::Scratch scratch;
  Block team(scratch);
  RankSums sums{0.0, 0.0};
  for (int64_t k = team.rank; k < k_count; k += team.width()) {
    sums.squares += s[k] * s[k];
  }
  const double term = ridge * team.reduce(sums).squares / static_cast<double>(d);
  RankSums found{0.0, 0.0};  // counts the rank in place of squares
  for (int64_t k = team.rank; k < k_count; k += team.width()) {
    const bool counts = k < most && s[k] > rtol * s[0];
    const double f = counts ? s[k] / sqrt(s[k] * s[k] + term) : 0.0;
    factors[k] = f;
    found.squares += counts;
    found.own += f * f * f * f;
  }
  found = team.reduce(found);
  if (team.rank == 0) {
    *rank = static_cast<int64_t>(found.squares);
    *own = found.own;
  }
}

// out [rows, K] = vectors * factors, and divided by s where `divide`: the basis Q, or W with Q = Z W.
static __global__ void __launch_bounds__(256)
    basis_kernel(const double* vectors, int64_t row_stride, int64_t col_stride, const double* factors, const double* s,
                 bool divide, int64_t rows, int64_t k_count, double* out) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k < rows * k_count) {
    const int64_t i = k / k_count, j = k % k_count;
    out[k] = factors[j] == 0.0 ? 0.0 : vectors[i * row_stride + j * col_stride] * factors[j] / (divide ? s[j] : 1.0);
  }
}

// Contiguous rows to rows at a stride.
static __global__ void __launch_bounds__(256)
    copy_rows_kernel(const double* rows, int64_t count, int64_t cols, double* out, int64_t out_stride) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k < count * cols) {
    out[k / cols * out_stride + k % cols] = rows[k];
  }
}

// out [V, V]: the mean squared canonical correlations from the sums over products; NaN where a rank is 0. A warp per
// pair.
template <typename Score>
__global__ void __launch_bounds__(kWarps * 32)
    cca_kernel(const double* squares, const double* own, const int64_t* ranks, int64_t count, Score* out) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (k >= count * count) {
    return;
  }
  const int64_t v = k / count, w = k % count;
  const double sum = sum_of_slices(squares + (v < w ? v * count + w : w * count + v) * kSumSlices);
  const int64_t rank = ranks[v] < ranks[w] ? ranks[v] : ranks[w];
  double value = NAN;
  if (rank > 0) {
    // No correlation exceeds 1: what does is rounding.
    value = v == w ? own[v] / static_cast<double>(rank) : fmin(1.0, sum / static_cast<double>(rank));
  }
  if (threadIdx.x % 32 == 0) {
    narrow(value, out + k);
  }
}

}  // namespace sslk
