// The row kernels on the emulator, behind a C interface for ctypes. Pointers and shapes come from the test; outputs are
// allocated there. The order of work follows csrc/*/*cuda.cu.
#include <vector>

#include "activation/kernels.cuh"
#include "machine.h"
#include "qscore/gradient.cuh"
#include "qscore/kernels.cuh"
#include "qscore/penalty_loss.cuh"
#include "rows/sum_partials.cuh"

using namespace sslk;

namespace {

constexpr int kMultiprocessors = 4;

template <typename Op>
void run(const Rows& rows, const Op& op) {
  with_row_kernel<Op>(rows, kMultiprocessors,
                      [&](auto kernel, int64_t grid, int64_t block) { SSLK_LAUNCH(kernel, grid, block, rows, op); });
}

template <typename Score>
void sum(const double* partials, int64_t grid, int64_t d, void* out) {
  SSLK_LAUNCH(sum_partials_kernel<Score>, (d + kSumColumns - 1) / kSumColumns, kSumColumns * kSumRows, partials, grid,
              d, 1.0, static_cast<Score*>(out));
}

template <typename Score>
void loss_of(const void* q, int64_t n, double lambda1, const void* alpha, const void* columns, int64_t d,
             double lambda2, const void* beta, void* loss) {
  const auto typed = [](const void* data) { return static_cast<const Score*>(data); };
  simt::HostMachine machine;
  launch_penalty_loss(machine,
                      PenaltyArgs<Score>{typed(q), n, lambda1, typed(alpha), typed(columns), d, lambda2, typed(beta)},
                      static_cast<Score*>(loss));
}

}  // namespace

extern "C" {

void simt_seed(uint64_t seed) { simt::machine.seed = seed; }

void simt_qscore(const Rows* h, const uint8_t* set, double eps, bool normalize, bool two_sided, void* q) {
  run(*h, QScoreOp<false>{{set, eps, normalize, two_sided, q}});
}

void simt_qscore_counts(const Rows* h, const uint8_t* set, double eps, bool normalize, bool two_sided, void* q,
                        int* active) {
  run(*h, QScoreOp<true>{{set, eps, normalize, two_sided, q}, active});
}

void simt_columns(const Rows* h, const uint8_t* set, double eps, bool normalize, bool two_sided, void* q,
                  void* columns) {
  ColumnsOp op{{set, eps, normalize, two_sided, q}, h->d};
  with_row_kernel<ColumnsOp>(*h, kMultiprocessors, [&](auto kernel, int64_t grid, int64_t block) {
    std::vector<double> partials(grid * h->d, NAN);
    op.partials = partials.data();
    SSLK_LAUNCH(kernel, grid, block, *h, op);
    h->dtype == Dtype::f64 ? sum<double>(op.partials, grid, h->d, columns)
                           : sum<float>(op.partials, grid, h->d, columns);
  });
}

void simt_penalty_loss(bool is_double, const void* q, int64_t n, double lambda1, const void* alpha, const void* columns,
                       int64_t d, double lambda2, const void* beta, void* loss) {
  is_double ? loss_of<double>(q, n, lambda1, alpha, columns, d, lambda2, beta, loss)
            : loss_of<float>(q, n, lambda1, alpha, columns, d, lambda2, beta, loss);
}

void simt_gradient(const Rows* h, const uint8_t* set, double eps, bool normalize, bool two_sided, const void* grad_q,
                   const void* grad_column, void* grad_h) {
  const ScoreArgs args{set, eps, normalize, two_sided, nullptr};
  grad_column ? run(*h, GradientOp<true>{args, grad_q, grad_column, grad_h})
              : run(*h, GradientOp<false>{args, grad_q, nullptr, grad_h});
}

void simt_mask(const Rows* h, double eps, bool two_sided, uint8_t* mask) {
  run(*h, MaskOp{{}, {eps, two_sided}, mask});
}

void simt_counts(const Rows* h, double eps, bool two_sided, unsigned long long* features, int* rows) {
  run(*h, CountsOp{{eps, two_sided}, features, rows});
}

void simt_moments(const Rows* h, void* mean, void* deviation, void* norm) {
  run(*h, MomentsOp{{}, mean, deviation, norm});
}

}  // extern "C"
