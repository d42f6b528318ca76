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
  SSLK_TORCH_CHECK(torch_call_dispatcher("aten::linalg_svd", "", stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1]),
          torch::stable::detail::to<Tensor>(stack[2])};
}

// A representation's column space: the orthonormal basis Q [N, rank], each column times its ridge factor.
struct Whitened {
  CentredBlock z;
  int64_t rank = 0;
  std::vector<double> factors;  // [rank] s / sqrt(s^2 + ridge term): 1 without ridge
  std::vector<double> basis;    // N > D: W [D, rank], Q = Z W; else Q itself [N, rank]

  bool tall() const { return z.x.n > z.x.d; }
};

bool is_finite(const CentredBlock& z) {
  const auto finite = [](double shift) { return std::isfinite(shift); };
  return std::all_of(z.shift.begin(), z.shift.end(), finite) &&
         std::all_of(z.shift_double.begin(), z.shift_double.end(), finite);
}

// [m, m], m = min(N, D): R of the QR factorisation of z, of z' where N <= D, built up over panels of its longer side:
// [R; next] = Q R'. The singular values of R are those of z up to rounding relative to the largest; those of z'z would
// be so only up to the square root of it. Returns R, or R' where N <= D: its left singular vectors are then those of z.
Tensor core_of(const CentredBlock& z) {
  const bool tall = z.x.n > z.x.d;
  const int64_t m = std::min(z.x.n, z.x.d), length = std::max(z.x.n, z.x.d);
  const int64_t most = std::max<int64_t>(2048, 4 * m), panels = (length + most - 1) / most;
  const int64_t step = (length + panels - 1) / panels;
  // [m + step, m]: R above, the panel below. Column by column for z', whose rows pack() then writes as they are.
  const Tensor stack = torch::stable::empty({(m + step) * m}, ScalarType::Double);
  double* data = static_cast<double*>(stack.mutable_data_ptr());
  const int64_t row = tall ? m : 1, col = tall ? 1 : m + step;
  Tensor core = torch::stable::empty({m, m}, ScalarType::Double);
  double* out = static_cast<double*>(core.mutable_data_ptr());
  std::fill(out, out + m * m, 0.0);
  std::fill(data, data + (m + step) * m, 0.0);
  for (int64_t first = 0; first < length; first += step) {
    const int64_t count = std::min(step, length - first);
    if (tall) {
      z.pack(first, count, 0, m, data + m * row, row, ScalarType::Double, nullptr);
    } else {
      z.pack(0, m, first, count, data + m * row, col, ScalarType::Double, nullptr);
    }
    AtenTensorHandle factors, tau;
    SSLK_TORCH_CHECK(
        aoti_torch_cpu_geqrf(matrix_view(data, m + count, m, row, col, ScalarType::Double).get(), &factors, &tau));
    const Tensor packed(factors), unused(tau);
    const double* upper = static_cast<const double*>(packed.const_data_ptr());
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = i; j < m; ++j) {
        const double r = upper[i * packed.stride(0) + j * packed.stride(1)];
        data[i * row + j * col] = r;
        out[tall ? i * m + j : j * m + i] = r;
      }
    }
  }
  return core;
}

void find_basis(const Tensor& core, double rtol, double ridge, Whitened* w) {
  const auto [u, values, vh] = svd(core);
  const double* s = static_cast<const double*>(values.const_data_ptr());
  const int64_t m = values.size(0);
  double squares = 0.0;
  for (int64_t k = 0; k < m; ++k) {
    squares += s[k] * s[k];
  }
  // Centring leaves N - 1 dimensions, whatever the tolerance.
  while (w->rank < std::min(m, w->z.x.n - 1) && s[w->rank] > rtol * s[0]) {
    ++w->rank;
  }
  for (int64_t k = 0; k < w->rank; ++k) {
    w->factors.push_back(s[k] / std::sqrt(s[k] * s[k] + ridge * squares / w->z.x.d));
  }
  const bool tall = w->tall();
  const Tensor& vectors = tall ? vh : u;
  const double* data = static_cast<const double*>(vectors.const_data_ptr());
  const int64_t row = vectors.stride(tall ? 1 : 0), col = vectors.stride(tall ? 0 : 1);
  w->basis.resize(m * w->rank);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t k = 0; k < w->rank; ++k) {
      w->basis[i * w->rank + k] = data[i * row + k * col] * w->factors[k] / (tall ? s[k] : 1.0);
    }
  }
}

// The representations that have a column space; `place` says which is which, -1 for one that is constant or not finite.
std::vector<Whitened> whiten(const std::vector<Rows>& x, double rtol, double ridge, std::vector<int64_t>* place) {
  std::vector<Whitened> found(x.size()), kept;
  // One after the other: LAPACK has threads of its own, and inside a parallel region it may wait for them for ever.
  for (size_t v = 0; v < x.size(); ++v) {
    found[v].z = centred(x[v]);
    if (is_finite(found[v].z)) {
      find_basis(core_of(found[v].z), rtol, ridge, &found[v]);
    }
  }
  place->assign(x.size(), -1);
  for (size_t v = 0; v < x.size(); ++v) {
    if (found[v].rank > 0) {
      (*place)[v] = static_cast<int64_t>(kept.size());
      kept.push_back(std::move(found[v]));
    }
  }
  return kept;
}

// Rows of Q side by side into a panel.
void fill_bases(const std::vector<Whitened>& bases, const BlockProducts& products, int64_t first, int64_t rows,
                int64_t first_block, double* panel) {
  for (size_t v = first_block; v < bases.size(); ++v) {
    const Whitened& b = bases[v];
    double* out = panel + products.offset(v);
    if (b.tall()) {
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
  std::vector<int64_t> widths, place;
  const std::vector<Whitened> bases = whiten(matrices_of(x), tolerance, ridge, &place);
  for (const Whitened& b : bases) {
    widths.push_back(b.rank);
  }
  for (int64_t v = 0; v < count; ++v) {
    static_cast<int64_t*>(ranks.mutable_data_ptr())[v] = place[v] < 0 ? 0 : widths[place[v]];
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
