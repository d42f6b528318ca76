// Nearest centroids on CUDA. Vectors are moved by the mean of the centroids, scaled and packed into float16; tensor
// cores multiply them with float32 sums; the scores narrow the choice down and exact distances decide.
#pragma once

#include <type_traits>

#include "rows/row_kernel.cuh"

namespace sslk {

// What products are made of: float16 has the eleven significant bits of TF32 at twice its rate; double stays double.
template <typename T>
using packed_t = std::conditional_t<std::is_same_v<T, double>, double, f16>;
// What they are summed in.
template <typename T>
using product_t = accumulation_t<T>;

struct Range {
  float largest, squares;  // squares: NaN for a row that is not finite
  SSLK_DEVICE void merge(const Range& other) { largest = fmaxf(largest, other.largest), squares += other.squares; }
};

// A power of two that brings `largest` into [2^13, 2^14), near the top of float16: elements too small for it there do
// not matter. 0 where products might leave float32: such rows are compared with every centroid.
SSLK_DEVICE float packing_scale(float largest) {
  return largest == 0.0f ? 1.0f : largest > 1e-15f && largest < 1e15f ? scalbnf(1.0f, 13 - ilogbf(largest)) : 0.0f;
}

// Packs rows (x - shift) * scale.
struct PackOp {
  const void* shift;  // [D] in the product type
  void* packed;       // [N, D] in the packed type
  float* unscale;     // [N] 1 / scale; 0: the products say nothing; NaN: the row is not finite
  double* squares;    // [N] |x - shift|^2

  template <int kItems>
  struct State {
    float shift[kItems];
  };

  template <typename Team, typename T, int kSlots, typename State>
  SSLK_DEVICE void begin(Team&, const Layout<T, kSlots>& layout, int64_t, State* state) const {
#pragma unroll
    for (int i = 0; i < layout.kItems; ++i) {
      state->shift[i] = layout.valid >> i & 1 ? static_cast<const float*>(shift)[layout.column(i)] : 0.0f;
    }
  }
  template <typename T, typename Team, int kSlots, typename State>
  SSLK_DEVICE void row(Team& team, const HeldRow<T, Team, kSlots>& row, State* state) const {
    Range range{0.0f, 0.0f};
    float zero = 0.0f;  // NaN where an item is not finite
#pragma unroll
    for (int i = 0; i < row.kItems; ++i) {
      const float v = row.values[i] - state->shift[i];
      range.largest = fmaxf(range.largest, fabsf(v));
      range.squares += v * v;
      zero += row.values[i] * 0.0f;
    }
    range.squares += zero;
    range = team.reduce(range);
    const bool finite = range.squares == range.squares;
    const float scale = finite ? packing_scale(range.largest) : 0.0f;
    store_row(static_cast<f16*>(packed) + row.i * row.d, row.layout,
              [&](int i, f16* out) { narrow(scale == 0.0f ? 0.0f : (row.values[i] - state->shift[i]) * scale, out); });
    write(team, row.i, !finite ? NAN : scale == 0.0f ? 0.0f : 1.0f / scale, range.squares);
  }
  template <typename Team>
  SSLK_DEVICE void write(const Team& team, int64_t i, float inverse, double sum) const {
    if (team.rank == 0) {
      unscale[i] = inverse;
      squares[i] = sum;
    }
  }
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void after_row(Team&, const Layout&, State*) const {}
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void finish(Team&, const Layout&, int64_t, State*) const {}

  template <typename Team>
  SSLK_DEVICE void long_begin(Team&, int64_t) const {}
  template <typename T, typename Team>
  SSLK_DEVICE void long_row(Team& team, const T* x, int64_t d, int64_t i) const {
    const product_t<T>* moved = static_cast<const product_t<T>*>(shift);
    packed_t<T>* out = static_cast<packed_t<T>*>(packed) + i * d;
    Magnitude size{0.0, 0};
    Sum<double> sum{0.0};
    for (int64_t j = team.rank; j < d; j += team.width()) {
      const double value = static_cast<double>(widen(x[j])), v = value - static_cast<double>(moved[j]);
      size.largest = fmax(size.largest, fabs(v));
      size.not_finite += !(fabs(value) < INFINITY);
      sum.value += v * v;
    }
    size = team.reduce(size);
    sum = team.reduce(sum);
    float scale = size.not_finite ? 0.0f : 1.0f;
    if constexpr (!std::is_same_v<T, double>) {
      scale = size.not_finite ? 0.0f : packing_scale(static_cast<float>(size.largest));
    } else if (!(sum.value < 1e300 && (sum.value > 1e-280 || size.largest == 0.0))) {
      scale = 0.0f;
    }
    for (int64_t j = team.rank; j < d; j += team.width()) {
      const product_t<T> v = widen(x[j]) - moved[j];
      narrow(scale == 0.0f ? product_t<T>(0) : v * scale, out + j);
    }
    write(team, i, size.not_finite ? NAN : scale == 0.0f ? 0.0f : 1.0f / scale, sum.value);
  }
};

constexpr int kMeanColumns = 32, kMeanRows = 16;

// The mean of the rows that are finite; zero where it is not.
template <typename T>
__global__ void __launch_bounds__(kMeanColumns* kMeanRows)
    centroid_mean_kernel(Rows c, const float* unscale, product_t<T>* mean) {
  __shared__ double sums[kMeanRows][kMeanColumns];
  __shared__ int64_t counts[kMeanRows][kMeanColumns];
  const int lane = threadIdx.x % kMeanColumns, row = threadIdx.x / kMeanColumns;
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kMeanColumns + lane;
  double sum = 0.0;
  int64_t count = 0;
  if (j < c.d) {
#pragma unroll 4
    for (int64_t k = row; k < c.n; k += kMeanRows) {
      if (unscale[k] == unscale[k]) {
        sum += static_cast<double>(widen(row_at<T>(c, k)[j]));
        ++count;
      }
    }
  }
  sums[row][lane] = sum;
  counts[row][lane] = count;
  __syncthreads();
  if (row == 0 && j < c.d) {
    for (int r = 1; r < kMeanRows; ++r) {
      sum += sums[r][lane];
      count += counts[r][lane];
    }
    const double value = count ? sum / static_cast<double>(count) : 0.0;
    mean[j] =
        fabs(value) < (std::is_same_v<T, double> ? 1e300 : 1e30) ? static_cast<product_t<T>>(value) : product_t<T>(0);
  }
}

struct Largest {
  double value;
  SSLK_DEVICE void merge(const Largest& other) { value = fmax(value, other.value); }
};

// The norm of the largest centroid that products rank; infinity if one is finite but beyond them.
static __global__ void __launch_bounds__(Block::kMaxThreads)
    largest_centroid_kernel(const double* squares, const float* unscale, int64_t k, double* largest) {
  __shared__ Block::Scratch scratch;
  Block team(scratch);
  Largest most{0.0};
  for (int64_t i = team.rank; i < k; i += team.width()) {
    if (unscale[i] == unscale[i]) {
      most.value = fmax(most.value, unscale[i] == 0.0f ? static_cast<double>(INFINITY) : squares[i]);
    }
  }
  most = team.reduce(most);
  if (team.rank == 0) {
    *largest = sqrt(most.value);
  }
}

struct AssignArgs {
  Rows x;
  Rows centroids;
  int64_t first, count;  // rows of x in this tile
  const void* products;  // [count, K] of packed rows, in the product type
  const float* x_unscale;
  const double* x_squares;  // of the tile's rows
  const float* c_unscale;
  const double* c_squares;
  const double* largest;
  int32_t* assignment;  // [N]
  void* distance;       // [N] in the accumulation type
};

template <typename P>
struct Least {
  P value;
  SSLK_DEVICE void merge(const Least& other) { value = other.value < value ? other.value : value; }
};

// A squared distance, value * 2^(1200 step): step is 0 but for float64 whose squares would leave the range.
struct Distance {
  int step;
  double value;

  SSLK_DEVICE bool usable() const { return value < INFINITY; }
  SSLK_DEVICE bool operator<(const Distance& other) const {
    return step != other.step ? step < other.step : value < other.value;
  }
};

template <typename T, typename Team, typename Difference>
SSLK_DEVICE double sum_of_squares(Team& team, const T* x, const T* c, int64_t d, Difference difference) {
  Sum<double> sum{0.0};
#pragma unroll 4
  for (int64_t j = team.rank; j < d; j += team.width()) {
    const double y = difference(static_cast<double>(widen(x[j])), static_cast<double>(widen(c[j])));
    sum.value += y * y;
  }
  return team.reduce(sum).value;
}

// sum_j (x_j - c_j)^2 in double.
template <typename T, typename Team>
SSLK_DEVICE Distance squared_distance(Team& team, const T* x, const T* c, int64_t d) {
  const double value = sum_of_squares(team, x, c, d, [](double a, double b) { return a - b; });
  if constexpr (std::is_same_v<T, double>) {
    if (value < 0x1p-900) {
      return {-1, sum_of_squares(team, x, c, d, [](double a, double b) { return (a - b) * 0x1p600; })};
    }
    if (!(value < INFINITY)) {
      return {1, sum_of_squares(team, x, c, d, [](double a, double b) { return a * 0x1p-600 - b * 0x1p-600; })};
    }
  }
  return {0, value};
}

// A warp per row. Candidates come in the order of their index, so that the first of equals stays.
template <typename T>
__global__ void __launch_bounds__(256, std::is_same_v<T, double> ? 4 : 6) assign_kernel(AssignArgs a) {
  using P = product_t<T>;
  typename Lanes<32>::Scratch scratch;
  Lanes<32> team(scratch);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * team.per_block() + team.index;
  if (row >= a.count) {
    return;
  }
  const int64_t i = a.first + row, k_count = a.centroids.n, d = a.x.d;
  const P* products = static_cast<const P*>(a.products) + row * k_count;
  const float unscale = a.x_unscale[row];
  const double infinity = INFINITY, largest = *a.largest;
  // |c|^2 / 2 - x.c; infinite for a centroid that is not finite, which must not be chosen.
  const auto score = [&](int64_t k) {
    const float c = a.c_unscale[k];
    return c == c ? static_cast<P>(0.5 * a.c_squares[k]) - products[k] * (static_cast<P>(unscale) * c)
                  : static_cast<P>(infinity);
  };
  // Each packed factor is within 2^-11 of the true one, a sum of d products within d 2^-23 of theirs (in double, d
  // 2^-52), and the float squares within 2^-18 of themselves; scores that differ by twice that are not told apart.
  const double unit =
      std::is_same_v<T, double> ? 0x1p-50 * static_cast<double>(d + 8) : 0x1.1p-10 + 0x1p-22 * static_cast<double>(d);
  const double squares_unit = std::is_same_v<T, double> ? unit : 0x1p-18;
  const double margin = 2.0 * largest * (unit * sqrt(a.x_squares[row]) + squares_unit * largest);
  const bool ranked = unscale > 0.0f && margin < infinity;
  P limit = static_cast<P>(infinity);
  if (ranked) {
    Least<P> least{static_cast<P>(infinity)};
    for (int64_t k = team.rank; k < k_count; k += 32) {
      const P s = score(k);
      least.value = s < least.value ? s : least.value;
    }
    limit = static_cast<P>(static_cast<double>(team.reduce(least).value) + margin);
  }
  int32_t nearest = 0;
  Distance distance{0, NAN};
  if (unscale == unscale) {
    for (int64_t start = 0; start < k_count; start += 32) {
      const int64_t k = start + team.rank;
      unsigned candidates =
          __ballot_sync(team.mask, k < k_count && a.c_unscale[k] == a.c_unscale[k] && (!ranked || score(k) <= limit));
      while (candidates != 0) {
        const int64_t candidate = start + __ffs(static_cast<int>(candidates)) - 1;
        candidates &= candidates - 1;
        const Distance y = squared_distance(team, row_at<T>(a.x, i), row_at<T>(a.centroids, candidate), d);
        if (y.usable() && (!distance.usable() || y < distance)) {
          distance = y;
          nearest = static_cast<int32_t>(candidate);
        }
      }
    }
  }
  if (team.rank == 0) {
    a.assignment[i] = nearest;
    const double back = distance.step == 0 ? 1.0 : distance.step > 0 ? 0x1p600 : 0x1p-600;
    narrow(distance.value * back * back, static_cast<accumulation_t<T>*>(a.distance) + i);
  }
}

}  // namespace sslk
