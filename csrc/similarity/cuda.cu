// sslk::linear_cka, cka_matrix, their gradients, and cca_matrix on CUDA.
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>

#include <array>
#include <cmath>
#include <limits>

#include "cuda/machine.h"
#include "similarity/args.h"
#include "similarity/device_cca.cuh"
#include "similarity/device_hsic.cuh"

namespace sslk {
namespace {

// The machine of device_blocks.cuh, with torch's products and factorisations.
class Machine : public DeviceMachine {
 public:
  using DeviceMachine::DeviceMachine;

  template <typename V>
  void copy(V* to, const V* from, int64_t count) {
    STD_CUDA_CHECK(cudaMemcpyAsync(to, from, count * sizeof(V), cudaMemcpyDeviceToDevice, device_.stream()));
  }
  // Numbers on the host, once they are there; false, and nothing, while a graph is captured.
  template <typename V>
  bool fetch(V* to, const V* from, int64_t count) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    STD_CUDA_CHECK(cudaStreamIsCapturing(device_.stream(), &status));
    if (status != cudaStreamCaptureStatusNone) {
      return false;
    }
    STD_CUDA_CHECK(cudaMemcpyAsync(to, from, count * sizeof(V), cudaMemcpyDeviceToHost, device_.stream()));
    STD_CUDA_CHECK(cudaStreamSynchronize(device_.stream()));
    return true;
  }
  // Straight to torch's routine: autocast must not round the factors.
  template <typename C>
  void multiply(const Matrix<C>& out, const Matrix<C>& a, const Matrix<C>& b, bool accumulate) {
    const Tensor target = view(out);
    SSLK_TORCH_CHECK(aoti_torch_cuda_addmm_out(target.get(), target.get(), view(a).get(), view(b).get(),
                                               accumulate ? 1.0 : 0.0, 1.0));
  }
  void qr(const Matrix<double>& a) {
    AtenTensorHandle factors, tau;
    SSLK_TORCH_CHECK(aoti_torch_cuda_geqrf(view(a).get(), &factors, &tau));
    const Tensor packed(factors), unused(tau);
    Tensor target = view(a);
    torch::stable::copy_(target, packed);
  }
  Svd svd(const Matrix<double>& a) {
    std::array<StableIValue, 4> stack{torch::stable::detail::from(view(a)), torch::stable::detail::from(false),
                                      torch::stable::detail::from(std::nullopt)};
    SSLK_TORCH_CHECK(torch_call_dispatcher("aten::linalg_svd", "", stack.data(), TORCH_ABI_VERSION));
    const auto keep = [&](int k) {
      memory_.push_back(torch::stable::detail::to<Tensor>(stack[k]));
      return memory_.back();
    };
    const Tensor u = keep(0), s = torch::stable::contiguous(keep(1)), vh = keep(2);
    memory_.push_back(s);
    return {matrix_of(u), matrix_of(vh), static_cast<const double*>(s.const_data_ptr())};
  }

 private:
  template <typename C>
  Tensor view(const Matrix<C>& m) const {
    return torch::stable::from_blob(m.data, {m.rows, m.cols}, {m.row_stride, m.col_stride}, like_.device(),
                                    std::is_same_v<C, double> ? ScalarType::Double : ScalarType::Float);
  }
  static Matrix<double> matrix_of(const Tensor& t) {
    return {static_cast<double*>(t.mutable_data_ptr()), t.size(0), t.size(1), t.stride(0), t.stride(1)};
  }
};

// Features adjacent in memory, and the matrices of x [V, N, D].
Tensor adjacent(const Tensor& x) { return x.stride(2) == 1 || x.size(2) == 1 ? x : torch::stable::contiguous(x); }

Rows matrix(const Tensor& x, int64_t v) {
  const char* data = static_cast<const char*>(x.const_data_ptr());
  return {data + v * x.stride(0) * static_cast<int64_t>(x.element_size()), x.size(1), x.size(2), x.stride(1),
          kernel_dtype(x.scalar_type())};
}

std::vector<Rows> matrices(const Tensor& x) {
  std::vector<Rows> out;
  for (int64_t v = 0; v < x.size(0); ++v) {
    out.push_back(matrix(x, v));
  }
  return out;
}

void* slice(const Tensor& t, int64_t v) {
  return static_cast<char*>(t.mutable_data_ptr()) + v * t.stride(0) * static_cast<int64_t>(t.element_size());
}

template <typename Body>
void with_scores(const Tensor& x, Body body) {
  x.scalar_type() == ScalarType::Double ? body(static_cast<double*>(nullptr)) : body(static_cast<float*>(nullptr));
}

Tensor linear_cka_cuda(const Tensor& x_in, const Tensor& y_in, bool debiased) {
  check_linear_cka("sslk::linear_cka", x_in, y_in, debiased);
  Tensor out = torch::stable::new_empty(x_in, {x_in.size(0)}, accumulation_type(x_in.scalar_type()));
  const Tensor x = adjacent(x_in), y = adjacent(y_in);
  for (int64_t b = 0; b < x.size(0); ++b) {
    bool again = false;
    with_scores(x, [&](auto* typed) {
      using Score = std::remove_pointer_t<decltype(typed)>;
      Machine machine(x);
      DeviceHsic<Score, Machine> hsic(machine, {matrix(x, b), matrix(y, b)}, debiased, false);
      hsic.write_cka(true, static_cast<Score*>(slice(out, b)));
      again = hsic.cancels_too_much();
    });
    if (again) {
      set_part(out, b, linear_cka_cuda(in_double(part(x, b)), in_double(part(y, b)), debiased));
    }
  }
  return out;
}

std::tuple<Tensor, Tensor> linear_cka_backward_cuda(const Tensor& grad_in, const Tensor& x_in, const Tensor& y_in,
                                                    bool debiased) {
  check_linear_cka("sslk::linear_cka_backward", x_in, y_in, debiased);
  check_cka_gradient("sslk::linear_cka_backward", grad_in, x_in.size(0), -1, x_in);
  const Tensor grad_x = torch::stable::new_empty(x_in, {x_in.size(0), x_in.size(1), x_in.size(2)});
  const Tensor grad_y = torch::stable::new_empty(y_in, {y_in.size(0), y_in.size(1), y_in.size(2)});
  const Tensor x = adjacent(x_in), y = adjacent(y_in), grad = torch::stable::contiguous(grad_in);
  for (int64_t b = 0; b < x.size(0); ++b) {
    bool again = false;
    with_scores(x, [&](auto* typed) {
      using Score = std::remove_pointer_t<decltype(typed)>;
      Machine machine(x);
      DeviceHsic<Score, Machine> hsic(machine, {matrix(x, b), matrix(y, b)}, debiased, true);
      hsic.gradient(true, static_cast<const Score*>(slice(grad, b)), {slice(grad_x, b), slice(grad_y, b)});
      again = hsic.cancels_too_much();
    });
    if (again) {
      const auto [wide_x, wide_y] =
          linear_cka_backward_cuda(in_double(part(grad, b)), in_double(part(x, b)), in_double(part(y, b)), debiased);
      set_part(grad_x, b, wide_x);
      set_part(grad_y, b, wide_y);
    }
  }
  return {grad_x, grad_y};
}

Tensor cka_matrix_cuda(const Tensor& x_in, bool debiased) {
  check_cka_matrix("sslk::cka_matrix", x_in, debiased);
  const int64_t count = x_in.size(0);
  Tensor out = torch::stable::new_empty(x_in, {count, count}, accumulation_type(x_in.scalar_type()));
  if (count == 0) {
    return out;
  }
  const Tensor x = adjacent(x_in);
  bool again = false;
  with_scores(x, [&](auto* typed) {
    using Score = std::remove_pointer_t<decltype(typed)>;
    Machine machine(x);
    DeviceHsic<Score, Machine> hsic(machine, matrices(x), debiased, false);
    hsic.write_cka(false, static_cast<Score*>(out.mutable_data_ptr()));
    again = hsic.cancels_too_much();
  });
  return again ? converted(cka_matrix_cuda(in_double(x), debiased), out.scalar_type()) : out;
}

Tensor cka_matrix_backward_cuda(const Tensor& grad_in, const Tensor& x_in, bool debiased) {
  check_cka_matrix("sslk::cka_matrix_backward", x_in, debiased);
  check_cka_gradient("sslk::cka_matrix_backward", grad_in, x_in.size(0), x_in.size(0), x_in);
  const Tensor out = torch::stable::new_empty(x_in, {x_in.size(0), x_in.size(1), x_in.size(2)});
  if (out.numel() == 0) {
    return out;
  }
  const Tensor x = adjacent(x_in), grad = torch::stable::contiguous(grad_in);
  bool again = false;
  std::vector<void*> targets;
  for (int64_t v = 0; v < x.size(0); ++v) {
    targets.push_back(slice(out, v));
  }
  with_scores(x, [&](auto* typed) {
    using Score = std::remove_pointer_t<decltype(typed)>;
    Machine machine(x);
    DeviceHsic<Score, Machine> hsic(machine, matrices(x), debiased, true);
    hsic.gradient(false, static_cast<const Score*>(grad.const_data_ptr()), targets);
    again = hsic.cancels_too_much();
  });
  return again ? converted(cka_matrix_backward_cuda(in_double(grad), in_double(x), debiased), out.scalar_type()) : out;
}

std::tuple<Tensor, Tensor> cca_matrix_cuda(const Tensor& x_in, std::optional<double> rtol, double ridge) {
  check_cca_matrix("sslk::cca_matrix", x_in, rtol, ridge);
  const int64_t count = x_in.size(0);
  Tensor out = torch::stable::new_empty(x_in, {count, count}, accumulation_type(x_in.scalar_type()));
  Tensor ranks = torch::stable::new_empty(x_in, {count}, ScalarType::Long);
  if (count == 0) {
    return {out, ranks};
  }
  Machine machine(x_in);
  const Tensor x = adjacent(x_in);
  const double epsilon = x.scalar_type() == ScalarType::Double ? std::numeric_limits<double>::epsilon()
                                                               : std::numeric_limits<float>::epsilon();
  const double size = static_cast<double>(std::max(x.size(1), x.size(2)));
  const double tolerance = rtol.value_or(std::min(0.5, 10.0 * epsilon * std::sqrt(size)));
  with_scores(x, [&](auto* typed) {
    using Score = std::remove_pointer_t<decltype(typed)>;
    DeviceCca<Machine>(machine, matrices(x), tolerance, ridge)
        .write(static_cast<Score*>(out.mutable_data_ptr()), static_cast<int64_t*>(ranks.mutable_data_ptr()));
  });
  return {out, ranks};
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CUDA, m) {
  m.impl("linear_cka", TORCH_BOX(&sslk::linear_cka_cuda));
  m.impl("linear_cka_backward", TORCH_BOX(&sslk::linear_cka_backward_cuda));
  m.impl("cka_matrix", TORCH_BOX(&sslk::cka_matrix_cuda));
  m.impl("cka_matrix_backward", TORCH_BOX(&sslk::cka_matrix_backward_cuda));
  m.impl("cca_matrix", TORCH_BOX(&sslk::cca_matrix_cuda));
}
