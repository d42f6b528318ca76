// A batch of sparse binary rows on CUDA, and its transpose as bits.
#pragma once

#include "cuda/simt.cuh"

namespace sslk {

// Rows of the table, and what the kernels know of them.
struct SparseBatch {
  const int32_t* columns;  // of row i: [offsets[i], offsets[i + 1])
  const int64_t* offsets;  // [rows + 1]
  const int64_t* target;   // [rows]
  const int64_t* index;    // [n]
  int64_t rows, ones;      // of the table
  int64_t n, concepts, classes;
  int32_t words;       // ceil(n / 32); n < 2^31
  uint32_t* shown;     // [concepts, words] bit r % 32 of word r / 32: row r of the batch shows the concept
  uint32_t* repeated;  // [words] the same bits: row r names some concept more than once
  int* invalid;        // not 0: an index lies out of range
};

constexpr int kStepThreads = 256, kStepWarps = kStepThreads / 32;

// Blocks that give each of `count` < 2^31 rows or concepts a warp.
__host__ SSLK_DEVICE unsigned groups_of(int64_t count) { return static_cast<unsigned>((count - 1) / kStepWarps + 1); }

// A warp per row of the batch.
static __global__ void __launch_bounds__(kStepThreads) show_concepts_kernel(SparseBatch b) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kStepWarps + threadIdx.x / 32;
  if (r >= b.n) {
    return;
  }
  const int64_t i = b.index[r];
  bool valid = i >= 0 && i < b.rows;
  if (valid) {
    const int64_t first = b.offsets[i], end = b.offsets[i + 1];
    valid = first >= 0 && first <= end && end <= b.ones && end - first <= INT32_MAX && b.target[i] >= 0 &&
            b.target[i] < b.classes;
    const uint32_t bit = 1u << (r % 32);
    for (int64_t k = first + threadIdx.x % 32; valid && k < end; k += 32) {
      const int64_t m = b.columns[k];
      valid = m >= 0 && m < b.concepts;
      if (valid && (atomicOr(b.shown + m * b.words + r / 32, bit) & bit) != 0) {
        atomicOr(b.repeated + r / 32, bit);
      }
    }
  }
  if (!valid) {
    *b.invalid = 1;
  }
}

// The concepts of row r of a valid batch.
struct RowConcepts {
  const int32_t* columns;
  int32_t count;

  SSLK_DEVICE RowConcepts(const SparseBatch& b, int64_t r) {
    const int64_t i = b.index[r], first = b.offsets[i];
    columns = b.columns + first;
    count = static_cast<int32_t>(b.offsets[i + 1] - first);
  }
  SSLK_DEVICE int32_t times(int32_t m) const {
    int32_t found = 0;
#pragma unroll 4
    for (int32_t k = 0; k < count; ++k) {
      found += columns[k] == m;
    }
    return found;
  }
};

// A row of the batch that shows a concept.
struct Shown {
  int32_t row, times;
};
constexpr int kAlone = 64;           // rows of a concept; a warp that finds more is helped by the others of its block
constexpr int kShown = kAlone + 32;  // of a list

// Reads the words [begin, end) of a concept's bits, a warp's list of rows at a time.
struct ShownRows {
  const SparseBatch& batch;
  const int32_t m;
  int32_t next;
  const int32_t end;
  uint32_t bits = 0, repeated = 0;  // of the lane's word

  SSLK_DEVICE ShownRows(const SparseBatch& b, int32_t concept_index, int32_t first_word, int32_t last_word)
      : batch(b), m(concept_index), next(first_word), end(last_word) {}

  // The length of the list; more than kAlone unless it holds what was left.
  SSLK_DEVICE int fill(Shown* list) {
    const int own = threadIdx.x % 32;
    int count = 0;
    __syncwarp();
    while (count <= kAlone) {
      const unsigned lanes = __ballot_sync(0xffffffffu, bits != 0);
      if (lanes == 0) {
        if (next >= end) {
          break;
        }
        const int32_t word = next + own;
        bits = word < end ? batch.shown[static_cast<int64_t>(m) * batch.words + word] : 0;
        repeated = word < end ? batch.repeated[word] : 0;
        next += 32;
        continue;
      }
      if (bits != 0) {
        const int bit = __ffs(static_cast<int>(bits)) - 1;
        const int32_t r = (next - 32 + own) * 32 + bit;
        list[count + __popc(lanes & ((1u << own) - 1))] = {
            r, (repeated >> bit & 1) != 0 ? RowConcepts(batch, r).times(m) : 1};
        bits &= bits - 1;
      }
      count += __popc(lanes);
    }
    __syncwarp();
    return count;
  }
};

}  // namespace sslk
