// Argument checks of the Q-Score family, the same on every device, and the penalty computed from scores and norms.
#pragma once

#include "rows/args.h"

namespace sslk {

inline void check_qscore(const char* op, const Tensor& h, const Tensor& discriminative, double eps) {
  check_representations(op, h);
  check_discriminative(op, h, discriminative);
  check_eps(op, eps);
}

inline void check_scalar(const char* op, const char* name, const std::optional<Tensor>& t, const Tensor& h) {
  if (t) {
    SSLK_CHECK(t->numel() == 1, op, ": ", name, " must hold one number, got shape ", shape_of(*t), ".");
    SSLK_CHECK(t->scalar_type() == accumulation_type(h.scalar_type()), op, ": ", name, " must be ",
               dtype_name(accumulation_type(h.scalar_type())), ", got ", dtype_name(t->scalar_type()), ".");
    SSLK_CHECK(t->device() == h.device(), op, ": ", name, " must be on the device of h.");
  }
}

inline void check_penalty(const char* op, const Tensor& h, const Tensor& discriminative, double lambda1, double lambda2,
                          double eps, const std::optional<Tensor>& alpha, const std::optional<Tensor>& beta) {
  check_qscore(op, h, discriminative, eps);
  SSLK_CHECK(lambda1 >= 0.0, op, ": lambda1 must be zero or positive, got ", lambda1, ".");
  SSLK_CHECK(lambda2 >= 0.0, op, ": lambda2 must be zero or positive, got ", lambda2, ".");
  check_scalar(op, "alpha", alpha, h);
  check_scalar(op, "beta", beta, h);
}

// Equations (2)-(3): -lambda1 * mean_i(1[q_i < alpha] q_i) + lambda2 * sum_k(1[c_k > beta] c_k).
template <typename Score>
double penalty_loss(const Score* q, int64_t n, double lambda1, std::optional<double> alpha, const Score* columns,
                    int64_t d, double lambda2, std::optional<double> beta) {
  double q_sum = 0.0, column_sum = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    q_sum += q[i];
  }
  for (int64_t k = 0; k < d; ++k) {
    column_sum += columns[k];
  }
  const double low = alpha.value_or(n ? q_sum / n : 0.0), high = beta.value_or(column_sum / d);
  double low_scores = 0.0, high_columns = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    low_scores += q[i] >= low ? 0.0 : q[i];  // a NaN score makes the loss NaN, not 0
  }
  for (int64_t k = 0; k < d; ++k) {
    high_columns += columns[k] <= high ? 0.0 : columns[k];
  }
  return (n ? -lambda1 * low_scores / n : 0.0) + lambda2 * high_columns;
}

}  // namespace sslk
