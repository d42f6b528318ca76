// The parts of CKA and CCA between the matrix products, on CUDA: column means, centred panels, sums over products, and
// gradients.
#pragma once

#include "rows/row_stats.cuh"

namespace sslk {

constexpr int kMeanLanes = 32, kMeanRows = 16;
constexpr int kSumSlices = 64;  // blocks per sum over a product

// A representation and what makes it centred and of order 1: z = (x - x_0) * scale - shift, x_0 being row 0. What is
// scaled up are differences, however large the numbers. One that is not finite counts as zeros, which have no
// similarity to anything.
struct Centred {
  Rows x;
  const double* shift;              // [D]
  const unsigned long long* sizes;  // [2] largest |x| and |x - x_0|, as bits that order like the number, NaN on top

  // Powers of two, z = (x * first - x_0 * first) * second - shift; `second` is 0 unless x is finite.
  struct Scale {
    double first, second;
    SSLK_DEVICE double both() const { return first * second; }
    template <typename T>
    SSLK_DEVICE double operator()(T x, T x0) const {
      return (static_cast<double>(widen(x)) * first - static_cast<double>(widen(x0)) * first) * second;
    }
  };
  SSLK_DEVICE Scale scale() const {
    double size, range;
    memcpy(&size, &sizes[0], 8);
    memcpy(&range, &sizes[1], 8);
    if (!(size < INFINITY)) {
      return {1.0, 0.0};
    }
    if (!(range < INFINITY)) {  // the difference of two numbers overflows
      return {0.25, 0x1p-1020};
    }
    const int exponent = range > 0.0 ? ilogb(range) : 0;
    return {1.0, scalbn(1.0, exponent < -1000 ? 1000 : -exponent)};
  }
};

SSLK_DEVICE unsigned long long magnitude_bits(double value) {
  const double magnitude = fabs(value);
  unsigned long long bits;
  memcpy(&bits, &magnitude, 8);
  return bits;
}

// Raises sizes to the largest magnitudes; see Centred.
template <typename T>
__global__ void __launch_bounds__(kMeanLanes* kMeanRows)
    column_range_kernel(Rows x, int64_t chunk_rows, unsigned long long* sizes) {
  __shared__ unsigned long long maxima[2][kMeanRows][kMeanLanes];
  const int lane = threadIdx.x % kMeanLanes, row = threadIdx.x / kMeanLanes;
  const int64_t strips = (x.d + kMeanLanes - 1) / kMeanLanes;
  const int64_t chunk = blockIdx.x / strips, j = blockIdx.x % strips * kMeanLanes + lane;
  const int64_t end = (chunk + 1) * chunk_rows < x.n ? (chunk + 1) * chunk_rows : x.n;
  unsigned long long size = 0, range = 0;
  if (j < x.d) {
    const double first = static_cast<double>(widen(row_at<T>(x, 0)[j]));
#pragma unroll 4
    for (int64_t i = chunk * chunk_rows + row; i < end; i += kMeanRows) {
      const double value = static_cast<double>(widen(row_at<T>(x, i)[j]));
      const unsigned long long own = magnitude_bits(value), difference = magnitude_bits(value - first);
      size = own > size ? own : size;
      range = difference > range ? difference : range;
    }
  }
  maxima[0][row][lane] = size;
  maxima[1][row][lane] = range;
  __syncthreads();
  if (row == 0 && j < x.d) {
    for (int r = 1; r < kMeanRows; ++r) {
      size = maxima[0][r][lane] > size ? maxima[0][r][lane] : size;
      range = maxima[1][r][lane] > range ? maxima[1][r][lane] : range;
    }
    atomicMax(&sizes[0], size);
    atomicMax(&sizes[1], range);
  }
}

// partials[chunk, j]: sums of column j of (x - x_0) * scale over the rows of each chunk.
template <typename T>
__global__ void __launch_bounds__(kMeanLanes* kMeanRows)
    column_sum_kernel(Centred a, int64_t chunk_rows, double* partials) {
  __shared__ double sums[kMeanRows][kMeanLanes];
  const Rows& x = a.x;
  const int lane = threadIdx.x % kMeanLanes, row = threadIdx.x / kMeanLanes;
  const int64_t strips = (x.d + kMeanLanes - 1) / kMeanLanes;
  const int64_t chunk = blockIdx.x / strips, j = blockIdx.x % strips * kMeanLanes + lane;
  const int64_t end = (chunk + 1) * chunk_rows < x.n ? (chunk + 1) * chunk_rows : x.n;
  double sum = 0.0;
  if (j < x.d) {
    const Centred::Scale scale = a.scale();
    const T first = row_at<T>(x, 0)[j];
#pragma unroll 4
    for (int64_t i = chunk * chunk_rows + row; i < end; i += kMeanRows) {
      sum += scale(row_at<T>(x, i)[j], first);
    }
  }
  sums[row][lane] = sum;
  __syncthreads();
  if (row == 0 && j < x.d) {
    for (int r = 1; r < kMeanRows; ++r) {
      sum += sums[r][lane];
    }
    partials[chunk * x.d + j] = sum;
  }
}

struct Panel {
  int64_t first, rows;      // of x
  int64_t column, columns;  // of x
  int64_t stride;           // of the panel's rows
};

// Writes a panel of z, a block per row, and |z_i|^2 of those columns to squares [N] unless it is null.
template <typename T, typename C>
__global__ void __launch_bounds__(Block::kMaxThreads)
    centred_panel_kernel(Centred a, Panel panel, C* out, double* squares) {
  __shared__ Block::Scratch scratch;
  Block team(scratch);
  const Centred::Scale scale = a.scale();
  const T* first = row_at<T>(a.x, 0) + panel.column;
  for (int64_t r = blockIdx.x; r < panel.rows; r += gridDim.x) {
    const T* x = row_at<T>(a.x, panel.first + r) + panel.column;
    Sum<double> sum{0.0};
#pragma unroll 4
    for (int64_t j = team.rank; j < panel.columns; j += team.width()) {
      const C z = static_cast<C>(scale.second == 0.0 ? 0.0 : scale(x[j], first[j]) - a.shift[panel.column + j]);
      out[r * panel.stride + j] = z;
      sum.value += static_cast<double>(z) * z;
    }
    if (squares != nullptr) {
      sum = team.reduce(sum);
      if (team.rank == 0) {
        squares[panel.first + r] = sum.value;
      }
    }
  }
}

// slices[kSumSlices]: parts of sum a_ij b_ij (b absent: of sum a_ij), without the diagonal if asked.
template <typename C>
__global__ void __launch_bounds__(Block::kMaxThreads)
    product_sum_kernel(const C* a, int64_t a_stride, const C* b, int64_t b_stride, int64_t rows, int64_t cols,
                       bool skip_diagonal, double* slices) {
  __shared__ Block::Scratch scratch;
  Block team(scratch);
  const int64_t size = rows * cols, slice = (size + kSumSlices - 1) / kSumSlices;
  const int64_t end = (blockIdx.x + 1) * slice < size ? (blockIdx.x + 1) * slice : size;
  Sum<double> sum{0.0};
#pragma unroll 4
  for (int64_t k = blockIdx.x * slice + team.rank; k < end; k += team.width()) {
    const int64_t i = k / cols, j = k % cols;
    if (!skip_diagonal || i != j) {
      sum.value +=
          static_cast<double>(a[i * a_stride + j]) * (b == nullptr ? 1.0 : static_cast<double>(b[i * b_stride + j]));
    }
  }
  sum = team.reduce(sum);
  if (team.rank == 0) {
    slices[blockIdx.x] = sum.value;
  }
}

// Sums over pairs of representations v <= w, each in kSumSlices parts.
struct PairSums {
  const double* off_diagonal;  // [V, V] T, or ||X'Y||_F^2 with the diagonal in it
  bool with_diagonal;
  const double* dots;    // [V, V] sum_i a_i b_i
  const double* totals;  // [V] sum_i a_i
  int64_t count, n;
  bool debiased;

  SSLK_DEVICE static double add(const double* slices) {
    double sum = 0.0;
    for (int s = 0; s < kSumSlices; ++s) {
      sum += slices[s];
    }
    return sum;
  }
  // The criterion of hsic.h.
  SSLK_DEVICE double value(int64_t v, int64_t w) const {
    const int64_t pair = (v < w ? v * count + w : w * count + v) * kSumSlices;
    const double dot = add(dots + pair), nn = static_cast<double>(n);
    const double t = add(off_diagonal + pair) - (with_diagonal ? dot : 0.0);
    return !debiased ? t + dot
                     : t + add(totals + v * kSumSlices) * add(totals + w * kSumSlices) / ((nn - 1) * (nn - 2)) -
                           2.0 / (nn - 2) * dot;
  }
};

// hsic [V, V].
static __global__ void __launch_bounds__(256) hsic_kernel(PairSums sums, double* hsic) {
  for (int64_t k = threadIdx.x; k < sums.count * sums.count; k += blockDim.x) {
    hsic[k] = sums.value(k / sums.count, k % sums.count);
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
  PairSums sums;

  SSLK_DEVICE double mixed(int64_t i) const {
    double sum = 0.0;
    for (int64_t w = 0; w < sums.count; ++w) {
      sum += e[w] * squares[w * sums.n + i];
    }
    return sum;
  }
  // Called by every thread of the block, for which one of them computes it.
  SSLK_DEVICE double shared() const {
    __shared__ double result;
    if (threadIdx.x == 0) {
      double sum = 0.0;
      for (int64_t w = 0; w < sums.count; ++w) {
        sum += e[w] * PairSums::add(sums.totals + w * kSumSlices);
      }
      const double n = static_cast<double>(sums.n);
      result = sum / ((n - 1) * (n - 2));
    }
    __syncthreads();
    return result;
  }
};

// diagonal [N] and the weights [N] whose product with X_v is the constant.
template <typename C>
__global__ void __launch_bounds__(256) sample_weights_kernel(SampleWeights a, double* diagonal, C* weights) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const double shared = a.shared();
  if (i < a.sums.n) {
    const double n = static_cast<double>(a.sums.n), mixed = a.mixed(i);
    diagonal[i] = shared - n / (n - 2) * mixed;
    weights[i] = static_cast<C>(mixed / (n - 2));
  }
}

// out_ij = e * a_ij
template <typename C>
__global__ void __launch_bounds__(256) weigh_product_kernel(const double* e, const C* a, int64_t row_stride,
                                                            int64_t col_stride, int64_t rows, int64_t cols, C* out) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k < rows * cols) {
    out[k] = static_cast<C>(*e * static_cast<double>(a[k / cols * row_stride + k % cols * col_stride]));
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
  const int64_t n = a.sums.n, k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const double shared = a.sums.debiased ? a.shared() : 0.0;
  if (k >= n * n) {
    return;
  }
  const int64_t i = k / n, j = k % n;
  double sum = 0.0;
  if (i != j) {
    for (int64_t w = 0; w < a.sums.count; ++w) {
      sum += a.e[w] * static_cast<double>(grams[w * n * n + k]);
    }
    if (a.sums.debiased) {
      sum += (a.mixed(i) + a.mixed(j)) / static_cast<double>(n - 2) - shared;
    }
  } else if (!a.sums.debiased) {
    sum = a.mixed(i);
  }
  out[k] = static_cast<C>(sum);
}

// grad_ij = scale * (product_ij + diagonal_i z_ij + constant_j) for a panel; diagonal and constant may be absent.
template <typename T, typename C>
__global__ void __launch_bounds__(256)
    cka_gradient_kernel(Centred a, Panel panel, const C* product, const C* z, const double* diagonal, const C* constant,
                        T* grad, int64_t grad_stride) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k < panel.rows * panel.columns) {
    const int64_t r = k / panel.columns, j = k % panel.columns;
    double value = static_cast<double>(product[k]);
    if (diagonal != nullptr) {
      value +=
          diagonal[panel.first + r] * static_cast<double>(z[r * panel.stride + j]) + static_cast<double>(constant[j]);
    }
    const double scale = a.scale().both();
    narrow(scale == 0.0 ? static_cast<double>(NAN) : value * scale,
           grad + (panel.first + r) * grad_stride + panel.column + j);
  }
}

// ---- CCA ----

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

// out [V, V]: the mean squared canonical correlations from the sums over products; NaN where a rank is 0.
template <typename Score>
__global__ void __launch_bounds__(256)
    cca_kernel(const double* squares, const double* own, const int64_t* ranks, int64_t count, Score* out) {
  for (int64_t k = threadIdx.x; k < count * count; k += blockDim.x) {
    const int64_t v = k / count, w = k % count;
    const int64_t pair = (v < w ? v * count + w : w * count + v) * kSumSlices;
    const int64_t rank = ranks[v] < ranks[w] ? ranks[v] : ranks[w];
    double value = NAN;
    if (rank > 0) {
      // No correlation exceeds 1: what does is rounding.
      value = v == w ? own[v] / static_cast<double>(rank)
                     : fmin(1.0, PairSums::add(squares + pair) / static_cast<double>(rank));
    }
    narrow(value, out + k);
  }
}

}  // namespace sslk
