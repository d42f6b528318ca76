// Moments of any finite row in double, and its highly activating features without any rounding.
#pragma once

#include "cpu/simd.h"
#include "rows/exact_set.h"

namespace sslk {
namespace SSLK_ISA {

// The row as ExactRow takes it: double, or float32 (16-bit rows are widened into the scratch row).
SSLK_INLINE const double* widened(const double* x, int64_t, float*) { return x; }
SSLK_INLINE const float* widened(const float* x, int64_t, float*) { return x; }
template <typename T>
SSLK_INLINE const float* widened(const T* x, int64_t d, float* scratch) {
  for (int64_t j = 0; j < d; j += kFloats) {
    store(scratch + j, j + kFloats <= d ? load(x + j) : load_partial(x + j, d - j));
  }
  return scratch;
}

struct ExactRow {
  double scale;  // power of two applied before everything else
  double shift;  // of the scaled row
  double delta;  // mean - shift
  double sigma;  // of the scaled row
  double norm;   // of the scaled row: that of the row itself may be larger than any number
  bool finite;
};

// The elements that are not highly activating are those from `lower` to `upper`, which are elements themselves.
struct ActiveCut {
  double lower, upper;

  SSLK_INLINE bool active(double x) const { return x > upper || x < lower; }
  SSLK_INLINE vlong active(vdouble x) const { return (x > upper) | (x < lower); }
};

SSLK_INLINE vdouble load_wide(const double* p) { return load(p); }
SSLK_INLINE vdouble load_wide(const float* p) { return __builtin_convertvector(load_as<half_vfloat>(p), vdouble); }

// Deviation from the mean of an element, or of a vector of elements, of the scaled row.
template <typename V>
SSLK_INLINE V deviation(const ExactRow& row, V x) {
  return x * row.scale - row.shift - row.delta;
}

// The sum of f(element); f takes doubles and vectors of doubles.
template <typename T, typename F>
SSLK_INLINE double sum_over(const T* x, int64_t d, F f) {
  vdouble a{}, b{};
  int64_t j = 0;
  for (; j + 2 * kDoubles <= d; j += 2 * kDoubles) {
    a += f(load_wide(x + j));
    b += f(load_wide(x + j + kDoubles));
  }
  double total = sum_of(a + b);
  for (; j < d; ++j) {
    total += f(element(x + j));
  }
  return total;
}

// x is double or float: a 16-bit row comes widened.
template <typename T>
__attribute__((noinline)) ExactRow exact_row(const T* x, int64_t d) {
  vdouble most{};
  vlong bad{};
  int64_t j = 0;
  for (; j + kDoubles <= d; j += kDoubles) {
    const vdouble magnitude = absolute(load_wide(x + j));
    bad |= ~(magnitude <= 1.7976931348623157e308);
    most = select(magnitude > most, magnitude, most);
  }
  double largest = 0.0;
  bool finite = !any(bad);
  for (int64_t i = 0; i < kDoubles; ++i) {
    largest = most[i] > largest ? most[i] : largest;
  }
  for (; j < d; ++j) {
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
  row.delta = sum_over(x, d, [&](auto v) { return deviation(row, v); }) / d;
  const double square = sum_over(x, d, [&](auto v) { return deviation(row, v) * deviation(row, v); });
  row.delta += sum_over(x, d, [&](auto v) { return deviation(row, v); }) / d;
  row.sigma = __builtin_sqrt(square / d);
  const double mean = row.shift + row.delta;
  row.norm = __builtin_sqrt(square + d * mean * mean);
  return row;
}

// The same cut where some element lies within the rounding of the threshold: those are decided in whole numbers. Equal
// neighbours, such as the ones of a binary row, are decided once.
template <bool kTwoSided, typename T>
__attribute__((noinline)) ActiveCut settled_cut(const ExactRow& row, const T* x, int64_t d, double eps, double band) {
  const ExactSet set(x, d, eps);
  const double threshold = eps * row.sigma;
  ActiveCut cut{kTwoSided ? __builtin_inf() : -__builtin_inf(), -__builtin_inf()};
  double decided = __builtin_nan("");
  int side = 0;
  for (int64_t j = 0; j < d; ++j) {
    const double v = element(x + j), c = deviation(row, v), y = __builtin_fabs(c);
    if (__builtin_fabs(y - threshold) >= band) {
      side = y < threshold ? 0 : c > 0.0 ? 1 : -1;
      decided = __builtin_nan("");
    } else if (v != decided) {
      side = set.side(v);
      decided = v;
    }
    cut.upper = side <= 0 && v > cut.upper ? v : cut.upper;
    if (kTwoSided) {
      cut.lower = side >= 0 && v < cut.lower ? v : cut.lower;
    }
  }
  return cut;
}

// Deviations are rounded by at most a few units of the row's spread per element that is summed: docs/numerics.md.
template <bool kTwoSided, typename T>
__attribute__((noinline)) ActiveCut active_cut(const ExactRow& row, const T* x, int64_t d, double eps) {
  const double infinity = __builtin_inf(), threshold = eps * row.sigma;
  const double band = 0x1p-52 * (1.0 + eps) * (d + 64) * row.sigma;
  if (!row.finite || !(threshold < infinity)) {
    return {-infinity, infinity};
  }
  vdouble upper = splat_double(-infinity), lower = splat_double(infinity);
  vlong near{};
  int64_t j = 0;
  for (; j + kDoubles <= d; j += kDoubles) {
    const vdouble v = load_wide(x + j), c = deviation(row, v);
    near |= absolute((kTwoSided ? absolute(c) : c) - threshold) < band;
    upper = select((c <= threshold) & (v > upper), v, upper);
    if (kTwoSided) {
      lower = select((c >= -threshold) & (v < lower), v, lower);
    }
  }
  ActiveCut cut{kTwoSided ? infinity : -infinity, -infinity};
  bool undecided = any(near);
  const auto take = [&](double v, bool below, bool above) {
    cut.upper = below && v > cut.upper ? v : cut.upper;
    cut.lower = kTwoSided && above && v < cut.lower ? v : cut.lower;
  };
  for (; j < d; ++j) {
    const double v = element(x + j), c = deviation(row, v);
    undecided |= __builtin_fabs((kTwoSided ? __builtin_fabs(c) : c) - threshold) < band;
    take(v, c <= threshold, c >= -threshold);
  }
  for (int64_t i = 0; i < kDoubles; ++i) {
    take(upper[i], true, false);
    take(lower[i], false, true);
  }
  return undecided ? settled_cut<kTwoSided>(row, x, d, eps, band) : cut;
}

}  // namespace SSLK_ISA
}  // namespace sslk
