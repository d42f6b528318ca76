// sslk::sparse_softmax_sgd_ on the CPU.
#include <algorithm>
#include <limits>
#include <numeric>

#include "regression/args.h"
#include "regression/kernels.h"

namespace sslk {
namespace {

constexpr const char* kOp = "sslk::sparse_softmax_sgd_";
constexpr int64_t kRowsPerTask = 64;

// The rows of a batch, gathered and transposed by one counting sort.
class Batch {
 public:
  Batch(const Tensor& columns, const Tensor& offsets, const Tensor& target, const Tensor& index, int64_t concepts,
        int64_t classes)
      : row_start_(index.numel() + 1), column_start_(concepts + 1) {
    const auto* column = static_cast<const int32_t*>(columns.const_data_ptr());
    const auto* offset = static_cast<const int64_t*>(offsets.const_data_ptr());
    const auto* cluster = static_cast<const int64_t*>(target.const_data_ptr());
    const auto* chosen = static_cast<const int64_t*>(index.const_data_ptr());
    const int64_t n = index.numel(), rows = target.numel(), ones = columns.numel();
    targets.reserve(n);
    int64_t count = 0;
    for (int64_t r = 0; r < n; ++r) {
      const int64_t i = chosen[r];
      SSLK_CHECK(i >= 0 && i < rows, kOp, ": index must lie in [0, ", rows, "), the rows, got ", i, ".");
      SSLK_CHECK(0 <= offset[i] && offset[i] <= offset[i + 1] && offset[i + 1] <= ones, kOp,
                 ": offsets must not decrease and must lie in [0, ", ones, "], the length of columns; row ", i, " has ",
                 offset[i], " and ", offset[i + 1], ".");
      SSLK_CHECK(cluster[i] >= 0 && cluster[i] < classes, kOp, ": target must lie in [0, ", classes,
                 "), the classes, got ", cluster[i], ".");
      targets.push_back(cluster[i]);
      count += offset[i + 1] - offset[i];
      SSLK_CHECK(count <= std::numeric_limits<int32_t>::max(), kOp, ": index must name rows of fewer than 2^31 ones.");
      row_start_[r + 1] = static_cast<int32_t>(count);
      for (int64_t k = offset[i]; k < offset[i + 1]; k += 16) {
        __builtin_prefetch(column + k);  // rows of a random order lie far from each other
      }
    }
    columns_.resize(count);
    rows_.resize(count);
    for (int64_t r = 0; r < n; ++r) {
      const int32_t* from = column + offset[chosen[r]];
      for (int32_t k = row_start_[r]; k < row_start_[r + 1]; ++k) {
        const int32_t m = *from++;
        SSLK_CHECK(m >= 0 && m < concepts, kOp, ": columns must lie in [0, ", concepts, "), the rows of weight, got ",
                   m, ".");
        columns_[k] = m;
        ++column_start_[m + 1];
      }
    }
    std::partial_sum(column_start_.begin(), column_start_.end(), column_start_.begin());
    std::vector<int32_t> next(column_start_.begin(), column_start_.end() - 1);
    for (int64_t r = 0; r < n; ++r) {
      for (int32_t k = row_start_[r]; k < row_start_[r + 1]; ++k) {
        rows_[next[columns_[k]]++] = static_cast<int32_t>(r);
      }
    }
  }

  BatchBits bits() const {
    return {columns_.data(),
            row_start_.data(),
            rows_.data(),
            column_start_.data(),
            static_cast<int64_t>(targets.size()),
            static_cast<int64_t>(column_start_.size()) - 1};
  }

  std::vector<int64_t> targets;

 private:
  std::vector<int32_t> columns_, row_start_, rows_, column_start_;
};

// Biases as the strips see them.
template <typename C>
void spread_bias(const SoftmaxStepArgs& a, const C* bias, C* spread) {
  std::fill_n(spread, a.strips * kStrip, C(0));
  for (int64_t k = 0; k < a.classes; ++k) {
    const int64_t column = k % a.width;
    spread[k / a.width * a.strips_of_tile * kStrip + column] = bias[k];
  }
}

template <typename C>
void update_bias(const SoftmaxStepArgs& a, C* bias, C* velocity) {
  const C* gradient = static_cast<const C*>(a.bias_gradient);
  const C momentum = static_cast<C>(a.momentum), decay = static_cast<C>(a.weight_decay),
          rate = static_cast<C>(a.learning_rate);
  for (int64_t k = 0; k < a.classes; ++k) {
    const C g = gradient[k / a.width * a.strips_of_tile * kStrip + k % a.width];
    velocity[k] = momentum * velocity[k] + (g + decay * bias[k]);
    bias[k] -= rate * velocity[k];
  }
}

template <typename C>
double step(SoftmaxStepArgs a, C* bias, C* bias_velocity, ScalarType type) {
  const int64_t n = a.bits.n;
  const auto buffer = [&](int64_t count) { return torch::stable::empty({count}, type); };
  const Tensor spread = buffer(a.strips * kStrip), gradient = buffer(a.strips * kStrip),
               errors = buffer(a.strips * n * kStrip), highest = buffer(n * a.strips_padded),
               total = buffer(n * a.strips_padded), target_logit = buffer(n);
  std::vector<double> loss(n);
  std::fill_n(static_cast<C*>(highest.mutable_data_ptr()), highest.numel(), -std::numeric_limits<C>::infinity());
  std::fill_n(static_cast<C*>(total.mutable_data_ptr()), total.numel(), C(0));
  spread_bias(a, bias, static_cast<C*>(spread.mutable_data_ptr()));
  a.bias = spread.const_data_ptr();
  a.bias_gradient = gradient.mutable_data_ptr();
  a.errors = errors.mutable_data_ptr();
  a.highest = highest.mutable_data_ptr();
  a.total = total.mutable_data_ptr();
  a.target_logit = target_logit.mutable_data_ptr();
  a.loss = loss.data();
  torch::stable::parallel_for(0, a.strips, 1, [&](int64_t b, int64_t e) { SSLK_KERNEL(softmax_forward)(a, b, e); });
  torch::stable::parallel_for(0, n, kRowsPerTask,
                              [&](int64_t b, int64_t e) { SSLK_KERNEL(softmax_normalize)(a, b, e); });
  torch::stable::parallel_for(0, a.strips, 1, [&](int64_t b, int64_t e) { SSLK_KERNEL(softmax_update)(a, b, e); });
  update_bias(a, bias, bias_velocity);
  return std::accumulate(loss.begin(), loss.end(), 0.0);
}

Tensor sparse_softmax_sgd_cpu(const Tensor& weight, const Tensor& bias, const Tensor& weight_velocity,
                              const Tensor& bias_velocity, const Tensor& columns, const Tensor& offsets,
                              const Tensor& target, const Tensor& index, double learning_rate, double momentum,
                              double weight_decay) {
  check_sparse_softmax_sgd(kOp, weight, bias, weight_velocity, bias_velocity, columns, offsets, target, index,
                           learning_rate, momentum, weight_decay);
  Tensor loss = torch::stable::new_zeros(weight, {}, ScalarType::Double);
  if (index.numel() == 0) {
    return loss;
  }
  const int64_t width = weight.size(2), classes = bias.size(0), strips_of_tile = (width + kStrip - 1) / kStrip;
  const Batch batch(columns, offsets, target, index, weight.size(1), classes);
  SoftmaxStepArgs a{};
  a.bits = batch.bits();
  a.target = batch.targets.data();
  a.dtype = kernel_dtype(weight.scalar_type());
  a.weight = weight.mutable_data_ptr();
  a.velocity = weight_velocity.mutable_data_ptr();
  a.width = width;
  a.classes = classes;
  a.strips_of_tile = strips_of_tile;
  a.strips = (classes - 1) / width * strips_of_tile + (classes - 1) % width / kStrip + 1;
  a.strips_padded = (a.strips + 15) / 16 * 16;
  a.learning_rate = learning_rate;
  a.momentum = momentum;
  a.weight_decay = weight_decay;
  const bool wide = weight.scalar_type() == ScalarType::Double;
  void* biases = bias.mutable_data_ptr();
  void* speeds = bias_velocity.mutable_data_ptr();
  *static_cast<double*>(loss.mutable_data_ptr()) =
      wide ? step(a, static_cast<double*>(biases), static_cast<double*>(speeds), ScalarType::Double)
           : step(a, static_cast<float*>(biases), static_cast<float*>(speeds), ScalarType::Float);
  return loss;
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CPU, m) { m.impl("sparse_softmax_sgd_", TORCH_BOX(&sslk::sparse_softmax_sgd_cpu)); }
