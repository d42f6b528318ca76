// Argument checks of sparse_softmax_sgd_. Values of the index tensors are checked where they are read.
#pragma once

#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

#include "sslk.h"

namespace sslk {

inline void check_index(const char* op, const char* name, const Tensor& t, ScalarType type, const Tensor& weight) {
  SSLK_CHECK(t.defined() && t.dim() == 1 && t.scalar_type() == type, op, ": ", name, " must be a vector of ",
             dtype_name(type), ", got ", dtype_of(t), " of shape ", shape_of(t), ".");
  SSLK_CHECK(t.is_contiguous(), op, ": ", name, " must be contiguous, got strides ", strides_of(t), ".");
  SSLK_CHECK(t.device() == weight.device(), op, ": ", name, " must be on the device of weight, ", device_of(weight),
             ", got ", device_of(t), ".");
}

// Everything the op writes: it must be whole memory of its own.
inline void check_parameter(const char* op, const char* name, const Tensor& t, const Tensor& like) {
  SSLK_CHECK(t.scalar_type() == like.scalar_type(), op, ": ", name, " must have the dtype of weight, ", dtype_of(like),
             ", got ", dtype_of(t), ".");
  SSLK_CHECK(t.is_contiguous(), op, ": ", name, " is changed in place and must be contiguous, got strides ",
             strides_of(t), ".");
  SSLK_CHECK(t.device() == like.device(), op, ": ", name, " must be on the device of weight, ", device_of(like),
             ", got ", device_of(t), ".");
}

// Both are contiguous.
inline bool share_memory(const Tensor& a, const Tensor& b) {
  const auto* first = static_cast<const char*>(a.const_data_ptr());
  const auto* second = static_cast<const char*>(b.const_data_ptr());
  return a.numel() > 0 && b.numel() > 0 && first < second + b.numel() * static_cast<int64_t>(b.element_size()) &&
         second < first + a.numel() * static_cast<int64_t>(a.element_size());
}

inline void check_sparse_softmax_sgd(const char* op, const Tensor& weight, const Tensor& bias,
                                     const Tensor& weight_velocity, const Tensor& bias_velocity, const Tensor& columns,
                                     const Tensor& offsets, const Tensor& target, const Tensor& index,
                                     double learning_rate, double momentum, double weight_decay) {
  SSLK_CHECK(weight.scalar_type() == ScalarType::Float || weight.scalar_type() == ScalarType::Double, op,
             ": weight must be float32 or float64, got ", dtype_of(weight), ".");
  SSLK_CHECK(weight.dim() == 3 && weight.numel() > 0, op,
             ": weight must hold tiles of columns, [T, M, W] with none of them 0, got shape ", shape_of(weight), ".");
  SSLK_CHECK(weight.size(1) <= std::numeric_limits<int32_t>::max(), op, ": weight must have fewer than 2^31 rows, got ",
             weight.size(1), ".");
  const int64_t most = weight.size(0) * weight.size(2);
  SSLK_CHECK(bias.dim() == 1 && bias.size(0) > most - weight.size(2) && bias.size(0) <= most, op,
             ": bias must have one entry per class, [K], with W (T - 1) < K <= W T for weight [T, M, W] = ",
             shape_of(weight), ", got shape ", shape_of(bias), ".");
  SSLK_CHECK(shape_of(weight_velocity) == shape_of(weight), op, ": weight_velocity must have the shape of weight, ",
             shape_of(weight), ", got ", shape_of(weight_velocity), ".");
  SSLK_CHECK(shape_of(bias_velocity) == shape_of(bias), op, ": bias_velocity must have the shape of bias, ",
             shape_of(bias), ", got ", shape_of(bias_velocity), ".");
  check_parameter(op, "weight", weight, weight);
  check_parameter(op, "bias", bias, weight);
  check_parameter(op, "weight_velocity", weight_velocity, weight);
  check_parameter(op, "bias_velocity", bias_velocity, weight);
  check_index(op, "columns", columns, ScalarType::Int, weight);
  check_index(op, "offsets", offsets, ScalarType::Long, weight);
  check_index(op, "target", target, ScalarType::Long, weight);
  check_index(op, "index", index, ScalarType::Long, weight);
  SSLK_CHECK(offsets.size(0) == target.size(0) + 1, op,
             ": offsets must have one entry more than target, which has one per row: got ", offsets.size(0), " and ",
             target.size(0), ".");
  for (const auto& [name, value] : {std::pair{"learning_rate", learning_rate}, std::pair{"momentum", momentum},
                                    std::pair{"weight_decay", weight_decay}}) {
    SSLK_CHECK(std::isfinite(value) && value >= 0.0, op, ": ", name, " must be finite and zero or positive, got ",
               value, ".");
  }
  const std::pair<const char*, const Tensor*> arguments[] = {{"weight", &weight},
                                                             {"bias", &bias},
                                                             {"weight_velocity", &weight_velocity},
                                                             {"bias_velocity", &bias_velocity},
                                                             {"columns", &columns},
                                                             {"offsets", &offsets},
                                                             {"target", &target},
                                                             {"index", &index}};
  constexpr int kWritten = 4;  // the first ones
  for (int i = 0; i < kWritten; ++i) {
    for (int j = i + 1; j < static_cast<int>(std::size(arguments)); ++j) {
      SSLK_CHECK(!share_memory(*arguments[i].second, *arguments[j].second), op, ": ", arguments[j].first,
                 " must not share memory with ", arguments[i].first, ", which is changed in place.");
    }
  }
}

}  // namespace sslk
