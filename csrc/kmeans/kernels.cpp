// Nearest centroids: the product's scores narrow the choice down, exact distances decide.
#include "kmeans/kernels.h"

#include "cpu/simd.h"

namespace sslk {
namespace SSLK_ISA {
namespace {

template <typename T>
SSLK_INLINE const T* row_at(const Rows& x, int64_t i) {
  return static_cast<const T*>(x.data) + i * x.stride;
}

template <typename C>
struct Vector {
  typedef vfloat type;
  typedef vint mask;
  static constexpr int64_t lanes = kFloats;
};
template <>
struct Vector<double> {
  typedef vdouble type;
  typedef vlong mask;
  static constexpr int64_t lanes = kDoubles;
};

// kFloats elements in double. Halves are loaded, not split: taking a vector apart goes through memory.
struct DoublePair {
  vdouble low, high;
};
SSLK_INLINE DoublePair load_doubles(const float* p) {
  return {__builtin_convertvector(load_as<half_vfloat>(p), vdouble),
          __builtin_convertvector(load_as<half_vfloat>(p + kDoubles), vdouble)};
}
template <typename T>
SSLK_INLINE DoublePair load_doubles(const T* p) {
  float lanes[kFloats];
  store(lanes, load(p));
  return load_doubles(lanes);
}

// A squared distance, value * 2^(1200 step): step is 0 but for float64 whose squares would leave the range.
struct Distance {
  int step;
  double value;

  bool usable() const { return value < __builtin_inf(); }
  bool operator<(const Distance& other) const { return step != other.step ? step < other.step : value < other.value; }
};
constexpr double kUp = 0x1p600, kDown = 0x1p-600;

// sum_j y_j^2 of the differences y = difference(x, c), in double. The sixteen sums and the tree that adds them up are
// the same on every instruction set: where two centroids are equally near, all choose the same one.
template <typename T, typename Difference>
SSLK_INLINE double sum_of_squares(const T* x, const T* c, int64_t d, Difference difference) {
  constexpr int64_t kSums = 16;
  vdouble sum[kSums / kDoubles] = {};
  const auto add = [](vdouble* to, vdouble y) { *to += rounded(y * y); };
  int64_t j = 0;
  for (; j + kSums <= d; j += kSums) {
    if constexpr (sizeof(T) == sizeof(double)) {
      for (int64_t u = 0; u < kSums / kDoubles; ++u) {
        add(&sum[u], difference(load(x + j + u * kDoubles), load(c + j + u * kDoubles)));
      }
    } else {
      for (int64_t u = 0; u < kSums / kFloats; ++u) {
        const DoublePair a = load_doubles(x + j + u * kFloats), b = load_doubles(c + j + u * kFloats);
        add(&sum[2 * u], difference(a.low, b.low));
        add(&sum[2 * u + 1], difference(a.high, b.high));
      }
    }
  }
  double sums[kSums];
  std::memcpy(sums, sum, sizeof sums);
  for (int64_t t = 0; j < d; ++j, ++t) {
    const double y = difference(element(x + j), element(c + j));
    sums[t] += rounded(y * y);
  }
  for (int64_t half = kSums / 2; half > 0; half /= 2) {
    for (int64_t t = 0; t < half; ++t) {
      sums[t] += sums[t + half];
    }
  }
  return sums[0];
}

template <typename T>
SSLK_INLINE Distance squared_distance(const T* x, const T* c, int64_t d) {
  const double value = sum_of_squares(x, c, d, [](auto a, auto b) { return a - b; });
  if constexpr (sizeof(T) == sizeof(double)) {
    if (value < 0x1p-900) {
      return {-1, sum_of_squares(x, c, d, [](auto a, auto b) { return (a - b) * kUp; })};
    }
    if (!(value < __builtin_inf())) {
      return {1, sum_of_squares(x, c, d, [](auto a, auto b) { return a * kDown - b * kDown; })};
    }
  }
  return {0, value};
}

// |x|^2 for the bound on rounding errors: infinite or NaN where x is, and where squares overflow.
template <typename T>
SSLK_INLINE double squared_norm(const T* x, int64_t d) {
  double total = 0.0;
  int64_t j = 0;
  if constexpr (sizeof(T) < sizeof(double)) {
    vdouble sum[2] = {};
    for (; j + kFloats <= d; j += kFloats) {
      const DoublePair y = load_doubles(x + j);
      sum[0] += y.low * y.low;
      sum[1] += y.high * y.high;
    }
    total = sum_of(sum[0] + sum[1]);
  }
  for (; j < d; ++j) {
    total += element(x + j) * element(x + j);
  }
  return total;
}

template <typename T>
SSLK_INLINE bool is_finite(const T* x, int64_t d) {
  for (int64_t j = 0; j < d; ++j) {
    if (!(__builtin_fabs(element(x + j)) < __builtin_inf())) {
      return false;
    }
  }
  return true;
}

template <typename T>
SSLK_INLINE Distance exact_distance(const AssignArgs& a, int64_t i, int64_t k) {
  return squared_distance(row_at<T>(a.x, i), row_at<T>(a.centroids, k), a.x.d);
}

// Keeps the candidates that are still within the margin; if that frees no place, the nearest of them alone.
template <typename T>
SSLK_INLINE void make_room(const AssignArgs& a, int64_t i, Nearest* r) {
  int32_t kept = 0;
  for (int32_t k = 0; k < r->count; ++k) {
    if (r->score[k] <= r->best + r->margin) {
      r->index[kept] = r->index[k];
      r->score[kept] = r->score[k];
      ++kept;
    }
  }
  r->count = kept;
  if (kept < kCandidates) {
    return;
  }
  int32_t nearest = 0;
  Distance least = exact_distance<T>(a, i, r->index[0]);
  for (int32_t k = 1; k < kCandidates; ++k) {
    const Distance distance = exact_distance<T>(a, i, r->index[k]);
    if (distance < least) {
      least = distance, nearest = k;
    }
  }
  r->index[0] = r->index[nearest];
  r->score[0] = r->score[nearest];
  r->count = 1;
}

// The error of a score is at most D roundings of the product and a few of the shift, the norms and the subtraction;
// that of an exact distance D roundings in double.
template <typename T, typename C>
SSLK_INLINE void start(const AssignArgs& a, int64_t i, Nearest* r) {
  constexpr bool wide = sizeof(C) == sizeof(double);
  constexpr double unit = wide ? 0x1p-53 : 0x1p-24, tiniest = wide ? 0x1p-1022 : 0x1p-126, range = wide ? 1e300 : 1e37;
  const double norm =
      __builtin_sqrt(a.norms != nullptr ? a.norms[i - a.first] : squared_norm(row_at<T>(a.x, i), a.x.d));
  const double both = norm + a.largest;
  const double error =
      unit * ((a.x.d + 8) * norm * a.largest + 4.0 * both * both) + static_cast<double>(a.x.d) * tiniest;
  const double exact_error = 0x1p-53 * (a.x.d + 8) * both * both;
  r->finite = norm < __builtin_inf() || is_finite(row_at<T>(a.x, i), a.x.d);
  r->best = __builtin_inf();
  r->margin = both * both < range ? 2.0 * (error + exact_error) : __builtin_inf();
  r->count = 0;
}

template <typename T, typename C>
SSLK_INLINE void scan(const AssignArgs& a, int64_t i, Nearest* r) {
  using V = typename Vector<C>::type;
  constexpr int64_t lanes = Vector<C>::lanes;
  constexpr int64_t kVectors = 8, kBlock = kVectors * lanes;  // a block's minima decide whether it is looked at again
  constexpr int64_t kMaxBlocks = 64;
  const C* half = static_cast<const C*>(a.half_norms);
  const C* p = static_cast<const C*>(a.products) + (i - a.first) * a.columns;
  for (int64_t start = 0; start < a.columns; start += kMaxBlocks * kBlock) {
    const int64_t stop = a.columns - start < kMaxBlocks * kBlock ? a.columns : start + kMaxBlocks * kBlock;
    V lowest[kMaxBlocks];
    V least = V{} + static_cast<C>(__builtin_inf());
    int64_t blocks = 0, k = start;
    const auto score = [&](int64_t t) { return load(half + t) - load(p + t); };
    while (k + lanes <= stop) {
      const int64_t vectors = (stop - k) / lanes < kVectors ? (stop - k) / lanes : kVectors;
      V m = score(k);
      for (int64_t u = 1; u < vectors; ++u) {
        const V y = score(k + u * lanes);
        m = y < m ? y : m;
      }
      k += vectors * lanes;
      lowest[blocks++] = m;
      least = m < least ? m : least;
    }
    C lowest_score = least[0];
    for (int64_t l = 1; l < lanes; ++l) {
      lowest_score = least[l] < lowest_score ? least[l] : lowest_score;
    }
    for (int64_t t = k; t < stop; ++t) {
      const C y = half[t] - p[t];
      lowest_score = y < lowest_score ? y : lowest_score;
    }
    r->best = lowest_score < r->best ? lowest_score : r->best;
    const double limit = r->best + r->margin;
    if (!(lowest_score <= limit && lowest_score < __builtin_inf())) {
      continue;
    }
    const auto look = [&](int64_t from, int64_t to) {
      for (int64_t t = from; t < to; ++t) {
        const double y = static_cast<double>(half[t] - p[t]);
        if (y <= limit) {
          if (r->count == kCandidates) {
            make_room<T>(a, i, r);
          }
          r->index[r->count] = static_cast<int32_t>(a.first_centroid + t);
          r->score[r->count++] = y;
        }
      }
    };
    // Higher by more than the rounding of the limit, so that no candidate is missed.
    const C bound = static_cast<C>(limit + 0.5 * r->margin);
    for (int64_t b = 0; b < blocks; ++b) {
      if (any(bits_as<vint>(lowest[b] <= V{} + bound))) {
        const int64_t from = start + b * kBlock;
        look(from, from + kBlock < k ? from + kBlock : k);
      }
    }
    look(k, stop);
  }
}

template <typename T>
SSLK_INLINE void finish(const AssignArgs& a, int64_t i, const Nearest* r) {
  Distance least{0, __builtin_nan("")};
  int32_t nearest = 0;
  const auto look = [&](int32_t k) {
    const Distance distance = exact_distance<T>(a, i, k);
    if (distance.usable() && (!least.usable() || distance < least)) {
      least = distance, nearest = k;
    }
  };
  if (r->finite && r->count == 0) {  // the products cannot rank this row: every centroid
    for (int64_t k = 0; k < a.centroids.n; ++k) {
      look(static_cast<int32_t>(k));
    }
  } else if (r->finite) {
    for (int32_t k = 0; k < r->count; ++k) {
      if (r->score[k] <= r->best + r->margin) {
        look(r->index[k]);
      }
    }
  }
  const double back = least.step == 0 ? 1.0 : least.step > 0 ? kUp : kDown;
  a.assignment[i] = nearest;
  static_cast<accumulation_t<T>*>(a.distance)[i] = static_cast<accumulation_t<T>>(least.value * back * back);
}

}  // namespace

void assign_rows(const AssignArgs& a, int64_t begin, int64_t end) {
  with_type(a.x.dtype, [&](auto type) {
    using T = memory_t<decltype(type)>;
    using C = accumulation_t<T>;
    for (int64_t i = begin; i < end; ++i) {
      Nearest* r = a.nearest + (i - a.first);
      if (a.first_centroid == 0) {
        start<T, C>(a, i, r);
      }
      if (r->margin < __builtin_inf()) {
        scan<T, C>(a, i, r);
      }
      if (a.first_centroid + a.columns == a.centroids.n) {
        finish<T>(a, i, r);
      }
    }
  });
}

}  // namespace SSLK_ISA
}  // namespace sslk
