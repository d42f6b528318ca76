// Sums over elementwise products of two matrices on CUDA, in slices with a fixed order.
#pragma once

#include "similarity/fours.cuh"

namespace sslk {

constexpr int kSumSlices = 64;  // blocks per sum over a product

// slices[kSumSlices]: parts of sum a_ij b_ij (b absent: of sum a_ij), without the diagonal if asked.
template <typename V>
struct ProductSum {
  const V *a, *b;
  int64_t a_stride, b_stride, rows, cols;
  bool skip_diagonal;
  double* slices;
};

// This thread's part of a slice.
template <bool kWide, typename V>
SSLK_DEVICE double add_products(const ProductSum<V>& s, int64_t slice) {
  using Access = Columns<kWide>;
  constexpr int kUnder = sizeof(V) == 4 ? 4 : 2;  // fours of a thread under way
  const int64_t strips = (s.cols + kStrip - 1) / kStrip;
  const bool square = s.b == s.a && s.b_stride == s.a_stride;
  double sum = 0.0;
#pragma unroll 1
  for (int64_t task = slice * kWarps + threadIdx.x / 32; task < s.rows * strips; task += kSumSlices * kWarps) {
    const int64_t i = task / strips, begin = task % strips * kStrip;
    const int64_t end = begin + kStrip < s.cols ? begin + kStrip : s.cols;
#pragma unroll 1
    for (int64_t j = begin + Access::first_of_lane(); j < end; j += kUnder * kSpan) {
      Four<V> p[kUnder];
#pragma unroll
      for (int u = 0; u < kUnder; ++u) {
        p[u] = Access::load(s.a + i * s.a_stride, j + u * kSpan, end);
      }
#pragma unroll
      for (int u = 0; u < kUnder; ++u) {
        Four<V> q = p[u];
        if (s.b == nullptr) {
          q = {{V(1), V(1), V(1), V(1)}};
        } else if (!square) {
          q = Access::load(s.b + i * s.b_stride, j + u * kSpan, end);
        }
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const bool skip = s.skip_diagonal && j + u * kSpan + k * Access::kNext == i;
          sum += skip ? 0.0 : static_cast<double>(p[u].at[k]) * static_cast<double>(q.at[k]);
        }
      }
    }
  }
  return sum;
}

template <typename V>
__global__ void __launch_bounds__(kWarps * 32, sizeof(V) == 4 ? 4 : 2) product_sum_kernel(Jobs<ProductSum<V>> sums) {
  __shared__ BlockOf<kWarps * 32>::Scratch scratch;
  BlockOf<kWarps * 32> team(scratch);
  const ProductSum<V>& s = sums.of[blockIdx.x / kSumSlices];
  const int64_t slice = blockIdx.x % kSumSlices;
  const bool wide = fours_fit(s.a, s.a_stride, s.cols) && fours_fit(s.b, s.b_stride, s.cols);
  const double sum = wide ? add_products<true>(s, slice) : add_products<false>(s, slice);
  const double total = team.reduce(Sum<double>{sum}).value;
  if (team.rank == 0) {
    s.slices[slice] = total;
  }
}

// By a whole warp.
SSLK_DEVICE double sum_of_slices(const double* slices) {
  double sum = 0.0;
#pragma unroll
  for (int s = 0; s < kSumSlices; s += 32) {
    sum += slices[s + threadIdx.x % 32];
  }
  return sum_of_warp(sum);
}

}  // namespace sslk
