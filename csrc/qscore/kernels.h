// Q-Score and column L1 norms of rows, and their gradient, on the CPU: what this folder provides per instruction set.
#pragma once

#include "cpu/isa.h"
#include "rows/rows.h"

namespace sslk {

struct QScoreArgs {
  Rows h;
  const float* penalty;  // [padded D] 0 in the discriminative set, -inf outside and past D
  double eps;
  bool normalize;
  bool two_sided;
  float* scratch;             // [padded D], this thread's
  void* q;                    // [N] in the accumulation type
  int32_t* active = nullptr;  // [N] |L_i|, or null
};

// Writes q[begin:end] and active[begin:end].
SSLK_DECLARE_KERNEL(qscore_rows, const QScoreArgs&, int64_t begin, int64_t end)

struct ColumnArgs {
  QScoreArgs forward;  // without q only the columns are summed, and the set is not read
  float* sums;         // [padded D] zeros on entry and exit
  double* total;       // [D]
};

// Adds the L1 norms of the columns over rows [begin, end) to total; writes q[begin:end].
SSLK_DECLARE_KERNEL(column_rows, const ColumnArgs&, int64_t begin, int64_t end)

struct GradientArgs {
  QScoreArgs forward;       // q is not used
  const void* grad_q;       // [N] in the accumulation type, or null
  const void* grad_column;  // [D] in the accumulation type, or null: gradient of the column L1 norms
  void* grad_h;             // [N, D] contiguous, in the type of h
  bool stream;              // write around the cache
};

// Writes grad_h[begin:end].
SSLK_DECLARE_KERNEL(gradient_rows, const GradientArgs&, int64_t begin, int64_t end)

}  // namespace sslk
