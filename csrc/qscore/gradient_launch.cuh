// Launches the gradient: one op per source, because its kernels take the compiler longest.
#pragma once

#include "qscore/args.h"
#include "qscore/gradient.cuh"
#include "rows/launch.cuh"

namespace sslk {

// Gradient of the scores (grad_q, with a set) plus, where kColumn, that of the column norms (grad_column).
template <bool kColumn>
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
  const GradientOp<kColumn> op{{set ? mask_data(*set) : nullptr, eps, normalize, two_sided, nullptr},
                               gq ? gq->const_data_ptr() : nullptr,
                               gc ? gc->const_data_ptr() : nullptr,
                               out.mutable_data_ptr()};
  launch_rows(device, rows, op);
  return out;
}

}  // namespace sslk
