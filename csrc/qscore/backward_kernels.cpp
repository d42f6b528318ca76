// The gradient of Q-Score plus column L1 norms with respect to the representations, one pass over memory.
#include "qscore/kernels.h"

#include "cpu/stream_store.h"
#include "rows/row_stats.h"

namespace sslk {
namespace SSLK_ISA {
namespace {

// The gradient of one row is
//   e * (w * in_k * dir_k + b + c_k * sign(x_k) - x_k * e * p),   e = 1 / max(norm, floor) or 1
// with w = grad_q / |set|, b = -grad_q * direction / |set| / D, c = grad_column and p = <g, h>, the part along the row
// that the L2 normalisation removes (0 without normalisation or below the floor).
struct RowGradient {
  double e, w, b, p;
};

// sum_k |x_k| * c_k
template <typename T, typename Score>
SSLK_INLINE double magnitude_dot(const T* x, const Score* c, int64_t d) {
  double dot = 0.0;
  int64_t j = 0;
  if constexpr (sizeof(T) < sizeof(double)) {
    while (j + kFloats <= d) {
      vfloat sum{};
      for (const int64_t stop = d - j > kFlush ? j + kFlush : d; j + kFloats <= stop; j += kFloats) {
        sum += absolute(load(x + j)) * load(c + j);
      }
      dot += sum_of(sum);
    }
  }
  for (; j < d; ++j) {
    dot += __builtin_fabs(element(x + j)) * c[j];
  }
  return dot;
}

template <bool kScore, bool kColumn, bool kTwoSided, typename T>
SSLK_INLINE void write_fast(const RowGradient& g, const ScoredRow& row, const float* penalty, const float* columns,
                            const T* x, int64_t d, bool streamed, T* out) {
  const vfloat e = splat(g.e), w = splat(g.w), b = splat(g.b), p = splat(g.p);
  vfloat threshold{}, mean{};
  if constexpr (kScore) {
    threshold = splat(row.selection.threshold);
    mean = splat(static_cast<float>(row.fast_row.mean));
  }
  const auto gradient = [&](vfloat v, vfloat c, int64_t j) {
    vfloat r = b - v * e * p;
    if constexpr (kScore) {
      const vint in = compared<kTwoSided>(v, mean) + load(penalty + j) > threshold;
      r += select(in, kTwoSided ? select(v < mean, -w, w) : w, vfloat{});
    }
    if constexpr (kColumn) {
      r += sign(v) * c;
    }
    return r * e;
  };
  const auto column = [&](int64_t j) { return kColumn ? load(columns + j) : vfloat{}; };
  const auto partial = [&](int64_t j, int64_t lanes) {
    const vfloat c = kColumn ? load_partial(columns + j, lanes) : vfloat{};
    store_partial(out + j, gradient(load_partial(x + j, lanes), c, j), lanes);
  };
  int64_t j = 0;
  if (streamed && d >= 2 * kFloats) {
    j = stream_head(out, d);
    if (j) {
      partial(0, j);
    }
    for (; j + kFloats <= d; j += kFloats) {
      stream(out + j, gradient(load(x + j), column(j), j));
    }
  } else {
    for (; j + kFloats <= d; j += kFloats) {
      store(out + j, gradient(load(x + j), column(j), j));
    }
  }
  if (j < d) {
    partial(j, d - j);
  }
}

// sum_j columns_j |x_j e|, for rows whose products with the columns may be no number of their type.
template <typename T, typename Score>
double scaled_magnitude_dot(const T* x, const Score* columns, int64_t d, double e) {
  double total = 0.0;
  for (int64_t j = 0; j < d; ++j) {
    const double v = element(x + j) * e;
    total += static_cast<double>(columns[j]) * (v < 0.0 ? -v : v);
  }
  return total;
}

// `out` may be `x`.
template <typename T, typename Score>
void write_exact(const RowGradient& g, const ScoredRow& row, bool score, const float* penalty, const Score* columns,
                 const T* x, int64_t d, T* out) {
  for (int64_t j = 0; j < d; ++j) {
    const double v = element(x + j);
    double r = g.b - v * g.e * g.p;
    if (score) {
      const bool in = row.selection.cut.active(v) && penalty[j] == 0.0f;
      r += in ? (v < row.selection.cut.lower ? -g.w : g.w) : 0.0;
    }
    if (columns != nullptr) {
      r += static_cast<double>(columns[j]) * ((v > 0.0) - (v < 0.0));
    }
    put_element(out + j, g.e * r);
  }
}

// The same for a 16-bit row, by way of the scratch row.
template <typename T>
void write_exact_16(const RowGradient& g, const ScoredRow& row, bool score, const float* penalty, const float* columns,
                    const T* x, int64_t d, float* scratch, T* out) {
  write_exact(g, row, score, penalty, columns, widened(x, d, scratch), d, scratch);
  for (int64_t j = 0; j < d; j += kFloats) {
    if (j + kFloats <= d) {
      store(out + j, load(scratch + j));
    } else {
      store_partial(out + j, load(scratch + j), d - j);
    }
  }
}

template <bool kScore, bool kColumn, bool kTwoSided, typename T>
void gradient_typed(const GradientArgs& a, int64_t begin, int64_t end) {
  using Score = accumulation_t<T>;
  const QScoreArgs& f = a.forward;
  const int64_t d = f.h.d;
  const Score* columns = static_cast<const Score*>(a.grad_column);
  for (int64_t i = begin; i < end; ++i) {
    const T* x = row_at<T>(f.h, i);
    const T* next = i + 1 < end ? row_at<T>(f.h, i + 1) : x;
    T* out = static_cast<T*>(a.grad_h) + i * d;
    ScoredRow row;
    RowGradient g{1.0, 0.0, 0.0, 0.0};
    if constexpr (kScore) {
      row = score_row<kTwoSided>(x, next, d, f.penalty, f.eps, f.scratch);
      const double grad_q = static_cast<const Score*>(a.grad_q)[i];
      g.e = f.normalize ? row.inverse : 1.0;
      g.w = row.selection.count ? grad_q / row.selection.count : 0.0;
      g.b = -g.w * row.selection.direction / d;
      g.p = grad_q * score_of(row, true);
    } else {
      g.e = f.normalize ? inverse_norm_of(x, d) : 1.0;
      row.finite = g.e == g.e;
      row.fast = sizeof(T) < sizeof(double) && g.e > 1e-15 && g.e < 1e15;
    }
    if (!row.finite) {
      for (int64_t j = 0; j < d; ++j) {
        put_element(out + j, __builtin_nan(""));
      }
      continue;
    }
    if (!f.normalize || is_below_floor(g.e)) {
      g.p = 0.0;
    } else if (kColumn) {
      g.p += row.fast || (sizeof(T) == sizeof(double) && g.e > 1e-150) ? magnitude_dot(x, columns, d) * g.e
                                                                       : scaled_magnitude_dot(x, columns, d, g.e);
    }
    if constexpr (sizeof(T) < sizeof(double)) {
      if (row.fast) {
        write_fast<kScore, kColumn, kTwoSided>(g, row, f.penalty, columns, x, d, a.stream, out);
        continue;
      }
    }
    if constexpr (sizeof(T) == sizeof(uint16_t)) {
      write_exact_16(g, row, kScore, f.penalty, columns, x, d, f.scratch, out);
    } else {
      write_exact(g, row, kScore, f.penalty, columns, x, d, out);
    }
  }
  stream_fence();
}

}  // namespace

void gradient_rows(const GradientArgs& a, int64_t begin, int64_t end) {
  with_type(a.forward.h.dtype, [&](auto type) {
    using T = memory_t<decltype(type)>;
    if (a.grad_q == nullptr) {
      gradient_typed<false, true, false, T>(a, begin, end);
    } else if (a.grad_column == nullptr) {
      a.forward.two_sided ? gradient_typed<true, false, true, T>(a, begin, end)
                          : gradient_typed<true, false, false, T>(a, begin, end);
    } else {
      a.forward.two_sided ? gradient_typed<true, true, true, T>(a, begin, end)
                          : gradient_typed<true, true, false, T>(a, begin, end);
    }
  });
}

}  // namespace SSLK_ISA
}  // namespace sslk
