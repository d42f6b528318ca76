// Q-Score (equation 1 of Kalibhat et al.) and column L1 norms of rows, one pass over memory.
#include "qscore/kernels.h"

#include "rows/row_stats.h"

namespace sslk {
namespace SSLK_ISA {
namespace {

template <bool kTwoSided, bool kCountActive, typename T>
void qscore_typed(const QScoreArgs& a, int64_t begin, int64_t end) {
  using Score = accumulation_t<T>;
  for (int64_t i = begin; i < end; ++i) {
    const T* x = row_at<T>(a.h, i);
    const ScoredRow row = score_row<kTwoSided, kCountActive>(x, i + 1 < end ? row_at<T>(a.h, i + 1) : x, a.h.d,
                                                             a.penalty, a.eps, a.scratch);
    static_cast<Score*>(a.q)[i] = static_cast<Score>(score_of(row, a.normalize));
    if constexpr (kCountActive) {
      a.active[i] = row.finite ? static_cast<int32_t>(row.selection.active) : 0;
    }
  }
}

// Adds |x| * scale to the float sums of a chunk.
template <typename T>
SSLK_INLINE void add_magnitudes(const T* x, int64_t d, float scale, float* sums) {
  const vfloat s = splat(scale);
  int64_t j = 0;
  for (; j + kFloats <= d; j += kFloats) {
    store(sums + j, load(sums + j) + absolute(load(x + j)) * s);
  }
  if (j < d) {
    store(sums + j, load(sums + j) + absolute(load_partial(x + j, d - j)) * s);
  }
}

// Float sums are moved into double ones every kRowsPerFlush rows, which bounds their rounding error.
constexpr int64_t kRowsPerFlush = 128;

SSLK_INLINE void flush(float* sums, int64_t d, double* total) {
  for (int64_t j = 0; j < d; ++j) {
    total[j] += sums[j];
    sums[j] = 0.0f;
  }
}

template <bool kScore, bool kTwoSided, typename T>
void columns_typed(const ColumnArgs& a, int64_t begin, int64_t end) {
  using Score = accumulation_t<T>;
  const QScoreArgs& f = a.forward;
  const int64_t d = f.h.d;
  int64_t unflushed = 0;
  for (int64_t i = begin; i < end; ++i) {
    const T* x = row_at<T>(f.h, i);
    const T* next = i + 1 < end ? row_at<T>(f.h, i + 1) : x;
    double scale = 1.0;
    if constexpr (kScore) {
      const ScoredRow row = score_row<kTwoSided>(x, next, d, f.penalty, f.eps, f.scratch);
      static_cast<Score*>(f.q)[i] = static_cast<Score>(score_of(row, f.normalize));
      scale = f.normalize ? row.inverse : 1.0;
    } else if (f.normalize) {
      scale = inverse_norm_of(x, d);
    }
    if constexpr (sizeof(T) < sizeof(double)) {
      if (scale > 1e-15 && scale < 1e15) {
        add_magnitudes(x, d, static_cast<float>(scale), a.sums);
        if (++unflushed == kRowsPerFlush) {
          flush(a.sums, d, a.total);
          unflushed = 0;
        }
        continue;
      }
    }
    for (int64_t j = 0; j < d; ++j) {
      a.total[j] += __builtin_fabs(element(x + j)) * scale;
    }
  }
  flush(a.sums, d, a.total);
}

}  // namespace

void qscore_rows(const QScoreArgs& a, int64_t begin, int64_t end) {
  with_type(a.h.dtype, [&](auto type) {
    using T = memory_t<decltype(type)>;
    if (a.active == nullptr) {
      a.two_sided ? qscore_typed<true, false, T>(a, begin, end) : qscore_typed<false, false, T>(a, begin, end);
    } else {
      a.two_sided ? qscore_typed<true, true, T>(a, begin, end) : qscore_typed<false, true, T>(a, begin, end);
    }
  });
}

void column_rows(const ColumnArgs& a, int64_t begin, int64_t end) {
  with_type(a.forward.h.dtype, [&](auto type) {
    using T = memory_t<decltype(type)>;
    a.forward.q == nullptr ? columns_typed<false, false, T>(a, begin, end)
    : a.forward.two_sided  ? columns_typed<true, true, T>(a, begin, end)
                           : columns_typed<true, false, T>(a, begin, end);
  });
}

}  // namespace SSLK_ISA
}  // namespace sslk
