// The penalty of equations (2)-(3) from scores and column norms on CUDA:
//   -lambda1 * mean_i(1[q_i < alpha] q_i) + lambda2 * sum_k(1[c_k > beta] c_k)
// with the means of q and c for an alpha and a beta that are not given.
//
// Two passes: sums and extremes, which make the means, then the sums that the means select. Few values are one block's
// work; more of them are spread over blocks, each of which keeps to either the scores or the columns. Every sum has an
// order that depends on the sizes alone.
#pragma once

#include <algorithm>

#include "rows/team.cuh"

namespace sslk {

template <typename Score>
struct PenaltyArgs {
  const Score* q;  // [N]
  int64_t n;
  double lambda1;
  const Score* alpha;    // of one number, or null
  const Score* columns;  // [D]
  int64_t d;
  double lambda2;
  const Score* beta;  // of one number, or null
};

// A sum, and the same of smaller numbers for where it overflows.
struct Total {
  double sum, small;
  SSLK_DEVICE void add(double value) { sum += value, small += value * 0x1p-64; }
  SSLK_DEVICE void merge(const Total& other) { sum += other.sum, small += other.small; }
  SSLK_DEVICE bool overflows() const { return fabs(sum) == static_cast<double>(INFINITY); }
  SSLK_DEVICE double times(double factor) const { return overflows() ? small * factor * 0x1p64 : sum * factor; }
};

template <typename Score>
struct Spread {
  Total total;
  Score low, high;

  static SSLK_DEVICE Spread none() { return {{0.0, 0.0}, static_cast<Score>(INFINITY), -static_cast<Score>(INFINITY)}; }
  SSLK_DEVICE void include(Score other_low, Score other_high) {
    low = other_low < low ? other_low : low, high = other_high > high ? other_high : high;
  }
  SSLK_DEVICE void add(Score value) {
    total.add(static_cast<double>(value));
    include(value, value);
  }
  SSLK_DEVICE void merge(const Spread& other) {
    total.merge(other.total);
    include(other.low, other.high);
  }
  // Rounding does not take the mean out of the range of the values: none of equal ones lies above or below it.
  SSLK_DEVICE double mean(int64_t count) const {
    const double size = static_cast<double>(count);
    const double value = total.overflows() ? total.small / size * 0x1p64 : total.sum / size;
    const double least = static_cast<double>(low), most = static_cast<double>(high);
    return value < least ? least : value > most ? most : value;
  }
};

// Warps of a block that work on one vector.
struct WarpSpan {
  static constexpr int kMaxThreads = 512;
  static constexpr int kMaxWarps = kMaxThreads / 32;
  int first, count;

  SSLK_DEVICE int rank() const { return static_cast<int>(threadIdx.x) - first * 32; }
  SSLK_DEVICE int width() const { return count * 32; }

  // What the warps of the span merge to. Holds a barrier of the block; `slots` is used once.
  template <typename V>
  SSLK_DEVICE V reduce(V (&slots)[kMaxWarps], const V& v) const {
    publish(slots, v);
    return folded(slots);
  }
  template <typename V>
  static SSLK_DEVICE void publish(V (&slots)[kMaxWarps], const V& v) {
    const V own = reduce_lanes<32>(0xffffffffu, v);
    if (threadIdx.x % 32 == 0) {
      slots[threadIdx.x / 32] = own;
    }
    __syncthreads();
  }
  template <typename V>
  SSLK_DEVICE V folded(const V (&slots)[kMaxWarps]) const {
    V total = slots[first];
#pragma unroll 4
    for (int w = first + 1; w < first + count; ++w) {
      total.merge(slots[w]);
    }
    return total;
  }
};

// The scores or the column norms, or a part of them.
template <typename Score>
struct LossValues {
  const Score* values;
  int64_t size;
  int64_t count;       // of the whole vector
  const Score* given;  // the threshold, or null for the mean
  bool above;          // selects what lies above the threshold, not below it

  SSLK_DEVICE LossValues(const PenaltyArgs<Score>& a, bool scores)
      : values(scores ? a.q : a.columns),
        size(scores ? a.n : a.d),
        count(size),
        given(scores ? a.alpha : a.beta),
        above(!scores) {}

  // Part `index` of those with `most` values, of which the last ones may have fewer or none.
  SSLK_DEVICE void take_part(int index, int64_t most) {
    const int64_t begin = index * most, left = count - begin;
    values += left > 0 ? begin : 0;
    size = left < 0 ? 0 : left < most ? left : most;
  }

  // Calls body(value) for every value of this thread, with several loads under way at a time. Past the end the first
  // one is loaded again: a predicate for each would let the compiler wait for one load before the next.
  template <typename Body>
  SSLK_DEVICE void each(const WarpSpan& span, Body body) const {
    constexpr int kLoads = 8;
#pragma unroll 1
    for (int64_t k = span.rank(); k < size; k += kLoads * span.width()) {
      const int64_t left = size - k;
      Score loaded[kLoads];
#pragma unroll
      for (int u = 0; u < kLoads; ++u) {
        loaded[u] = values[k + (u * span.width() < left ? u * span.width() : 0)];
      }
#pragma unroll
      for (int u = 0; u < kLoads; ++u) {
        if (u * span.width() < left) {
          body(loaded[u]);
        }
      }
    }
  }
  SSLK_DEVICE Spread<Score> spread(const WarpSpan& span) const {
    Spread<Score> out = Spread<Score>::none();
    if (given == nullptr) {
      each(span, [&](Score value) { out.add(value); });
    }
    return out;
  }
  SSLK_DEVICE double threshold(const Spread<Score>& all) const {
    return given ? static_cast<double>(*given) : count ? all.mean(count) : 0.0;
  }
  // Written so that a NaN score makes the loss NaN, not 0.
  SSLK_DEVICE Total selected(const WarpSpan& span, double threshold) const {
    Total out{0.0, 0.0};
    each(span, [&](Score score) {
      const double value = static_cast<double>(score);
      out.add((above ? value <= threshold : value >= threshold) ? 0.0 : value);
    });
    return out;
  }
};

template <typename Score>
SSLK_DEVICE void write_loss(const PenaltyArgs<Score>& a, const Total& scores, const Total& columns, Score* loss) {
  narrow((a.n ? scores.times(-a.lambda1 / static_cast<double>(a.n)) : 0.0) + columns.times(a.lambda2), loss);
}

// By one block, whose first warps take the scores.
template <typename Score>
__global__ void __launch_bounds__(WarpSpan::kMaxThreads)
    penalty_loss_kernel(PenaltyArgs<Score> a, int score_warps, Score* loss) {
  __shared__ Spread<Score> spreads[WarpSpan::kMaxWarps];
  __shared__ Total totals[WarpSpan::kMaxWarps];
  const WarpSpan of_scores{0, score_warps}, of_columns{score_warps, static_cast<int>(blockDim.x) / 32 - score_warps};
  const bool scores = static_cast<int>(threadIdx.x) / 32 < score_warps;
  const WarpSpan own = scores ? of_scores : of_columns;
  const LossValues<Score> values(a, scores);
  const double threshold = values.threshold(own.reduce(spreads, values.spread(own)));
  WarpSpan::publish(totals, values.selected(own, threshold));
  if (threadIdx.x == 0) {
    write_loss(a, of_scores.folded(totals), of_columns.folded(totals), loss);
  }
}

// The blocks of a grid: the first ones take the scores, the others the columns.
struct LossBlocks {
  int scores, columns;
  int64_t per_scores, per_columns;  // values of a block

  // The values of this block, and which of the blocks have the same vector.
  template <typename Score>
  SSLK_DEVICE LossValues<Score> own(const PenaltyArgs<Score>& a, int* first, int* count) const {
    const int block = blockIdx.x;
    LossValues<Score> values(a, block < scores);
    *first = block < scores ? 0 : scores;
    *count = block < scores ? scores : columns;
    values.take_part(block - *first, block < scores ? per_scores : per_columns);
    return values;
  }
};

template <typename Score>
__global__ void __launch_bounds__(WarpSpan::kMaxThreads)
    penalty_spread_kernel(PenaltyArgs<Score> a, LossBlocks blocks, Spread<Score>* spreads) {
  __shared__ Spread<Score> slots[WarpSpan::kMaxWarps];
  const WarpSpan all{0, static_cast<int>(blockDim.x) / 32};
  int first, count;
  const LossValues<Score> values = blocks.own(a, &first, &count);
  const Spread<Score> spread = all.reduce(slots, values.spread(all));
  if (threadIdx.x == 0) {
    spreads[blockIdx.x] = spread;
  }
}

// Every block joins the spreads of its vector itself, in the same order as the others.
template <typename Score>
__global__ void __launch_bounds__(WarpSpan::kMaxThreads)
    penalty_total_kernel(PenaltyArgs<Score> a, LossBlocks blocks, const Spread<Score>* spreads, Total* totals) {
  __shared__ Spread<Score> spread_slots[WarpSpan::kMaxWarps];
  __shared__ Total total_slots[WarpSpan::kMaxWarps];
  const WarpSpan all{0, static_cast<int>(blockDim.x) / 32};
  int first, count;
  const LossValues<Score> values = blocks.own(a, &first, &count);
  Spread<Score> spread = Spread<Score>::none();
  for (int b = threadIdx.x; b < count; b += blockDim.x) {
    spread.merge(spreads[first + b]);
  }
  const double threshold = values.threshold(all.reduce(spread_slots, spread));
  const Total total = all.reduce(total_slots, values.selected(all, threshold));
  if (threadIdx.x == 0) {
    totals[blockIdx.x] = total;
  }
}

// By two warps.
template <typename Score>
__global__ void __launch_bounds__(64)
    penalty_join_kernel(PenaltyArgs<Score> a, LossBlocks blocks, const Total* totals, Score* loss) {
  __shared__ Total slots[WarpSpan::kMaxWarps];
  const bool scores = threadIdx.x < 32;
  const int first = scores ? 0 : blocks.scores, count = scores ? blocks.scores : blocks.columns;
  Total total{0.0, 0.0};
  for (int b = threadIdx.x % 32; b < count; b += 32) {
    total.merge(totals[first + b]);
  }
  WarpSpan::publish(slots, total);
  if (threadIdx.x == 0) {
    write_loss(a, slots[0], slots[1], loss);
  }
}

// The machine is that of cuda/machine.h or of the emulator.
template <typename Score, typename Machine>
void launch_penalty_loss(Machine& machine, const PenaltyArgs<Score>& args, Score* loss) {
  constexpr int64_t kMostOfOneBlock = 1 << 14, kPerBlock = 1 << 12, kMostBlocks = 128;
  if (args.n + args.d <= kMostOfOneBlock) {
    const int64_t warps = WarpSpan::kMaxWarps, share = warps * args.n / (args.n + args.d);
    machine.launch(penalty_loss_kernel<Score>, 1, WarpSpan::kMaxThreads, args,
                   static_cast<int>(std::clamp(share, int64_t{1}, warps - 1)), loss);
    return;
  }
  const auto blocks_for = [&](int64_t size) {
    return static_cast<int>(std::clamp((size + kPerBlock - 1) / kPerBlock, int64_t{1}, kMostBlocks));
  };
  const int scores = blocks_for(args.n), columns = blocks_for(args.d);
  const LossBlocks blocks{scores, columns, (args.n + scores - 1) / scores, (args.d + columns - 1) / columns};
  const int64_t grid = blocks.scores + blocks.columns;
  auto* spreads = machine.template allocate<Spread<Score>>(grid);
  Total* totals = machine.template allocate<Total>(grid);
  machine.launch(penalty_spread_kernel<Score>, grid, WarpSpan::kMaxThreads, args, blocks, spreads);
  machine.launch(penalty_total_kernel<Score>, grid, WarpSpan::kMaxThreads, args, blocks,
                 static_cast<const Spread<Score>*>(spreads), totals);
  machine.launch(penalty_join_kernel<Score>, 1, 64, args, blocks, static_cast<const Total*>(totals), loss);
}

}  // namespace sslk
