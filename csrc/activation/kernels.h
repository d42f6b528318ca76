// Highly activating features and row moments on the CPU: what this folder provides per instruction set.
#pragma once

#include "cpu/isa.h"
#include "rows/rows.h"

namespace sslk {

struct ActivationArgs {
  Rows h;
  double eps;
  bool two_sided;
  float* scratch;          // [padded D], this thread's
  uint8_t* mask;           // [N, D] or null
  int32_t* column_counts;  // [padded D] or null: this thread's, added to
  int32_t* row_counts;     // [N] or null
};

// Writes mask[begin:end] or row_counts[begin:end] and adds to column_counts.
SSLK_DECLARE_KERNEL(activation_rows, const ActivationArgs&, int64_t begin, int64_t end)

struct MomentArgs {
  Rows h;
  float* scratch;  // [padded D], this thread's
  void* mean;      // [N] each, in the accumulation type
  void* deviation;
  void* norm;
};

SSLK_DECLARE_KERNEL(moment_rows, const MomentArgs&, int64_t begin, int64_t end)

}  // namespace sslk
