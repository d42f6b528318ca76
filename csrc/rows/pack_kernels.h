// Rows converted, scaled and shifted into a panel for a matrix product, on the CPU.
#pragma once

#include "cpu/isa.h"
#include "rows/rows.h"

namespace sslk {

struct PackArgs {
  Rows x;
  double scale, gain;  // powers of two
  const void* origin;  // [D] float, double for float64 x
  const void* shift;   // the same
  int64_t first;       // this row goes to row 0 of z
  void* z;             // [., D] with row stride z_stride: (x * scale - origin) * gain - shift
  int64_t z_stride;
  Dtype z_dtype;    // f32 or f64; f64 for float64 x
  double* squares;  // [.] squared norm of each row of z, or null
};

// Writes rows [begin, end) of x.
SSLK_DECLARE_KERNEL(pack_rows, const PackArgs&, int64_t begin, int64_t end)

}  // namespace sslk
