// Argument checks of the similarity family, the same on every device.
#pragma once

#include <cmath>

#include "sslk.h"

namespace sslk {

inline void check_batched_representations(const char* op, const char* name, const char* shape, const Tensor& x) {
  SSLK_CHECK(x.dim() == 3, op, ": ", name, " must have shape ", shape, ", got ", shape_of(x), ".");
  SSLK_CHECK(x.size(2) > 0, op, ": ", name, " must have at least one feature (D > 0), got shape ", shape_of(x), ".");
  SSLK_CHECK(is_floating(x.scalar_type()), op, ": ", name, " must be float64, float32, float16 or bfloat16, got ",
             dtype_of(x), ".");
}

// The debiased estimate divides by n (n - 3).
inline void check_cka_rows(const char* op, const Tensor& x, bool debiased) {
  const int64_t needed = debiased ? 4 : 2;
  SSLK_CHECK(x.size(1) >= needed || x.size(0) == 0, op, ": x must have at least ", needed, " samples (N) for ",
             debiased ? "debiased" : "biased", " CKA, got shape ", shape_of(x), ".");
}

inline void check_cka_matrix(const char* op, const Tensor& x, bool debiased) {
  check_batched_representations(op, "x", "[V, N, D]", x);
  check_cka_rows(op, x, debiased);
}

inline void check_linear_cka(const char* op, const Tensor& x, const Tensor& y, bool debiased) {
  check_batched_representations(op, "x", "[B, N, D1]", x);
  check_batched_representations(op, "y", "[B, N, D2]", y);
  SSLK_CHECK(x.size(0) == y.size(0) && x.size(1) == y.size(1), op, ": y must have the batch and samples of x, [",
             x.size(0), ", ", x.size(1), ", D2], got ", shape_of(y), ".");
  SSLK_CHECK(x.scalar_type() == y.scalar_type(), op, ": y must have the dtype of x, ", dtype_of(x), ", got ",
             dtype_of(y), ".");
  SSLK_CHECK(x.device() == y.device(), op, ": y must be on the device of x, ", device_of(x), ", got ", device_of(y),
             ".");
  check_cka_rows(op, x, debiased);
}

inline void check_cka_gradient(const char* op, const Tensor& grad, int64_t rows, int64_t cols, const Tensor& x) {
  const bool matrix = cols >= 0;
  SSLK_CHECK(grad.dim() == (matrix ? 2 : 1) && grad.size(0) == rows && (!matrix || grad.size(1) == cols), op,
             ": grad must have the shape of the output, got ", shape_of(grad), ".");
  SSLK_CHECK(grad.scalar_type() == accumulation_type(x.scalar_type()), op, ": grad must be ",
             dtype_name(accumulation_type(x.scalar_type())), ", got ", dtype_of(grad), ".");
  SSLK_CHECK(grad.device() == x.device(), op, ": grad must be on the device of x, ", device_of(x), ", got ",
             device_of(grad), ".");
}

// A copy in another dtype.
inline Tensor converted(const Tensor& x, ScalarType type) {
  std::vector<int64_t> sizes;
  for (int64_t k = 0; k < x.dim(); ++k) {
    sizes.push_back(x.size(k));
  }
  Tensor out = torch::stable::new_empty(x, sizes, type);
  torch::stable::copy_(out, x);
  return out;
}

inline Tensor in_double(const Tensor& x) { return converted(x, ScalarType::Double); }

// Element b of the first dimension, which stays.
inline Tensor part(Tensor x, int64_t b) { return torch::stable::narrow(x, 0, b, 1); }

inline void set_part(const Tensor& out, int64_t b, const Tensor& value) {
  Tensor target = part(out, b);
  torch::stable::copy_(target, value);
}

inline void check_cca_matrix(const char* op, const Tensor& x, const std::optional<double>& rtol, double ridge) {
  check_batched_representations(op, "x", "[V, N, D]", x);
  SSLK_CHECK(x.size(1) >= 2 || x.size(0) == 0, op, ": x must have at least 2 samples (N), got shape ", shape_of(x),
             ".");
  SSLK_CHECK(!rtol || (*rtol >= 0.0 && *rtol < 1.0), op, ": rtol must be at least 0 and less than 1, got ",
             rtol.value_or(0.0), ".");
  SSLK_CHECK(ridge >= 0.0 && std::isfinite(ridge), op, ": ridge must be finite and zero or positive, got ", ridge, ".");
}

}  // namespace sslk
