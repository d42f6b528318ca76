// Mean, deviation and norm of one row, and its highly activating features: the core that every row kernel shares.
//
// Two paths give the same active set as exact arithmetic would:
//   FastRow   float32. One pass over memory sums the row (16-bit rows are widened into a scratch row on the way), a
//             second one over the cache compares; sums go to double every few thousand elements. A mean larger than
//             the deviation costs one more pass over the cache. An element within the rounding error of the threshold
//             sends the row to the other path, as do scales whose squares leave float32, huge means, and NaN.
//   ExactRow  double, two passes, scaled by a power of two: any finite row.
#pragma once

#include "cpu/simd.h"

namespace sslk {
namespace SSLK_ISA {

constexpr int64_t kBlock = 4 * kFloats;  // elements a loop step handles, in four independent accumulators
constexpr int64_t kFlush = 32 * kBlock;  // elements between two flushes of float sums into double
constexpr double kNormFloor = 1e-12;     // as torch.nn.functional.normalize
constexpr double kMomentError = 2e-5;    // bound on FastRow's error in mean and sigma, in sigmas: docs/numerics.md
constexpr double kRounding = 3e-7;       // bound on the relative error of comparing with the mean in float32

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
  const float* values;  // [padded(d)] the row in float32: the row itself up to `tail`, the scratch row after it
  const float* scratch;
  int64_t tail;
  double mean;
  double sigma;
  double norm;
};

// Sums the row and its squares, both taken from `shift`, and fills the scratch row: all of it for 16-bit rows, the last
// partial block for float32.
template <bool kShifted, typename T>
SSLK_INLINE void sum_row(const T* x, int64_t d, float shift, float* scratch, double* sum, double* squares) {
  const vfloat k = splat(shift);
  const auto value = [&](int64_t j) {
    const vfloat v = load(x + j);
    if constexpr (sizeof(T) < sizeof(float)) {
      store(scratch + j, v);
    }
    return kShifted ? v - k : v;
  };
  *sum = *squares = 0.0;
  int64_t j = 0;
  while (j + kBlock <= d) {
    vfloat s0{}, s1{}, s2{}, s3{}, q0{}, q1{}, q2{}, q3{};
    for (const int64_t end = d - j > kFlush ? j + kFlush : d; j + kBlock <= end; j += kBlock) {
      const vfloat a = value(j), b = value(j + kFloats), c = value(j + 2 * kFloats), e = value(j + 3 * kFloats);
      s0 += a, s1 += b, s2 += c, s3 += e;
      q0 += a * a, q1 += b * b, q2 += c * c, q3 += e * e;
    }
    *sum += sum_of((s0 + s1) + (s2 + s3));
    *squares += sum_of((q0 + q1) + (q2 + q3));
  }
  if (j < d) {
    vfloat s{}, q{};
    for (const int64_t end = padded(d); j < end; j += kFloats) {
      const vfloat v = j + kFloats <= d ? load(x + j) : j < d ? load_partial(x + j, d - j, shift) : k;
      store(scratch + j, v);
      s += v - k;
      q += (v - k) * (v - k);
    }
    *sum += sum_of(s);
    *squares += sum_of(q);
  }
}

// `scratch` is [padded(d)]; false when the row needs ExactRow.
template <typename T>
SSLK_INLINE bool fast_row(const T* x, int64_t d, float* scratch, FastRow* row) {
  double sum, squares, shift = 0.0;
  sum_row<false>(x, d, 0.0f, scratch, &sum, &squares);
  const double square = squares;
  // Squares that overflow, underflow or are NaN need double.
  if (!(squares > 1e-20 * d && squares < 1e28)) {
    return false;
  }
  if (sum * sum > 0.75 * squares * d) {  // the mean would cancel most of the squares: take it off first
    const float k = static_cast<float>(sum / d);
    sum_row<true>(x, d, k, scratch, &sum, &squares);
    shift = k;
  }
  const double delta = sum / d, mean_square = squares / d;
  row->mean = shift + delta;
  row->sigma = __builtin_sqrt(mean_square - delta * delta);
  row->norm = __builtin_sqrt(square);
  row->scratch = scratch;
  row->tail = d / kBlock * kBlock;
  if constexpr (sizeof(T) == sizeof(float)) {
    row->values = x;
  } else {
    row->values = scratch;
  }
  return delta * delta <= 0.75 * mean_square && row->sigma > 0.005 * __builtin_fabs(row->mean);
}

// How far from the threshold float32 can decide.
SSLK_INLINE double undecided(const FastRow& row, double eps) {
  return kMomentError * (1.0 + eps) * row.sigma + kRounding * __builtin_fabs(row.mean) * (1.0 + eps);
}

// Calls body(u, j, values) for every vector of the row up to the padded length, u = 0..3 being its place in the block,
// and prefetches the next row on the way.
template <typename Body>
SSLK_INLINE void each_vector(const FastRow& row, int64_t d, const char* next, int64_t next_step, Body body) {
  const float* values = row.values;
  for (int64_t j = 0, end = padded(d); j < end; j += kBlock) {
    if (j == row.tail) {
      values = row.scratch;
    }
    prefetch(next, next_step);
    next += next_step;
    body(0, j, load(values + j));
    body(1, j + kFloats, load(values + j + kFloats));
    body(2, j + 2 * kFloats, load(values + j + 2 * kFloats));
    body(3, j + 3 * kFloats, load(values + j + 3 * kFloats));
  }
}

struct ExactRow {
  double scale;  // power of two applied before everything else
  double shift;  // of the scaled row
  double delta;  // mean - shift
  double sigma;  // of the scaled row
  double norm;   // of the row itself
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
  double threshold;   // of x (fast), |x - mean| (fast, two-sided) or the scaled deviation (exact): selected when above
};

// What is compared with the threshold: the value itself, or its distance from the mean.
template <bool kTwoSided>
SSLK_INLINE vfloat compared(vfloat v, vfloat mean) {
  return kTwoSided ? absolute(v - mean) : v;
}

// False when an element lies so close to the threshold that float32 cannot decide.
template <bool kTwoSided>
SSLK_INLINE bool select_fast(const FastRow& row, int64_t d, const float* penalty, double eps, const char* next,
                             int64_t next_step, Selection* out) {
  const double threshold = eps * row.sigma + (kTwoSided ? 0.0 : row.mean), error = undecided(row, eps);
  const float low = static_cast<float>(threshold - error), high = static_cast<float>(threshold + error);
  const vfloat vlow = splat(low), vhigh = splat(high), mean = splat(static_cast<float>(row.mean));
  vfloat sum[4] = {};
  vint count[4] = {}, below[4] = {}, near{};
  each_vector(row, d, next, next_step, [&](int u, int64_t j, vfloat v) __attribute__((always_inline)) {
    const vfloat y = compared<kTwoSided>(v, mean) + load(penalty + j);
    const vint in = y > vlow;
    sum[u] = select(in, sum[u] + y, sum[u]);
    count[u] = in ? count[u] + 1 : count[u];
    near |= in & (y <= vhigh);
    if (kTwoSided) {
      below[u] -= in & (v < mean);
    }
  });
  out->count = lane_sum((count[0] + count[1]) + (count[2] + count[3]));
  out->direction = out->count - (kTwoSided ? 2 * lane_sum((below[0] + below[1]) + (below[2] + below[3])) : 0);
  out->sum = sum_of((sum[0] + sum[1]) + (sum[2] + sum[3])) - (kTwoSided ? 0.0 : out->count * row.mean);
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
