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

inline std::string shape_of(const Tensor& t) {
  std::ostringstream out;
  out << "[";
  for (int64_t i = 0; i < t.dim(); ++i) {
    out << (i ? ", " : "") << t.size(i);
  }
  out << "]";
  return out.str();
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
    default: return "an unsupported dtype";
  }
}

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
