// Row loops on the CPU: scratch rows and the set as addends, shared by the ops that score rows.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "sslk.h"

namespace sslk {

constexpr int64_t kPadding = 64;  // a multiple of every build's block (16 floats x 4)
constexpr int64_t kBytesPerTask = 1 << 16;
constexpr int64_t kStreamBytes = 8 << 20;  // larger outputs are written around the cache

inline int64_t padded_length(int64_t d) { return (d + kPadding - 1) / kPadding * kPadding; }

// 0 in the set, -inf outside it and past D; without a set every feature is in.
inline std::vector<float> set_penalty(int64_t d, const uint8_t* discriminative) {
  std::vector<float> penalty(padded_length(d), -std::numeric_limits<float>::infinity());
  for (int64_t j = 0; j < d; ++j) {
    if (discriminative == nullptr || discriminative[j] != 0) {
      penalty[j] = 0.0f;
    }
  }
  return penalty;
}

inline int64_t rows_per_task(const Rows& h) { return std::max<int64_t>(1, kBytesPerTask / (h.d * 4)); }

// body(begin, end, scratch) over all rows, in parallel.
template <typename Body>
void for_rows(const Rows& h, Body body) {
  torch::stable::parallel_for(0, h.n, rows_per_task(h), [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(padded_length(h.d));
    body(begin, end, scratch.data());
  });
}

}  // namespace sslk
