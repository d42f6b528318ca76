// sslk::cca_matrix on the CPU.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "cpu/matmul.h"
#include "similarity/args.h"
#include "similarity/blocks.h"

namespace sslk {
namespace {

std::tuple<Tensor, Tensor, Tensor> svd(const Tensor& a) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(a), torch::stable::detail::from(false),
                                    torch::stable::detail::from(std::nullopt)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::linalg_svd", "", stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1]),
          torch::stable::detail::to<Tensor>(stack[2])};
}

// R of the QR factorisation of z [N, D], N > D, built up over panels of rows: [R; next rows] = Q R'. The singular
// values of R are those of z to rounding error relative to the largest; those of z'z would be so only to its square
// root.
Tensor triangular_factor(const CentredBlock& z) {
  const int64_t n = z.x.n, d = z.x.d, most = std::max<int64_t>(2048, 4 * d);
  const int64_t panels = (n + most - 1) / most, rows = (n + panels - 1) / panels;
  Tensor stack = torch::stable::empty({d + rows, d}, ScalarType::Double);
  double* r = static_cast<double*>(stack.mutable_data_ptr());
  std::fill(r, r + d * d, 0.0);
  for (int64_t first = 0; first < n; first += rows) {
    const int64_t count = std::min(rows, n - first);
    z.pack(first, count, 0, d, r + d * d, d, ScalarType::Double, nullptr);
    AtenTensorHandle factors, tau;
    STABLE_TORCH_ERROR_CODE_CHECK(
        aoti_torch_cpu_geqrf(matrix_view(r, d + count, d, d, 1, ScalarType::Double).get(), &factors, &tau));
    const Tensor packed(factors), unused(tau);
    const double* upper = static_cast<const double*>(packed.const_data_ptr());
    for (int64_t i = 0; i < d; ++i) {
      for (int64_t j = 0; j < d; ++j) {
        r[i * d + j] = j < i ? 0.0 : upper[i * packed.stride(0) + j * packed.stride(1)];
      }
    }
  }
  return torch::stable::narrow(stack, 0, 0, d);
}

// A representation's column space: the orthonormal basis Q [N, rank], each column times its ridge factor.
struct Whitened {
  CentredBlock z;
  bool finite;
  int64_t rank = 0;
  std::vector<double> factors;  // [rank] s / sqrt(s^2 + ridge term): 1 without ridge
  std::vector<double> basis;    // N > D: W [D, rank], Q = Z W; else Q itself [N, rank]
};

Whitened whiten(const Rows& x, double rtol, double ridge) {
  Whitened out{centred(x), true, 0, {}, {}};
  for (int64_t j = 0; j < x.d; ++j) {
    out.finite &= std::isfinite(x.dtype == Dtype::f64 ? out.z.shift_double[j] : out.z.shift[j]);
  }
  if (!out.finite) {
    return out;
  }
  const bool tall = x.n > x.d;
  Tensor matrix;
  if (tall) {
    matrix = triangular_factor(out.z);
  } else {
    matrix = torch::stable::empty({x.n, x.d}, ScalarType::Double);
    out.z.pack(0, x.n, 0, x.d, matrix.mutable_data_ptr(), x.d, ScalarType::Double, nullptr);
  }
  const auto [u, values, vh] = svd(matrix);
  const double* s = static_cast<const double*>(values.const_data_ptr());
  double squares = 0.0;
  for (int64_t k = 0; k < values.size(0); ++k) {
    squares += s[k] * s[k];
  }
  // Centring leaves N - 1 dimensions, whatever the tolerance.
  while (out.rank < std::min(values.size(0), x.n - 1) && s[out.rank] > rtol * s[0]) {
    ++out.rank;
  }
  for (int64_t k = 0; k < out.rank; ++k) {
    out.factors.push_back(s[k] / std::sqrt(s[k] * s[k] + ridge * squares / x.d));
  }
  // Row i of the basis: of V for tall matrices, divided by s; of U otherwise.
  const Tensor& vectors = tall ? vh : u;
  const double* data = static_cast<const double*>(vectors.const_data_ptr());
  const int64_t row = tall ? vectors.stride(1) : vectors.stride(0), col = tall ? vectors.stride(0) : vectors.stride(1);
  for (int64_t i = 0; i < (tall ? x.d : x.n); ++i) {
    for (int64_t k = 0; k < out.rank; ++k) {
      out.basis.push_back(data[i * row + k * col] * out.factors[k] / (tall ? s[k] : 1.0));
    }
  }
  return out;
}

// Rows of Q side by side into a panel.
void fill_bases(const std::vector<Whitened>& bases, const BlockProducts& products, int64_t first, int64_t rows,
                int64_t first_block, double* panel) {
  for (size_t v = first_block; v < bases.size(); ++v) {
    const Whitened& b = bases[v];
    double* out = panel + products.offset(v);
    if (b.z.x.n > b.z.x.d) {
      const int64_t d = b.z.x.d;
      const Tensor z = torch::stable::empty({rows, d}, ScalarType::Double);
      b.z.pack(first, rows, 0, d, z.mutable_data_ptr(), d, ScalarType::Double, nullptr);
      multiply(matrix_view(out, rows, b.rank, products.width(), 1, ScalarType::Double), z,
               matrix_view(b.basis.data(), d, b.rank, b.rank, 1, ScalarType::Double));
    } else {
      for (int64_t i = 0; i < rows; ++i) {
        std::memcpy(out + i * products.width(), b.basis.data() + (first + i) * b.rank, b.rank * sizeof(double));
      }
    }
  }
}

std::tuple<Tensor, Tensor> cca_matrix_cpu(const Tensor& x_in, std::optional<double> rtol, double ridge) {
  check_cca_matrix("sslk::cca_matrix", x_in, rtol, ridge);
  const Tensor x = with_adjacent_features(x_in);
  const int64_t count = x.size(0), n = x.size(1), d = x.size(2);
  const bool wide = x.scalar_type() == ScalarType::Double;
  const double epsilon = wide ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
  const double tolerance = rtol.value_or(std::min(0.5, 10.0 * epsilon * std::sqrt(std::max(n, d))));
  Tensor out = torch::stable::new_empty(x, {count, count}, accumulation_type(x.scalar_type()));
  Tensor ranks = torch::stable::new_empty(x, {count}, ScalarType::Long);
  std::vector<Whitened> bases;  // of the representations that have any
  std::vector<int64_t> widths, place(count, -1);
  const std::vector<Rows> matrices = matrices_of(x);
  for (int64_t v = 0; v < count; ++v) {
    Whitened b = whiten(matrices[v], tolerance, ridge);
    static_cast<int64_t*>(ranks.mutable_data_ptr())[v] = b.rank;
    if (b.rank > 0) {
      place[v] = static_cast<int64_t>(bases.size());
      widths.push_back(b.rank);
      bases.push_back(std::move(b));
    }
  }
  const int64_t used = static_cast<int64_t>(bases.size());
  std::vector<double> r2(used * used);
  BlockProducts products(widths, n, ScalarType::Double);
  for (int64_t begin = 0; begin < used;) {
    const int64_t end = products.group_end(begin);
    products.compute(begin, end, [&](int64_t first, int64_t rows, int64_t first_block, void* panel) {
      fill_bases(bases, products, first, rows, first_block, static_cast<double*>(panel));
    });
    for (int64_t v = begin; v < end; ++v) {
      for (int64_t w = v + 1; w < used; ++w) {
        // No correlation exceeds 1: what does is rounding.
        r2[v * used + w] = std::min(1.0, products.square_sum(v, w) / std::min(widths[v], widths[w]));
      }
      double own = 0.0;
      for (const double f : bases[v].factors) {
        own += f * f * f * f;
      }
      r2[v * used + v] = own / widths[v];
    }
    begin = end;
  }
  for (int64_t v = 0; v < count; ++v) {
    for (int64_t w = 0; w < count; ++w) {
      const int64_t a = std::min(place[v], place[w]), b = std::max(place[v], place[w]);
      const double value = a < 0 ? std::nan("") : r2[a * used + b];
      if (wide) {
        static_cast<double*>(out.mutable_data_ptr())[v * count + w] = value;
      } else {
        static_cast<float*>(out.mutable_data_ptr())[v * count + w] = static_cast<float>(value);
      }
    }
  }
  return {out, ranks};
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CPU, m) { m.impl("cca_matrix", TORCH_BOX(&sslk::cca_matrix_cpu)); }
