// sslk::qscore, column_l1, qscore_penalty and their gradients on the CPU.
#include "qscore/args.h"
#include "qscore/kernels.h"
#include "rows/cpu.h"

namespace sslk {
namespace {

// Scores, and the numbers of highly activating features where `active` is given.
Tensor scores(const Tensor& h_in, const Tensor& discriminative, double eps, bool normalize, bool two_sided,
              int32_t* active) {
  const Tensor h = with_adjacent_columns(h_in), set = torch::stable::contiguous(discriminative);
  Tensor q = torch::stable::new_empty(h, {h.size(0)}, accumulation_type(h.scalar_type()));
  const Rows rows = rows_of(h);
  const std::vector<float> penalty = set_penalty(rows.d, mask_data(set));
  for_rows(rows, [&](int64_t begin, int64_t end, float* scratch) {
    SSLK_KERNEL(qscore_rows)
    ({rows, penalty.data(), eps, normalize, two_sided, scratch, q.mutable_data_ptr(), active}, begin, end);
  });
  return q;
}

Tensor qscore_cpu(const Tensor& h, const Tensor& discriminative, double eps, bool normalize, bool two_sided) {
  check_qscore("sslk::qscore", h, discriminative, eps);
  return scores(h, discriminative, eps, normalize, two_sided, nullptr);
}

std::tuple<Tensor, Tensor> qscore_counts_cpu(const Tensor& h, const Tensor& discriminative, double eps, bool normalize,
                                             bool two_sided) {
  check_qscore("sslk::qscore_counts", h, discriminative, eps);
  Tensor active = torch::stable::new_empty(h, {h.size(0)}, ScalarType::Int);
  Tensor q = scores(h, discriminative, eps, normalize, two_sided, static_cast<int32_t*>(active.mutable_data_ptr()));
  return {q, active};
}

// Sums columns (and scores rows when `q` is given) in chunks whose bounds depend on the shape alone: the result does
// not depend on the number of threads.
Tensor sum_columns(const Rows& rows, const float* penalty, double eps, bool normalize, bool two_sided, Tensor* q,
                   const Tensor& h) {
  constexpr int64_t kMaxChunks = 64, kMinRows = 128;
  const int64_t per_chunk = std::max(kMinRows, (rows.n + kMaxChunks - 1) / kMaxChunks);
  const int64_t chunks = (rows.n + per_chunk - 1) / per_chunk;
  std::vector<double> totals(chunks * rows.d, 0.0);
  torch::stable::parallel_for(0, chunks, 1, [&](int64_t first, int64_t last) {
    std::vector<float> scratch(padded_length(rows.d)), sums(padded_length(rows.d), 0.0f);
    for (int64_t c = first; c < last; ++c) {
      SSLK_KERNEL(column_rows)
      ({{rows, penalty, eps, normalize, two_sided, scratch.data(), q ? q->mutable_data_ptr() : nullptr},
        sums.data(),
        totals.data() + c * rows.d},
       c * per_chunk, std::min(rows.n, (c + 1) * per_chunk));
    }
  });
  Tensor out = torch::stable::new_empty(h, {rows.d}, accumulation_type(h.scalar_type()));
  for (int64_t j = 0; j < rows.d; ++j) {
    double sum = 0.0;
    for (int64_t c = 0; c < chunks; ++c) {
      sum += totals[c * rows.d + j];
    }
    if (rows.dtype == Dtype::f64) {
      static_cast<double*>(out.mutable_data_ptr())[j] = sum;
    } else {
      static_cast<float*>(out.mutable_data_ptr())[j] = static_cast<float>(sum);
    }
  }
  return out;
}

Tensor column_l1_cpu(const Tensor& h_in, bool normalize) {
  check_representations("sslk::column_l1", h_in);
  const Tensor h = with_adjacent_columns(h_in);
  return sum_columns(rows_of(h), nullptr, 0.0, normalize, false, nullptr, h);
}

std::tuple<Tensor, Tensor, Tensor> qscore_penalty_cpu(const Tensor& h_in, const Tensor& discriminative, double lambda1,
                                                      double lambda2, double eps, bool normalize, bool two_sided,
                                                      const std::optional<Tensor>& alpha,
                                                      const std::optional<Tensor>& beta) {
  check_penalty("sslk::qscore_penalty", h_in, discriminative, lambda1, lambda2, eps, alpha, beta);
  const Tensor h = with_adjacent_columns(h_in), set = torch::stable::contiguous(discriminative);
  const Rows rows = rows_of(h);
  const std::vector<float> penalty = set_penalty(rows.d, mask_data(set));
  Tensor q = torch::stable::new_empty(h, {rows.n}, accumulation_type(h.scalar_type()));
  const Tensor columns = sum_columns(rows, penalty.data(), eps, normalize, two_sided, &q, h);
  Tensor loss = torch::stable::new_empty(h, {}, accumulation_type(h.scalar_type()));
  auto compute = [&](auto* typed) {
    using Score = std::remove_pointer_t<decltype(typed)>;
    const auto given = [](const std::optional<Tensor>& t) {
      return static_cast<double>(*static_cast<const Score*>(t->const_data_ptr()));
    };
    *static_cast<Score*>(loss.mutable_data_ptr()) = static_cast<Score>(penalty_loss(
        static_cast<const Score*>(q.const_data_ptr()), rows.n, lambda1,
        alpha ? std::optional<double>(given(alpha)) : std::nullopt, static_cast<const Score*>(columns.const_data_ptr()),
        rows.d, lambda2, beta ? std::optional<double>(given(beta)) : std::nullopt));
  };
  rows.dtype == Dtype::f64 ? compute(static_cast<double*>(nullptr)) : compute(static_cast<float*>(nullptr));
  return {loss, q, columns};
}

// Gradient of the scores (grad_q, with a set) plus that of the column norms (grad_column).
Tensor gradient(const Tensor* grad_q, const Tensor* grad_column, const Tensor& h_in, const Tensor* discriminative,
                double eps, bool normalize, bool two_sided) {
  const Tensor h = with_adjacent_columns(h_in);
  const Rows rows = rows_of(h);
  Tensor out = torch::stable::new_empty(h, {rows.n, rows.d});
  const auto contiguous = [](const Tensor* t) {
    return t ? std::optional<Tensor>(torch::stable::contiguous(*t)) : std::nullopt;
  };
  const auto gq = contiguous(grad_q), gc = contiguous(grad_column), set = contiguous(discriminative);
  const std::vector<float> penalty = set_penalty(rows.d, set ? mask_data(*set) : nullptr);
  const bool stream = out.numel() * static_cast<int64_t>(out.element_size()) >= kStreamBytes;
  for_rows(rows, [&](int64_t begin, int64_t end, float* scratch) {
    SSLK_KERNEL(gradient_rows)
    ({{rows, penalty.data(), eps, normalize, two_sided, scratch, nullptr},
      gq ? gq->const_data_ptr() : nullptr,
      gc ? gc->const_data_ptr() : nullptr,
      out.mutable_data_ptr(),
      stream},
     begin, end);
  });
  return out;
}

Tensor qscore_backward_cpu(const Tensor& grad, const Tensor& h, const Tensor& discriminative, double eps,
                           bool normalize, bool two_sided) {
  check_qscore("sslk::qscore_backward", h, discriminative, eps);
  check_vector("sslk::qscore_backward", "grad", grad, h.size(0), h);
  return gradient(&grad, nullptr, h, &discriminative, eps, normalize, two_sided);
}

Tensor column_l1_backward_cpu(const Tensor& grad, const Tensor& h, bool normalize) {
  check_representations("sslk::column_l1_backward", h);
  check_vector("sslk::column_l1_backward", "grad", grad, h.size(1), h);
  return gradient(nullptr, &grad, h, nullptr, 0.0, normalize, false);
}

Tensor qscore_penalty_backward_cpu(const Tensor& grad_q, const Tensor& grad_column_l1, const Tensor& h,
                                   const Tensor& discriminative, double eps, bool normalize, bool two_sided) {
  check_qscore("sslk::qscore_penalty_backward", h, discriminative, eps);
  check_vector("sslk::qscore_penalty_backward", "grad_q", grad_q, h.size(0), h);
  check_vector("sslk::qscore_penalty_backward", "grad_column_l1", grad_column_l1, h.size(1), h);
  return gradient(&grad_q, &grad_column_l1, h, &discriminative, eps, normalize, two_sided);
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CPU, m) {
  m.impl("qscore", TORCH_BOX(&sslk::qscore_cpu));
  m.impl("qscore_counts", TORCH_BOX(&sslk::qscore_counts_cpu));
  m.impl("qscore_backward", TORCH_BOX(&sslk::qscore_backward_cpu));
  m.impl("column_l1", TORCH_BOX(&sslk::column_l1_cpu));
  m.impl("column_l1_backward", TORCH_BOX(&sslk::column_l1_backward_cpu));
  m.impl("qscore_penalty", TORCH_BOX(&sslk::qscore_penalty_cpu));
  m.impl("qscore_penalty_backward", TORCH_BOX(&sslk::qscore_penalty_backward_cpu));
}
