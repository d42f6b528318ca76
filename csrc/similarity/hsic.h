// The Hilbert-Schmidt independence criterion of representations with linear kernels K = X X', up to a factor that
// cancels in CKA, and its gradient.
#pragma once

#include <optional>

#include "similarity/blocks.h"

namespace sslk {

// Where the gradient of one representation goes, [N, D].
struct GradientRows {
  void* data;
  int64_t stride;
};

// With centred X and a_i = |x_i|^2, and T the sum of K_ij L_ij over i != j:
//   biased    <K, L> = T + sum_i a_i b_i
//   debiased  T + (sum a)(sum b) / ((n-1)(n-2)) - 2/(n-2) sum_i a_i b_i
// which is the streaming form of HSIC_1 (Song et al. 2012) where the column sums are zero. T comes from the D x D
// products, ||X'Y||_F^2 - sum a_i b_i, or where the samples are few from the N x N Gram matrices.
class LinearHsic {
 public:
  // With `keep`, gradient() can be called.
  LinearHsic(const std::vector<Rows>& representations, bool debiased, bool keep);

  // Zero for the criterion of v with itself where rounding alone can have left it.
  double value(int64_t v, int64_t w) const;
  // Whether the products were of float32 and too much of a criterion's terms cancelled for them.
  bool cancels_too_much() const;

  // Writes the gradient of sum_vw e_vw <A(K_w), K_v> / 2 in X_v to each grad, where <A(L), K> is the criterion and e
  // symmetric.
  void gradient(const std::vector<double>& e, const std::vector<GradientRows>& grads);

 private:
  int64_t count() const { return static_cast<int64_t>(blocks_.size()); }
  double a(int64_t v, int64_t i) const { return squares_[v * n_ + i]; }
  double terms(int64_t v) const;  // of value(v, v), in absolute value
  void from_products(bool keep);
  void from_grams();
  void gradient_from_products(const std::vector<double>& e, const std::vector<GradientRows>& grads);
  void gradient_from_grams(const std::vector<double>& e, const std::vector<GradientRows>& grads);
  void pack_panel(int64_t first, int64_t rows, int64_t first_block, void* panel, double* squares) const;

  std::vector<CentredBlock> blocks_;
  int64_t n_;
  bool debiased_;
  ScalarType type_;                   // of the products
  std::vector<double> squares_;       // [V, N] a_i
  std::vector<double> square_dots_;   // [V, V] sum_i a_i b_i
  std::vector<double> totals_;        // [V] sum_i a_i
  std::vector<double> off_diagonal_;  // [V, V] T, for v <= w
  std::optional<BlockProducts> products_;
  std::vector<Tensor> grams_;
};

}  // namespace sslk
