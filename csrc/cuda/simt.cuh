// What device code needs from its compiler: nvcc, or the emulator of tests/simt that runs kernels on the CPU.
// Also the element types: every kernel computes on float or double and touches 16-bit types only in widen and narrow.
#pragma once

#include <cstdint>
#include <cstring>

#include "rows/rows.h"

#ifdef SSLK_SIMT
#include "simt.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <map>
#include <tuple>

// Blocks of `threads` threads that fit on one multiprocessor of the current device. The driver is asked once per
// kernel and size, not at every call.
template <typename Kernel>
int resident_blocks(Kernel kernel, int threads) {
  thread_local std::map<std::tuple<Kernel, int, int>, int> known;
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) {
    return 1;
  }
  int& blocks = known[{kernel, threads, device}];
  if (blocks == 0 && cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, 0) != cudaSuccess) {
    blocks = 0;
  }
  return blocks ? blocks : 1;
}
#endif

#define SSLK_DEVICE __device__ __forceinline__

namespace sslk {

using bf16 = __nv_bfloat16;
using f16 = __half;

SSLK_DEVICE double widen(double x) { return x; }
SSLK_DEVICE float widen(float x) { return x; }
SSLK_DEVICE float widen(f16 x) { return __half2float(x); }
SSLK_DEVICE float widen(bf16 x) { return __bfloat162float(x); }

SSLK_DEVICE void narrow(double x, double* out) { *out = x; }
SSLK_DEVICE void narrow(double x, float* out) { *out = static_cast<float>(x); }
SSLK_DEVICE void narrow(double x, f16* out) { *out = __double2half(x); }
SSLK_DEVICE void narrow(double x, bf16* out) { *out = __double2bfloat16(x); }
SSLK_DEVICE void narrow(float x, float* out) { *out = x; }
SSLK_DEVICE void narrow(float x, f16* out) { *out = __float2half_rn(x); }
SSLK_DEVICE void narrow(float x, bf16* out) { *out = __float2bfloat16_rn(x); }

// Makes the compiler forget what it knows of a value, so that what follows from it is computed where it is used:
// hoisted out of the row loop, the predicates and addresses of every item would fill the register file.
SSLK_DEVICE void recompute_from(uint32_t& value) { asm volatile("" : "+r"(value)); }

// 1 / sqrt(x) and x / y within two units of the last place, for positive normal numbers.
#ifdef SSLK_SIMT
SSLK_DEVICE float fast_inverse_sqrt(float x) { return 1.0f / std::sqrt(x); }
SSLK_DEVICE float fast_quotient(float x, float y) { return x / y; }
#else
SSLK_DEVICE float fast_inverse_sqrt(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
SSLK_DEVICE float fast_quotient(float x, float y) { return __fdividef(x, y); }
#endif

// The type sums and scores of memory type T come back in.
template <typename T>
struct accumulation {
  using type = float;
};
template <>
struct accumulation<double> {
  using type = double;
};
template <typename T>
using accumulation_t = typename accumulation<T>::type;

// Calls body(const T*) with the memory type of `dtype`.
template <typename Body>
void with_type(Dtype dtype, Body body) {
  switch (dtype) {
    case Dtype::f64: return body(static_cast<const double*>(nullptr));
    case Dtype::f32: return body(static_cast<const float*>(nullptr));
    case Dtype::f16: return body(static_cast<const f16*>(nullptr));
    case Dtype::bf16: return body(static_cast<const bf16*>(nullptr));
  }
}

}  // namespace sslk
