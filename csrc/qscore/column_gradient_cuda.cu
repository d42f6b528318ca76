// sslk::column_l1_backward and qscore_penalty_backward on CUDA.
#include "qscore/gradient_launch.cuh"

namespace sslk {
namespace {

Tensor column_l1_backward_cuda(const Tensor& grad, const Tensor& h, bool normalize) {
  check_representations("sslk::column_l1_backward", h);
  check_vector("sslk::column_l1_backward", "grad", grad, h.size(1), h);
  return gradient<true>(nullptr, &grad, h, nullptr, 0.0, normalize, false);
}

Tensor qscore_penalty_backward_cuda(const Tensor& grad_q, const Tensor& grad_column_l1, const Tensor& h,
                                    const Tensor& discriminative, double eps, bool normalize, bool two_sided) {
  check_qscore("sslk::qscore_penalty_backward", h, discriminative, eps);
  check_vector("sslk::qscore_penalty_backward", "grad_q", grad_q, h.size(0), h);
  check_vector("sslk::qscore_penalty_backward", "grad_column_l1", grad_column_l1, h.size(1), h);
  return gradient<true>(&grad_q, &grad_column_l1, h, &discriminative, eps, normalize, two_sided);
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CUDA, m) {
  m.impl("column_l1_backward", TORCH_BOX(&sslk::column_l1_backward_cuda));
  m.impl("qscore_penalty_backward", TORCH_BOX(&sslk::qscore_penalty_backward_cuda));
}
