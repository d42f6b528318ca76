// Q-Score and column L1 norms of rows on CUDA, one pass over memory (see rows/row_kernel.cuh for the shape of an op).
#pragma once

#include "rows/row_kernel.cuh"

namespace sslk {

// The rows' part of every op of this family.
struct ScoreArgs {
  const uint8_t* set;  // [D]
  double eps;
  bool normalize;
  bool two_sided;
  void* q;  // [N] in the accumulation type
};

// A bit per item: is it in the set.
template <typename T, int kSlots>
SSLK_DEVICE uint32_t set_bits(const uint8_t* set, const Layout<T, kSlots>& layout) {
  uint32_t bits = 0;
  for (int i = 0; i < layout.kItems; ++i) {
    if (layout.valid >> i & 1) {
      bits |= static_cast<uint32_t>(set[layout.column(i)] != 0) << i;
    }
  }
  return bits;
}

// Q of equation (1): the mean deviation over the selection, 0 when it is empty, NaN for a row with NaN or infinity.
SSLK_DEVICE double score_of(const ExactRow& row, const ExactSelection& selection, bool normalize) {
  const double mean = selection.mean(row);
  return !row.finite ? static_cast<double>(NAN) : normalize ? mean * inverse_norm(row) : mean;
}

// Q of a row, and the inverse of its norm, and |L_i| where it is counted; every thread of the team gets all of them.
template <bool kCounted = false, typename Team, typename Row>
SSLK_DEVICE double exact_score(Team& team, const Row& x, const ScoreArgs& a, double* inverse, int* active = nullptr) {
  const ExactRow row = exact_row(team, x);
  *inverse = inverse_norm(row);
  if constexpr (kCounted) {
    *active = count_exact(team, x, row, a.eps, a.two_sided);
  }
  return score_of(row, select_exact(team, x, row, a.set, a.eps, a.two_sided), a.normalize);
}

// In float32 where that can decide.
template <bool kCounted = false, typename T, typename Team, int kSlots>
SSLK_DEVICE double score(Team& team, const HeldRow<T, Team, kSlots>& row, uint32_t candidates, const ScoreArgs& a,
                         double* inverse, int* active = nullptr) {
  FastRow stats;
  Selection selection;
  if (fast_row(team, row, &stats)) {
    select_fast<kCounted ? Also::all : Also::nothing>(team, row, stats, candidates, a.eps, a.two_sided, &selection);
    if (!selection.near) {
      if constexpr (kCounted) {
        *active = selection.also;
      }
      *inverse = stats.inverse;  // of a norm above the floor
      return selection.count == 0 ? 0.0f
                                  : fast_quotient(a.normalize ? selection.sum * stats.inverse : selection.sum,
                                                  static_cast<float>(selection.count));
    }
  }
  return exact_score<kCounted>(team, row, a, inverse, active);
}

// Scores, and the numbers of highly activating features where they are counted.
template <bool kCounted>
struct QScoreOp {
  ScoreArgs args;
  int* active = nullptr;  // [N], if kCounted

  template <int kItems>
  struct State {
    uint32_t candidates;
  };

  template <typename T, typename Team>
  SSLK_DEVICE void write(const Team& team, int64_t i, double q, int count = 0) const {
    if (team.rank == 0) {
      narrow(q, static_cast<accumulation_t<T>*>(args.q) + i);
      if constexpr (kCounted) {
        active[i] = count;
      }
    }
  }
  template <typename Team, typename T, int kSlots, typename State>
  SSLK_DEVICE void begin(Team&, const Layout<T, kSlots>& layout, int64_t, State* state) const {
    state->candidates = set_bits(args.set, layout);
  }
  template <typename T, typename Team, int kSlots, typename State>
  SSLK_DEVICE void row(Team& team, const HeldRow<T, Team, kSlots>& row, State* state) const {
    double inverse;
    int count = 0;
    const double q = score<kCounted>(team, row, state->candidates, args, &inverse, &count);
    write<T>(team, row.i, q, count);
  }
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void after_row(Team&, const Layout&, State*) const {}
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void finish(Team&, const Layout&, int64_t, State*) const {}

  template <typename Team>
  SSLK_DEVICE void long_begin(Team&, int64_t) const {}
  template <typename T, typename Team>
  SSLK_DEVICE void long_row(Team& team, const MemoryRow<T>& x, int64_t i) const {
    double inverse;
    int count = 0;
    const double q = exact_score<kCounted>(team, x, args, &inverse, &count);
    write<T>(team, i, q, count);
  }
};

// Scores (where q is given) and the sums of |x| * scale over the rows of each block.
struct ColumnsOp {
  static constexpr int kRowsPerFlush = 128;  // bounds the rounding error of float sums

  ScoreArgs args;    // without q only columns are summed, and the set is not read
  double* partials;  // [grid, D]

  template <int kItems>
  struct State {
    uint32_t candidates;
    int unflushed;
    double* totals;  // [D] of the block
    float sums[kItems];
  };

  SSLK_DEVICE double* block_totals(int64_t d) const { return partials + blockIdx.x * d; }

  template <typename Team, typename T, int kSlots, typename State>
  SSLK_DEVICE void begin(Team& team, const Layout<T, kSlots>& layout, int64_t d, State* state) const {
    state->candidates = args.q == nullptr ? 0 : set_bits(args.set, layout);
    state->unflushed = 0;
#pragma unroll
    for (int i = 0; i < layout.kItems; ++i) {
      state->sums[i] = 0.0f;
    }
    if constexpr (Team::kWholeBlock) {
      state->totals = block_totals(d);
      for (int i = 0; i < layout.kItems; ++i) {
        if (layout.valid >> i & 1) {
          state->totals[layout.column(i)] = 0.0;
        }
      }
    } else {
      __shared__ double totals[Team::kMaxColumns];
      state->totals = totals;
      for (int j = threadIdx.x; j < d; j += blockDim.x) {
        totals[j] = 0.0;
      }
      __syncthreads();
    }
  }
  template <typename T, typename Team, int kSlots, typename State>
  SSLK_DEVICE void row(Team& team, const HeldRow<T, Team, kSlots>& row, State* state) const {
    double inverse = 1.0;
    if (args.q != nullptr) {
      const double q = score(team, row, state->candidates, args, &inverse);
      QScoreOp<false>{args}.template write<T>(team, row.i, q);
    } else if (args.normalize) {
      inverse = inverse_norm_of(team, row);
    }
    // Two factors: the product fits in float32, the scale of a huge row may not.
    const double scale = args.normalize ? inverse : 1.0;
    const float first = scale < 1e-15 ? 0x1p-64f : 1.0f;
    const float second = static_cast<float>(scale < 1e-15 ? scale * 0x1p64 : scale);
#pragma unroll
    for (int i = 0; i < row.kItems; ++i) {
      state->sums[i] += fabsf(row.values[i] * first) * second;
    }
  }
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void after_row(Team& team, const Layout& layout, State* state) const {
    if (++state->unflushed == kRowsPerFlush) {
      flush(team, layout, state);
    }
  }
  // Teams add in the order of their index: the same sum every time.
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void flush(Team& team, const Layout& layout, State* state) const {
    for (int turn = 0; turn < team.per_block(); ++turn) {
      if (turn == team.index) {
#pragma unroll
        for (int i = 0; i < layout.kItems; ++i) {
          if (layout.valid >> i & 1) {
            state->totals[layout.column(i)] += state->sums[i];
          }
          state->sums[i] = 0.0f;
        }
      }
      if constexpr (!Team::kWholeBlock) {
        __syncthreads();
      }
    }
    state->unflushed = 0;
  }
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void finish(Team& team, const Layout& layout, int64_t d, State* state) const {
    flush(team, layout, state);
    if constexpr (!Team::kWholeBlock) {
      double* out = block_totals(d);
      for (int j = threadIdx.x; j < d; j += blockDim.x) {
        out[j] = state->totals[j];
      }
    }
  }

  template <typename Team>
  SSLK_DEVICE void long_begin(Team& team, int64_t d) const {
    double* totals = block_totals(d);
    for (int64_t j = team.rank; j < d; j += team.width()) {
      totals[j] = 0.0;
    }
  }
  template <typename T, typename Team>
  SSLK_DEVICE void long_row(Team& team, const MemoryRow<T>& x, int64_t i) const {
    double inverse = 1.0;
    if (args.q != nullptr) {
      QScoreOp<false>{args}.template write<T>(team, i, exact_score(team, x, args, &inverse));
    } else if (args.normalize) {
      inverse = inverse_norm(exact_row(team, x));
    }
    const double scale = args.normalize ? inverse : 1.0;
    double* totals = block_totals(x.d);
    x.each(team, [&](int64_t j, double v) { totals[j] += fabs(v) * scale; });  // a column has one owner: no barrier
  }
};

template <typename Team>
constexpr int kWorkingRegisters<ColumnsOp, Team> = Team::kWholeBlock ? 60 : 64;

// A sum, and the same of smaller numbers for where it overflows.
struct Total {
  double sum, small;
  SSLK_DEVICE void merge(const Total& other) { sum += other.sum, small += other.small; }
  SSLK_DEVICE double times(double factor) const {
    return fabs(sum) == static_cast<double>(INFINITY) ? small * factor * 0x1p64 : sum * factor;
  }
};

// Zeros do not merge as nothing here: all warps of the block must be there.
struct Extremes {
  double low, high;
  SSLK_DEVICE void merge(const Extremes& other) {
    low = other.low < low ? other.low : low, high = other.high > high ? other.high : high;
  }
};

// Equations (2)-(3) from scores and norms, by one block:
// -lambda1 * mean_i(1[q_i < alpha] q_i) + lambda2 * sum_k(1[c_k > beta] c_k).
template <typename Score>
__global__ void __launch_bounds__(Block::kMaxThreads)
    penalty_loss_kernel(const Score* q, int64_t n, double lambda1, const Score* alpha, const Score* columns, int64_t d,
                        double lambda2, const Score* beta, Score* loss) {
  __shared__ typename Block::Scratch scratch;
  Block team(scratch);
  const auto sum = [&](const Score* v, int64_t size, auto term) {
    Total total{0.0, 0.0};
    for (int64_t k = threadIdx.x; k < size; k += blockDim.x) {
      const double value = term(static_cast<double>(v[k]));
      total.merge({value, value * 0x1p-64});
    }
    return team.reduce(total);
  };
  // Rounding does not take the mean out of the range of the values: none of equal ones lies above or below it.
  const auto mean = [&](const Score* v, int64_t size) {
    Extremes range{static_cast<double>(INFINITY), -static_cast<double>(INFINITY)};
    for (int64_t k = threadIdx.x; k < size; k += blockDim.x) {
      range.merge({static_cast<double>(v[k]), static_cast<double>(v[k])});
    }
    range = team.reduce(range);
    const Total total = sum(v, size, [](double x) { return x; });
    const double count = static_cast<double>(size);
    const double value =
        fabs(total.sum) == static_cast<double>(INFINITY) ? total.small / count * 0x1p64 : total.sum / count;
    return value < range.low ? range.low : value > range.high ? range.high : value;
  };
  const double low = alpha ? static_cast<double>(*alpha) : n ? mean(q, n) : 0.0;
  const double high = beta ? static_cast<double>(*beta) : mean(columns, d);
  // Written so that a NaN score makes the loss NaN, not 0.
  const Total low_scores = sum(q, n, [&](double x) { return x >= low ? 0.0 : x; });
  const Total high_columns = sum(columns, d, [&](double x) { return x <= high ? 0.0 : x; });
  if (threadIdx.x == 0) {
    narrow((n ? low_scores.times(-lambda1 / static_cast<double>(n)) : 0.0) + high_columns.times(lambda2), loss);
  }
}

}  // namespace sslk
