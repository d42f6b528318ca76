// What every host-side source includes: the stable torch API, argument checks, dtype names.
// Kernel sources (*/kernels.cpp, *.cuh) do not include it: they know pointers, not tensors.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "rows/rows.h"

namespace sslk {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// One readable sentence, without file and line: the reader is a user, not an author of this file.
template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

#define SSLK_CHECK(condition, ...) \
  do {                             \
    if (!(condition)) {            \
      ::sslk::fail(__VA_ARGS__);   \
    }                              \
  } while (0)

// The return code of torch's C functions as an exception; newer headers can tell what torch itself said.
#ifdef STABLE_TORCH_ERROR_CODE_CHECK
#define SSLK_TORCH_CHECK(call) STABLE_TORCH_ERROR_CODE_CHECK(call)
#else
#define SSLK_TORCH_CHECK(call) TORCH_ERROR_CODE_CHECK(call)
#endif

// What came for an argument, in the words of torch; None arrives as a tensor that is not defined.
template <typename Number>
std::string listed(const Tensor& t, Number number) {
  if (!t.defined()) {
    return "None";
  }
  std::ostringstream out;
  out << "[";
  for (int64_t i = 0; i < t.dim(); ++i) {
    out << (i ? ", " : "") << number(i);
  }
  out << "]";
  return out.str();
}

inline std::string shape_of(const Tensor& t) {
  return listed(t, [&](int64_t i) { return t.size(i); });
}

inline std::string strides_of(const Tensor& t) {
  return listed(t, [&](int64_t i) { return t.stride(i); });
}

inline std::string device_of(const Tensor& t) {
  const torch::stable::Device device = t.device();
  switch (device.type()) {
    case torch::headeronly::DeviceType::CPU: return "cpu";
    case torch::headeronly::DeviceType::CUDA: return "cuda:" + std::to_string(device.index());
    case torch::headeronly::DeviceType::Meta: return "meta";
    default: return "another device";
  }
}

inline const char* dtype_name(ScalarType type) {
  switch (type) {
    case ScalarType::Double: return "float64";
    case ScalarType::Float: return "float32";
    case ScalarType::Half: return "float16";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Bool: return "bool";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Char: return "int8";
    case ScalarType::Short: return "int16";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    case ScalarType::UInt16: return "uint16";
    case ScalarType::UInt32: return "uint32";
    case ScalarType::UInt64: return "uint64";
    case ScalarType::ComplexHalf: return "complex32";
    case ScalarType::ComplexFloat: return "complex64";
    case ScalarType::ComplexDouble: return "complex128";
    case ScalarType::Float8_e5m2: return "float8_e5m2";
    case ScalarType::Float8_e4m3fn: return "float8_e4m3fn";
    case ScalarType::Float8_e5m2fnuz: return "float8_e5m2fnuz";
    case ScalarType::Float8_e4m3fnuz: return "float8_e4m3fnuz";
    default: return "an unsupported dtype";
  }
}

inline const char* dtype_of(const Tensor& t) { return t.defined() ? dtype_name(t.scalar_type()) : "None"; }

inline bool is_bool(const Tensor& t) { return t.defined() && t.scalar_type() == ScalarType::Bool; }

inline bool is_floating(ScalarType type) {
  return type == ScalarType::Double || type == ScalarType::Float || type == ScalarType::Half ||
         type == ScalarType::BFloat16;
}

inline Dtype kernel_dtype(ScalarType type) {
  switch (type) {
    case ScalarType::Double: return Dtype::f64;
    case ScalarType::Float: return Dtype::f32;
    case ScalarType::Half: return Dtype::f16;
    default: return Dtype::bf16;
  }
}

// Scores and sums of half inputs come back in float32.
inline ScalarType accumulation_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace sslk
