// sslk::column_l1 and qscore_penalty on CUDA.
#include "cuda/machine.h"
#include "qscore/args.h"
#include "qscore/kernels.cuh"
#include "qscore/penalty_loss.cuh"
#include "rows/launch.cuh"
#include "rows/sum_partials.cuh"

namespace sslk {
namespace {

// Calls body(typed null pointer) with the type sums and scores of h come back in.
template <typename Body>
void with_score_type(const Rows& h, Body body) {
  h.dtype == Dtype::f64 ? body(static_cast<double*>(nullptr)) : body(static_cast<float*>(nullptr));
}

// Sums columns, and scores rows when args.q is given. Blocks write partial sums that a second kernel adds in order.
Tensor sum_columns(const OnDeviceOf& device, const Tensor& h, const ScoreArgs& args) {
  const Rows rows = rows_of(h);
  ColumnsOp op{args, rows.d};
  Tensor out = torch::stable::new_empty(h, {rows.d}, accumulation_type(h.scalar_type()));
  with_row_kernel<ColumnsOp>(rows, device.multiprocessors(), [&](auto kernel, int64_t grid, int64_t block) {
    Tensor partials = torch::stable::new_empty(h, {grid, rows.d}, ScalarType::Double);
    op.partials = static_cast<double*>(partials.mutable_data_ptr());
    launch(device, kernel, grid, block, rows, op);
    with_score_type(rows, [&](auto* typed) {
      using Score = std::remove_pointer_t<decltype(typed)>;
      launch(device, sum_partials_kernel<Score>, (rows.d + kSumColumns - 1) / kSumColumns, kSumColumns * kSumRows,
             op.partials, grid, rows.d, 1.0, static_cast<Score*>(out.mutable_data_ptr()));
    });
  });
  return out;
}

Tensor column_l1_cuda(const Tensor& h_in, bool normalize) {
  check_representations("sslk::column_l1", h_in);
  if (h_in.numel() == 0) {
    return torch::stable::new_zeros(h_in, {h_in.size(1)}, accumulation_type(h_in.scalar_type()));
  }
  const OnDeviceOf device(h_in);
  return sum_columns(device, with_adjacent_columns(h_in), {nullptr, 0.0, normalize, false, nullptr});
}

std::tuple<Tensor, Tensor, Tensor> qscore_penalty_cuda(const Tensor& h_in, const Tensor& discriminative, double lambda1,
                                                       double lambda2, double eps, bool normalize, bool two_sided,
                                                       const std::optional<Tensor>& alpha,
                                                       const std::optional<Tensor>& beta) {
  check_penalty("sslk::qscore_penalty", h_in, discriminative, lambda1, lambda2, eps, alpha, beta);
  const ScalarType type = accumulation_type(h_in.scalar_type());
  Tensor q = torch::stable::new_empty(h_in, {h_in.size(0)}, type);
  if (h_in.numel() == 0) {
    return {torch::stable::new_zeros(h_in, {}, type), q, torch::stable::new_zeros(h_in, {h_in.size(1)}, type)};
  }
  const OnDeviceOf device(h_in);
  const Tensor h = with_adjacent_columns(h_in), set = torch::stable::contiguous(discriminative);
  const Tensor columns = sum_columns(device, h, {mask_data(set), eps, normalize, two_sided, q.mutable_data_ptr()});
  Tensor loss = torch::stable::new_empty(h, {}, type);
  with_score_type(rows_of(h), [&](auto* typed) {
    using Score = std::remove_pointer_t<decltype(typed)>;
    const auto data = [](const auto& t) { return static_cast<const Score*>(t.const_data_ptr()); };
    const PenaltyArgs<Score> args{data(q),       h.size(0), lambda1, alpha ? data(*alpha) : nullptr,
                                  data(columns), h.size(1), lambda2, beta ? data(*beta) : nullptr};
    DeviceMachine machine(h);
    launch_penalty_loss(machine, args, static_cast<Score*>(loss.mutable_data_ptr()));
  });
  return {loss, q, columns};
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CUDA, m) {
  m.impl("column_l1", TORCH_BOX(&sslk::column_l1_cuda));
  m.impl("qscore_penalty", TORCH_BOX(&sslk::qscore_penalty_cuda));
}
