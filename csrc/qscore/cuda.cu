// sslk::qscore, column_l1, qscore_penalty and their gradients on CUDA.
#include "cuda/device.h"
#include "qscore/args.h"
#include "qscore/gradient.cuh"
#include "qscore/kernels.cuh"
#include "rows/sum_partials.cuh"

namespace sslk {
namespace {

// As bytes: a bool tensor made by a view may hold any of them, and all but 0 are true.
const uint8_t* mask_data(const Tensor& mask) { return static_cast<const uint8_t*>(mask.const_data_ptr()); }

Tensor qscore_cuda(const Tensor& h_in, const Tensor& discriminative, double eps, bool normalize, bool two_sided) {
  check_qscore("sslk::qscore", h_in, discriminative, eps);
  Tensor q = torch::stable::new_empty(h_in, {h_in.size(0)}, accumulation_type(h_in.scalar_type()));
  if (q.numel() == 0) {
    return q;
  }
  const OnDeviceOf device(h_in);
  const Tensor h = with_adjacent_columns(h_in), set = torch::stable::contiguous(discriminative);
  const Rows rows = rows_of(h);
  const QScoreOp op{{mask_data(set), eps, normalize, two_sided, q.mutable_data_ptr()}};
  with_row_kernel<QScoreOp>(rows, device.multiprocessors(), [&](auto kernel, int64_t grid, int64_t block) {
    launch(device, kernel, grid, block, rows, op);
  });
  return q;
}

// Calls body(typed null pointer) with the type sums and scores of h come back in.
template <typename Body>
void with_score_type(const Rows& h, Body body) {
  h.dtype == Dtype::f64 ? body(static_cast<double*>(nullptr)) : body(static_cast<float*>(nullptr));
}

// Sums columns, and scores rows when op.args.q is given. Blocks write partial sums that a second kernel adds in order.
Tensor sum_columns(const OnDeviceOf& device, const Tensor& h, ColumnsOp op) {
  const Rows rows = rows_of(h);
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
  return sum_columns(device, with_adjacent_columns(h_in), {{nullptr, 0.0, normalize, false, nullptr}, nullptr});
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
  const Tensor columns =
      sum_columns(device, h, {{mask_data(set), eps, normalize, two_sided, q.mutable_data_ptr()}, nullptr});
  Tensor loss = torch::stable::new_empty(h, {}, type);
  with_score_type(rows_of(h), [&](auto* typed) {
    using Score = std::remove_pointer_t<decltype(typed)>;
    const auto data = [](const auto& t) { return static_cast<const Score*>(t.const_data_ptr()); };
    launch(device, penalty_loss_kernel<Score>, 1, Block::kMaxThreads, data(q), h.size(0), lambda1,
           alpha ? data(*alpha) : nullptr, data(columns), h.size(1), lambda2, beta ? data(*beta) : nullptr,
           static_cast<Score*>(loss.mutable_data_ptr()));
  });
  return {loss, q, columns};
}

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
    with_row_kernel<decltype(op)>(rows, device.multiprocessors(), [&](auto kernel, int64_t grid, int64_t block) {
      launch(device, kernel, grid, block, rows, op);
    });
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
  m.impl("qscore", TORCH_BOX(&sslk::qscore_cuda));
  m.impl("qscore_backward", TORCH_BOX(&sslk::qscore_backward_cuda));
  m.impl("column_l1", TORCH_BOX(&sslk::column_l1_cuda));
  m.impl("column_l1_backward", TORCH_BOX(&sslk::column_l1_backward_cuda));
  m.impl("qscore_penalty", TORCH_BOX(&sslk::qscore_penalty_cuda));
  m.impl("qscore_penalty_backward", TORCH_BOX(&sslk::qscore_penalty_backward_cuda));
}
