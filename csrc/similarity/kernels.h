// Everything around the matrix products of CKA and CCA on the CPU: what this folder provides per instruction set.
// The products themselves are torch's.
#pragma once

#include "cpu/isa.h"
#include "rows/rows.h"

namespace sslk {

struct DifferenceArgs {
  Rows x;
  double scale;     // a power of two
  float* scratch;   // [D] zeros on entry and exit; unused for float64
  double* sums;     // [D]
  double* largest;  // magnitude
};

// Adds the differences of rows [begin, end) from row 0 to sums, and raises `largest` to the largest of them.
SSLK_DECLARE_KERNEL(sum_differences, const DifferenceArgs&, int64_t begin, int64_t end)

// to[begin:end] += from[begin:end].
SSLK_DECLARE_KERNEL(add_floats, const float* from, double* to, int64_t begin, int64_t end)

struct SquareArgs {
  const void* p;  // [., cols] with row stride `stride`
  int64_t cols;
  int64_t stride;
  Dtype dtype;  // f32 or f64
};

// Adds the squares of rows [begin, end) to total.
SSLK_DECLARE_KERNEL(add_squares, const SquareArgs&, int64_t begin, int64_t end, double* total)

struct GramArgs {
  const void* const* grams;  // V matrices [N, N]
  int64_t v;
  int64_t n;
  Dtype dtype;  // f32 or f64
};

// Adds <K_v, K_w> over rows [begin, end) to dots[v * V + w] for v <= w.
SSLK_DECLARE_KERNEL(add_gram_dots, const GramArgs&, int64_t begin, int64_t end, double* dots)

struct MixArgs {
  GramArgs grams;
  const double* weights;  // [V]
  const double* addend;   // [N] or null
  void* out;              // [N, N]
};

// out_ij = sum_w weights_w K_w,ij + addend_i + addend_j; with addends the diagonal is zero.
SSLK_DECLARE_KERNEL(mix_grams, const MixArgs&, int64_t begin, int64_t end)

struct GradientRowsArgs {
  const void* product;  // [., cols] with row stride cols, in dtype
  const void* z;        // [., cols] with row stride z_stride, in dtype, or null
  int64_t z_stride;
  const double* diagonal;  // [N] or null, with z
  const void* constant;    // [cols] in dtype, or null, with z
  int64_t cols;
  Dtype dtype;  // f32 or f64
  double scale;
  int64_t first;  // row 0 of product and z is this row of the gradient
  void* grad;     // [N, .] with row stride grad_stride
  int64_t grad_stride;
  Dtype grad_dtype;
};

// grad_i = scale (product_i + diagonal_i z_i + constant).
SSLK_DECLARE_KERNEL(write_gradient, const GradientRowsArgs&, int64_t begin, int64_t end)

}  // namespace sslk
