// A matrix of representations as the kernels see it. No torch header: kernels.cpp files include this.
#pragma once

#include <cstdint>

namespace sslk {

enum class Dtype { f64, f32, f16, bf16 };

// [n, d], unit stride along d, `stride` elements from row to row.
struct Rows {
  const void* data;
  int64_t n;
  int64_t d;
  int64_t stride;
  Dtype dtype;
};

}  // namespace sslk
