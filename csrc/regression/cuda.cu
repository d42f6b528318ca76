// sslk::sparse_softmax_sgd_ on CUDA.
#include <limits>

#include "cuda/machine.h"
#include "regression/args.h"
#include "regression/kernels.cuh"

namespace sslk {
namespace {

constexpr const char* kOp = "sslk::sparse_softmax_sgd_";

template <typename C>
SoftmaxStep<C> step_of(const SparseBatch& batch, const Tensor& weight, const Tensor& bias,
                       const Tensor& weight_velocity, const Tensor& bias_velocity, double learning_rate,
                       double momentum, double weight_decay, const Tensor& loss) {
  SoftmaxStep<C> a{};
  a.batch = batch;
  a.width = weight.size(2);
  a.weight = static_cast<C*>(weight.mutable_data_ptr());
  a.velocity = static_cast<C*>(weight_velocity.mutable_data_ptr());
  a.bias = static_cast<C*>(bias.mutable_data_ptr());
  a.bias_velocity = static_cast<C*>(bias_velocity.mutable_data_ptr());
  a.learning_rate = static_cast<C>(learning_rate);
  a.momentum = static_cast<C>(momentum);
  a.weight_decay = static_cast<C>(weight_decay);
  a.loss = static_cast<double*>(loss.mutable_data_ptr());
  return a;
}

Tensor sparse_softmax_sgd_cuda(const Tensor& weight, const Tensor& bias, const Tensor& weight_velocity,
                               const Tensor& bias_velocity, const Tensor& columns, const Tensor& offsets,
                               const Tensor& target, const Tensor& index, double learning_rate, double momentum,
                               double weight_decay) {
  check_sparse_softmax_sgd(kOp, weight, bias, weight_velocity, bias_velocity, columns, offsets, target, index,
                           learning_rate, momentum, weight_decay);
  SSLK_CHECK(index.numel() <= std::numeric_limits<int32_t>::max(), kOp, ": index must name fewer than 2^31 rows, got ",
             index.numel(), ".");
  if (index.numel() == 0) {
    return torch::stable::new_zeros(weight, {}, ScalarType::Double);
  }
  Tensor loss = torch::stable::new_empty(weight, {}, ScalarType::Double);
  DeviceMachine machine(weight);
  SparseBatch batch{};
  batch.columns = static_cast<const int32_t*>(columns.const_data_ptr());
  batch.offsets = static_cast<const int64_t*>(offsets.const_data_ptr());
  batch.target = static_cast<const int64_t*>(target.const_data_ptr());
  batch.index = static_cast<const int64_t*>(index.const_data_ptr());
  batch.rows = target.numel(), batch.ones = columns.numel();
  batch.n = index.numel(), batch.concepts = weight.size(1), batch.classes = bias.size(0);
  const auto step = [&](auto real) {
    softmax_step(machine, step_of<decltype(real)>(batch, weight, bias, weight_velocity, bias_velocity, learning_rate,
                                                  momentum, weight_decay, loss));
  };
  weight.scalar_type() == ScalarType::Double ? step(0.0) : step(0.0f);
  return loss;
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CUDA, m) { m.impl("sparse_softmax_sgd_", TORCH_BOX(&sslk::sparse_softmax_sgd_cuda)); }
