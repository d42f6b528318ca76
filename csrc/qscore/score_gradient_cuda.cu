// sslk::qscore_backward on CUDA.
#include "qscore/gradient_launch.cuh"

namespace sslk {
namespace {

Tensor qscore_backward_cuda(const Tensor& grad, const Tensor& h, const Tensor& discriminative, double eps,
                            bool normalize, bool two_sided) {
  check_qscore("sslk::qscore_backward", h, discriminative, eps);
  check_vector("sslk::qscore_backward", "grad", grad, h.size(0), h);
  return gradient<false>(&grad, nullptr, h, &discriminative, eps, normalize, two_sided);
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CUDA, m) { m.impl("qscore_backward", TORCH_BOX(&sslk::qscore_backward_cuda)); }
