// HSIC of representations and its gradient from device kernels and matrix products: hsic.h for CUDA. Nothing here waits
// for the device but cancels_too_much().
#pragma once

#include "similarity/cka_kernels.cuh"
#include "similarity/device_blocks.cuh"

namespace sslk {

template <typename C, typename Machine>
class DeviceHsic {
 public:
  // With `keep`, gradient() can be called.
  DeviceHsic(Machine& machine, const std::vector<Rows>& representations, bool debiased, bool keep)
      : machine_(machine),
        count_(static_cast<int64_t>(representations.size())),
        n_(representations[0].n),
        debiased_(debiased),
        centred_(centred(machine, representations)) {
    blocks_.offsets.push_back(0);
    double pairs = 0.0;
    int64_t widest = 0;
    for (const Rows& x : representations) {
      blocks_.offsets.push_back(blocks_.width() + x.d);
      pairs += static_cast<double>(x.d) * static_cast<double>(blocks_.width());
      widest = std::max(widest, x.d);
    }
    // The N x N form costs N^2 sum D_v, the D x D form N sum_{v <= w} D_v D_w; N x N is never formed for N > D.
    gram_ = n_ <= widest && static_cast<double>(n_) * static_cast<double>(blocks_.width()) < pairs;
    squares_ = machine.template allocate<double>(count_ * n_);
    double* off_diagonal = machine.template allocate<double>(count_ * count_ * kSumSlices);
    double* dots = machine.template allocate<double>(count_ * count_ * kSumSlices);
    double* slices = machine.template allocate<double>(count_ * kSumSlices);
    if (gram_) {
      from_grams(off_diagonal);
    } else {
      blocks_.compute(machine, n_, keep, off_diagonal, [&](int64_t first, int64_t rows, int64_t first_block) {
        return pack_panel(first, rows, first_block, true);
      });
    }
    std::vector<ProductSum<double>> sums;
    for (int64_t v = 0; v < count_; ++v) {
      sums.push_back({squares(v), nullptr, n_, n_, 1, n_, false, slices + v * kSumSlices});
      for (int64_t w = v; w < count_; ++w) {
        sums.push_back({squares(v), squares(w), n_, n_, 1, n_, false, dots + (v * count_ + w) * kSumSlices});
      }
    }
    sum_products(machine, sums);
    hsic_ = machine.template allocate<double>(count_ * count_ + count_);
    totals_ = machine.template allocate<double>(count_);
    machine.launch(hsic_kernel, (count_ * count_ + kWarps - 1) / kWarps, kWarps * 32,
                   PairSums{off_diagonal, !gram_, dots, slices, count_, n_, debiased, left_by_rounding<C>(n_, widest)},
                   hsic_, totals_);
  }

  // As LinearHsic's. Waits for the device; false while a graph is captured, which cannot wait.
  bool cancels_too_much() {
    std::vector<double> found(count_ * count_ + count_);
    if (!debiased_ || std::is_same_v<C, double> || !machine_.fetch(found.data(), hsic_, found.size())) {
      return false;
    }
    for (int64_t v = 0; v < count_; ++v) {
      if (cancels(found[v * count_ + v], found[count_ * count_ + v])) {
        return true;
      }
    }
    return false;
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
    if (!gram_) {
      gradient_from_products(e, out);
      return;
    }
    for (int64_t v = 0; v < count_; ++v) {
      gradient_from_grams(v, weights_of(e, v), out[v]);
    }
  }

 private:
  int64_t d(int64_t v) const { return centred_[v].x.d; }
  double* squares(int64_t v) const { return squares_ + v * n_; }
  SampleWeights weights_of(const double* e, int64_t v) const {
    return {e + v * count_, squares_, totals_, count_, n_, debiased_};
  }

  // Rows of the representations from `v` on, side by side [rows, width].
  Matrix<C> pack_panel(int64_t first, int64_t rows, int64_t v, bool with_squares) {
    const int64_t width = blocks_.width();
    C* panel = panel_.get(machine_, blocks_.panel_rows(n_) * width);
    std::vector<Packing<C>> packings;
    for (; v < count_; ++v) {
      packings.push_back({centred_[v],
                          {first, rows, 0, d(v), width},
                          panel + blocks_.offsets[v],
                          with_squares ? squares(v) : nullptr});
    }
    pack(machine_, packings);
    return contiguous_matrix(panel, rows, width);
  }

  void from_grams(double* off_diagonal) {
    grams_ = machine_.template allocate<C>(count_ * n_ * n_);
    std::vector<ProductSum<C>> sums;
    for (int64_t v = 0; v < count_; ++v) {
      C* gram = grams_ + v * n_ * n_;
      for_column_panels(v, [&](const Panel& panel, const Matrix<C>& z) {
        machine_.multiply(contiguous_matrix(gram, n_, n_), z, z.transposed(), panel.column > 0);
      });
      machine_.launch(take_diagonal_kernel<C>, blocks_for(n_), 256, gram, n_, squares(v));
      for (int64_t w = 0; w <= v; ++w) {
        sums.push_back(
            {grams_ + w * n_ * n_, gram, n_, n_, n_, n_, true, off_diagonal + (w * count_ + v) * kSumSlices});
      }
    }
    sum_products(machine_, sums);
  }

  // body(panel, z) for all columns of v, as many at a time as fit.
  template <typename Body>
  void for_column_panels(int64_t v, Body body) {
    const int64_t most = part_of(d(v), std::clamp<int64_t>(kPanelBytes / (n_ * int64_t{sizeof(C)}), 1, kMostSummed));
    C* z = panel_.get(machine_, n_ * most);
    for (int64_t first = 0; first < d(v); first += most) {
      const Panel panel{0, n_, first, std::min(most, d(v) - first), most};
      pack(machine_, std::vector<Packing<C>>{{centred_[v], panel, z, nullptr}});
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
  void gradient_from_products(const double* e, const std::vector<void*>& out) {
    const int64_t width = blocks_.width(), step = blocks_.panel_rows(n_);
    double *diagonals = nullptr, *constants = nullptr;  // [V, N] and [V, widest]
    const int64_t widest = column_plan(centred_).widest;
    if (debiased_) {
      diagonals = machine_.template allocate<double>(count_ * n_);
      constants = machine_.template allocate<double>(count_ * widest);
      double* samples = machine_.template allocate<double>(count_ * n_);
      for (int64_t v = 0; v < count_; ++v) {
        machine_.launch(sample_weights_kernel, blocks_for(n_), 256, weights_of(e, v), diagonals + v * n_,
                        samples + v * n_);
      }
      column_sums<ColumnSum::weighted>(machine_, centred_, samples, constants);
    }
    // The rows are packed once for as many gradients as the memory for weighted products allows.
    for (int64_t begin = 0; begin < count_;) {
      int64_t end = begin + 1;
      while (end < count_ &&
             (blocks_.offsets[end + 1] - blocks_.offsets[begin]) * width * int64_t{sizeof(C)} <= kProductBytes) {
        ++end;
      }
      const int64_t start = blocks_.offsets[begin];
      const Matrix<C> weighted = weigh_products(e, begin, end);
      for (int64_t first = 0; first < n_; first += step) {
        const int64_t rows = std::min(step, n_ - first);
        const Matrix<C> z = pack_panel(first, rows, 0, false);
        for (int64_t v = begin; v < end; ++v) {
          C* product = product_.get(machine_, step * d(v));
          machine_.multiply(contiguous_matrix(product, rows, d(v)), z,
                            weighted.columns(blocks_.offsets[v] - start, d(v)), false);
          write_gradient(v, {first, rows, 0, d(v), width}, product, z.data + blocks_.offsets[v],
                         debiased_ ? diagonals + v * n_ : nullptr, debiased_ ? constants + v * widest : nullptr,
                         out[v]);
        }
      }
      begin = end;
    }
  }

  // e_vw X_w'X_v for v in [begin, end), those of a v below each other.
  Matrix<C> weigh_products(const double* e, int64_t begin, int64_t end) {
    const int64_t start = blocks_.offsets[begin], cols = blocks_.offsets[end] - start;
    C* out = weighted_.get(machine_, blocks_.width() * cols);
    for (int64_t v = begin; v < end; ++v) {
      for (int64_t w = 0; w < count_; ++w) {
        const Matrix<C> m = blocks_.product(w, v);
        const int64_t tiles = (m.rows + kTile - 1) / kTile * ((m.cols + kTile - 1) / kTile);
        machine_.launch(weigh_product_kernel<C>, tiles, kTile * kWarps, e + v * count_ + w,
                        static_cast<const C*>(m.data), m.row_stride, m.col_stride, m.rows, m.cols,
                        out + blocks_.offsets[w] * cols + blocks_.offsets[v] - start, cols);
      }
    }
    return contiguous_matrix(out, blocks_.width(), cols);
  }

  void write_gradient(int64_t v, const Panel& panel, const C* product, const C* z, const double* diagonal,
                      const double* constant, void* out) {
    with_type(centred_[v].x.dtype, [&](auto type) {
      using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
      if constexpr (std::is_same_v<C, double> == std::is_same_v<T, double>) {
        const int64_t tasks = (panel.rows + kWarpRows - 1) / kWarpRows * ((panel.columns + kStrip - 1) / kStrip);
        machine_.launch(
            cka_gradient_kernel<T, C>, (tasks + kWarps - 1) / kWarps, kWarps * 32,
            PanelGradient<T, C>{centred_[v], panel, product, z, diagonal, constant, static_cast<T*>(out), d(v)});
      }
    });
  }

  Machine& machine_;
  int64_t count_, n_;
  bool debiased_, gram_;
  std::vector<Centred> centred_;
  PairProducts<C> blocks_;
  double* squares_;     // [V, N] |z_i|^2
  double* hsic_;        // [V, V]
  double* totals_;      // [V] sum_i |z_i|^2
  C* grams_ = nullptr;  // [V, N, N] without diagonals
  Reused<C> panel_, product_, weighted_;
};

}  // namespace sslk
