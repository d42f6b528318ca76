// A step of softmax regression on sparse binary rows, on CUDA. The host waits for nothing: how many ones a batch has is
// not known there, and what lies out of range is found on the device, where `invalid` keeps every kernel from changing
// anything.
//
// The transpose of the batch is a matrix of bits: setting them needs no order, and reading them gives the rows that
// show a concept in theirs, so every run sums in the same order. With S ones in the batch and numbers of B bytes a step
// moves
//   S K B + S K B      weight rows for the logits and errors for the gradients, from the L2 cache: blocks take one
//   chunk
//                      of classes, 512 bytes, after the other, so that what they gather of it stays there
//   M K B + 4 M K B    weights for the logits; weights and velocities, read and written once each
//   4 n K B            logits, written and read; errors, written and read for the biases
//   M n / 8            bits, set to 0, and read once for 1 to 4 chunks
// and does 3 S K + 6 M K operations and 2 n K exponentials: memory decides.
#pragma once

#include <algorithm>
#include <cmath>

#include "regression/sparse_batch.cuh"
#include "rows/team.cuh"

namespace sslk {

template <typename C>
struct SoftmaxStep {
  SparseBatch batch;
  int64_t width;
  C* weight;         // [tiles, concepts, width]
  C* velocity;       // [tiles, concepts, width]
  C* bias;           // [classes]
  C* bias_velocity;  // [classes]
  C learning_rate, momentum, weight_decay;
  int64_t pitch;     // classes, rounded up to whole vectors
  C* errors;         // [n, pitch] first logits, then softmax - one-hot, over n; rubbish past the last class
  double* row_loss;  // [n]
  double* loss;      // [1]

  SSLK_DEVICE void update(C gradient, C& value, C& speed) const {
    speed = momentum * speed + (gradient + weight_decay * value);
    value -= learning_rate * speed;
  }
};

// kCount neighbouring classes: one access of a lane.
template <typename C, int kCount>
struct alignas(kCount * sizeof(C)) Classes {
  C of[kCount];
};

// The classes of a lane in a chunk of 32 * kCount. A lane past the last class sees those of the last lane that has
// some.
template <typename C, int kCount>
struct ClassLane {
  using Vector = Classes<C, kCount>;
  static constexpr int64_t kChunk = 32 * kCount;

  int64_t first;   // class
  int64_t offset;  // in weights of concept 0
  bool inside;

  SSLK_DEVICE ClassLane(const SoftmaxStep<C>& a, int64_t chunk) {
    const int64_t own = chunk * kChunk + threadIdx.x % 32 * kCount;
    inside = own < a.batch.classes;
    first = inside ? own : (a.batch.classes - 1) / kCount * kCount;
    offset = first / a.width * a.batch.concepts * a.width + first % a.width;
  }
  static SSLK_DEVICE Vector load(const C* p) { return *reinterpret_cast<const Vector*>(p); }
  static SSLK_DEVICE void store(C* p, const Vector& v) { *reinterpret_cast<Vector*>(p) = v; }
};

template <typename C, int kCount>
SSLK_DEVICE void add(const Classes<C, kCount>& x, C times, Classes<C, kCount>& sum) {
#pragma unroll
  for (int u = 0; u < kCount; ++u) {
    sum.of[u] += times * x.of[u];
  }
}

constexpr int kRowsAtOnce = 8;  // weight rows that a warp asks for before it waits

// A warp per row of the batch and chunk of classes.
template <typename C, int kCount>
__global__ void __launch_bounds__(kStepThreads, 4) sparse_logits_kernel(SoftmaxStep<C> a) {
  using Lane = ClassLane<C, kCount>;
  const unsigned groups = groups_of(a.batch.n);
  const int64_t r = blockIdx.x % groups * kStepWarps + threadIdx.x / 32;
  if (*a.batch.invalid != 0 || r >= a.batch.n) {
    return;
  }
  const Lane lane(a, blockIdx.x / groups);
  const RowConcepts row(a.batch, r);
  typename Lane::Vector sum;
#pragma unroll
  for (int u = 0; u < kCount; ++u) {
    sum.of[u] = lane.first + u < a.batch.classes ? a.bias[lane.first + u] : C(0);
  }
  const C* weight = a.weight + lane.offset;
  for (int32_t start = 0; start < row.count; start += 32) {
    const int32_t left = row.count - start < 32 ? row.count - start : 32, own = threadIdx.x % 32;
    const int32_t concept_of_lane = own < left ? row.columns[start + own] : 0;
    for (int32_t k = 0; k < left; k += kRowsAtOnce) {
      typename Lane::Vector w[kRowsAtOnce];
#pragma unroll
      for (int i = 0; i < kRowsAtOnce; ++i) {
        const int64_t m = __shfl_sync(0xffffffffu, concept_of_lane, k + i);
        w[i] = k + i < left ? Lane::load(weight + m * a.width) : typename Lane::Vector{};
      }
#pragma unroll
      for (int i = 0; i < kRowsAtOnce; ++i) {
        add(w[i], C(1), sum);
      }
    }
  }
  if (lane.inside) {
    Lane::store(a.errors + r * a.pitch + lane.first, sum);
  }
}

template <typename C>
struct HighestLogit {
  C value;
  SSLK_DEVICE void merge(const HighestLogit& other) { value = other.value > value ? other.value : value; }
};

SSLK_DEVICE float exponential(float x) { return expf(x); }
SSLK_DEVICE double exponential(double x) { return exp(x); }

// A block per row of the batch, with all warps of the team: the zeros of one that it lacks might be the highest logit.
template <typename C>
__global__ void __launch_bounds__(kStepThreads, 4) softmax_errors_kernel(SoftmaxStep<C> a) {
  using Team = BlockOf<kStepThreads>;
  __shared__ typename Team::Scratch scratch;
  if (*a.batch.invalid != 0) {
    return;
  }
  Team team(scratch);
  const int64_t r = blockIdx.x, target = a.batch.target[a.batch.index[r]], classes = a.batch.classes;
  C* x = a.errors + r * a.pitch;
  const C target_logit = x[target];
  HighestLogit<C> highest{-static_cast<C>(INFINITY)};
#pragma unroll 4
  for (int64_t k = team.rank; k < classes; k += kStepThreads) {
    highest.merge({x[k]});
  }
  highest = team.reduce(highest);
  Sum<C> sum{C(0)};
  for (int64_t k = team.rank; k < classes; k += kStepThreads) {
    sum.value += exponential(x[k] - highest.value);
  }
  sum = team.reduce(sum);
  const C n = static_cast<C>(a.batch.n), share = 1 / (sum.value * n), part = 1 / n;
  for (int64_t k = team.rank; k < classes; k += kStepThreads) {
    x[k] = exponential(x[k] - highest.value) * share - (k == target ? part : C(0));
  }
  if (team.rank == 0) {
    a.row_loss[r] =
        log(static_cast<double>(sum.value)) + (static_cast<double>(highest.value) - static_cast<double>(target_logit));
  }
}

constexpr int kErrorsAtOnce = 4;

template <typename C, int kCount>
SSLK_DEVICE void add_errors(const SoftmaxStep<C>& a, const ClassLane<C, kCount>& lane, const Shown* list, int count,
                            Classes<C, kCount>& sum) {
  const C* errors = a.errors + lane.first;
#pragma unroll 1
  for (int k = 0; k < count; k += kErrorsAtOnce) {
    Classes<C, kCount> e[kErrorsAtOnce];
    int32_t times[kErrorsAtOnce];
#pragma unroll
    for (int i = 0; i < kErrorsAtOnce; ++i) {
      const Shown shown = k + i < count ? list[k + i] : Shown{};
      times[i] = shown.times;
      e[i] = k + i < count ? lane.load(errors + shown.row * a.pitch) : Classes<C, kCount>{};
    }
#pragma unroll
    for (int i = 0; i < kErrorsAtOnce; ++i) {
      add(e[i], static_cast<C>(times[i]), sum);
    }
  }
}

// A warp per concept and `span` chunks of classes: gradient, decay, momentum and update. Classes past the last stay as
// they are.
template <typename C, int kCount>
__global__ void __launch_bounds__(kStepThreads, 4) update_weights_kernel(SoftmaxStep<C> a, int span) {
  using Lane = ClassLane<C, kCount>;
  using Vector = typename Lane::Vector;
  __shared__ Shown own_rows[kStepWarps][kShown], helped_rows[kStepWarps][kShown];
  __shared__ Vector parts[kStepWarps][32];
  __shared__ int counts[kStepWarps];
  if (*a.batch.invalid != 0) {
    return;
  }
  const int warp = threadIdx.x / 32, own = threadIdx.x % 32, words = a.batch.words;
  const unsigned groups = groups_of(a.batch.concepts);
  const int32_t first = static_cast<int32_t>(blockIdx.x % groups * kStepWarps), m = first + warp;
  const bool exists = m < a.batch.concepts;
  const int count = ShownRows(a.batch, m, 0, exists ? words : 0).fill(own_rows[warp]);
  if (own == 0) {
    counts[warp] = count;
  }
  __syncthreads();
  int32_t chunk = static_cast<int32_t>(blockIdx.x / groups) * span;
  for (int i = 0; i < span && chunk * Lane::kChunk < a.batch.classes; ++i, ++chunk) {
    const Lane lane(a, chunk);
    const int64_t place = lane.offset + m * a.width;
    Vector w{}, v{}, gradient{};
    if (exists) {
      w = Lane::load(a.weight + place);
      v = Lane::load(a.velocity + place);
    }
    if (count <= kAlone) {
      add_errors(a, lane, own_rows[warp], count, gradient);
    }
#pragma unroll 1
    for (int other = 0; other < kStepWarps; ++other) {
      if (counts[other] <= kAlone) {
        continue;
      }
      Vector part{};
      ShownRows rows(a.batch, first + other, words * warp / kStepWarps, words * (warp + 1) / kStepWarps);
      for (int found = kShown; found > kAlone;) {
        found = rows.fill(helped_rows[warp]);
        add_errors(a, lane, helped_rows[warp], found, part);
      }
      parts[warp][own] = part;
      __syncthreads();
      if (warp == other) {
        for (int k = 0; k < kStepWarps; ++k) {
          add(parts[k][own], C(1), gradient);
        }
      }
      __syncthreads();
    }
    if (exists && lane.inside) {
#pragma unroll
      for (int u = 0; u < kCount; ++u) {
        if (lane.first + u < a.batch.classes) {
          a.update(gradient.of[u], w.of[u], v.of[u]);
        }
      }
      Lane::store(a.weight + place, w);
      Lane::store(a.velocity + place, v);
    }
  }
}

constexpr int kBiasColumns = 32, kBiasRows = Block::kMaxThreads / kBiasColumns;

// A block per kBiasColumns classes, and one more for the loss.
template <typename C>
__global__ void __launch_bounds__(Block::kMaxThreads) update_biases_kernel(SoftmaxStep<C> a) {
  __shared__ Block::Scratch scratch;
  __shared__ double sums[kBiasRows][kBiasColumns];
  const bool valid = *a.batch.invalid == 0;
  if (blockIdx.x + 1 == gridDim.x) {
    Block team(scratch);
    Sum<double> loss{valid ? 0.0 : static_cast<double>(NAN)};
#pragma unroll 4
    for (int64_t r = team.rank; valid && r < a.batch.n; r += Block::kMaxThreads) {
      loss.value += a.row_loss[r];
    }
    loss = team.reduce(loss);
    if (team.rank == 0) {
      *a.loss = loss.value;
    }
    return;
  }
  if (!valid) {
    return;
  }
  const int column = threadIdx.x % kBiasColumns, row = threadIdx.x / kBiasColumns;
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kBiasColumns + column;
  double gradient = 0.0;
  if (k < a.batch.classes) {
#pragma unroll 8
    for (int64_t r = row; r < a.batch.n; r += kBiasRows) {
      gradient += static_cast<double>(a.errors[r * a.pitch + k]);
    }
  }
  sums[row][column] = gradient;
  __syncthreads();
  if (row == 0 && k < a.batch.classes) {
    for (int other = 1; other < kBiasRows; ++other) {
      gradient += sums[other][column];
    }
    a.update(static_cast<C>(gradient), a.bias[k], a.bias_velocity[k]);
  }
}

template <int kCount, typename C, typename Machine>
void launch_softmax_step(Machine& machine, SoftmaxStep<C> a) {
  const auto blocks = [](int64_t items, int64_t of_block) { return (items + of_block - 1) / of_block; };
  SparseBatch& b = a.batch;
  b.words = static_cast<int32_t>(blocks(b.n, 32));
  b.shown = machine.template zeros<uint32_t>((b.concepts + 1) * b.words + 1);  // the rest for repeated and invalid
  b.repeated = b.shown + b.concepts * b.words;
  b.invalid = reinterpret_cast<int*>(b.repeated + b.words);
  a.pitch = blocks(b.classes, kCount) * kCount;
  a.errors = machine.template allocate<C>(b.n * a.pitch);
  a.row_loss = machine.template allocate<double>(b.n);
  const int64_t chunks = blocks(b.classes, ClassLane<C, kCount>::kChunk);
  machine.launch(show_concepts_kernel, groups_of(b.n), kStepThreads, b);
  machine.launch(sparse_logits_kernel<C, kCount>, chunks * groups_of(b.n), kStepThreads, a);
  machine.launch(softmax_errors_kernel<C>, b.n, kStepThreads, a);
  // A list of rows serves several chunks where there are blocks enough to fill the device.
  const int64_t groups = groups_of(b.concepts);
  const int64_t span = std::clamp<int64_t>(chunks * groups / (16 * machine.multiprocessors()), 1, 4);
  machine.launch(update_weights_kernel<C, kCount>, blocks(chunks, span) * groups, kStepThreads, a,
                 static_cast<int>(span));
  machine.launch(update_biases_kernel<C>, blocks(b.classes, kBiasColumns) + 1, Block::kMaxThreads, a);
}

// The step `a`, of which the caller gives all but the buffers. The machine provides memory and launches, as in
// similarity/device_blocks.cuh. n must be in [1, 2^31).
template <typename C, typename Machine>
void softmax_step(Machine& machine, const SoftmaxStep<C>& a) {
  constexpr int kVector = 16 / sizeof(C);
  const auto aligned = [](const C* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  a.width % kVector == 0 && aligned(a.weight) && aligned(a.velocity) ? launch_softmax_step<kVector>(machine, a)
                                                                     : launch_softmax_step<1>(machine, a);
}

}  // namespace sslk
