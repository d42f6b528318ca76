// The parts of CKA and CCA between the matrix products, on CUDA: column means, centred panels, sums over products, and
// gradients.
#pragma once

#include <type_traits>

#include "rows/row_stats.cuh"

namespace sslk {

constexpr int kTogether = 16;   // pieces of work that one launch shares out
constexpr int kSumSlices = 64;  // blocks per sum over a product
constexpr int kWarps = 8;       // of a block
constexpr int kSpan = 128;      // columns that a warp moves at a time, four a lane
constexpr int kStrip = 1024;    // columns that a warp takes on where rows are cut
constexpr int kWarpRows = 2;    // rows that a warp has under way

// What a launch works on: few large launches leave less of the device idle than many small ones.
template <typename Job>
struct Jobs {
  Job of[kTogether];
};

// Four elements of a row: adjacent ones, moved by wide accesses, where rows are aligned and `end` is a multiple of
// four; otherwise the lanes of a warp lie side by side and its elements kNext apart, so that memory is still read in
// order.
template <typename T>
struct alignas(sizeof(T) < 4 ? 4 * sizeof(T) : 16) Four {
  T at[4];
};

SSLK_DEVICE void store_word(uint64_t* to, uint64_t word) { *to = word; }
// The compiler would take a plain store apart again.
SSLK_DEVICE void store_word(uint4* to, const uint4& word) {
#ifdef SSLK_SIMT
  *to = word;
#else
  __stwb(to, word);
#endif
}

template <bool kWide>
struct Columns {
  static constexpr int kNext = kWide ? 1 : 32;

  SSLK_DEVICE static int first_of_lane() { return threadIdx.x % 32 * (kWide ? 4 : 1); }

  // Columns j, j + kNext, ...; zeros from `end` on.
  template <typename T>
  SSLK_DEVICE static Four<T> load(const T* row, int64_t j, int64_t end) {
    Four<T> out;
    if constexpr (kWide) {
      out = j < end ? *reinterpret_cast<const Four<T>*>(row + j) : Four<T>{};
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        out.at[k] = j + k * kNext < end ? row[j + k * kNext] : T{};
      }
    }
    return out;
  }
  template <typename T>
  SSLK_DEVICE static void store(T* row, int64_t j, int64_t end, const Four<T>& values) {
    if constexpr (kWide) {
      using Word = std::conditional_t<sizeof(Four<T>) % 16 == 0, uint4, uint64_t>;
      Word words[sizeof(Four<T>) / sizeof(Word)];
      memcpy(words, &values, sizeof(values));
#pragma unroll
      for (unsigned w = 0; w < sizeof(Four<T>) / sizeof(Word); ++w) {
        store_word(reinterpret_cast<Word*>(row + j) + w, words[w]);
      }
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (j + k * kNext < end) {
          row[j + k * kNext] = values.at[k];
        }
      }
    }
  }
};

template <typename T>
SSLK_DEVICE bool fours_fit(const T* rows, int64_t stride, int64_t columns) {
  return reinterpret_cast<uintptr_t>(rows) % alignof(Four<T>) == 0 && columns % 4 == 0 &&
         stride * static_cast<int64_t>(sizeof(T)) % static_cast<int64_t>(alignof(Four<T>)) == 0;
}

SSLK_DEVICE double sum_of_warp(double value) { return reduce_lanes<32>(0xffffffffu, Sum<double>{value}).value; }

// A representation and what makes it centred and of order 1: z = (x - x_0) * scale - shift, x_0 being row 0. What is
// scaled up are differences, however large the numbers. One that is not finite counts as zeros, which have no
// similarity to anything.
struct Centred {
  Rows x;
  const double* shift;        // [D]
  unsigned long long* sizes;  // [2] largest |x| and |x - x_0|, as bits that order like the number, NaN on top

  // Powers of two, z = (x * first - x_0 * first) * second - shift; `second` is 0 unless x is finite.
  struct Scale {
    double first, second;
    SSLK_DEVICE double both() const { return first * second; }
    // Differences of the narrower types cannot leave double: `first` is 1 for them.
    template <typename T>
    SSLK_DEVICE double operator()(T x, T x0) const {
      if constexpr (std::is_same_v<T, double>) {
        return (x * first - x0 * first) * second;
      } else {
        return (static_cast<double>(widen(x)) - static_cast<double>(widen(x0))) * second;
      }
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

struct Largest {
  unsigned long long size, range;
  SSLK_DEVICE void merge(const Largest& other) {
    size = other.size > size ? other.size : size;
    range = other.range > range ? other.range : range;
  }
};

// What is summed of each column: x - x_0, from which sizes are found too; (x - x_0) * scale; or z times a weight per
// row.
enum class ColumnSum { differences, scaled, weighted };

// How columns are shared out: a block per strip of kSpan columns and chunk of rows. `widest` is the largest D.
struct ColumnPlan {
  int64_t chunks, chunk_rows, strips, widest;
};

// The sums of this thread's columns over rows begin, begin + kWarps, ...
template <ColumnSum kSum, bool kWide, typename T>
SSLK_DEVICE void add_columns(const Centred& a, const double* weights, int64_t j, int64_t begin, int64_t end,
                             double (&sum)[4], Largest* largest) {
  const Rows x = a.x;
  const Four<T> first = Columns<kWide>::load(row_at<T>(x, 0), j, x.d);
  const Centred::Scale scale = kSum == ColumnSum::differences ? Centred::Scale{1.0, 1.0} : a.scale();
  Four<double> shift{};
  if constexpr (kSum == ColumnSum::weighted) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int64_t column = j + k * Columns<kWide>::kNext;
      shift.at[k] = column < x.d ? a.shift[column] : 0.0;
    }
  }
  unsigned upper = 0;
#pragma unroll 4
  for (int64_t i = begin; i < end; i += kWarps) {
    const Four<T> value = Columns<kWide>::load(row_at<T>(x, i), j, x.d);
    const double weight = kSum == ColumnSum::weighted ? weights[i] : 1.0;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const double difference = scale(value.at[k], first.at[k]);
      if constexpr (kSum == ColumnSum::weighted) {
        sum[k] += scale.second == 0.0 ? 0.0 : weight * (difference - shift.at[k]);
      } else {
        sum[k] += difference;
      }
      if constexpr (kSum == ColumnSum::differences && std::is_same_v<T, double>) {
        largest->merge({magnitude_bits(value.at[k]), magnitude_bits(difference)});
      } else if constexpr (kSum == ColumnSum::differences) {
        const unsigned own = static_cast<unsigned>(magnitude_bits(difference) >> 32);
        upper = own > upper ? own : upper;
      }
    }
  }
  // The upper halves tell the power of two and what is not finite, and differences of the narrower types are finite
  // when their terms are.
  if constexpr (kSum == ColumnSum::differences && !std::is_same_v<T, double>) {
    *largest = {static_cast<unsigned long long>(upper) << 32, static_cast<unsigned long long>(upper) << 32};
  }
}

// partials[v, chunk, j]: sums of column j of representation v over the rows of each chunk; `weights` [V, N].
template <ColumnSum kSum, typename T>
__global__ void __launch_bounds__(kWarps * 32)
    column_sum_kernel(Jobs<Centred> representations, ColumnPlan plan, const double* weights, double* partials) {
  __shared__ double sums[kWarps][kSpan];
  __shared__ BlockOf<kWarps * 32>::Scratch scratch;
  BlockOf<kWarps * 32> team(scratch);
  const int64_t strip = blockIdx.x % plan.strips, chunk = blockIdx.x / plan.strips % plan.chunks;
  const int64_t v = blockIdx.x / plan.strips / plan.chunks;
  const Centred& a = representations.of[v];
  const int64_t n = a.x.n, d = a.x.d;
  const int warp = threadIdx.x / 32;
  const int64_t begin = chunk * plan.chunk_rows, end = begin + plan.chunk_rows < n ? begin + plan.chunk_rows : n;
  const double* own_weights = kSum == ColumnSum::weighted ? weights + v * n : nullptr;
  const bool wide = fours_fit(row_at<T>(a.x, 0), a.x.stride, d);
  const int lane_first = wide ? Columns<true>::first_of_lane() : Columns<false>::first_of_lane();
  const int64_t j = strip * kSpan + lane_first;
  double sum[4] = {};
  Largest largest{0, 0};
  if (j < d && wide) {
    add_columns<kSum, true, T>(a, own_weights, j, begin + warp, end, sum, &largest);
  } else if (j < d) {
    add_columns<kSum, false, T>(a, own_weights, j, begin + warp, end, sum, &largest);
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    sums[warp][lane_first + k * (wide ? 1 : 32)] = sum[k];
  }
  __syncthreads();
  const int64_t column = strip * kSpan + threadIdx.x;
  if (threadIdx.x < kSpan && column < d) {
    double total = 0.0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      total += sums[w][threadIdx.x];
    }
    partials[(v * plan.chunks + chunk) * plan.widest + column] = total;
  }
  // One thread of the block alone: atomics on one address queue up.
  if constexpr (kSum == ColumnSum::differences) {
    largest = team.reduce(largest);
    if (threadIdx.x == 0) {
      atomicMax(&a.sizes[0], largest.size);
      atomicMax(&a.sizes[1], largest.range);
    }
  }
}

constexpr int kMeanColumns = 32, kMeanRows = 16;

// out [V, widest]: the sums of partials in a fixed order; means in the units of z unless the sum was weighted.
template <ColumnSum kSum>
__global__ void __launch_bounds__(kMeanColumns* kMeanRows)
    column_mean_kernel(Jobs<Centred> representations, ColumnPlan plan, const double* partials, double* out) {
  __shared__ double sums[kMeanRows][kMeanColumns];
  const int64_t strips = (plan.widest + kMeanColumns - 1) / kMeanColumns, v = blockIdx.x / strips;
  const Centred& a = representations.of[v];
  const int lane = threadIdx.x % kMeanColumns, row = threadIdx.x / kMeanColumns;
  const int64_t j = blockIdx.x % strips * kMeanColumns + lane;
  double sum = 0.0;
  if (j < a.x.d) {
#pragma unroll 4
    for (int64_t chunk = row; chunk < plan.chunks; chunk += kMeanRows) {
      sum += partials[(v * plan.chunks + chunk) * plan.widest + j];
    }
  }
  sums[row][lane] = sum;
  __syncthreads();
  if (row == 0 && j < a.x.d) {
    for (int r = 1; r < kMeanRows; ++r) {
      sum += sums[r][lane];
    }
    double factor = 1.0;
    if constexpr (kSum != ColumnSum::weighted) {
      factor = (kSum == ColumnSum::differences ? a.scale().both() : 1.0) / static_cast<double>(a.x.n);
    }
    out[v * plan.widest + j] = sum * factor;
  }
}

struct Panel {
  int64_t first, rows;      // of x
  int64_t column, columns;  // of x
  int64_t stride;           // of the panel's rows
};

// Writes a panel of z, and |z_i|^2 of those columns to squares [N] unless it is null.
template <typename C>
struct Packing {
  Centred a;
  Panel panel;
  C* out;
  double* squares;
};

// Columns [begin, end) of kWarpRows rows from r0 on, by one warp.
template <bool kWide, typename T, typename C>
SSLK_DEVICE void pack_rows(const Packing<C>& p, const Centred::Scale& scale, int64_t r0, int64_t begin, int64_t end,
                           double (&sums)[kWarpRows]) {
  using Access = Columns<kWide>;
  const int64_t rows = p.panel.rows, x_stride = p.a.x.stride, out_stride = p.panel.stride;
  const T* first = row_at<T>(p.a.x, 0) + p.panel.column;
  const T* x = row_at<T>(p.a.x, p.panel.first + r0) + p.panel.column;
  const double* shifts = p.a.shift + p.panel.column;
  C* out = p.out + r0 * out_stride;
  Four<T> next[kWarpRows];  // read while the last ones are worked on
  const auto read = [&](int64_t j) {
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      next[r] = Access::load(x + r * x_stride, j, r0 + r < rows ? end : 0);
    }
  };
  read(begin + Access::first_of_lane());
#pragma unroll 1
  for (int64_t j = begin + Access::first_of_lane(); j < end; j += kSpan) {
    Four<T> values[kWarpRows];
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      values[r] = next[r];
    }
    read(j + kSpan);
    const Four<T> x0 = Access::load(first, j, end);
    const Four<double> shift = Access::load(shifts, j, end);
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      Four<C> z;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        z.at[k] = static_cast<C>(scale.second == 0.0 ? 0.0 : scale(values[r].at[k], x0.at[k]) - shift.at[k]);
        sums[r] += static_cast<double>(z.at[k]) * z.at[k];
      }
      if (r0 + r < rows) {
        Access::store(out + r * out_stride, j, end, z);
      }
    }
  }
}

// A warp per kWarpRows rows and, where no row has to be summed, strip of columns.
template <typename T, typename C>
__global__ void __launch_bounds__(kWarps * 32, sizeof(C) == 4 ? 3 : 2)
    centred_panel_kernel(Jobs<Packing<C>> packings, int64_t count, int64_t strip_columns) {
  const Packing<C>& p = packings.of[blockIdx.x % count];
  const int64_t columns = p.panel.columns, rows = p.panel.rows;
  const int64_t strips = (columns + strip_columns - 1) / strip_columns;
  const int64_t task = static_cast<int64_t>(blockIdx.x / count) * kWarps + threadIdx.x / 32;
  const int64_t r0 = task / strips * kWarpRows, begin = task % strips * strip_columns;
  if (r0 >= rows) {
    return;
  }
  const int64_t end = begin + strip_columns < columns ? begin + strip_columns : columns;
  const Centred::Scale scale = p.a.scale();
  double sums[kWarpRows] = {};
  fours_fit(row_at<T>(p.a.x, 0) + p.panel.column, p.a.x.stride, columns) &&
          fours_fit(p.a.shift + p.panel.column, 0, columns) && fours_fit(p.out, p.panel.stride, columns)
      ? pack_rows<true, T>(p, scale, r0, begin, end, sums)
      : pack_rows<false, T>(p, scale, r0, begin, end, sums);
  if (p.squares != nullptr) {
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      const double sum = sum_of_warp(sums[r]);
      if (threadIdx.x % 32 == 0 && r0 + r < rows) {
        p.squares[p.panel.first + r0 + r] = sum;
      }
    }
  }
}

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

// Sums over pairs of representations v <= w, each in kSumSlices parts. Whole warps add them up.
struct PairSums {
  const double* off_diagonal;  // [V, V] T, or ||X'Y||_F^2 with the diagonal in it
  bool with_diagonal;
  const double* dots;    // [V, V] sum_i a_i b_i
  const double* totals;  // [V] sum_i a_i
  int64_t count, n;
  bool debiased;

  SSLK_DEVICE static double add(const double* slices) {
    double sum = 0.0;
#pragma unroll
    for (int s = 0; s < kSumSlices; s += 32) {
      sum += slices[s + threadIdx.x % 32];
    }
    return sum_of_warp(sum);
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

// hsic [V, V] and the sums of the totals [V], a warp per pair.
static __global__ void __launch_bounds__(kWarps * 32) hsic_kernel(PairSums sums, double* hsic, double* totals) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (k >= sums.count * sums.count) {
    return;
  }
  const int64_t v = k / sums.count, w = k % sums.count;
  const double value = sums.value(v, w), total = PairSums::add(sums.totals + v * kSumSlices);
  if (threadIdx.x % 32 == 0) {
    hsic[k] = value;
    if (v == w) {
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
  const double sum = PairSums::add(squares + (v < w ? v * count + w : w * count + v) * kSumSlices);
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
