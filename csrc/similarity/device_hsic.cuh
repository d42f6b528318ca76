// HSIC of representations and its gradient from device kernels and matrix products: hsic.h for CUDA. Nothing here waits
// for the device.
#pragma once

#include "similarity/device_blocks.cuh"

namespace sslk {

template <typename C, typename Machine>
class DeviceHsic {
 public:
  // With `keep`, gradient() can be called.
  DeviceHsic(Machine& machine, const std::vector<Rows>& representations, bool debiased, bool keep)
      : machine_(machine), count_(static_cast<int64_t>(representations.size())), n_(representations[0].n) {
    blocks_.offsets.push_back(0);
    double pairs = 0.0;
    int64_t widest = 0;
    for (const Rows& x : representations) {
      centred_.push_back(centred(machine, x));
      blocks_.offsets.push_back(blocks_.width() + x.d);
      pairs += static_cast<double>(x.d) * static_cast<double>(blocks_.width());
      widest = std::max(widest, x.d);
    }
    // The N x N form costs N^2 sum D_v, the D x D form N sum_{v <= w} D_v D_w; N x N is never formed for N > D.
    gram_ = n_ <= widest && static_cast<double>(n_) * static_cast<double>(blocks_.width()) < pairs;
    squares_ = machine.template allocate<double>(count_ * n_);
    double* off_diagonal = machine.template zeros<double>(count_ * count_ * kSumSlices);
    double* dots = machine.template zeros<double>(count_ * count_ * kSumSlices);
    double* totals = machine.template zeros<double>(count_ * kSumSlices);
    if (gram_) {
      from_grams(off_diagonal);
    } else {
      blocks_.compute(machine, n_, keep, off_diagonal, [&](int64_t first, int64_t rows, int64_t first_block) {
        return pack_panel(first, rows, first_block, true);
      });
    }
    for (int64_t v = 0; v < count_; ++v) {
      const Matrix<double> a = contiguous_matrix(squares(v), 1, n_);
      sum_products(machine, a, static_cast<const double*>(nullptr), 0, false, totals + v * kSumSlices);
      for (int64_t w = v; w < count_; ++w) {
        sum_products(machine, a, static_cast<const double*>(squares(w)), n_, false,
                     dots + (v * count_ + w) * kSumSlices);
      }
    }
    sums_ = {off_diagonal, !gram_, dots, totals, count_, n_, debiased};
    hsic_ = machine.template allocate<double>(count_ * count_);
    machine.launch(hsic_kernel, 1, 256, sums_, hsic_);
  }

  // CKA of all pairs [V, V], or of the one pair of two representations.
  template <typename Score>
  void write_cka(bool one_pair, Score* out) {
    machine_.launch(cka_kernel<Score>, 1, 256, static_cast<const double*>(hsic_), count_, one_pair, out);
  }

  // The gradient of CKA, `grad` as write_cka's output, to each `out` [N, D_v] contiguous, in the types of x.
  template <typename Score>
  void gradient(bool one_pair, const Score* grad, const std::vector<void*>& out) {
    double* e = machine_.template allocate<double>(count_ * count_);
    machine_.launch(gradient_weights_kernel<Score>, 1, 256, static_cast<const double*>(hsic_), count_, one_pair, grad,
                    e);
    for (int64_t v = 0; v < count_; ++v) {
      const SampleWeights weights{e + v * count_, squares_, sums_};
      gram_ ? gradient_from_grams(v, weights, out[v]) : gradient_from_products(v, weights, out[v]);
    }
  }

 private:
  int64_t d(int64_t v) const { return centred_[v].x.d; }
  double* squares(int64_t v) const { return squares_ + v * n_; }

  // Rows of the representations from `v` on, side by side [rows, width].
  Matrix<C> pack_panel(int64_t first, int64_t rows, int64_t v, bool with_squares) {
    const int64_t width = blocks_.width();
    C* panel = panel_.get(machine_, blocks_.panel_rows(n_) * width);
    for (; v < count_; ++v) {
      pack(machine_, centred_[v], {first, rows, 0, d(v), width}, panel + blocks_.offsets[v],
           with_squares ? squares(v) : nullptr);
    }
    return contiguous_matrix(panel, rows, width);
  }

  void from_grams(double* off_diagonal) {
    grams_ = machine_.template allocate<C>(count_ * n_ * n_);
    for (int64_t v = 0; v < count_; ++v) {
      C* gram = grams_ + v * n_ * n_;
      for_column_panels(v, [&](const Panel& panel, const Matrix<C>& z) {
        machine_.multiply(contiguous_matrix(gram, n_, n_), z, z.transposed(), panel.column > 0);
      });
      machine_.launch(take_diagonal_kernel<C>, blocks_for(n_), 256, gram, n_, squares(v));
      for (int64_t w = 0; w <= v; ++w) {
        sum_products(machine_, contiguous_matrix(grams_ + w * n_ * n_, n_, n_), static_cast<const C*>(gram), n_, true,
                     off_diagonal + (w * count_ + v) * kSumSlices);
      }
    }
  }

  // body(panel, z) for all columns of v, as many at a time as fit.
  template <typename Body>
  void for_column_panels(int64_t v, Body body) {
    const int64_t most = std::clamp<int64_t>(kPanelBytes / (n_ * int64_t{sizeof(C)}), 1, std::min(d(v), kMostSummed));
    C* z = panel_.get(machine_, n_ * most);
    for (int64_t first = 0; first < d(v); first += most) {
      const Panel panel{0, n_, first, std::min(most, d(v) - first), most};
      pack(machine_, centred_[v], panel, z, nullptr);
      body(panel, Matrix<C>{z, n_, panel.columns, most, 1});
    }
  }

  void gradient_from_grams(int64_t v, const SampleWeights& weights, void* out) {
    C* mixed = weighted_.get(machine_, n_ * n_);
    machine_.launch(mix_grams_kernel<C>, blocks_for(n_ * n_), 256, weights, static_cast<const C*>(grams_), mixed);
    for_column_panels(v, [&](const Panel& panel, const Matrix<C>& z) {
      C* product = product_.get(machine_, n_ * panel.columns);
      machine_.multiply(contiguous_matrix(product, n_, panel.columns), contiguous_matrix(mixed, n_, n_), z, false);
      write_gradient(v, panel, product, z.data, nullptr, nullptr, out);
    });
  }

  // A(L) X = Y (Y'X) + diag(c) X + 1 (X'b)' / (n-2), c_i = -n/(n-2) b_i + sum(b) / ((n-1)(n-2)); biased: Y (Y'X).
  void gradient_from_products(int64_t v, const SampleWeights& weights, void* out) {
    const int64_t width = blocks_.width(), step = blocks_.panel_rows(n_);
    C* product = product_.get(machine_, step * d(v));
    C* weighted = weighted_.get(machine_, width * d(v));  // e_vw X_w'X_v, one below the other
    for (int64_t w = 0; w < count_; ++w) {
      const Matrix<C> m = blocks_.product(w, v);
      machine_.launch(weigh_product_kernel<C>, blocks_for(m.rows * m.cols), 256, weights.e + w,
                      static_cast<const C*>(m.data), m.row_stride, m.col_stride, m.rows, m.cols,
                      weighted + blocks_.offsets[w] * d(v));
    }
    double* diagonal = nullptr;
    C* constant = nullptr;
    if (sums_.debiased) {
      diagonal = diagonal_.get(machine_, n_);
      constant = constant_.get(machine_, d(v));
      C* samples = samples_.get(machine_, n_);
      machine_.launch(sample_weights_kernel<C>, blocks_for(n_), 256, weights, diagonal, samples);
      for (int64_t first = 0; first < n_; first += step) {
        const int64_t rows = std::min(step, n_ - first);
        pack(machine_, centred_[v], {first, rows, 0, d(v), d(v)}, product, nullptr);
        machine_.multiply(contiguous_matrix(constant, 1, d(v)), contiguous_matrix(samples + first, 1, rows),
                          contiguous_matrix(product, rows, d(v)), first > 0);
      }
    }
    for (int64_t first = 0; first < n_; first += step) {
      const int64_t rows = std::min(step, n_ - first);
      const Matrix<C> z = pack_panel(first, rows, 0, false);
      machine_.multiply(contiguous_matrix(product, rows, d(v)), z, contiguous_matrix(weighted, width, d(v)), false);
      write_gradient(v, {first, rows, 0, d(v), width}, product, z.data + blocks_.offsets[v], diagonal, constant, out);
    }
  }

  void write_gradient(int64_t v, const Panel& panel, const C* product, const C* z, const double* diagonal,
                      const C* constant, void* out) {
    with_type(centred_[v].x.dtype, [&](auto type) {
      using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
      if constexpr (std::is_same_v<C, double> == std::is_same_v<T, double>) {
        machine_.launch(cka_gradient_kernel<T, C>, blocks_for(panel.rows * panel.columns), 256, centred_[v], panel,
                        product, z, diagonal, constant, static_cast<T*>(out), d(v));
      }
    });
  }

  Machine& machine_;
  int64_t count_, n_;
  bool gram_;
  std::vector<Centred> centred_;
  PairProducts<C> blocks_;
  double* squares_;  // [V, N] |z_i|^2
  PairSums sums_;
  double* hsic_;        // [V, V]
  C* grams_ = nullptr;  // [V, N, N] without diagonals
  Reused<C> panel_, product_, weighted_, constant_, samples_;
  Reused<double> diagonal_;
};

}  // namespace sslk
