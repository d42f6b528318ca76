// Mean, deviation and norm of one row, and its highly activating features: the core that every row kernel shares.
//
// Two paths give the same active set as exact arithmetic would:
//   FastRow   float32 on shifted values. One pass over memory converts the row, subtracts a shift close to the mean
//             and stores the result in a scratch row that stays in L1; sums go to double every few thousand elements.
//             An element within the rounding error of the threshold sends the row to the other path, as do scales
//             whose squares leave float32, and NaN.
//   ExactRow  double, two passes, scaled by a power of two: any finite row.
#pragma once

#include "cpu/simd.h"

namespace sslk {
namespace SSLK_ISA {

constexpr int64_t kBlock = 4 * kFloats;     // elements a loop step handles, in four independent accumulators
constexpr int64_t kFlush = 64 * kBlock;     // elements between two flushes of float sums into double
constexpr double kNormFloor = 1e-12;        // as torch.nn.functional.normalize
constexpr double kRelativeError = 1e-5;     // bound on the error of FastRow's moments, see docs/numerics.md

SSLK_INLINE int64_t padded(int64_t d) { return (d + kBlock - 1) / kBlock * kBlock; }

template <typename T>
SSLK_INLINE const T* row_at(const Rows& h, int64_t i) {
  return static_cast<const T*>(h.data) + i * h.stride;
}

// Asks for part of the next row while this one is computed, so that memory and arithmetic overlap.
SSLK_INLINE void prefetch(const char* next, int64_t bytes) {
  for (int64_t offset = 0; offset < bytes; offset += 64) {
    __builtin_prefetch(next + offset, 0, 2);
  }
}

struct FastRow {
  const float* shifted;  // [padded(d)], x - shift, zero past d
  double shift;
  double delta;  // mean - shift
  double sigma;
  double norm;
};

// Fills `scratch` [padded(d)]; false when the row needs ExactRow.
template <typename T>
SSLK_INLINE bool fast_row(const T* x, int64_t d, float* scratch, FastRow* row) {
  // A first guess of the mean; any value of the row's magnitude would do.
  float shift = d >= kBlock ? sum_of((load(x) + load(x + kFloats)) + (load(x + 2 * kFloats) + load(x + 3 * kFloats))) /
                                  static_cast<float>(kBlock)
                            : load_partial(x, 1)[0];
  for (int attempt = 0; attempt < 2; ++attempt) {
    const vfloat k = splat(shift);
    double sum = 0.0, squares = 0.0;
    int64_t j = 0;
    while (j + kBlock <= d) {
      const int64_t end = d - j > kFlush ? j + kFlush : d;
      vfloat s0{}, s1{}, s2{}, s3{}, q0{}, q1{}, q2{}, q3{};
      for (; j + kBlock <= end; j += kBlock) {
        const vfloat a = load(x + j) - k, b = load(x + j + kFloats) - k;
        const vfloat c = load(x + j + 2 * kFloats) - k, e = load(x + j + 3 * kFloats) - k;
        store(scratch + j, a);
        store(scratch + j + kFloats, b);
        store(scratch + j + 2 * kFloats, c);
        store(scratch + j + 3 * kFloats, e);
        s0 += a, s1 += b, s2 += c, s3 += e;
        q0 += a * a, q1 += b * b, q2 += c * c, q3 += e * e;
      }
      sum += sum_of((s0 + s1) + (s2 + s3));
      squares += sum_of((q0 + q1) + (q2 + q3));
    }
    if (j < d) {  // up to three whole vectors and a partial one, then zeros up to the padded length
      vfloat s{}, q{};
      for (const int64_t end = padded(d); j < end; j += kFloats) {
        const vfloat a = j + kFloats <= d ? load(x + j) - k : j < d ? load_partial(x + j, d - j, shift) - k : vfloat{};
        store(scratch + j, a);
        s += a;
        q += a * a;
      }
      sum += sum_of(s);
      squares += sum_of(q);
    }
    const double mean_square = squares / d, delta = sum / d;
    // Squares that overflow, underflow or are NaN, and means that swamp float32, need double.
    if (!(mean_square > 1e-20 && mean_square < 1e24 && shift > -1e13f && shift < 1e13f)) {
      return false;
    }
    if (delta * delta <= 0.5 * mean_square) {
      row->shifted = scratch;
      row->shift = shift;
      row->delta = delta;
      row->sigma = __builtin_sqrt(mean_square - delta * delta);
      const double square = squares + d * static_cast<double>(shift) * (2.0 * delta + shift);
      row->norm = __builtin_sqrt(square > 0.0 ? square : 0.0);
      // The norm of a row that nearly cancels its shift would lose digits; so would a row that is its mean plus dust.
      return square > 1e-3 * squares && row->sigma > 1e-5 * __builtin_fabs(shift);
    }
    shift = static_cast<float>(shift + delta);
  }
  return false;
}

struct ExactRow {
  double scale;   // power of two applied before everything else
  double shift;   // of the scaled row
  double delta;   // mean - shift
  double sigma;   // of the scaled row
  double norm;    // of the row itself
  bool finite;
};

template <typename T>
SSLK_INLINE double deviation(const ExactRow& row, const T* x) {
  return element(x) * row.scale - row.shift - row.delta;
}

template <typename T>
__attribute__((noinline)) ExactRow exact_row(const T* x, int64_t d) {
  double largest = 0.0;
  bool finite = true;
  for (int64_t j = 0; j < d; ++j) {
    const double magnitude = __builtin_fabs(element(x + j));
    finite &= magnitude <= 1.7976931348623157e308;
    largest = magnitude > largest ? magnitude : largest;
  }
  ExactRow row{1.0, 0.0, 0.0, 0.0, 0.0, finite};
  if (!finite) {
    row.norm = __builtin_nan("");
  }
  if (!finite || largest == 0.0) {
    return row;
  }
  if (largest > 0x1p300 || largest < 0x1p-300) {
    const int exponent = __builtin_ilogb(largest);
    row.scale = __builtin_scalbn(1.0, exponent < -1000 ? 1000 : -exponent);
  }
  row.shift = element(x) * row.scale;
  double sums[4] = {};
  int64_t j = 0;
  for (; j + 4 <= d; j += 4) {
    for (int lane = 0; lane < 4; ++lane) {
      sums[lane] += element(x + j + lane) * row.scale - row.shift;
    }
  }
  for (; j < d; ++j) {
    sums[0] += element(x + j) * row.scale - row.shift;
  }
  row.delta = ((sums[0] + sums[1]) + (sums[2] + sums[3])) / d;
  double squares[4] = {}, residues[4] = {};
  for (j = 0; j + 4 <= d; j += 4) {
    for (int lane = 0; lane < 4; ++lane) {
      const double c = deviation(row, x + j + lane);
      squares[lane] += c * c;
      residues[lane] += c;
    }
  }
  for (; j < d; ++j) {
    const double c = deviation(row, x + j);
    squares[0] += c * c;
    residues[0] += c;
  }
  const double square = (squares[0] + squares[1]) + (squares[2] + squares[3]);
  row.delta += ((residues[0] + residues[1]) + (residues[2] + residues[3])) / d;
  row.sigma = __builtin_sqrt(square / d);
  const double mean = row.shift + row.delta;
  row.norm = __builtin_sqrt(square + d * mean * mean) / row.scale;
  return row;
}

// The norm alone, by the same two paths.
template <typename T>
SSLK_INLINE double norm_of(const T* x, int64_t d) {
  if constexpr (sizeof(T) < sizeof(double)) {
    double squares = 0.0;
    int64_t j = 0;
    while (j + kBlock <= d) {
      vfloat q0{}, q1{}, q2{}, q3{};
      for (const int64_t end = d - j > kFlush ? j + kFlush : d; j + kBlock <= end; j += kBlock) {
        const vfloat a = load(x + j), b = load(x + j + kFloats);
        const vfloat c = load(x + j + 2 * kFloats), e = load(x + j + 3 * kFloats);
        q0 += a * a, q1 += b * b, q2 += c * c, q3 += e * e;
      }
      squares += sum_of((q0 + q1) + (q2 + q3));
    }
    for (; j < d; j += kFloats) {
      const vfloat a = j + kFloats <= d ? load(x + j) : load_partial(x + j, d - j);
      squares += sum_of(a * a);
    }
    if (squares > 1e-20 * d && squares < 1e30) {
      return __builtin_sqrt(squares);
    }
  }
  return exact_row(x, d).norm;
}

// Sum and number of the deviations from the mean of the features that activate highly and lie in the set.
// `penalty` [padded(d)] is 0 in the set and -inf outside, so that one addition applies the set.
struct Selection {
  double sum;         // of deviations (absolute ones when two-sided), in the row's own units
  int64_t count;      // features selected
  int64_t direction;  // features above minus features below the mean: count, unless two-sided
  double threshold;   // select x when its shifted value (fast) or deviation (exact, scaled) exceeds this
};

// False when an element lies so close to the threshold that float32 cannot decide.
template <bool kTwoSided>
SSLK_INLINE bool select_fast(const FastRow& row, int64_t d, const float* penalty, double eps, const char* next,
                             int64_t next_step, Selection* out) {
  const double error = kRelativeError * (1.0 + eps) * (row.sigma + __builtin_fabs(row.delta));
  const double threshold = eps * row.sigma + (kTwoSided ? 0.0 : row.delta);
  const float low = static_cast<float>(threshold - error), high = static_cast<float>(threshold + error);
  const vfloat vlow = splat(low), vhigh = splat(high), delta = splat(static_cast<float>(row.delta));
  vfloat sum[4] = {};
  vint count[4] = {}, below[4] = {}, near{};
  for (int64_t j = 0, end = padded(d); j < end; j += kBlock) {
    prefetch(next, next_step);
    next += next_step;
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) {
      vfloat y = load(row.shifted + j + u * kFloats);
      const vfloat c = y - delta;
      if (kTwoSided) {
        y = absolute(c);
      }
      y += load(penalty + j + u * kFloats);
      const vint in = y > vlow;
      sum[u] = select(in, sum[u] + y, sum[u]);
      count[u] = in ? count[u] + 1 : count[u];
      near |= in & (y <= vhigh);
      if (kTwoSided) {
        below[u] -= in & (c < 0.0f);
      }
    }
  }
  out->count = lane_sum((count[0] + count[1]) + (count[2] + count[3]));
  out->direction = out->count - (kTwoSided ? 2 * lane_sum((below[0] + below[1]) + (below[2] + below[3])) : 0);
  out->sum = sum_of((sum[0] + sum[1]) + (sum[2] + sum[3])) - (kTwoSided ? 0.0 : out->count * row.delta);
  out->threshold = low;
  return !any(near);
}

template <bool kTwoSided, typename T>
SSLK_INLINE void select_exact(const ExactRow& row, const T* x, int64_t d, const float* penalty, double eps,
                              Selection* out) {
  *out = {0.0, 0, 0, eps * row.sigma};
  for (int64_t j = 0; j < d; ++j) {
    const double c = deviation(row, x + j);
    const double y = kTwoSided ? __builtin_fabs(c) : c;
    const bool in = y > out->threshold && penalty[j] == 0.0f;
    out->sum += in ? y : 0.0;
    out->count += in;
    out->direction += in ? (c < 0.0 ? -1 : 1) : 0;
  }
  out->sum /= row.scale;
}

// A row with its selection, whichever path it took.
struct ScoredRow {
  bool fast;
  bool finite;
  double norm;
  FastRow fast_row;
  ExactRow exact_row;
  Selection selection;
};

template <bool kTwoSided, typename T>
SSLK_INLINE ScoredRow score_row(const T* x, const T* next, int64_t d, const float* penalty, double eps,
                                float* scratch) {
  ScoredRow row;
  if constexpr (sizeof(T) < sizeof(double)) {
    row.fast = fast_row(x, d, scratch, &row.fast_row) &&
               select_fast<kTwoSided>(row.fast_row, d, penalty, eps, reinterpret_cast<const char*>(next),
                                      kBlock * sizeof(T), &row.selection);
    if (row.fast) {
      row.finite = true;
      row.norm = row.fast_row.norm;
      return row;
    }
  }
  row.fast = false;
  row.exact_row = exact_row(x, d);
  row.finite = row.exact_row.finite;
  row.norm = row.exact_row.norm;
  select_exact<kTwoSided>(row.exact_row, x, d, penalty, eps, &row.selection);
  return row;
}

// What the row is multiplied by before anything else is computed from it.
SSLK_INLINE double scale_of(double norm, bool normalize) {
  return !normalize ? 1.0 : norm <= kNormFloor ? 1.0 / kNormFloor : 1.0 / norm;
}

// Q of equation (1): the mean deviation over the selection, 0 when it is empty, NaN for a row with NaN or infinity.
SSLK_INLINE double score_of(const ScoredRow& row, bool normalize) {
  if (!row.finite) {
    return __builtin_nan("");
  }
  return row.selection.count == 0 ? 0.0 : row.selection.sum / row.selection.count * scale_of(row.norm, normalize);
}

}  // namespace SSLK_ISA
}  // namespace sslk
