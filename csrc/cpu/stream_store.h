// Stores around the cache, for outputs too large to be read again soon: they save the read of the line that an
// ordinary store begins with. Ordinary stores where the processor is no x86.
#pragma once

#include "cpu/simd.h"

namespace sslk {
namespace SSLK_ISA {

#if defined(__x86_64__)
// `p` is aligned to the vector.
SSLK_INLINE void stream_bytes(void* p, vfloat v) {
#if SSLK_VECTOR_BYTES == 64
  _mm512_stream_ps(static_cast<float*>(p), bits_as<__m512>(v));
#elif SSLK_VECTOR_BYTES == 32
  _mm256_stream_ps(static_cast<float*>(p), bits_as<__m256>(v));
#else
  _mm_stream_ps(static_cast<float*>(p), bits_as<__m128>(v));
#endif
}
SSLK_INLINE void stream_half_bytes(void* p, half_vushort v) {
#if SSLK_VECTOR_BYTES == 64
  _mm256_stream_si256(static_cast<__m256i*>(p), bits_as<__m256i>(v));
#elif SSLK_VECTOR_BYTES == 32
  _mm_stream_si128(static_cast<__m128i*>(p), bits_as<__m128i>(v));
#else
  store_as(p, v);
#endif
}
#else
SSLK_INLINE void stream_bytes(void* p, vfloat v) { store_as(p, v); }
SSLK_INLINE void stream_half_bytes(void* p, half_vushort v) { store_as(p, v); }
#endif

SSLK_INLINE void stream(float* p, vfloat v) { stream_bytes(p, v); }
template <typename T>
SSLK_INLINE void stream(T* p, vfloat v) {
  stream_half_bytes(p, narrow(v, T{}));
}

// Elements before the first aligned vector of `p`, at most `d`.
template <typename T>
SSLK_INLINE int64_t stream_head(const T* p, int64_t d) {
  constexpr uintptr_t bytes = kFloats * sizeof(T);
  const int64_t head = (bytes - reinterpret_cast<uintptr_t>(p) % bytes) % bytes / sizeof(T);
  return head < d ? head : d;
}

// Makes streamed stores visible before another thread is told they are done.
SSLK_INLINE void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace SSLK_ISA
}  // namespace sslk
