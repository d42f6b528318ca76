// CKA on CUDA from the sums over products, and what its gradient takes.
#pragma once

#include "similarity/cancellation.h"
#include "similarity/centred.cuh"
#include "similarity/product_sums.cuh"

namespace sslk {

// Sums over pairs of representations v <= w, each in kSumSlices parts. Whole warps add them up.
struct PairSums {
  const double* off_diagonal;  // [V, V] T, or ||X'Y||_F^2 with the diagonal in it
  bool with_diagonal;
  const double* dots;    // [V, V] sum_i a_i b_i
  const double* totals;  // [V] sum_i a_i
  int64_t count, n;
  bool debiased;
  double rounding;  // left_by_rounding of the products

  // The criterion of hsic.h, and what it adds up in absolute value.
  struct Value {
    double h, terms;
  };
  SSLK_DEVICE Value value(int64_t v, int64_t w) const {
    const int64_t pair = (v < w ? v * count + w : w * count + v) * kSumSlices;
    const double dot = sum_of_slices(dots + pair), nn = static_cast<double>(n);
    const double diagonal = with_diagonal ? dot : 0.0, t = sum_of_slices(off_diagonal + pair) - diagonal;
    if (!debiased) {
      return {t + dot, t + dot};
    }
    const double product =
        sum_of_slices(totals + v * kSumSlices) * sum_of_slices(totals + w * kSumSlices) / ((nn - 1) * (nn - 2));
    const double h = t + product - 2.0 / (nn - 2) * dot;
    const double terms = t + 2.0 * diagonal + product + 2.0 / (nn - 2) * dot;
    return {v == w && h <= rounding * terms ? 0.0 : h, terms};
  }
};

// hsic [V, V] and, after it, what the criterion of each with itself adds up [V]; the sums of the totals [V]. A warp per
// pair.
static __global__ void __launch_bounds__(kWarps * 32) hsic_kernel(PairSums sums, double* hsic, double* totals) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (k >= sums.count * sums.count) {
    return;
  }
  const int64_t v = k / sums.count, w = k % sums.count;
  const PairSums::Value value = sums.value(v, w);
  const double total = sum_of_slices(sums.totals + v * kSumSlices);
  if (threadIdx.x % 32 == 0) {
    hsic[k] = value.h;
    if (v == w) {
      hsic[sums.count * sums.count + v] = value.terms;
      totals[v] = total;
    }
  }
}

// CKA of v and w; NaN where a representation is constant, whose criterion with itself is zero.
SSLK_DEVICE double cka_of(const double* hsic, int64_t count, int64_t v, int64_t w) {
  const double norms = sqrt(hsic[v * count + v]) * sqrt(hsic[w * count + w]);
  return norms > 0.0 ? (v == w ? 1.0 : hsic[v * count + w] / norms) : static_cast<double>(NAN);
}

// out [V, V], or out [] of the one pair.
template <typename Score>
__global__ void __launch_bounds__(256) cka_kernel(const double* hsic, int64_t count, bool one_pair, Score* out) {
  if (one_pair) {
    if (threadIdx.x == 0) {
      narrow(cka_of(hsic, count, 0, 1), out);
    }
    return;
  }
  for (int64_t k = threadIdx.x; k < count * count; k += blockDim.x) {
    narrow(cka_of(hsic, count, k / count, k % count), out + k);
  }
}

// The weights e [V, V] of the gradient, see cka_cpu.cpp, from the upstream gradient [V, V] or [] of the one pair.
template <typename Score>
__global__ void __launch_bounds__(256)
    gradient_weights_kernel(const double* hsic, int64_t count, bool one_pair, const Score* grad, double* e) {
  for (int64_t v = threadIdx.x; v < count; v += blockDim.x) {
    const double hvv = hsic[v * count + v];
    double own = 0.0;
    for (int64_t w = 0; w < count; ++w) {
      const double pair = one_pair
                              ? static_cast<double>(grad[0])
                              : static_cast<double>(grad[v * count + w]) + static_cast<double>(grad[w * count + v]);
      double weight = 0.0;
      if (v != w && pair != 0.0) {
        weight = 2.0 * pair / (sqrt(hvv) * sqrt(hsic[w * count + w]));
        own -= 2.0 * pair * cka_of(hsic, count, v, w) / hvv;
      }
      e[v * count + w] = weight;
    }
    e[v * count + v] = own;
  }
}

// Per sample, the weighted sums over representations that the gradient of v needs (debiased), see hsic.cpp:
// mixed_i = sum_w e_vw a_w,i and shared = sum_w e_vw totals_w / ((n-1)(n-2)).
struct SampleWeights {
  const double* e;        // [V] row v
  const double* squares;  // [V, N]
  const double* totals;   // [V]
  int64_t count, n;
  bool debiased;

  SSLK_DEVICE double mixed(int64_t i) const {
    double sum = 0.0;
    for (int64_t w = 0; w < count; ++w) {
      sum += e[w] * squares[w * n + i];
    }
    return sum;
  }
  // Called by every thread of the block, for which one of them computes it.
  SSLK_DEVICE double shared() const {
    __shared__ double result;
    if (threadIdx.x == 0) {
      double sum = 0.0;
      for (int64_t w = 0; w < count; ++w) {
        sum += e[w] * totals[w];
      }
      result = sum / ((static_cast<double>(n) - 1) * (static_cast<double>(n) - 2));
    }
    __syncthreads();
    return result;
  }
};

// diagonal [N] and the weights [N] whose product with X_v is the constant.
static __global__ void __launch_bounds__(256)
    sample_weights_kernel(SampleWeights a, double* diagonal, double* weights) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const double shared = a.shared();
  if (i < a.n) {
    const double n = static_cast<double>(a.n), mixed = a.mixed(i);
    diagonal[i] = shared - n / (n - 2) * mixed;
    weights[i] = mixed / (n - 2);
  }
}

constexpr int kTile = 32;

// out_ij = e * a_ij, a block per tile; one of a's strides is 1, and either way memory is read and written along rows.
template <typename C>
__global__ void __launch_bounds__(kTile* kWarps)
    weigh_product_kernel(const double* e, const C* a, int64_t row_stride, int64_t col_stride, int64_t rows,
                         int64_t cols, C* out, int64_t out_stride) {
  __shared__ C tile[kTile][kTile + 1];
  const int64_t across = (cols + kTile - 1) / kTile;
  const int64_t i0 = blockIdx.x / across * kTile, j0 = blockIdx.x % across * kTile;
  const int lane = threadIdx.x % kTile, warp = threadIdx.x / kTile;
  const bool upright = col_stride == 1;
#pragma unroll
  for (int k = warp; k < kTile; k += kWarps) {
    const int i = upright ? k : lane, j = upright ? lane : k;
    if (i0 + i < rows && j0 + j < cols) {
      tile[i][j] = a[(i0 + i) * row_stride + (j0 + j) * col_stride];
    }
  }
  __syncthreads();
  const double weight = *e;
#pragma unroll
  for (int k = warp; k < kTile; k += kWarps) {
    if (i0 + k < rows && j0 + lane < cols) {
      out[(i0 + k) * out_stride + j0 + lane] = static_cast<C>(weight * static_cast<double>(tile[k][lane]));
    }
  }
}

// squares [N] = the diagonal of the Gram matrix, which becomes zero.
template <typename C>
__global__ void __launch_bounds__(256) take_diagonal_kernel(C* gram, int64_t n, double* squares) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) {
    squares[i] = static_cast<double>(gram[i * n + i]);
    gram[i * n + i] = C(0);
  }
}

// sum_w e_vw A(K_w) from the Gram matrices [V, N, N] without their diagonals.
template <typename C>
__global__ void __launch_bounds__(256) mix_grams_kernel(SampleWeights a, const C* grams, C* out) {
  const int64_t n = a.n, k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const double shared = a.debiased ? a.shared() : 0.0;
  if (k >= n * n) {
    return;
  }
  const int64_t i = k / n, j = k % n;
  double sum = 0.0;
  if (i != j) {
    for (int64_t w = 0; w < a.count; ++w) {
      sum += a.e[w] * static_cast<double>(grams[w * n * n + k]);
    }
    if (a.debiased) {
      sum += (a.mixed(i) + a.mixed(j)) / static_cast<double>(n - 2) - shared;
    }
  } else if (!a.debiased) {
    sum = a.mixed(i);
  }
  out[k] = static_cast<C>(sum);
}

// grad_ij = scale * (product_ij + diagonal_i z_ij + constant_j) for a panel; diagonal and constant may be absent.
template <typename T, typename C>
struct PanelGradient {
  Centred a;
  Panel panel;
  const C *product, *z;
  const double *diagonal, *constant;
  T* grad;
  int64_t grad_stride;

  // Columns [begin, end) of kWarpRows rows from r0 on, by one warp.
  template <bool kWide>
  SSLK_DEVICE void write(int64_t r0, int64_t begin, int64_t end) const {
    using Access = Columns<kWide>;
    const double scale = a.scale().both();
    double own[kWarpRows] = {};
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      own[r] = diagonal != nullptr && r0 + r < panel.rows ? diagonal[panel.first + r0 + r] : 0.0;
    }
#pragma unroll 1
    for (int64_t j = begin + Access::first_of_lane(); j < end; j += kSpan) {
      Four<C> products[kWarpRows], zs[kWarpRows] = {};
      Four<double> added{};
#pragma unroll
      for (int r = 0; r < kWarpRows; ++r) {
        products[r] = Access::load(product + (r0 + r) * panel.columns, j, r0 + r < panel.rows ? end : 0);
      }
      if (diagonal != nullptr) {
#pragma unroll
        for (int r = 0; r < kWarpRows; ++r) {
          zs[r] = Access::load(z + (r0 + r) * panel.stride, j, r0 + r < panel.rows ? end : 0);
        }
        added = Access::load(constant, j, end);
      }
#pragma unroll
      for (int r = 0; r < kWarpRows; ++r) {
        Four<T> values;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const double value =
              static_cast<double>(products[r].at[k]) + (own[r] * static_cast<double>(zs[r].at[k]) + added.at[k]);
          narrow(scale == 0.0 ? static_cast<double>(NAN) : value * scale, &values.at[k]);
        }
        if (r0 + r < panel.rows) {
          Access::store(grad + (panel.first + r0 + r) * grad_stride + panel.column, j, end, values);
        }
      }
    }
  }
};

// A warp per kWarpRows rows and strip of columns.
template <typename T, typename C>
__global__ void __launch_bounds__(kWarps * 32) cka_gradient_kernel(PanelGradient<T, C> g) {
  const int64_t columns = g.panel.columns, strips = (columns + kStrip - 1) / kStrip;
  const int64_t task = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int64_t r0 = task / strips * kWarpRows, begin = task % strips * kStrip;
  if (r0 >= g.panel.rows) {
    return;
  }
  const int64_t end = begin + kStrip < columns ? begin + kStrip : columns;
  fours_fit(g.product, columns, columns) && fours_fit(g.z, g.panel.stride, columns) &&
          fours_fit(g.constant, 0, columns) && fours_fit(g.grad + g.panel.column, g.grad_stride, columns)
      ? g.template write<true>(r0, begin, end)
      : g.template write<false>(r0, begin, end);
}

}  // namespace sslk
