// Representations as matrices that are centred and scaled while they are packed, a panel of rows at a time, and the
// products of every pair of them.
#pragma once

#include <functional>

#include "sslk.h"

namespace sslk {

// A representation [N, D] and what makes it centred: z = (x * scale - origin) * gain - shift has column means of zero,
// up to the rounding of the shift, and entries of order 1. The origin is row 0: what is scaled up are differences,
// however large the numbers. Scaling by powers of two is exact and keeps squares in range.
struct CentredBlock {
  Rows x;
  double scale = 1.0, gain = 1.0;
  std::vector<float> origin, shift;                 // [D]
  std::vector<double> origin_double, shift_double;  // [D], instead, for float64

  // Writes rows [first, first + rows) and columns [column, column + columns) to z [rows, columns] at row stride
  // z_stride, and the squared norms of the rows to squares [rows] unless it is null.
  void pack(int64_t first, int64_t rows, int64_t column, int64_t columns, void* z, int64_t z_stride, ScalarType type,
            double* squares) const;
};

// Reads x once for its column means and range.
CentredBlock centred(const Rows& x);

// The matrices of x [V, N, D], whose last dimension must have unit stride.
std::vector<Rows> matrices_of(const Tensor& x);
Tensor with_adjacent_features(const Tensor& x);

// X_v' X_w for all pairs v <= w of blocks that are given a panel of rows at a time: one product [D_v, sum of the
// widths from v on] per block and panel. Sums over more than kRowsPerFlush rows continue in double.
class BlockProducts {
 public:
  // fill(first_row, rows, first_block, panel): rows of the blocks from first_block on, side by side, each at its
  // offset, in a panel [rows, width].
  using Fill = std::function<void(int64_t, int64_t, int64_t, void*)>;

  BlockProducts(std::vector<int64_t> widths, int64_t n, ScalarType type);

  // Computes the products whose first block is in [begin, end), forgetting others.
  void compute(int64_t begin, int64_t end, const Fill& fill);
  // The end of the largest group from `begin` whose products stay within a fixed amount of memory.
  int64_t group_end(int64_t begin) const;

  double square_sum(int64_t v, int64_t w) const;  // ||X_v' X_w||_F^2, v <= w
  Tensor product(int64_t v, int64_t w) const;     // X_v' X_w, for any order

  int64_t width() const { return offsets_.back(); }
  int64_t offset(int64_t v) const { return offsets_[v]; }
  int64_t panel_rows() const { return panel_rows_; }

 private:
  int64_t tail(int64_t v) const { return width() - offset(v); }  // columns of the product of block v

  std::vector<int64_t> widths_, offsets_;
  int64_t n_, panel_rows_;
  ScalarType type_;
  std::vector<Tensor> sums_;         // per block of the group
  std::vector<Tensor> double_sums_;  // the same in double, when n is too large for float
};

}  // namespace sslk
