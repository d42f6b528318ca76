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
  float largest, squares, lost;  // squares: NaN for a row that is not finite; lost: squares of what packing cuts off
  SSLK_DEVICE void merge(const Range& other) {
    largest = fmaxf(largest, other.largest), squares += other.squares, lost += other.lost;
  }
};

// x less its nearest number of eleven significant bits, exact: times a power of two what float16 cuts off, but for
// numbers too small for it.
SSLK_DEVICE float cut_off(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  bits = (bits + 0x1000u) & 0xffffe000u;
  float kept;
  memcpy(&kept, &bits, sizeof(kept));
  return x - kept;
}

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
  float* lost;        // [N] |x - shift - packed * unscale|^2, but for numbers too small for float16

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
    Range range{0.0f, 0.0f, 0.0f};
    float zero = 0.0f;  // NaN where an item is not finite
#pragma unroll
    for (int i = 0; i < row.kItems; ++i) {
      const float v = row.values[i] - state->shift[i];
      range.largest = fmaxf(range.largest, fabsf(v));
      range.squares += v * v;
      const float lost_here = cut_off(v);
      range.lost += lost_here * lost_here;
      zero += row.values[i] * 0.0f;
    }
    range.squares += zero;
    range = team.reduce(range);
    const bool finite = range.squares == range.squares;
    const float scale = finite ? packing_scale(range.largest) : 0.0f;
    store_row(static_cast<f16*>(packed) + row.i * row.d, row.layout,
              [&](int i, f16* out) { narrow(scale == 0.0f ? 0.0f : (row.values[i] - state->shift[i]) * scale, out); });
    write(team, row.i, !finite ? NAN : scale == 0.0f ? 0.0f : 1.0f / scale, range.squares, range.lost);
  }
  template <typename Team>
  SSLK_DEVICE void write(const Team& team, int64_t i, float inverse, double sum, float sum_lost) const {
    if (team.rank == 0) {
      unscale[i] = inverse;
      squares[i] = sum;
      lost[i] = sum_lost;
    }
  }
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void after_row(Team&, const Layout&, State*) const {}
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void finish(Team&, const Layout&, int64_t, State*) const {}

  template <typename Team>
  SSLK_DEVICE void long_begin(Team&, int64_t) const {}
  template <typename T, typename Team>
  SSLK_DEVICE void long_row(Team& team, const MemoryRow<T>& row, int64_t i) const {
    const T* x = row.x;
    const int64_t d = row.d;
    const product_t<T>* moved = static_cast<const product_t<T>*>(shift);
    packed_t<T>* out = static_cast<packed_t<T>*>(packed) + i * d;
    Magnitude size{0.0, 0};
    Sum<double> sum{0.0}, sum_lost{0.0};
    for (int64_t j = team.rank; j < d; j += team.width()) {
      const double value = static_cast<double>(widen(x[j])), v = value - static_cast<double>(moved[j]);
      size.largest = fmax(size.largest, fabs(v));
      size.not_finite += !(fabs(value) < INFINITY);
      sum.value += v * v;
      if constexpr (!std::is_same_v<T, double>) {  // float64 is packed as it is
        const double lost_here = static_cast<double>(cut_off(static_cast<float>(v)));
        sum_lost.value += lost_here * lost_here;
      }
    }
    size = team.reduce(size);
    sum = team.reduce(sum);
    sum_lost = team.reduce(sum_lost);
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
    write(team, i,
          size.not_finite ? NAN
          : scale == 0.0f ? 0.0f
                          : 1.0f / scale,
          sum.value, static_cast<float>(sum_lost.value));
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

// Products are computed with a few centroids more, so that every row of them begins at a multiple of 16 bytes, and what
// is known of the centroids is tabulated for all that a warp reads at once.
constexpr int64_t kProductMultiple = 8, kTableMultiple = 512;
constexpr int64_t padded(int64_t k, int64_t multiple) { return (k + multiple - 1) / multiple * multiple; }

// The norms of the largest centroid that products rank and of the most that packing cuts off one.
struct CentroidNorms {
  double norm, lost;
  SSLK_DEVICE void merge(const CentroidNorms& other) { norm = fmax(norm, other.norm), lost = fmax(lost, other.lost); }
};

// What scores need of the centroids, in the product type, and what bounds their errors. The norm is infinite if a
// centroid is finite but beyond products.
template <typename P>
__global__ void __launch_bounds__(Block::kMaxThreads)
    summarize_centroids_kernel(const double* squares, const float* lost, const float* unscale, int64_t k,
                               int64_t entries,  // K or more
                               P* half_squares,  // [entries] |c|^2 / 2
                               P* factors,       // [entries] unscale; NaN for what must not be chosen
                               CentroidNorms* largest) {
  __shared__ Block::Scratch scratch;
  Block team(scratch);
  CentroidNorms most{0.0, 0.0};
  for (int64_t i = team.rank; i < entries; i += team.width()) {
    const float factor = i < k ? unscale[i] : NAN;
    factors[i] = factor;
    half_squares[i] = factor == factor ? static_cast<P>(0.5 * squares[i]) : P(0);
    if (factor == factor) {
      most.norm = fmax(most.norm, factor == 0.0f ? static_cast<double>(INFINITY) : squares[i]);
      most.lost = fmax(most.lost, static_cast<double>(lost[i]));
    }
  }
  most = team.reduce(most);
  if (team.rank == 0) {
    *largest = {sqrt(most.norm), sqrt(most.lost)};
  }
}

constexpr int kAssignThreads = 128;

struct AssignArgs {
  Rows x;
  Rows centroids;
  int64_t first, count;  // rows of x in this tile
  int64_t columns;       // of products: K or more
  const void* products;  // [count, columns] of packed rows, in the product type
  const float* x_unscale;
  const double* x_squares;  // of the tile's rows
  const float* x_lost;
  const void* half_squares;  // [a multiple of kTableMultiple], factors too: see summarize_centroids_kernel
  const void* factors;
  const CentroidNorms* largest;
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

// x - c, rounded once, of finite numbers. Conversions to double have a fraction of the rate of other instructions, so c
// gets there by its bits: moved to the places of double they are c 2^-896, zero and subnormal numbers too.
SSLK_DEVICE double difference(float x, float c) {
  int32_t bits;
  memcpy(&bits, &c, sizeof(bits));
  const uint64_t moved = static_cast<uint64_t>(static_cast<int64_t>(bits) << 29) & 0x8fffffffffffffffu;
  double small;
  memcpy(&small, &moved, sizeof(small));
  return static_cast<double>(x) - small * 0x1p896;
}

// Whether rows of T can be read in pieces of 16 bytes, whole rows of d columns without a rest.
template <typename T>
SSLK_DEVICE bool in_pieces(const Rows& rows) {
  return (reinterpret_cast<uintptr_t>(rows.data) | static_cast<uintptr_t>(rows.stride) * sizeof(T) |
          static_cast<uintptr_t>(rows.d) * sizeof(T)) %
             16 ==
         0;
}

// `pieces` says how to read and must be the same for all centroids: it decides the order of the sum, and equal
// centroids must come to equal sums.
template <typename T, typename Team, typename Difference>
SSLK_DEVICE double sum_of_squares(Team& team, const T* x, const T* c, int64_t d, bool pieces, Difference difference) {
  double sums[2] = {0.0, 0.0};
  if (pieces) {
    constexpr int kVec = 16 / sizeof(T), kUnderWay = 4;
    const int64_t count = d / kVec;
    for (int64_t start = team.rank; start < count; start += kUnderWay * team.width()) {
      uint4 xs[kUnderWay], cs[kUnderWay];
#pragma unroll
      for (int k = 0; k < kUnderWay; ++k) {
        const int64_t j = start + k * team.width();
        xs[k] = cs[k] = uint4{0, 0, 0, 0};
        if (j < count) {
          xs[k] = reinterpret_cast<const uint4*>(x)[j];
          cs[k] = reinterpret_cast<const uint4*>(c)[j];
        }
      }
#pragma unroll
      for (int k = 0; k < kUnderWay; ++k) {
        if (start + k * team.width() < count) {
          T a[kVec], b[kVec];
          memcpy(a, &xs[k], 16);
          memcpy(b, &cs[k], 16);
#pragma unroll
          for (int u = 0; u < kVec; ++u) {
            const double y = difference(widen(a[u]), widen(b[u]));
            sums[u % 2] += y * y;
          }
        }
      }
    }
  } else {
#pragma unroll 8
    for (int64_t j = team.rank; j < d; j += team.width()) {
      const double y = difference(widen(x[j]), widen(c[j]));
      sums[0] += y * y;
    }
  }
  return team.reduce(Sum<double>{sums[0] + sums[1]}).value;
}

// sum_j (x_j - c_j)^2 in double.
template <typename T, typename Team>
SSLK_DEVICE Distance squared_distance(Team& team, const T* x, const T* c, int64_t d, bool pieces) {
  if constexpr (std::is_same_v<T, double>) {
    const double value = sum_of_squares(team, x, c, d, pieces, [](double a, double b) { return a - b; });
    if (value < 0x1p-900) {
      return {-1, sum_of_squares(team, x, c, d, pieces, [](double a, double b) { return (a - b) * 0x1p600; })};
    }
    if (!(value < INFINITY)) {
      return {1, sum_of_squares(team, x, c, d, pieces, [](double a, double b) { return a * 0x1p-600 - b * 0x1p-600; })};
    }
    return {0, value};
  } else {
    return {0, sum_of_squares(team, x, c, d, pieces, [](float a, float b) { return difference(a, b); })};
  }
}

// The scores |c|^2 / 2 - x.c of a row and all centroids; NaN for centroids that must not be chosen. The lanes of a warp
// read pieces of 16 bytes and keep the least score of every fourth of their own: where a group is good enough, its
// scores are computed again.
template <typename P>
struct Scores {
  static constexpr int kVec = 16 / sizeof(P), kGroups = 4;
  static constexpr int64_t kStep = 32 * kVec;  // centroids of an access of the warp
  static_assert(kTableMultiple % (kGroups * kStep) == 0 && kProductMultiple % kVec == 0);
  struct alignas(16) Piece {
    P elements[kVec];
  };

  const P *products, *half_squares, *factors;  // of the row; of the centroids
  int64_t columns;
  P unscale;  // 0: products say nothing
  P least[kGroups];

  static SSLK_DEVICE P score(P product, P half_square, P factor) { return fma(-product, factor, half_square); }

  SSLK_DEVICE void find_least(int lane) {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      least[g] = static_cast<P>(INFINITY);
    }
    for (int64_t first = lane * kVec; first < columns + lane * kVec; first += kGroups * kStep) {
      Piece pieces[kGroups];
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {  // past the end any product will do: the table says that none counts
        const int64_t k = first + g * kStep, last = columns - kVec;
        pieces[g] = *reinterpret_cast<const Piece*>(products + (k < last ? k : last));
      }
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        const Piece halves = *reinterpret_cast<const Piece*>(half_squares + first + g * kStep);
        const Piece of_centroids = *reinterpret_cast<const Piece*>(factors + first + g * kStep);
#pragma unroll
        for (int u = 0; u < kVec; ++u) {
          const P s = score(pieces[g].elements[u], halves.elements[u], unscale * of_centroids.elements[u]);
          least[g] = s < least[g] ? s : least[g];
        }
      }
    }
  }
  SSLK_DEVICE Least<P> overall() const {
    Least<P> out{least[0]};
#pragma unroll
    for (int g = 1; g < kGroups; ++g) {
      out.merge({least[g]});
    }
    return out;
  }
  // A bit per group: may one of it score `limit` or less.
  SSLK_DEVICE unsigned within(P limit) const {
    unsigned bits = 0;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      bits |= least[g] <= limit ? 1u << g : 0u;
    }
    return bits;
  }
  // The member of a lane's group, in the order of their indices; it may lie past the end.
  static SSLK_DEVICE int64_t member(int lane, int group, int64_t m) {
    return (m / kVec * kGroups + group) * kStep + lane * kVec + m % kVec;
  }
  SSLK_DEVICE bool within(P limit, int64_t k) const {
    return k < columns && score(products[k], half_squares[k], unscale * factors[k]) <= limit;
  }
};

// How much more than the least score that of the nearest centroid may be, for a row x. With L the largest |c|, what
// packing cuts off x is dx and what it cuts off any c at most dc, so that x.c is wrong by no more than |dx| L + |x| dc;
// both are measured, and what they leave out of numbers too small for float16 is d 2^-38 of |x| L. A sum of d products
// adds d 5/4 2^-23 |x| L (in double, d 2^-52): tensor cores add at least four products at a time and cut each off at
// the last place of the largest; the rest of 0x1.5 and the 8 are for the other roundings. Squares in float are within
// 2^-18 of themselves, and what is second order of all that is within 2^-10 of the whole. Two scores may be wrong.
template <typename P>
SSLK_DEVICE P score_margin(const AssignArgs& a, int64_t row) {
  const double squares = a.x_squares[row], d = static_cast<double>(a.x.d);
  const P largest = static_cast<P>(a.largest->norm);
  if constexpr (std::is_same_v<P, double>) {
    const double unit = 0x1p-50 * (d + 8.0);
    return 2.0 * largest * (unit * sqrt(squares) + unit * largest);
  } else {
    const float norm = sqrtf(static_cast<float>(squares)), lost = sqrtf(a.x_lost[row]);
    const float unit = static_cast<float>(0x1.5p-23 * (d + 8.0));
    return 0x1.004p1f *
           (largest * (lost + unit * norm + 0x1p-18f * largest) + norm * static_cast<float>(a.largest->lost));
  }
}

// A warp per row.
template <typename T>
__global__ void __launch_bounds__(kAssignThreads, std::is_same_v<T, double> ? 8 : 7) assign_kernel(AssignArgs a) {
  using P = product_t<T>;
  typename Lanes<32>::Scratch scratch;
  Lanes<32> team(scratch);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * team.per_block() + team.index;
  if (row >= a.count) {
    return;
  }
  const int64_t i = a.first + row;
  int32_t nearest = 0;
  Distance distance{0, NAN};
  float unscale = a.x_unscale[row];
  if (unscale == unscale) {
    const P margin = score_margin<P>(a, row);
    if (!(margin < static_cast<P>(INFINITY))) {
      unscale = 0.0f;
    }
    Scores<P> scores{static_cast<const P*>(a.products) + row * a.columns, static_cast<const P*>(a.half_squares),
                     static_cast<const P*>(a.factors), a.columns, unscale};
    scores.find_least(team.rank);
    // Where products say nothing, every centroid that may be chosen is a candidate.
    const P limit = unscale > 0.0f ? team.reduce(scores.overall()).value + margin : static_cast<P>(INFINITY);
    const bool pieces = in_pieces<T>(a.x) && in_pieces<T>(a.centroids);
    unsigned groups = scores.within(limit);
    for (unsigned lanes = __ballot_sync(team.mask, groups != 0); lanes != 0;
         lanes = __ballot_sync(team.mask, groups != 0)) {
      const int lane = __ffs(static_cast<int>(lanes)) - 1;
      const int group = __shfl_sync(team.mask, __ffs(static_cast<int>(groups)) - 1, lane);
      if (team.rank == lane) {
        groups &= groups - 1;
      }
      for (int64_t start = 0; Scores<P>::member(lane, group, start) < a.columns; start += 32) {
        const int64_t own = Scores<P>::member(lane, group, start + team.rank);
        unsigned candidates = __ballot_sync(team.mask, scores.within(limit, own));
        while (candidates != 0) {
          const int64_t k = Scores<P>::member(lane, group, start + __ffs(static_cast<int>(candidates)) - 1);
          candidates &= candidates - 1;
          const Distance y = squared_distance(team, row_at<T>(a.x, i), row_at<T>(a.centroids, k), a.x.d, pieces);
          // The first of equals, in whichever order they come.
          if (y.usable() && (!distance.usable() || y < distance || (k < nearest && !(distance < y)))) {
            distance = y;
            nearest = static_cast<int32_t>(k);
          }
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
