// Canonical correlations of representations from device kernels, matrix products and factorisations: cca_cpu.cpp for
// CUDA. Besides what device_blocks.cuh needs, the machine provides
//   qr(a)    the upper triangle of its first a.cols rows becomes R of a = QR; the rest is undefined
//   svd(a)   u, s and vh of a = u diag(s) vh, thin
// All in double. The ranks stay on the device: columns past the rank are zeros.
#pragma once

#include "similarity/cca_kernels.cuh"
#include "similarity/device_blocks.cuh"

namespace sslk {

struct Svd {
  Matrix<double> u, vh;
  const double* s;
};

template <typename Machine>
class DeviceCca {
 public:
  DeviceCca(Machine& machine, const std::vector<Rows>& representations, double rtol, double ridge)
      : machine_(machine),
        count_(static_cast<int64_t>(representations.size())),
        n_(representations[0].n),
        centred_(centred(machine, representations)) {
    ranks_ = machine.template allocate<int64_t>(count_);
    own_ = machine.template allocate<double>(count_);
    blocks_.offsets.push_back(0);
    for (int64_t v = 0; v < count_; ++v) {
      blocks_.offsets.push_back(blocks_.width() + std::min(n_, d(v)));
      bases_.push_back(basis(v, rtol, ridge));
    }
    squares_ = machine.template allocate<double>(count_ * count_ * kSumSlices);
    blocks_.compute(machine, n_, false, squares_, [&](int64_t first, int64_t rows, int64_t first_block) {
      double* panel = panel_.get(machine_, blocks_.panel_rows(n_) * blocks_.width());
      const Matrix<double> all = contiguous_matrix(panel, rows, blocks_.width());
      for (int64_t v = first_block; v < count_; ++v) {
        fill(v, first, all.columns(blocks_.offsets[v], blocks_.columns(v)));
      }
      return all;
    });
  }

  template <typename Score>
  void write(Score* correlations, int64_t* ranks) {
    machine_.launch(cca_kernel<Score>, (count_ * count_ + kWarps - 1) / kWarps, kWarps * 32,
                    static_cast<const double*>(squares_), static_cast<const double*>(own_),
                    static_cast<const int64_t*>(ranks_), count_, correlations);
    machine_.copy(ranks, ranks_, count_);
  }

 private:
  int64_t d(int64_t v) const { return centred_[v].x.d; }
  bool tall(int64_t v) const { return n_ > d(v); }

  void pack_rows(int64_t v, int64_t first, int64_t rows, double* z) {
    pack(machine_, std::vector<Packing<double>>{{centred_[v], {first, rows, 0, d(v), d(v)}, z, nullptr}});
  }

  // Q [N, K], or where the matrix is tall W [D, K] with Q = Z W; columns past the rank are zero.
  Matrix<double> basis(int64_t v, double rtol, double ridge) {
    const Svd f = machine_.svd(tall(v) ? triangular_factor(v) : whole(v));
    const int64_t k = std::min(n_, d(v));
    double* factors = machine_.template allocate<double>(k);
    machine_.launch(rank_kernel, 1, Block::kMaxThreads, f.s, k, n_ - 1, d(v), rtol, ridge, factors, ranks_ + v,
                    own_ + v);
    const Matrix<double> vectors = tall(v) ? f.vh.transposed() : f.u;
    double* out = machine_.template allocate<double>(vectors.rows * k);
    machine_.launch(basis_kernel, blocks_for(vectors.rows * k), 256, static_cast<const double*>(vectors.data),
                    vectors.row_stride, vectors.col_stride, static_cast<const double*>(factors), f.s, tall(v),
                    vectors.rows, k, out);
    return contiguous_matrix(out, vectors.rows, k);
  }

  Matrix<double> whole(int64_t v) {
    double* z = rows_.get(machine_, n_ * d(v));
    pack_rows(v, 0, n_, z);
    return contiguous_matrix(z, n_, d(v));
  }

  // R of the QR factorisation of z, built up over panels of rows: [R; next rows] = Q R'.
  Matrix<double> triangular_factor(int64_t v) {
    const int64_t columns = d(v), most = std::max<int64_t>(8192, 4 * columns);
    const int64_t panels = (n_ + most - 1) / most, step = (n_ + panels - 1) / panels;
    double* r = rows_.get(machine_, (columns + step) * columns);
    machine_.fill_zero(r, columns * columns);
    for (int64_t first = 0; first < n_; first += step) {
      const int64_t count = std::min(step, n_ - first);
      pack_rows(v, first, count, r + columns * columns);
      machine_.qr(contiguous_matrix(r, columns + count, columns));
      machine_.launch(keep_upper_kernel, blocks_for(columns * columns), 256, r, columns);
    }
    return contiguous_matrix(r, columns, columns);
  }

  // Rows of Q into a part of the panel.
  void fill(int64_t v, int64_t first, const Matrix<double>& out) {
    if (tall(v)) {
      double* z = rows_.get(machine_, out.rows * d(v));
      pack_rows(v, first, out.rows, z);
      machine_.multiply(out, contiguous_matrix(z, out.rows, d(v)), bases_[v], false);
    } else {
      machine_.launch(copy_rows_kernel, blocks_for(out.rows * out.cols), 256,
                      static_cast<const double*>(bases_[v].data + first * out.cols), out.rows, out.cols, out.data,
                      out.row_stride);
    }
  }

  Machine& machine_;
  int64_t count_, n_;
  std::vector<Centred> centred_;
  std::vector<Matrix<double>> bases_;
  PairProducts<double> blocks_;
  int64_t* ranks_;   // [V]
  double* own_;      // [V] sum of the fourth powers of the ridge factors
  double* squares_;  // [V, V, kSumSlices]
  Reused<double> rows_, panel_;
};

}  // namespace sslk
