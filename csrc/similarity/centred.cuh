// Representations made centred and of order 1, on CUDA: sizes and sums of columns, means, packed panels.
#pragma once

#include "similarity/fours.cuh"

namespace sslk {

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

struct Magnitudes {
  unsigned long long size, range;
  SSLK_DEVICE void merge(const Magnitudes& other) {
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
                             double (&sum)[4], Magnitudes* largest) {
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
  Magnitudes largest{0, 0};
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

}  // namespace sslk
