// The gradient of Q-Score plus column L1 norms with respect to the representations on CUDA, one pass over memory.
#pragma once

#include "qscore/kernels.cuh"

namespace sslk {

// value * sign(x), of an x that is not 0.
SSLK_DEVICE float with_sign_of(float x, float value) {
  uint32_t sign, bits;
  memcpy(&sign, &x, 4);
  memcpy(&bits, &value, 4);
  bits ^= sign & 0x80000000u;
  memcpy(&value, &bits, 4);
  return value;
}

// The gradient of one row is
//   e * (w * in_k * dir_k + b + c_k * sign(x_k) - x_k * e * p),   e = 1 / max(norm, floor) or 1
// with w = grad_q / |set|, b = -grad_q * direction / |set| / D, c = grad_column and p = <g, h>, the part along the row
// that the L2 normalisation removes (0 without normalisation or below the floor).
template <bool kColumn>
struct GradientOp {
  ScoreArgs args;           // q is not used
  const void* grad_q;       // [N] in the accumulation type, or null
  const void* grad_column;  // [D] in the accumulation type: gradient of the column L1 norms, if kColumn
  void* grad_h;             // [N, D] contiguous, in the type of h

  template <int kItems>
  struct State {
    uint32_t candidates;
    float columns[kColumn ? kItems : 1];
  };

  template <typename Team, typename T, int kSlots, typename State>
  SSLK_DEVICE void begin(Team&, const Layout<T, kSlots>& layout, int64_t, State* state) const {
    state->candidates = grad_q == nullptr ? 0 : set_bits(args.set, layout);
    if constexpr (kColumn) {
#pragma unroll
      for (int i = 0; i < layout.kItems; ++i) {
        state->columns[i] = layout.valid >> i & 1 ? static_cast<const float*>(grad_column)[layout.column(i)] : 0.0f;
      }
    }
  }

  template <typename T, typename Team, int kSlots, typename State>
  SSLK_DEVICE void row(Team& team, const HeldRow<T, Team, kSlots>& row, State* state) const {
    FastRow stats{0.0f, 0.0f, 0.0f, 1.0f, 1.0f, 0.0f};
    Selection selection{0.0f, 0, 0, false};
    uint32_t selected = 0;
    bool fast = true;
    if (grad_q != nullptr) {
      fast = fast_row(team, row, &stats);
      if (fast) {
        selected = select_fast<Also::below>(team, row, stats, state->candidates, args.eps, args.two_sided, &selection);
        fast = !selection.near;
      }
    } else if (args.normalize) {
      const double inverse = inverse_norm_of(team, row);
      fast = inverse > 1e-15 && inverse < 1e11;  // above the floor, and the inverse fits in float32
      stats.inverse = static_cast<float>(inverse);
    }
    if (!fast) {
      long_row(team, row, row.i);
      return;
    }
    const float e = args.normalize ? stats.inverse : 1.0f;
    float w = 0.0f, b = 0.0f, p = 0.0f;
    if (selection.count != 0) {
      const float grad = static_cast<const float*>(grad_q)[row.i];
      const float count = static_cast<float>(selection.count);
      w = grad / count;
      b = -w * static_cast<float>(selection.count - 2 * selection.also) / static_cast<float>(row.d);
      p = grad * (selection.sum / count) * e;
    }
    if constexpr (kColumn) {
      if (args.normalize) {
        float dot[4] = {};
#pragma unroll
        for (int i = 0; i < row.kItems; ++i) {
          dot[i % 4] += fabsf(row.values[i]) * state->columns[i];
        }
        p += team.reduce(Sum<float>{(dot[0] + dot[1]) + (dot[2] + dot[3])}).value * e;
      }
    }
    const float along = args.normalize ? e * p : 0.0f;
    store_row(static_cast<T*>(grad_h) + row.i * row.d, row.layout, [&](int i, T* out) {
      const float x = row.values[i];
      float r = args.normalize ? b - x * along : b;  // infinity times an absent term is not NaN
      if (selected >> i & 1) {
        r += args.two_sided && x - stats.shift < stats.delta ? -w : w;
      }
      if constexpr (kColumn) {
        if (x != 0.0f) {
          r += with_sign_of(x, state->columns[i]);
        }
      }
      narrow(r * e, out);
    });
  }
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void after_row(Team&, const Layout&, State*) const {}
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void finish(Team&, const Layout&, int64_t, State*) const {}

  template <typename Team>
  SSLK_DEVICE void long_begin(Team&, int64_t) const {}
  template <typename Team, typename Row>
  SSLK_DEVICE void long_row(Team& team, const Row& x, int64_t i) const {
    using T = typename Row::Element;
    using Score = accumulation_t<T>;
    const Score* columns = static_cast<const Score*>(grad_column);
    T* out = static_cast<T*>(grad_h) + i * x.d;
    const bool score = grad_q != nullptr;
    ExactRow row{1.0, 0.0, 0.0, 0.0, 1.0, true};
    if (score || args.normalize) {
      row = exact_row(team, x);
    }
    double w = 0.0, b = 0.0, p = 0.0;
    if (score) {
      const ExactSelection selection = select_exact(team, x, row, args.set, args.eps, args.two_sided);
      const double grad = static_cast<const Score*>(grad_q)[i];
      w = selection.count ? grad / selection.count : 0.0;
      b = -w * selection.direction / static_cast<double>(x.d);
      p = grad * score_of(row, selection, true);
    }
    const UnitScale unit(row);
    if (!args.normalize || unit.floor) {
      p = 0.0;
    } else if (kColumn) {
      Sum<double> dot{0.0};
      x.each(team, [&](int64_t j, double v) { dot.value += unit.of_element(fabs(v)) * columns[j]; });
      p += team.reduce(dot).value;
    }
    const double threshold = args.eps * row.sigma;
    x.each(team, [&](int64_t j, double v) {
      double r = args.normalize ? b - unit.of_element(v) * p : b;
      if (score) {
        const double c = row.deviation(v);
        if (args.set[j] != 0 && is_active(c, threshold, args.two_sided)) {
          r += args.two_sided && c < 0.0 ? -w : w;
        }
      }
      if constexpr (kColumn) {
        r += static_cast<double>(columns[j]) * ((v > 0.0) - (v < 0.0));
      }
      narrow(!row.finite ? static_cast<double>(NAN) : args.normalize ? unit.of(r) : r, out + j);
    });
  }
};

template <bool kColumn, typename Team>
constexpr int kWorkingRegisters<GradientOp<kColumn>, Team> = kColumn ? 50 : 60;

}  // namespace sslk
