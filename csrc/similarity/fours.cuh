// How the kernels for representations share out work and move rows: launches over several matrices, four elements a
// lane.
#pragma once

#include <type_traits>

#include "rows/row_stats.cuh"

namespace sslk {

constexpr int kTogether = 16;  // pieces of work that one launch shares out
constexpr int kWarps = 8;      // of a block
constexpr int kSpan = 128;     // columns that a warp moves at a time, four a lane
constexpr int kStrip = 1024;   // columns that a warp takes on where rows are cut
constexpr int kWarpRows = 2;   // rows that a warp has under way

// What a launch works on: few large launches leave less of the device idle than many small ones.
template <typename Job>
struct Jobs {
  Job of[kTogether];
};

// Four elements of a row: adjacent ones, moved by wide accesses, where rows are aligned and `end` is a multiple of
// four; otherwise the lanes of a warp lie side by side and its elements kNext apart, so that memory is still read in
// order.
template <typename T>
struct alignas(sizeof(T) < 4 ? 4 * sizeof(T) : 16) Four {
  T at[4];
};

SSLK_DEVICE void store_word(uint64_t* to, uint64_t word) { *to = word; }
// The compiler would take a plain store apart again.
SSLK_DEVICE void store_word(uint4* to, const uint4& word) {
#ifdef SSLK_SIMT
  *to = word;
#else
  __stwb(to, word);
#endif
}

template <bool kWide>
struct Columns {
  static constexpr int kNext = kWide ? 1 : 32;

  SSLK_DEVICE static int first_of_lane() { return threadIdx.x % 32 * (kWide ? 4 : 1); }

  // Columns j, j + kNext, ...; zeros from `end` on.
  template <typename T>
  SSLK_DEVICE static Four<T> load(const T* row, int64_t j, int64_t end) {
    Four<T> out;
    if constexpr (kWide) {
      out = j < end ? *reinterpret_cast<const Four<T>*>(row + j) : Four<T>{};
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        out.at[k] = j + k * kNext < end ? row[j + k * kNext] : T{};
      }
    }
    return out;
  }
  template <typename T>
  SSLK_DEVICE static void store(T* row, int64_t j, int64_t end, const Four<T>& values) {
    if constexpr (kWide) {
      using Word = std::conditional_t<sizeof(Four<T>) % 16 == 0, uint4, uint64_t>;
      Word words[sizeof(Four<T>) / sizeof(Word)];
      memcpy(words, &values, sizeof(values));
#pragma unroll
      for (unsigned w = 0; w < sizeof(Four<T>) / sizeof(Word); ++w) {
        store_word(reinterpret_cast<Word*>(row + j) + w, words[w]);
      }
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (j + k * kNext < end) {
          row[j + k * kNext] = values.at[k];
        }
      }
    }
  }
};

template <typename T>
SSLK_DEVICE bool fours_fit(const T* rows, int64_t stride, int64_t columns) {
  return reinterpret_cast<uintptr_t>(rows) % alignof(Four<T>) == 0 && columns % 4 == 0 &&
         stride * static_cast<int64_t>(sizeof(T)) % static_cast<int64_t>(alignof(Four<T>)) == 0;
}

SSLK_DEVICE double sum_of_warp(double value) { return reduce_lanes<32>(0xffffffffu, Sum<double>{value}).value; }

}  // namespace sslk
