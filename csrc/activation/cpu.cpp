// sslk::activating_mask, activation_counts and row_moments on the CPU.
#include "activation/kernels.h"

#include <mutex>

#include "rows/args.h"
#include "rows/cpu.h"

namespace sslk {
namespace {

Tensor activating_mask_cpu(const Tensor& h_in, double eps, bool two_sided) {
  check_representations("sslk::activating_mask", h_in);
  check_eps("sslk::activating_mask", eps);
  const Tensor h = with_adjacent_columns(h_in);
  const Rows rows = rows_of(h);
  Tensor mask = torch::stable::new_empty(h, {rows.n, rows.d}, ScalarType::Bool);
  for_rows(rows, [&](int64_t begin, int64_t end, float* scratch) {
    SSLK_KERNEL(activation_rows)
    ({rows, eps, two_sided, scratch, static_cast<uint8_t*>(mask.mutable_data_ptr()), nullptr, nullptr}, begin, end);
  });
  return mask;
}

std::tuple<Tensor, Tensor> activation_counts_cpu(const Tensor& h_in, double eps, bool two_sided) {
  check_representations("sslk::activation_counts", h_in);
  check_eps("sslk::activation_counts", eps);
  const Tensor h = with_adjacent_columns(h_in);
  const Rows rows = rows_of(h);
  Tensor features = torch::stable::new_zeros(h, {rows.d}, ScalarType::Long);
  Tensor per_row = torch::stable::new_empty(h, {rows.n}, ScalarType::Int);
  int64_t* totals = static_cast<int64_t*>(features.mutable_data_ptr());
  std::mutex lock;
  torch::stable::parallel_for(0, rows.n, rows_per_task(rows), [&](int64_t begin, int64_t end) {
    constexpr int64_t kMaxRows = 1 << 30;  // int32 counts of one thread cannot overflow in between
    std::vector<float> scratch(padded_length(rows.d));
    std::vector<int32_t> counts(padded_length(rows.d));
    for (int64_t first = begin; first < end; first += kMaxRows) {
      std::fill(counts.begin(), counts.end(), 0);
      SSLK_KERNEL(activation_rows)
      ({rows, eps, two_sided, scratch.data(), nullptr, counts.data(),
        static_cast<int32_t*>(per_row.mutable_data_ptr())},
       first, std::min(end, first + kMaxRows));
      const std::lock_guard<std::mutex> guard(lock);
      for (int64_t j = 0; j < rows.d; ++j) {
        totals[j] += counts[j];
      }
    }
  });
  return {features, per_row};
}

std::tuple<Tensor, Tensor, Tensor> row_moments_cpu(const Tensor& h_in) {
  check_representations("sslk::row_moments", h_in);
  const Tensor h = with_adjacent_columns(h_in);
  const Rows rows = rows_of(h);
  const ScalarType type = accumulation_type(h.scalar_type());
  Tensor mean = torch::stable::new_empty(h, {rows.n}, type);
  Tensor deviation = torch::stable::new_empty(h, {rows.n}, type);
  Tensor norm = torch::stable::new_empty(h, {rows.n}, type);
  for_rows(rows, [&](int64_t begin, int64_t end, float* scratch) {
    SSLK_KERNEL(moment_rows)
    ({rows, scratch, mean.mutable_data_ptr(), deviation.mutable_data_ptr(), norm.mutable_data_ptr()}, begin, end);
  });
  return {mean, deviation, norm};
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CPU, m) {
  m.impl("activating_mask", TORCH_BOX(&sslk::activating_mask_cpu));
  m.impl("activation_counts", TORCH_BOX(&sslk::activation_counts_cpu));
  m.impl("row_moments", TORCH_BOX(&sslk::row_moments_cpu));
}
