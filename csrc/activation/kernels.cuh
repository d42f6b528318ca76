// The highly activating features of each row, as a mask or counted, and the moments of each row, on CUDA
// (see rows/row_kernel.cuh for the shape of an op).
#pragma once

#include "rows/row_kernel.cuh"

namespace sslk {

struct ActivationArgs {
  double eps;
  bool two_sided;
};

// What ops without anything to keep between rows share.
struct StatelessOp {
  template <int kItems>
  struct State {};
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void begin(Team&, const Layout&, int64_t, State*) const {}
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void after_row(Team&, const Layout&, State*) const {}
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void finish(Team&, const Layout&, int64_t, State*) const {}
  template <typename Team>
  SSLK_DEVICE void long_begin(Team&, int64_t) const {}
};

// This thread's active items in a row that float32 could decide; false otherwise. total is the team's.
template <typename T, typename Team, int kSlots>
SSLK_DEVICE bool active_bits(Team& team, const HeldRow<T, Team, kSlots>& row, const ActivationArgs& a, uint32_t* bits,
                             int* total) {
  FastRow stats;
  Selection selection;
  if (!fast_row(team, row, &stats)) {
    return false;
  }
  *bits = select_fast(team, row, stats, row.layout.valid, a.eps, a.two_sided, &selection);
  *total = selection.count;
  return !selection.near;
}

struct MaskOp : StatelessOp {
  ActivationArgs args;
  uint8_t* mask;  // [N, D]

  template <typename T, typename Team, int kSlots, typename State>
  SSLK_DEVICE void row(Team& team, const HeldRow<T, Team, kSlots>& row, State*) const {
    uint32_t bits;
    int total;
    if (active_bits(team, row, args, &bits, &total)) {
      store_row(mask + row.i * row.d, row.layout, [&](int i, uint8_t* out) { *out = bits >> i & 1; });
    } else {
      long_row(team, row, row.i);
    }
  }
  template <typename Team, typename Row>
  SSLK_DEVICE void long_row(Team& team, const Row& x, int64_t i) const {
    const ExactRow row = exact_row(team, x);
    const double threshold = args.eps * row.sigma;
    uint8_t* out = mask + i * x.d;
    x.each(team,
           [&](int64_t j, double v) { out[j] = row.finite && is_active(row.deviation(v), threshold, args.two_sided); });
  }
};

// A counter per item, bit by bit: word k holds bit k of all of them. To add a bit to each is an addition with carry.
struct BitCounters {
  static constexpr int kBits = 12, kFew = 4;
  static constexpr int kMost = (1 << kBits) - 1;
  uint32_t words[kBits];

  SSLK_DEVICE void clear() {
#pragma unroll
    for (int k = 0; k < kBits; ++k) {
      words[k] = 0;
    }
  }
  template <int kFrom, int kTo>
  SSLK_DEVICE uint32_t add(uint32_t carry) {
#pragma unroll
    for (int k = kFrom; k < kTo; ++k) {
      const uint32_t sum = words[k] ^ carry;
      carry &= words[k];
      words[k] = sum;
    }
    return carry;
  }
  SSLK_DEVICE void add(uint32_t bits) {
    if (const uint32_t carry = add<0, kFew>(bits)) {
      add<kFew, kBits>(carry);
    }
  }
  SSLK_DEVICE unsigned count(int item) const {
    unsigned sum = 0;
#pragma unroll
    for (int k = 0; k < kBits; ++k) {
      sum |= (words[k] >> item & 1) << k;
    }
    return sum;
  }
};

// Counts per feature go to memory by integer atomics: the order does not matter to the sum.
struct CountsOp {
  ActivationArgs args;
  unsigned long long* features;  // [D] zeros
  int* rows;                     // [N]

  template <int kItems>
  struct State {
    BitCounters counters;
    int counted;
  };

  template <typename Team, typename T, int kSlots, typename State>
  SSLK_DEVICE void begin(Team&, const Layout<T, kSlots>&, int64_t, State* state) const {
    state->counters.clear();
    state->counted = 0;
  }
  template <typename T, typename Team, int kSlots, typename State>
  SSLK_DEVICE void row(Team& team, const HeldRow<T, Team, kSlots>& row, State* state) const {
    uint32_t bits;
    int total;
    if (active_bits(team, row, args, &bits, &total)) {
      state->counters.add(bits);
      if (++state->counted == BitCounters::kMost) {
        add_counts(row.layout, state, features);
      }
      if (team.rank == 0) {
        rows[row.i] = total;
      }
    } else {
      long_row(team, row, row.i);
    }
  }
  template <typename Team, typename Layout, typename State>
  SSLK_DEVICE void after_row(Team&, const Layout&, State*) const {}

  // To [D] in global or shared memory.
  template <typename Layout, typename State, typename Count>
  SSLK_DEVICE static void add_counts(const Layout& layout, State* state, Count* features) {
#pragma unroll 1
    for (int i = 0; i < layout.kItems; ++i) {
      if (const unsigned count = state->counters.count(i)) {
        atomicAdd(features + layout.column(i), static_cast<Count>(count));
      }
    }
    state->counters.clear();
    state->counted = 0;
  }
  // The teams of a block meet in shared memory first.
  template <typename Team, typename T, int kSlots, typename State>
  SSLK_DEVICE void finish(Team&, const Layout<T, kSlots>& layout, int64_t d, State* state) const {
    if constexpr (Team::kWholeBlock) {
      add_counts(layout, state, features);
    } else {
      __shared__ unsigned counts[Team::kMaxColumns];
      for (int j = threadIdx.x; j < d; j += blockDim.x) {
        counts[j] = 0;
      }
      __syncthreads();
      add_counts(layout, state, counts);
      __syncthreads();
      for (int j = threadIdx.x; j < d; j += blockDim.x) {
        if (counts[j] != 0) {
          atomicAdd(features + j, static_cast<unsigned long long>(counts[j]));
        }
      }
    }
  }

  template <typename Team>
  SSLK_DEVICE void long_begin(Team&, int64_t) const {}
  template <typename Team, typename Row>
  SSLK_DEVICE void long_row(Team& team, const Row& x, int64_t i) const {
    const ExactRow row = exact_row(team, x);
    const double threshold = args.eps * row.sigma;
    Sum<int> count{0};
    x.each(team, [&](int64_t j, double v) {
      if (row.finite && is_active(row.deviation(v), threshold, args.two_sided)) {
        atomicAdd(features + j, 1ull);
        count.value += 1;
      }
    });
    count = team.reduce(count);
    if (team.rank == 0) {
      rows[i] = count.value;
    }
  }
};

template <typename Team>
constexpr int kWorkingRegisters<CountsOp, Team> = 58;

struct MomentsOp : StatelessOp {
  void* mean;  // [N] each, in the accumulation type
  void* deviation;
  void* norm;

  template <typename T, typename Team, typename Value>
  SSLK_DEVICE void write(const Team& team, int64_t i, Value m, Value s, Value n) const {
    using Score = accumulation_t<T>;
    if (team.rank == 0) {
      narrow(m, static_cast<Score*>(mean) + i);
      narrow(s, static_cast<Score*>(deviation) + i);
      narrow(n, static_cast<Score*>(norm) + i);
    }
  }
  template <typename T, typename Team, int kSlots, typename State>
  SSLK_DEVICE void row(Team& team, const HeldRow<T, Team, kSlots>& row, State*) const {
    FastRow stats;
    if (fast_row(team, row, &stats)) {
      write<T>(team, row.i, stats.shift + stats.delta, stats.sigma, stats.norm);
    } else {
      long_row(team, row, row.i);
    }
  }
  template <typename Team, typename Row>
  SSLK_DEVICE void long_row(Team& team, const Row& x, int64_t i) const {
    const ExactRow row = exact_row(team, x);
    if (row.finite) {
      write<typename Row::Element>(team, i, (row.shift + row.delta) / row.scale, row.sigma / row.scale,
                                   row.norm / row.scale);
    } else {
      const double nan = NAN;
      write<typename Row::Element>(team, i, nan, nan, nan);
    }
  }
};

template <typename Team>
constexpr int kWorkingRegisters<MomentsOp, Team> = 56;

}  // namespace sslk
