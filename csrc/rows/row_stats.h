// Mean, deviation and norm of one row, and its highly activating features: the core that every row kernel shares.
//
// Two paths give the same active set as exact arithmetic would:
//   FastRow   float32. One pass over memory sums the row, a second one over the cache looks for blocks that hold an
//             active feature, mostly few; sums go to double every few thousand elements. A mean larger than
//             the deviation costs one more pass over the cache. An element within the rounding error of the threshold
//             sends the row to the other path, as do scales whose squares leave float32, huge means, and NaN.
//   ExactRow  double, two passes, scaled by a power of two: any finite row. What double cannot decide is decided in
//             whole numbers (ExactSet), so that ties are ties and every instruction set finds the same features.
#pragma once

#include "cpu/simd.h"
#include "rows/exact_row.h"

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

// Asks for the next row, a little with every block of this one, so that memory and arithmetic overlap: the first half
// while this row is summed, the second while it is compared.
struct Ahead {
  const char* next = nullptr;
  int64_t step = 0;  // bytes per block

  SSLK_INLINE void advance() {
    for (int64_t offset = 0; offset < step; offset += 64) {
      __builtin_prefetch(next + offset, 0, 2);
    }
    next += step;
  }
};

template <typename T>
SSLK_INLINE Ahead ahead_in_sum(const T* next) {
  return {reinterpret_cast<const char*>(next), static_cast<int64_t>(kBlock * sizeof(T) / 2)};
}
template <typename T>
SSLK_INLINE Ahead ahead_in_comparison(const T* next, int64_t d) {
  return ahead_in_sum(next + d / 2);
}

struct FastRow {
  const float* tail;  // [kBlock] the elements after the last whole block, widened, and NaN behind them: never active
  double mean;
  double sigma;
  double norm;
};

// Sums the row and its squares, both taken from `shift`, and copies the last partial block to `tail`.
template <bool kShifted, typename T>
SSLK_INLINE void sum_row(const T* x, int64_t d, float shift, float* tail, Ahead ahead, double* sum, double* squares) {
  const vfloat k = splat(shift);
  *sum = *squares = 0.0;
  int64_t j = 0;
  while (j + kBlock <= d) {
    vfloat s0{}, s1{}, s2{}, s3{}, q0{}, q1{}, q2{}, q3{};
    for (const int64_t end = d - j > kFlush ? j + kFlush : d; j + kBlock <= end; j += kBlock) {
      ahead.advance();
      vfloat v[4];
      load_unordered(x + j, v);
      if (kShifted) {
        v[0] -= k, v[1] -= k, v[2] -= k, v[3] -= k;
      }
      s0 += v[0], s1 += v[1], s2 += v[2], s3 += v[3];
      q0 += v[0] * v[0], q1 += v[1] * v[1], q2 += v[2] * v[2], q3 += v[3] * v[3];
    }
    *sum += sum_of((s0 + s1) + (s2 + s3));
    *squares += sum_of((q0 + q1) + (q2 + q3));
  }
  if (j < d) {
    vfloat s{}, q{};
    for (const int64_t end = padded(d); j < end; j += kFloats, tail += kFloats) {
      const int64_t lanes = d - j < 0 ? 0 : d - j < kFloats ? d - j : kFloats;
      const vfloat v = load_partial(x + j, lanes, shift);
      store(tail, load_partial(x + j, lanes, __builtin_nanf("")));
      s += v - k;
      q += (v - k) * (v - k);
    }
    *sum += sum_of(s);
    *squares += sum_of(q);
  }
}

// `scratch` is [padded(d)]; false when the row needs ExactRow.
template <typename T>
SSLK_INLINE bool fast_row(const T* x, int64_t d, float* scratch, Ahead ahead, FastRow* row) {
  double sum, squares, shift = 0.0;
  sum_row<false>(x, d, 0.0f, scratch, ahead, &sum, &squares);
  const double square = squares;
  // Squares that overflow, underflow or are NaN need double.
  if (!(squares > 1e-20 * d && squares < 1e28)) {
    return false;
  }
  if (sum * sum > 0.75 * squares * d) {  // the mean would cancel most of the squares: take it off first
    const float k = static_cast<float>(sum / d);
    sum_row<true>(x, d, k, scratch, {}, &sum, &squares);
    shift = k;
  }
  const double delta = sum / d, mean_square = squares / d;
  row->mean = shift + delta;
  row->sigma = __builtin_sqrt(mean_square - delta * delta);
  row->norm = __builtin_sqrt(square);
  row->tail = scratch;
  return delta * delta <= 0.75 * mean_square && row->sigma > 0.005 * __builtin_fabs(row->mean);
}

// How far from the threshold float32 can decide.
SSLK_INLINE double undecided(const FastRow& row, double eps) {
  return kMomentError * (1.0 + eps) * row.sigma + kRounding * __builtin_fabs(row.mean) * (1.0 + eps);
}

// What is compared with the threshold: the value itself, or its distance from the mean.
template <bool kTwoSided>
SSLK_INLINE vfloat compared(vfloat v, vfloat mean) {
  return kTwoSided ? absolute(v - mean) : v;
}

// Whether a block of four vectors holds an element above the threshold.
template <bool kTwoSided, typename T>
SSLK_INLINE bool holds_active(const T* x, vfloat mean, vfloat threshold) {
  return any_above(compared<kTwoSided>(load(x), mean), compared<kTwoSided>(load(x + kFloats), mean),
                   compared<kTwoSided>(load(x + 2 * kFloats), mean), compared<kTwoSided>(load(x + 3 * kFloats), mean),
                   threshold);
}

// Calls body(j, v) for every block of four vectors of the row up to the padded length, with kOnlyActive for those with
// an element above the threshold.
template <bool kTwoSided, bool kOnlyActive, typename T, typename Body>
SSLK_INLINE void each_block(const T* x, int64_t d, const FastRow& row, float threshold, Ahead ahead, Body body) {
  const vfloat mean = splat(static_cast<float>(row.mean)), low = splat(threshold);
  const auto visit = [&](int64_t j, auto* p) __attribute__((always_inline)) {
    const vfloat v[4] = {load(p), load(p + kFloats), load(p + 2 * kFloats), load(p + 3 * kFloats)};
    body(j, v);
  };
  // 16-bit floats are ordered as their bits are, from zero on: most blocks are passed over without being widened. An
  // element is above a threshold of zero or more if and only if its bits are above those of the threshold, cut off.
  constexpr bool kByBits = sizeof(T) == sizeof(uint16_t) && !kTwoSided;
  int64_t j = 0;
  if (kByBits && kOnlyActive && threshold >= 0.0f) {
    const vshort cut = vshort{} + static_cast<int16_t>(cut_off_bits(threshold, T{}));
    for (; j + kBlock <= d; j += kBlock) {
      ahead.advance();
      if (any((load_as<vshort>(x + j) > cut) | (load_as<vshort>(x + j + 2 * kFloats) > cut))) {
        visit(j, x + j);
      }
    }
  }
  for (; j + kBlock <= d; j += kBlock) {
    ahead.advance();
    if (!kOnlyActive || holds_active<kTwoSided>(x + j, mean, low)) {
      visit(j, x + j);
    }
  }
  if (j < d) {
    visit(j, row.tail);
  }
}

// 1 / max(norm, floor), which a normalised row is multiplied by; NaN for a row with NaN or infinity.
SSLK_INLINE double inverse_norm(double norm) { return norm <= kNormFloor ? 1.0 / kNormFloor : 1.0 / norm; }
SSLK_INLINE double inverse_norm(const ExactRow& row) {
  return row.norm / row.scale <= kNormFloor ? 1.0 / kNormFloor : row.scale / row.norm;
}
// Whether it is the floor that divides the row, a constant.
SSLK_INLINE bool is_below_floor(double inverse) { return inverse >= 1.0 / kNormFloor; }

// The same from a row, by the same two paths.
template <typename T>
SSLK_INLINE double inverse_norm_of(const T* x, int64_t d) {
  if constexpr (sizeof(T) < sizeof(double)) {
    double squares = 0.0;
    int64_t j = 0;
    while (j + kBlock <= d) {
      vfloat q0{}, q1{}, q2{}, q3{};
      for (const int64_t end = d - j > kFlush ? j + kFlush : d; j + kBlock <= end; j += kBlock) {
        vfloat v[4];
        load_unordered(x + j, v);
        q0 += v[0] * v[0], q1 += v[1] * v[1], q2 += v[2] * v[2], q3 += v[3] * v[3];
      }
      squares += sum_of((q0 + q1) + (q2 + q3));
    }
    for (; j < d; j += kFloats) {
      const vfloat a = j + kFloats <= d ? load(x + j) : load_partial(x + j, d - j);
      squares += sum_of(a * a);
    }
    if (squares > 1e-20 * d && squares < 1e30) {
      return inverse_norm(__builtin_sqrt(squares));
    }
  }
  if constexpr (sizeof(T) == sizeof(uint16_t)) {
    double square = 0.0;  // no square of a 16-bit float leaves double
    for (int64_t j = 0; j < d; ++j) {
      square += element(x + j) * element(x + j);
    }
    return square <= 1.7976931348623157e308 ? inverse_norm(__builtin_sqrt(square)) : __builtin_nan("");
  } else {
    return inverse_norm(exact_row(x, d));
  }
}

// Sum and number of the deviations from the mean of the features that activate highly and lie in the set.
// `penalty` [padded(d)] is 0 in the set and -inf outside, so that one addition applies the set.
struct Selection {
  double mean;        // of deviations (absolute ones when two-sided), in the row's own units; 0 of none
  double scaled;      // the same of the scaled row (exact): in its own units it may be larger than any number
  int64_t count;      // features selected
  int64_t active;     // highly activating features, in the set or not; only counted where asked for
  int64_t direction;  // features above minus features below the mean: count, unless two-sided
  double threshold;   // of x (fast) or |x - mean| (fast, two-sided): selected when above
  ActiveCut cut;      // exact
};

// False when an element that counts lies so close to the threshold that float32 cannot decide.
template <bool kTwoSided, bool kCountActive, typename T>
SSLK_INLINE bool select_fast(const T* x, int64_t d, const FastRow& row, const float* penalty, double eps, Ahead ahead,
                             Selection* out) {
  const double threshold = eps * row.sigma + (kTwoSided ? 0.0 : row.mean), error = undecided(row, eps);
  const float low = static_cast<float>(threshold - error), high = static_cast<float>(threshold + error);
  const vfloat vlow = splat(low), vhigh = splat(high), mean = splat(static_cast<float>(row.mean));
  vfloat sum[4] = {};
  vint count[4] = {}, below[4] = {}, active{}, near{};
  each_block<kTwoSided, true>(x, d, row, low, ahead, [&](int64_t j, const vfloat* v) __attribute__((always_inline)) {
    for (int u = 0; u < 4; ++u) {
      const vfloat c = compared<kTwoSided>(v[u], mean), y = c + load(penalty + j + u * kFloats);
      const vint in = y > vlow;
      sum[u] = select(in, sum[u] + y, sum[u]);
      count[u] = in ? count[u] + 1 : count[u];
      if (kCountActive) {
        active -= c > vlow;
        near |= (c > vlow) & (c <= vhigh);
      } else {
        near |= in & (y <= vhigh);
      }
      if (kTwoSided) {
        below[u] -= in & (v[u] < mean);
      }
    }
  });
  out->count = lane_sum((count[0] + count[1]) + (count[2] + count[3]));
  out->direction = out->count - (kTwoSided ? 2 * lane_sum((below[0] + below[1]) + (below[2] + below[3])) : 0);
  const double total = sum_of((sum[0] + sum[1]) + (sum[2] + sum[3])) - (kTwoSided ? 0.0 : out->count * row.mean);
  out->mean = out->count == 0 ? 0.0 : total / out->count;
  out->active = lane_sum(active);
  out->threshold = low;
  return !any(near);
}

template <bool kTwoSided, typename T>
__attribute__((noinline)) void select_exact(const ExactRow& row, const T* x, int64_t d, const float* penalty,
                                            double eps, Selection* out) {
  const ActiveCut cut = active_cut<kTwoSided>(row, x, d, eps);
  *out = {0.0, 0.0, 0, 0, 0, 0.0, cut};
  vdouble sum{};
  vlong count{}, below{}, active{};
  int64_t j = 0;
  for (; j + kDoubles <= d; j += kDoubles) {
    const vdouble v = load_wide(x + j), c = deviation(row, v), y = kTwoSided ? absolute(c) : c;
    const vlong above = cut.active(v), in = above & (load_wide(penalty + j) == 0.0);
    active -= above;
    sum += select(in, y, vdouble{});
    count -= in;
    below -= in & (v < cut.lower);
  }
  double total = sum_of(sum);
  out->count = lane_sum(count);
  out->active = lane_sum(active);
  int64_t negative = lane_sum(below);
  for (; j < d; ++j) {
    const double v = element(x + j), c = deviation(row, v), y = kTwoSided ? __builtin_fabs(c) : c;
    const bool above = cut.active(v), in = above && penalty[j] == 0.0f;
    out->active += above;
    total += in ? y : 0.0;
    out->count += in;
    negative += in && v < cut.lower;
  }
  out->direction = out->count - 2 * negative;
  out->scaled = out->count == 0 ? 0.0 : total / out->count;
  out->mean = out->scaled / row.scale;
}

// A row with its selection, whichever path it took.
struct ScoredRow {
  bool fast;
  bool finite;
  double inverse;  // of the norm: see inverse_norm
  FastRow fast_row;
  ExactRow exact_row;
  Selection selection;
};

template <bool kTwoSided, bool kCountActive = false, typename T>
SSLK_INLINE ScoredRow score_row(const T* x, const T* next, int64_t d, const float* penalty, double eps,
                                float* scratch) {
  ScoredRow row;
  if constexpr (sizeof(T) < sizeof(double)) {
    row.fast = fast_row(x, d, scratch, ahead_in_sum(next), &row.fast_row) &&
               select_fast<kTwoSided, kCountActive>(x, d, row.fast_row, penalty, eps, ahead_in_comparison(next, d),
                                                    &row.selection);
    if (row.fast) {
      row.finite = true;
      row.inverse = inverse_norm(row.fast_row.norm);
      return row;
    }
  }
  row.fast = false;
  const auto* wide = widened(x, d, scratch);
  row.exact_row = exact_row(wide, d);
  row.finite = row.exact_row.finite;
  row.inverse = inverse_norm(row.exact_row);
  select_exact<kTwoSided>(row.exact_row, wide, d, penalty, eps, &row.selection);
  return row;
}

// Q of equation (1): the mean deviation over the selection, 0 when it is empty, NaN for a row with NaN or infinity.
SSLK_INLINE double score_of(const ScoredRow& row, bool normalize) {
  if (!row.finite) {
    return __builtin_nan("");
  }
  if (normalize && !row.fast && !is_below_floor(row.inverse)) {
    return row.selection.scaled / row.exact_row.norm;
  }
  return normalize ? row.selection.mean * row.inverse : row.selection.mean;
}

}  // namespace SSLK_ISA
}  // namespace sslk
