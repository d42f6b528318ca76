// sslk::linear_cka, cka_matrix and their gradients on the CPU.
#include <cmath>

#include "similarity/args.h"
#include "similarity/hsic.h"

namespace sslk {
namespace {

// CKA of v and w; NaN where a representation is constant, whose criterion with itself is zero.
double cka(const LinearHsic& hsic, int64_t v, int64_t w) {
  const double norms = std::sqrt(hsic.value(v, v)) * std::sqrt(hsic.value(w, w));
  return norms > 0.0 ? (v == w ? 1.0 : hsic.value(v, w) / norms) : std::nan("");
}

// The weights of LinearHsic::gradient for an upstream gradient g [V, V] of the CKA matrix: from
// d cka_vw = d h_vw / sqrt(h_vv h_ww) - cka_vw / 2 (d h_vv / h_vv + d h_ww / h_ww) and dh_vw / dX_v = 2 A(K_w) X_v.
std::vector<double> gradient_weights(const LinearHsic& hsic, const std::vector<double>& g, int64_t count) {
  std::vector<double> e(count * count, 0.0);
  for (int64_t v = 0; v < count; ++v) {
    for (int64_t w = 0; w < count; ++w) {
      const double pair = g[v * count + w] + g[w * count + v];
      if (v != w && pair != 0.0) {
        const double hvv = hsic.value(v, v);
        e[v * count + w] = 2.0 * pair / (std::sqrt(hvv) * std::sqrt(hsic.value(w, w)));
        e[v * count + v] -= 2.0 * pair * cka(hsic, v, w) / hvv;
      }
    }
  }
  return e;
}

template <typename Body>
void with_scores(ScalarType type, Body body) {
  type == ScalarType::Double ? body(static_cast<double*>(nullptr)) : body(static_cast<float*>(nullptr));
}

void put(const Tensor& out, int64_t i, double value) {
  with_scores(out.scalar_type(), [&](auto* typed) {
    using Score = std::remove_pointer_t<decltype(typed)>;
    static_cast<Score*>(out.mutable_data_ptr())[i] = static_cast<Score>(value);
  });
}

std::vector<double> values_of(const Tensor& t) {
  const Tensor contiguous = torch::stable::contiguous(t);
  std::vector<double> out(contiguous.numel());
  with_scores(t.scalar_type(), [&](auto* typed) {
    const auto* data = static_cast<decltype(typed)>(contiguous.mutable_data_ptr());
    std::copy(data, data + out.size(), out.begin());
  });
  return out;
}

GradientRows gradient_of(const Tensor& grad, int64_t v) {
  return {static_cast<char*>(grad.mutable_data_ptr()) + v * grad.stride(0) * grad.element_size(), grad.stride(1)};
}

Tensor linear_cka_cpu(const Tensor& x_in, const Tensor& y_in, bool debiased) {
  check_linear_cka("sslk::linear_cka", x_in, y_in, debiased);
  const Tensor x = with_adjacent_features(x_in), y = with_adjacent_features(y_in);
  Tensor out = torch::stable::new_empty(x, {x.size(0)}, accumulation_type(x.scalar_type()));
  const std::vector<Rows> xs = matrices_of(x), ys = matrices_of(y);
  // One pair after the other: the products have threads of their own (see cpu/matmul.h).
  for (int64_t b = 0; b < x.size(0); ++b) {
    const LinearHsic hsic({xs[b], ys[b]}, debiased, false);
    if (hsic.cancels_too_much()) {
      set_part(out, b, linear_cka_cpu(in_double(part(x, b)), in_double(part(y, b)), debiased));
      continue;
    }
    put(out, b, cka(hsic, 0, 1));
  }
  return out;
}

std::tuple<Tensor, Tensor> linear_cka_backward_cpu(const Tensor& grad, const Tensor& x_in, const Tensor& y_in,
                                                   bool debiased) {
  check_linear_cka("sslk::linear_cka_backward", x_in, y_in, debiased);
  check_cka_gradient("sslk::linear_cka_backward", grad, x_in.size(0), -1, x_in);
  const Tensor x = with_adjacent_features(x_in), y = with_adjacent_features(y_in);
  const Tensor grad_x = torch::stable::new_empty(x, {x.size(0), x.size(1), x.size(2)});
  const Tensor grad_y = torch::stable::new_empty(y, {y.size(0), y.size(1), y.size(2)});
  const std::vector<Rows> xs = matrices_of(x), ys = matrices_of(y);
  const std::vector<double> g = values_of(grad);
  for (int64_t b = 0; b < x.size(0); ++b) {
    LinearHsic hsic({xs[b], ys[b]}, debiased, true);
    if (hsic.cancels_too_much()) {
      const auto [wide_x, wide_y] =
          linear_cka_backward_cpu(in_double(part(grad, b)), in_double(part(x, b)), in_double(part(y, b)), debiased);
      set_part(grad_x, b, wide_x);
      set_part(grad_y, b, wide_y);
      continue;
    }
    hsic.gradient(gradient_weights(hsic, {0.0, g[b], 0.0, 0.0}, 2), {gradient_of(grad_x, b), gradient_of(grad_y, b)});
  }
  return {grad_x, grad_y};
}

Tensor cka_matrix_cpu(const Tensor& x_in, bool debiased) {
  check_cka_matrix("sslk::cka_matrix", x_in, debiased);
  const Tensor x = with_adjacent_features(x_in);
  const int64_t count = x.size(0);
  Tensor out = torch::stable::new_empty(x, {count, count}, accumulation_type(x.scalar_type()));
  if (count == 0) {
    return out;
  }
  const LinearHsic hsic(matrices_of(x), debiased, false);
  if (hsic.cancels_too_much()) {
    return converted(cka_matrix_cpu(in_double(x), debiased), out.scalar_type());
  }
  for (int64_t v = 0; v < count; ++v) {
    for (int64_t w = 0; w < count; ++w) {
      put(out, v * count + w, cka(hsic, std::min(v, w), std::max(v, w)));
    }
  }
  return out;
}

Tensor cka_matrix_backward_cpu(const Tensor& grad, const Tensor& x_in, bool debiased) {
  check_cka_matrix("sslk::cka_matrix_backward", x_in, debiased);
  check_cka_gradient("sslk::cka_matrix_backward", grad, x_in.size(0), x_in.size(0), x_in);
  const Tensor x = with_adjacent_features(x_in);
  const int64_t count = x.size(0);
  const Tensor out = torch::stable::new_empty(x, {count, x.size(1), x.size(2)});
  if (count == 0) {
    return out;
  }
  LinearHsic hsic(matrices_of(x), debiased, true);
  if (hsic.cancels_too_much()) {
    return converted(cka_matrix_backward_cpu(in_double(grad), in_double(x), debiased), x.scalar_type());
  }
  std::vector<GradientRows> rows;
  for (int64_t v = 0; v < count; ++v) {
    rows.push_back(gradient_of(out, v));
  }
  hsic.gradient(gradient_weights(hsic, values_of(grad), count), rows);
  return out;
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CPU, m) {
  m.impl("linear_cka", TORCH_BOX(&sslk::linear_cka_cpu));
  m.impl("linear_cka_backward", TORCH_BOX(&sslk::linear_cka_backward_cpu));
  m.impl("cka_matrix", TORCH_BOX(&sslk::cka_matrix_cpu));
  m.impl("cka_matrix_backward", TORCH_BOX(&sslk::cka_matrix_backward_cpu));
}
