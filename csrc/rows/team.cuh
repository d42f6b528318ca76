// The threads that share one row: some lanes of a warp, or a whole block. A team knows its threads and reduces over
// them; every thread gets the same bits back, so that decisions made from a reduction are the team's.
#pragma once

#include "cuda/simt.cuh"

namespace sslk {

template <typename V>
SSLK_DEVICE V shuffle_xor(unsigned mask, const V& v, int offset) {
  static_assert(sizeof(V) % 4 == 0);
  int words[sizeof(V) / 4];
  memcpy(words, &v, sizeof(V));
#pragma unroll
  for (unsigned k = 0; k < sizeof(V) / 4; ++k) {
    words[k] = __shfl_xor_sync(mask, words[k], offset);
  }
  V out;
  memcpy(&out, words, sizeof(V));
  return out;
}

template <int kWidth, typename V>
SSLK_DEVICE V reduce_lanes(unsigned mask, V v) {
#pragma unroll
  for (int offset = kWidth / 2; offset > 0; offset /= 2) {
    v.merge(shuffle_xor(mask, v, offset));
  }
  return v;
}

// kWidth lanes of a warp. The lanes of other teams in the warp may be elsewhere: masks name the own lanes only.
template <int kWidth>
struct Lanes {
  static constexpr int kLanes = kWidth;
  static constexpr int kMaxThreads = 256;  // of the block
  static constexpr int kMaxColumns = kWidth * 32;
  static constexpr bool kWholeBlock = false;
  struct Scratch {};

  int rank;   // of this thread in the team
  int index;  // of the team in the block
  unsigned mask;

  SSLK_DEVICE explicit Lanes(Scratch&) : rank(threadIdx.x % kWidth), index(threadIdx.x / kWidth) {
    mask = (kWidth == 32 ? 0xffffffffu : (1u << kWidth) - 1) << (threadIdx.x % 32 / kWidth * kWidth);
  }
  SSLK_DEVICE int width() const { return kWidth; }
  SSLK_DEVICE int per_block() const { return blockDim.x / kWidth; }

  template <typename V>
  SSLK_DEVICE V reduce(const V& v) {
    return reduce_lanes<kWidth>(mask, v);
  }
};

// A whole block of at most kThreads threads.
template <int kThreads>
struct BlockOf {
  static constexpr int kMaxThreads = kThreads;
  static constexpr bool kWholeBlock = true;
  // Two buffers in turn: when a third reduction writes the first buffer again, the barrier of the second has shown that
  // every thread has read it. One barrier per reduction is enough. Warps the block lacks stay zero, which merges as
  // nothing, so that slots can be read four at a time.
  static constexpr int kMaxWarps = kMaxThreads / 32;
  struct Scratch {
    int words[2][kMaxWarps][4];
  };

  int rank;
  int index = 0;
  Scratch* scratch;
  int phase = 0;

  SSLK_DEVICE explicit BlockOf(Scratch& shared) : rank(threadIdx.x), scratch(&shared) {
    for (int k = rank; k < 2 * kMaxWarps * 4; k += blockDim.x) {
      if (k / 4 % kMaxWarps >= static_cast<int>(blockDim.x) / 32) {
        scratch->words[k / 4 / kMaxWarps][k / 4 % kMaxWarps][k % 4] = 0;
      }
    }
  }
  SSLK_DEVICE int width() const { return blockDim.x; }
  SSLK_DEVICE int per_block() const { return 1; }

  template <typename V>
  SSLK_DEVICE V reduce(const V& v) {
    static_assert(sizeof(V) <= sizeof(scratch->words[0][0]));
    const V own = reduce_lanes<32>(0xffffffffu, v);
    int (*slots)[4] = scratch->words[phase];
    phase ^= 1;
    if (rank % 32 == 0) {
      memcpy(slots[rank / 32], &own, sizeof(V));
    }
    __syncthreads();
    V total;
    memcpy(&total, slots[0], sizeof(V));
#pragma unroll 1
    for (int w = 0; w < static_cast<int>(blockDim.x) / 32; w += 4) {
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        V other;
        memcpy(&other, slots[w + u], sizeof(V));
        if (w + u > 0) {
          total.merge(other);
        }
      }
    }
    return total;
  }
};

using Block = BlockOf<512>;

// All zeros is what merges as nothing, for this and every other reduced type.
template <typename V>
struct Sum {
  V value;
  SSLK_DEVICE void merge(const Sum& other) { value += other.value; }
};

}  // namespace sslk
