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

// A bit per item: is it in the set. All loads are under way together, those of items that are no columns too.
template <typename T, int kSlots>
SSLK_DEVICE uint32_t set_bits(const uint8_t* set, const Layout<T, kSlots>& layout) {
  uint8_t in[Layout<T, kSlots>::kItems];
#pragma unroll
  for (int i = 0; i < layout.kItems; ++i) {
    in[i] = set[layout.valid >> i & 1 ? layout.column(i) : 0];
  }
  uint32_t bits = 0;
#pragma unroll
  for (int i = 0; i < layout.kItems; ++i) {
    bits |= static_cast<uint32_t>(in[i] != 0) << i;
  }
  return bits & layout.valid;
}

// What normalises a row, as two factors: their product, the inverse of the norm, has few digits or none where the norm
// is beyond the largest number or close to it.
struct UnitScale {
  double first, second;
  bool floor;  // it is the floor of the norm that divides

  SSLK_DEVICE explicit UnitScale(const ExactRow& row) : floor(row.norm / row.scale <= kNormFloor) {
    first = floor ? 1.0 / kNormFloor : row.scale;
    second = floor ? 1.0 : 1.0 / row.norm;
  }
  // Of an element of the row, which the first factor brings close to 1, and of anything else.
  SSLK_DEVICE double of_element(double x) const { return x * first * second; }
  SSLK_DEVICE double of(double value) const { return value * second * first; }
};

// Q of equation (1): the mean deviation over the selection, 0 when it is empty, NaN for a row with NaN or infinity.
SSLK_DEVICE double score_of(const ExactRow& row, const ExactSelection& selection, bool normalize) {
  if (!row.finite) {
    return static_cast<double>(NAN);
  }
  const UnitScale unit(row);
  if (normalize && !unit.floor && selection.count != 0) {
    return selection.sum / selection.count * unit.second;  // the mean may be no number in the row's own units
  }
  return normalize ? unit.of(selection.mean(row)) : selection.mean(row);
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

  ScoreArgs args;  // without q only columns are summed, and the set is not read
  int64_t d = 0;
  double* partials = nullptr;  // [grid, D]

  template <int kItems>
  struct State {
    uint32_t candidates;
    int rows;  // added so far
    float sums[kItems];
  };

  // [D] of the block: in shared memory where several teams meet.
  template <typename Team>
  SSLK_DEVICE double* totals() const {
    if constexpr (Team::kWholeBlock) {
      return partials + blockIdx.x * d;
    } else {
      __shared__ double shared[Team::kMaxColumns];
      return shared;
    }
  }

  template <typename Team, typename T, int kSlots, typename State>
  SSLK_DEVICE void begin(Team& team, const Layout<T, kSlots>& layout, int64_t d, State* state) const {
    state->candidates = args.q == nullptr ? 0 : set_bits(args.set, layout);
    state->rows = 0;
#pragma unroll
    for (int i = 0; i < layout.kItems; ++i) {
      state->sums[i] = 0.0f;
    }
    if constexpr (!Team::kWholeBlock) {
      for (int j = threadIdx.x; j < d; j += blockDim.x) {
        totals<Team>()[j] = 0.0;
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
    const double scale = args.normalize ? inverse : 1.0;
    if (scale < 1e-15) {  // the product with a huge row fits in float32, its scale may not: two factors
      const float second = static_cast<float>(scale * 0x1p64);
#pragma unroll
      for (int i = 0; i < row.kItems; ++i) {
        state->sums[i] += fabsf(row.values[i] * 0x1p-64f) * second;
      }
    } else {
      const float factor = static_cast<float>(scale);
#pragma unroll
      for (int i = 0; i < row.kItems; ++i) {
        state->sums[i] += fabsf(row.values[i]) * factor;
      }
    }
  }
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void after_row(Team& team, const Layout& layout, State* state) const {
    if (++state->rows % kRowsPerFlush == 0) {
      flush(team, layout, state);
    }
  }
  // Teams add in the order of their index: the same sum every time. A team that is the whole block stores the first
  // time, which takes less memory traffic than adding to zeros.
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void flush(Team& team, const Layout& layout, State* state) const {
    if constexpr (Team::kWholeBlock) {
      if (state->rows <= kRowsPerFlush) {
        store_row(totals<Team>(), layout, [&](int i, double* out) {
          *out = state->sums[i];
          state->sums[i] = 0.0f;
        });
        return;
      }
    }
    for (int turn = 0; turn < team.per_block(); ++turn) {
      if (turn == team.index) {
#pragma unroll
        for (int i = 0; i < layout.kItems; ++i) {
          if (layout.valid >> i & 1) {
            totals<Team>()[layout.column(i)] += state->sums[i];
          }
          state->sums[i] = 0.0f;
        }
      }
      if constexpr (!Team::kWholeBlock) {
        __syncthreads();
      }
    }
  }
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void finish(Team& team, const Layout& layout, int64_t d, State* state) const {
    if (state->rows == 0 || state->rows % kRowsPerFlush != 0) {
      flush(team, layout, state);
    }
    if constexpr (!Team::kWholeBlock) {
      double* out = partials + blockIdx.x * d;
      for (int j = threadIdx.x; j < d; j += blockDim.x) {
        out[j] = totals<Team>()[j];
      }
    }
  }

  template <typename Team>
  SSLK_DEVICE void long_begin(Team& team, int64_t d) const {
    for (int64_t j = team.rank; j < d; j += team.width()) {
      totals<Team>()[j] = 0.0;
    }
  }
  template <typename T, typename Team>
  SSLK_DEVICE void long_row(Team& team, const MemoryRow<T>& x, int64_t i) const {
    ExactRow row{1.0, 0.0, 0.0, 0.0, 1.0, true};
    if (args.q != nullptr || args.normalize) {
      row = exact_row(team, x);
    }
    if (args.q != nullptr) {
      const ExactSelection selection = select_exact(team, x, row, args.set, args.eps, args.two_sided);
      QScoreOp<false>{args}.template write<T>(team, i, score_of(row, selection, args.normalize));
    }
    const UnitScale unit(row);
    double* sums = totals<Team>();
    x.each(team, [&](int64_t j, double v) {  // a column has one owner: no barrier
      sums[j] += args.normalize ? unit.of_element(fabs(v)) : fabs(v);
    });
  }
};

template <typename Team>
constexpr int kWorkingRegisters<ColumnsOp, Team> = Team::kWholeBlock ? 60 : 64;
// A team writes a sum per column, which is as many numbers as a row has.
template <>
inline constexpr int kRowsPerTeam<ColumnsOp> = 4;

}  // namespace sslk
