// A step of softmax regression on sparse binary rows, on the CPU: what this folder provides per instruction set.
//
// Classes are worked on in strips of kStrip: a strip of the weights and one of the errors fit into a core's
// second-level cache together. Strips meet only in the normalisation of a row, so they need no more than its largest
// logit and its sum in every strip.
#pragma once

#include "cpu/isa.h"
#include "rows/rows.h"

namespace sslk {

constexpr int64_t kStrip = 64;  // a multiple of every build's vectors

// A sparse binary matrix and its transpose, both as lists of positions.
struct BatchBits {
  const int32_t* columns;       // of row r: [row_start[r], row_start[r + 1])
  const int32_t* row_start;     // [n + 1]
  const int32_t* rows;          // that show column m: [column_start[m], column_start[m + 1])
  const int32_t* column_start;  // [M + 1]
  int64_t n;
  int64_t concepts;  // M
};

struct SoftmaxStepArgs {
  BatchBits bits;
  const int64_t* target;  // [n]
  Dtype dtype;            // f32 or f64: of every void pointer below
  void* weight;           // [tiles, M, width]
  void* velocity;         // [tiles, M, width]
  int64_t width;
  int64_t classes;         // K
  int64_t strips;          // those of a tile times the tiles, less those past the last class
  int64_t strips_of_tile;  // ceil(width / kStrip)
  int64_t strips_padded;   // a multiple of every build's vectors
  const void* bias;        // [strips, kStrip], 0 where there is no class
  void* bias_gradient;     // [strips, kStrip]
  void* errors;            // [strips, n, kStrip]: first exp(logit - highest), then softmax - one-hot, over n
  void* highest;           // [n, strips_padded] largest logit of the strip, -inf past the last; then factors
  void* total;             // [n, strips_padded] sum of exp(logit - highest), 0 past the last
  void* target_logit;      // [n]
  double* loss;            // [n]
  double learning_rate, momentum, weight_decay;
};

// Logits, their maximum, exponentials and sum, for strips [begin, end).
SSLK_DECLARE_KERNEL(softmax_forward, const SoftmaxStepArgs&, int64_t begin, int64_t end)
// Loss and the factors that make errors of exponentials, for rows [begin, end).
SSLK_DECLARE_KERNEL(softmax_normalize, const SoftmaxStepArgs&, int64_t begin, int64_t end)
// Gradient and update of the weights, for strips [begin, end).
SSLK_DECLARE_KERNEL(softmax_update, const SoftmaxStepArgs&, int64_t begin, int64_t end)

}  // namespace sslk
