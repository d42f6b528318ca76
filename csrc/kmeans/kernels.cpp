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

SSLK_INLINE vdouble lower_half(vfloat v) {
  half_vfloat h;
  std::memcpy(&h, &v, sizeof h);
  return __builtin_convertvector(h, vdouble);
}
SSLK_INLINE vdouble upper_half(vfloat v) {
  half_vfloat h;
  std::memcpy(&h, reinterpret_cast<const char*>(&v) + sizeof h, sizeof h);
  return __builtin_convertvector(h, vdouble);
}

// sum_j (x_j - c_j)^2 in double.
template <typename T>
SSLK_INLINE double squared_distance(const T* x, const T* c, int64_t d) {
  vdouble sum[2] = {};
  int64_t j = 0;
  if constexpr (sizeof(T) == sizeof(double)) {
    for (; j + 2 * kDoubles <= d; j += 2 * kDoubles) {
      for (int u = 0; u < 2; ++u) {
        const vdouble y = load(x + j + u * kDoubles) - load(c + j + u * kDoubles);
        sum[u] += y * y;
      }
    }
  } else {
    for (; j + kFloats <= d; j += kFloats) {
      const vfloat a = load(x + j), b = load(c + j);
      const vdouble low = lower_half(a) - lower_half(b), high = upper_half(a) - upper_half(b);
      sum[0] += low * low;
      sum[1] += high * high;
    }
  }
  double total = sum_of(sum[0] + sum[1]);
  for (; j < d; ++j) {
    const double y = element(x + j) - element(c + j);
    total += y * y;
  }
  return total;
}

template <typename T>
SSLK_INLINE double exact_distance(const AssignArgs& a, int64_t i, int64_t k) {
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
  double least = exact_distance<T>(a, i, r->index[0]);
  for (int32_t k = 1; k < kCandidates; ++k) {
    const double distance = exact_distance<T>(a, i, r->index[k]);
    if (distance < least) {
      least = distance, nearest = k;
    }
  }
  r->index[0] = r->index[nearest];
  r->score[0] = r->score[nearest];
  r->count = 1;
}

template <typename T, typename C>
void scan_typed(const AssignArgs& a, int64_t begin, int64_t end) {
  using V = typename Vector<C>::type;
  constexpr int64_t lanes = Vector<C>::lanes;
  constexpr int64_t kVectors = 8, kBlock = kVectors * lanes;  // a block's minima decide whether it is looked at again
  constexpr int64_t kMaxBlocks = 64;
  const C* half = static_cast<const C*>(a.half_norms);
  for (int64_t i = begin; i < end; ++i) {
    const C* p = static_cast<const C*>(a.products) + (i - a.first) * a.columns;
    Nearest* r = a.nearest + (i - a.first);
    if (!(r->margin < __builtin_inf())) {
      continue;  // not finite, or beyond the range of the products: decided at the end
    }
    for (int64_t start = 0; start < a.columns; start += kMaxBlocks * kBlock) {
      const int64_t stop = a.columns - start < kMaxBlocks * kBlock ? a.columns : start + kMaxBlocks * kBlock;
      V lowest[kMaxBlocks];
      V least = V{} + static_cast<C>(__builtin_inf());
      int64_t blocks = 0, k = start;
      for (; k + kBlock <= stop; k += kBlock) {
        V m = load(half + k) - load(p + k);
#pragma GCC unroll 8
        for (int64_t u = 1; u < kVectors; ++u) {
          const V y = load(half + k + u * lanes) - load(p + k + u * lanes);
          m = y < m ? y : m;
        }
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
          look(start + b * kBlock, start + (b + 1) * kBlock);
        }
      }
      look(k, stop);
    }
  }
}

// Every centroid by its exact distance, for rows that the products cannot rank.
template <typename T>
SSLK_INLINE int32_t search_all(const AssignArgs& a, int64_t i, double* distance) {
  int32_t nearest = 0;
  *distance = __builtin_nan("");
  for (int64_t k = 0; k < a.centroids.n; ++k) {
    const double y = exact_distance<T>(a, i, k);
    if (y < *distance || (*distance != *distance && y == y && y < __builtin_inf())) {
      *distance = y, nearest = static_cast<int32_t>(k);
    }
  }
  return nearest;
}

template <typename T>
void finish_typed(const AssignArgs& a, int64_t begin, int64_t end) {
  using Score = accumulation_t<T>;
  for (int64_t i = begin; i < end; ++i) {
    Nearest* r = a.nearest + (i - a.first);
    double distance = __builtin_nan("");
    int32_t nearest = 0;
    if (r->norm < __builtin_inf()) {
      if (r->count == 0) {
        nearest = search_all<T>(a, i, &distance);
      }
      for (int32_t k = 0; k < r->count; ++k) {
        if (r->score[k] <= r->best + r->margin) {
          const double y = exact_distance<T>(a, i, r->index[k]);
          if (!(distance <= y)) {
            distance = y, nearest = r->index[k];
          }
        }
      }
    }
    a.assignment[i] = nearest;
    static_cast<Score*>(a.distance)[i] = static_cast<Score>(distance);
  }
}

template <typename T>
SSLK_INLINE double squared_norm(const T* x, int64_t d) {
  double total = 0.0;
  int64_t j = 0;
  if constexpr (sizeof(T) < sizeof(double)) {
    vdouble sum[2] = {};
    for (; j + kFloats <= d; j += kFloats) {
      const vfloat y = load(x + j);
      const vdouble low = lower_half(y), high = upper_half(y);
      sum[0] += low * low;
      sum[1] += high * high;
    }
    total = sum_of(sum[0] + sum[1]);
  }
  for (; j < d; ++j) {
    total += element(x + j) * element(x + j);
  }
  return total;
}

}  // namespace

void start_nearest(const AssignArgs& a, const double* norms, int64_t begin, int64_t end) {
  with_type(a.x.dtype, [&](auto type) {
    using T = memory_t<decltype(type)>;
    const bool wide = a.dtype == Dtype::f64;
    const double unit = wide ? 0x1p-53 : 0x1p-24, tiniest = wide ? 0x1p-1022 : 0x1p-126;
    const double range = wide ? 1e300 : 1e37;
    for (int64_t i = begin; i < end; ++i) {
      Nearest* r = a.nearest + (i - a.first);
      const double norm = __builtin_sqrt(norms != nullptr ? norms[i - a.first] : squared_norm(row_at<T>(a.x, i), a.x.d));
      const double both = norm + a.largest;
      // Error of a score: D roundings of the product at most, a few of the shift, the norms and the subtraction.
      const double error =
          unit * ((a.x.d + 8) * norm * a.largest + 4.0 * both * both) + static_cast<double>(a.x.d) * tiniest;
      r->norm = norm;
      r->best = __builtin_inf();
      r->margin = both * both < range ? 2.0 * error : __builtin_inf();
      r->count = 0;
    }
  });
}

void scan_tile(const AssignArgs& a, int64_t begin, int64_t end) {
  with_type(a.x.dtype, [&](auto type) {
    using T = memory_t<decltype(type)>;
    scan_typed<T, accumulation_t<T>>(a, begin, end);
  });
}

void finish_nearest(const AssignArgs& a, int64_t begin, int64_t end) {
  with_type(a.x.dtype, [&](auto type) { finish_typed<memory_t<decltype(type)>>(a, begin, end); });
}

}  // namespace SSLK_ISA
}  // namespace sslk
