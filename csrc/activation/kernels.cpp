// The highly activating features of each row, as a mask or counted, and the moments of each row.
#include "activation/kernels.h"

#include "rows/row_stats.h"

namespace sslk {
namespace SSLK_ISA {
namespace {

// Calls each(j, in) for every vector of the row (with kOnlyActive, for those of blocks that hold an active feature),
// `in` being -1 in the active lanes; true if some element lies too close to the threshold for float32 to decide.
template <bool kTwoSided, bool kOnlyActive, typename T, typename Each>
SSLK_INLINE bool each_active(const T* x, const FastRow& row, const ActivationArgs& a, Ahead ahead, Each each) {
  const double threshold = a.eps * row.sigma + (kTwoSided ? 0.0 : row.mean), error = undecided(row, a.eps);
  const float lowest = static_cast<float>(threshold - error);
  const vfloat low = splat(lowest), high = splat(static_cast<float>(threshold + error)),
               mean = splat(static_cast<float>(row.mean));
  vint near{};
  each_block<kTwoSided, kOnlyActive>(x, a.h.d, row, lowest, ahead,
                                     [&](int64_t j, const vfloat* v) __attribute__((always_inline)) {
                                       for (int u = 0; u < 4; ++u) {
                                         const int64_t at = j + u * kFloats;
                                         const vfloat y = compared<kTwoSided>(v[u], mean);
                                         const vint in = y > low;
                                         near |= in & (y <= high);
                                         each(at, in);
                                       }
                                     });
  return any(near);
}

template <bool kTwoSided, typename T>
__attribute__((noinline)) void exact_active(const ActivationArgs& a, const T* x, int64_t i) {
  const ActiveCut cut = active_cut<kTwoSided>(exact_row(x, a.h.d), x, a.h.d, a.eps);
  int32_t count = 0;
  for (int64_t j = 0; j < a.h.d; ++j) {
    const bool in = cut.active(element(x + j));
    if (a.mask != nullptr) {
      a.mask[i * a.h.d + j] = in;
    } else {
      a.column_counts[j] += in;
    }
    count += in;
  }
  if (a.row_counts != nullptr) {
    a.row_counts[i] = count;
  }
}

template <bool kTwoSided, typename T>
void activation_typed(const ActivationArgs& a, int64_t begin, int64_t end) {
  const int64_t d = a.h.d;
  for (int64_t i = begin; i < end; ++i) {
    const T* x = row_at<T>(a.h, i);
    if constexpr (sizeof(T) < sizeof(double)) {
      const T* next = i + 1 < end ? row_at<T>(a.h, i + 1) : x;
      const Ahead ahead = ahead_in_comparison(next, d);
      FastRow row;
      if (fast_row(x, d, a.scratch, ahead_in_sum(next), &row)) {
        bool near;
        if (a.mask != nullptr) {
          uint8_t* out = a.mask + i * d;
          near = each_active<kTwoSided, false>(x, row, a, ahead, [&](int64_t j, vint in) {
            const quarter_vuchar bytes = __builtin_convertvector(in & 1, quarter_vuchar);
            if (j + kFloats <= d) {
              store_as(out + j, bytes);
            } else if (j < d) {
              std::memcpy(out + j, &bytes, d - j);
            }
          });
        } else {
          vint count{};
          near = each_active<kTwoSided, true>(x, row, a, ahead, [&](int64_t j, vint in) {
            store_as(a.column_counts + j, load_as<vint>(a.column_counts + j) - in);
            count -= in;
          });
          a.row_counts[i] = lane_sum(count);
          if (near) {  // take the undecided row back
            each_active<kTwoSided, true>(x, row, a, ahead, [&](int64_t j, vint in) {
              store_as(a.column_counts + j, load_as<vint>(a.column_counts + j) + in);
            });
          }
        }
        if (!near) {
          continue;
        }
      }
    }
    exact_active<kTwoSided>(a, widened(x, a.h.d, a.scratch), i);
  }
}

template <typename T>
void moments_typed(const MomentArgs& a, int64_t begin, int64_t end) {
  using Score = accumulation_t<T>;
  for (int64_t i = begin; i < end; ++i) {
    const T* x = row_at<T>(a.h, i);
    double mean, sigma, norm;
    bool done = false;
    if constexpr (sizeof(T) < sizeof(double)) {
      FastRow row;
      done = fast_row(x, a.h.d, a.scratch, {}, &row);
      mean = row.mean, sigma = row.sigma, norm = row.norm;
    }
    if (!done) {
      const ExactRow row = exact_row(widened(x, a.h.d, a.scratch), a.h.d);
      mean = (row.shift + row.delta) / row.scale, sigma = row.sigma / row.scale, norm = row.norm / row.scale;
      if (!row.finite) {
        mean = sigma = norm = __builtin_nan("");
      }
    }
    static_cast<Score*>(a.mean)[i] = static_cast<Score>(mean);
    static_cast<Score*>(a.deviation)[i] = static_cast<Score>(sigma);
    static_cast<Score*>(a.norm)[i] = static_cast<Score>(norm);
  }
}

}  // namespace

void activation_rows(const ActivationArgs& a, int64_t begin, int64_t end) {
  with_type(a.h.dtype, [&](auto type) {
    using T = memory_t<decltype(type)>;
    a.two_sided ? activation_typed<true, T>(a, begin, end) : activation_typed<false, T>(a, begin, end);
  });
}

void moment_rows(const MomentArgs& a, int64_t begin, int64_t end) {
  with_type(a.h.dtype, [&](auto type) { moments_typed<memory_t<decltype(type)>>(a, begin, end); });
}

}  // namespace SSLK_ISA
}  // namespace sslk
