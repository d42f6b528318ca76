// Argument checks of the Q-Score family, the same on every device, and the penalty computed from scores and norms.
#pragma once

#include <cmath>
#include <limits>
#include <optional>

#include "rows/args.h"

namespace sslk {

// As bytes: a bool tensor made by a view may hold any of them, and all but 0 are true.
inline const uint8_t* mask_data(const Tensor& mask) { return static_cast<const uint8_t*>(mask.const_data_ptr()); }

inline void check_qscore(const char* op, const Tensor& h, const Tensor& discriminative, double eps) {
  check_representations(op, h);
  check_discriminative(op, h, discriminative);
  check_eps(op, eps);
}

inline void check_scalar(const char* op, const char* name, const std::optional<Tensor>& t, const Tensor& h) {
  if (t) {
    SSLK_CHECK(t->numel() == 1, op, ": ", name, " must hold one number, got shape ", shape_of(*t), ".");
    SSLK_CHECK(t->scalar_type() == accumulation_type(h.scalar_type()), op, ": ", name, " must be ",
               dtype_name(accumulation_type(h.scalar_type())), ", got ", dtype_of(*t), ".");
    SSLK_CHECK(t->device() == h.device(), op, ": ", name, " must be on the device of h, ", device_of(h), ", got ",
               device_of(*t), ".");
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

// factor * sum of term(v). Sums that overflow on the way are formed of smaller numbers.
template <typename Score, typename Term>
double scaled_sum(const Score* v, int64_t n, double factor, Term term) {
  double sum = 0.0, small = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const double value = term(static_cast<double>(v[i]));
    sum += value;
    small += value * 0x1p-64;
  }
  return std::isinf(sum) ? small * factor * 0x1p64 : sum * factor;
}

// The mean, which rounding does not take out of the range of the values: none of equal ones lies above or below it.
template <typename Score>
double mean_of(const Score* v, int64_t n) {
  double sum = 0.0, small = 0.0, low = std::numeric_limits<double>::infinity(), high = -low;
  for (int64_t i = 0; i < n; ++i) {
    const double value = static_cast<double>(v[i]);
    sum += value;
    small += value * 0x1p-64;
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
  const double count = static_cast<double>(n), mean = std::isinf(sum) ? small / count * 0x1p64 : sum / count;
  return mean < low ? low : mean > high ? high : mean;
}

// Equations (2)-(3): -lambda1 * mean_i(1[q_i < alpha] q_i) + lambda2 * sum_k(1[c_k > beta] c_k).
template <typename Score>
double penalty_loss(const Score* q, int64_t n, double lambda1, std::optional<double> alpha, const Score* columns,
                    int64_t d, double lambda2, std::optional<double> beta) {
  const double low = alpha ? *alpha : n ? mean_of(q, n) : 0.0, high = beta ? *beta : mean_of(columns, d);
  // Written so that a NaN score makes the loss NaN, not 0.
  const double scores =
      n ? scaled_sum(q, n, -lambda1 / static_cast<double>(n), [&](double x) { return x >= low ? 0.0 : x; }) : 0.0;
  return scores + scaled_sum(columns, d, lambda2, [&](double x) { return x <= high ? 0.0 : x; });
}

}  // namespace sslk
