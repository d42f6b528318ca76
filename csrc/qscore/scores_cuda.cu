// sslk::qscore and qscore_counts on CUDA.
#include "qscore/args.h"
#include "qscore/kernels.cuh"
#include "rows/launch.cuh"

namespace sslk {
namespace {

// Scores, and the numbers of highly activating features where `active` is given.
Tensor scores(const Tensor& h_in, const Tensor& discriminative, double eps, bool normalize, bool two_sided,
              const Tensor* active) {
  Tensor q = torch::stable::new_empty(h_in, {h_in.size(0)}, accumulation_type(h_in.scalar_type()));
  if (q.numel() == 0) {
    return q;
  }
  const OnDeviceOf device(h_in);
  const Tensor h = with_adjacent_columns(h_in), set = torch::stable::contiguous(discriminative);
  const ScoreArgs args{mask_data(set), eps, normalize, two_sided, q.mutable_data_ptr()};
  active ? launch_rows(device, rows_of(h), QScoreOp<true>{args, static_cast<int*>(active->mutable_data_ptr())})
         : launch_rows(device, rows_of(h), QScoreOp<false>{args});
  return q;
}

Tensor qscore_cuda(const Tensor& h, const Tensor& discriminative, double eps, bool normalize, bool two_sided) {
  check_qscore("sslk::qscore", h, discriminative, eps);
  return scores(h, discriminative, eps, normalize, two_sided, nullptr);
}

std::tuple<Tensor, Tensor> qscore_counts_cuda(const Tensor& h, const Tensor& discriminative, double eps, bool normalize,
                                              bool two_sided) {
  check_qscore("sslk::qscore_counts", h, discriminative, eps);
  const Tensor active = torch::stable::new_empty(h, {h.size(0)}, ScalarType::Int);
  return {scores(h, discriminative, eps, normalize, two_sided, &active), active};
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CUDA, m) {
  m.impl("qscore", TORCH_BOX(&sslk::qscore_cuda));
  m.impl("qscore_counts", TORCH_BOX(&sslk::qscore_counts_cuda));
}
