// The gradients of sslk::qscore, column_l1 and qscore_penalty on CUDA.
#include "qscore/args.h"
#include "qscore/gradient.cuh"
#include "rows/launch.cuh"

namespace sslk {
namespace {

// Gradient of the scores (grad_q, with a set) plus that of the column norms (grad_column).
Tensor gradient(const Tensor* grad_q, const Tensor* grad_column, const Tensor& h_in, const Tensor* discriminative,
                double eps, bool normalize, bool two_sided) {
  Tensor out = torch::stable::new_empty(h_in, {h_in.size(0), h_in.size(1)});
  if (out.numel() == 0) {
    return out;
  }
  const OnDeviceOf device(h_in);
  const Tensor h = with_adjacent_columns(h_in);
  const Rows rows = rows_of(h);
  const auto contiguous = [](const Tensor* t) {
    return t ? std::optional<Tensor>(torch::stable::contiguous(*t)) : std::nullopt;
  };
  const auto gq = contiguous(grad_q), gc = contiguous(grad_column), set = contiguous(discriminative);
  const auto run = [&](auto op) {
    op = {{set ? mask_data(*set) : nullptr, eps, normalize, two_sided, nullptr},
          gq ? gq->const_data_ptr() : nullptr,
          gc ? gc->const_data_ptr() : nullptr,
          out.mutable_data_ptr()};
    launch_rows(device, rows, op);
  };
  gc ? run(GradientOp<true>{}) : run(GradientOp<false>{});
  return out;
}

Tensor qscore_backward_cuda(const Tensor& grad, const Tensor& h, const Tensor& discriminative, double eps,
                            bool normalize, bool two_sided) {
  check_qscore("sslk::qscore_backward", h, discriminative, eps);
  check_vector("sslk::qscore_backward", "grad", grad, h.size(0), h);
  return gradient(&grad, nullptr, h, &discriminative, eps, normalize, two_sided);
}

Tensor column_l1_backward_cuda(const Tensor& grad, const Tensor& h, bool normalize) {
  check_representations("sslk::column_l1_backward", h);
  check_vector("sslk::column_l1_backward", "grad", grad, h.size(1), h);
  return gradient(nullptr, &grad, h, nullptr, 0.0, normalize, false);
}

Tensor qscore_penalty_backward_cuda(const Tensor& grad_q, const Tensor& grad_column_l1, const Tensor& h,
                                    const Tensor& discriminative, double eps, bool normalize, bool two_sided) {
  check_qscore("sslk::qscore_penalty_backward", h, discriminative, eps);
  check_vector("sslk::qscore_penalty_backward", "grad_q", grad_q, h.size(0), h);
  check_vector("sslk::qscore_penalty_backward", "grad_column_l1", grad_column_l1, h.size(1), h);
  return gradient(&grad_q, &grad_column_l1, h, &discriminative, eps, normalize, two_sided);
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CUDA, m) {
  m.impl("qscore_backward", TORCH_BOX(&sslk::qscore_backward_cuda));
  m.impl("column_l1_backward", TORCH_BOX(&sslk::column_l1_backward_cuda));
  m.impl("qscore_penalty_backward", TORCH_BOX(&sslk::qscore_penalty_backward_cuda));
}
