// Vectors of the width this translation unit is compiled for, on GCC/Clang vector extensions: the same source serves
// SSE2, AVX2, AVX-512 and NEON. Everything lives in the namespace SSLK_ISA and is inlined, so that code built for one
// instruction set can never be linked into another's.
#pragma once

#include <cstdint>
#include <cstring>

#include "rows/rows.h"

#if defined(__x86_64__)
#include <immintrin.h>  // for the few steps that the vector extensions say badly; each has a portable twin below
#endif

#if defined(__AVX512F__)
#define SSLK_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define SSLK_VECTOR_BYTES 32
#else
#define SSLK_VECTOR_BYTES 16
#endif

#define SSLK_INLINE inline __attribute__((always_inline))

namespace sslk {
namespace SSLK_ISA {

typedef float vfloat __attribute__((vector_size(SSLK_VECTOR_BYTES)));
typedef double vdouble __attribute__((vector_size(SSLK_VECTOR_BYTES)));
typedef int32_t vint __attribute__((vector_size(SSLK_VECTOR_BYTES)));
typedef uint32_t vuint __attribute__((vector_size(SSLK_VECTOR_BYTES)));
typedef int16_t vshort __attribute__((vector_size(SSLK_VECTOR_BYTES)));
typedef int64_t vlong __attribute__((vector_size(SSLK_VECTOR_BYTES)));
typedef float half_vfloat __attribute__((vector_size(SSLK_VECTOR_BYTES / 2)));
typedef uint16_t half_vushort __attribute__((vector_size(SSLK_VECTOR_BYTES / 2)));
typedef uint8_t quarter_vuchar __attribute__((vector_size(SSLK_VECTOR_BYTES / 4)));

constexpr int64_t kFloats = SSLK_VECTOR_BYTES / 4;   // lanes of vfloat
constexpr int64_t kDoubles = SSLK_VECTOR_BYTES / 8;  // lanes of vdouble

// Element types of memory: the 16-bit ones are bit patterns.
struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

template <typename V>
SSLK_INLINE V load_as(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <typename V>
SSLK_INLINE void store_as(void* p, V v) {
  std::memcpy(p, &v, sizeof v);
}

template <typename To, typename From>
SSLK_INLINE To bits_as(From v) {
  static_assert(sizeof(To) == sizeof(From));
  To out;
  std::memcpy(&out, &v, sizeof out);
  return out;
}

SSLK_INLINE vfloat splat(float x) { return vfloat{} + x; }
SSLK_INLINE vdouble splat_double(double x) { return vdouble{} + x; }

// The value, rounded: keeps the compiler from fusing a product with the sum it goes into, so that every instruction set
// adds the same numbers.
template <typename V>
SSLK_INLINE V rounded(V v) {
#if defined(__x86_64__)
  asm("" : "+x"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#else
  asm("" : "+m"(v));
#endif
  return v;
}

SSLK_INLINE vfloat select(vint mask, vfloat a, vfloat b) { return mask ? a : b; }
SSLK_INLINE vdouble select(vlong mask, vdouble a, vdouble b) { return mask ? a : b; }
SSLK_INLINE vfloat absolute(vfloat x) { return bits_as<vfloat>(bits_as<vint>(x) & 0x7fffffff); }
SSLK_INLINE vdouble absolute(vdouble x) { return bits_as<vdouble>(bits_as<vlong>(x) & 0x7fffffffffffffffLL); }

// -1, 0 or 1, as the gradient of abs.
SSLK_INLINE vfloat sign(vfloat x) {
  const vint below = x < 0.0f, above = x > 0.0f;  // -1 where true
  return __builtin_convertvector(below - above, vfloat);
}

SSLK_INLINE float sum_of(vfloat v) {
#if SSLK_VECTOR_BYTES == 64
  typedef float v8 __attribute__((vector_size(32)));
  v8 a, b;
  std::memcpy(&a, &v, 32);
  std::memcpy(&b, reinterpret_cast<const char*>(&v) + 32, 32);
  v8 c = a + b;
#elif SSLK_VECTOR_BYTES == 32
  vfloat c = v;
#endif
#if SSLK_VECTOR_BYTES >= 32
  typedef float v4 __attribute__((vector_size(16)));
  v4 lo, hi;
  std::memcpy(&lo, &c, 16);
  std::memcpy(&hi, reinterpret_cast<const char*>(&c) + 16, 16);
  v4 s = lo + hi;
#else
  vfloat s = v;
#endif
  return (s[0] + s[2]) + (s[1] + s[3]);
}

template <typename V>
SSLK_INLINE auto lane_sum(V v) {
  auto total = v[0];
  for (unsigned i = 1; i < sizeof(V) / sizeof(v[0]); ++i) {
    total += v[i];
  }
  return total;
}

SSLK_INLINE double sum_of(vdouble v) { return lane_sum(v); }

// Whether any lane of a comparison's result is true.
template <typename Mask>
SSLK_INLINE bool any(Mask mask) {
#if SSLK_VECTOR_BYTES == 64
  return _mm512_test_epi64_mask(bits_as<__m512i>(mask), bits_as<__m512i>(mask)) != 0;
#elif SSLK_VECTOR_BYTES == 32
  return _mm256_movemask_epi8(bits_as<__m256i>(mask)) != 0;
#elif defined(__x86_64__)
  return _mm_movemask_epi8(bits_as<__m128i>(mask)) != 0;
#else
  const vlong wide = bits_as<vlong>(mask);
  return (wide[0] | wide[1]) != 0;
#endif
}

// Whether any lane of four vectors is above `threshold`.
SSLK_INLINE bool any_above(vfloat a, vfloat b, vfloat c, vfloat d, vfloat threshold) {
#if SSLK_VECTOR_BYTES == 64
  const auto above = [&](vfloat v) {
    return _mm512_cmp_ps_mask(bits_as<__m512>(v), bits_as<__m512>(threshold), _CMP_GT_OQ);
  };
  return (above(a) | above(b) | above(c) | above(d)) != 0;
#else
  return any(((a > threshold) | (b > threshold)) | ((c > threshold) | (d > threshold)));
#endif
}

// ---- float16 <-> float32: by the processor's instruction, or exact by integer arithmetic ----

#if SSLK_VECTOR_BYTES == 64
SSLK_INLINE vfloat widen(half_vushort h, f16) { return bits_as<vfloat>(_mm512_cvtph_ps(bits_as<__m256i>(h))); }
SSLK_INLINE half_vushort narrow(vfloat x, f16) {
  return bits_as<half_vushort>(_mm512_cvtps_ph(bits_as<__m512>(x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#elif SSLK_VECTOR_BYTES == 32
SSLK_INLINE vfloat widen(half_vushort h, f16) { return bits_as<vfloat>(_mm256_cvtph_ps(bits_as<__m128i>(h))); }
SSLK_INLINE half_vushort narrow(vfloat x, f16) {
  return bits_as<half_vushort>(_mm256_cvtps_ph(bits_as<__m256>(x), _MM_FROUND_TO_NEAREST_INT));
}
#else
SSLK_INLINE vfloat widen(half_vushort h, f16) {
  const vuint wide = __builtin_convertvector(h, vuint);
  const vuint magnitude = (wide & 0x7fffu) << 13;
  // 2^112 moves the exponent bias from 15 to 127 and makes subnormals right as well.
  vuint out = bits_as<vuint>(bits_as<vfloat>(magnitude) * 0x1p112f);
  const vint special = bits_as<vint>(magnitude) >= (0x7c00 << 13);
  out = out | (bits_as<vuint>(special) & 0x7f800000u);
  return bits_as<vfloat>(out | ((wide & 0x8000u) << 16));
}

SSLK_INLINE half_vushort narrow(vfloat x, f16) {
  const vuint bits = bits_as<vuint>(x);
  const vuint signs = (bits >> 16) & 0x8000u;
  const vuint magnitude = bits & 0x7fffffffu;
  // Normal results: re-bias and round to nearest even on the 13 bits that go.
  const vuint normal = (magnitude - (112u << 23) + 0x0fffu + ((magnitude >> 13) & 1u)) >> 13;
  // Subnormal results: adding 2^-1 lets the float adder do the shift and the rounding.
  const vuint subnormal = bits_as<vuint>(bits_as<vfloat>(magnitude) + 0.5f) - 0x3f000000u;
  vuint out = bits_as<vuint>(
      select(bits_as<vint>(magnitude) < (113 << 23), bits_as<vfloat>(subnormal), bits_as<vfloat>(normal)));
  const vint over = bits_as<vint>(magnitude) >= 0x477ff000;  // rounds to infinity
  const vint nan = bits_as<vint>(magnitude) > 0x7f800000;
  out = (out & ~bits_as<vuint>(over)) | (bits_as<vuint>(over) & 0x7c00u) | (bits_as<vuint>(nan) & 0x0200u);
  return __builtin_convertvector(out | signs, half_vushort);
}
#endif

SSLK_INLINE vfloat widen(half_vushort h, bf16) { return bits_as<vfloat>(__builtin_convertvector(h, vuint) << 16); }

SSLK_INLINE half_vushort narrow(vfloat x, bf16) {
  const vuint bits = bits_as<vuint>(x);
  vuint rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const vuint nan = bits_as<vuint>(bits_as<vint>(bits & 0x7fffffffu) > 0x7f800000);
  rounded = (rounded & ~nan) | (nan & 0x7fc0u);
  return __builtin_convertvector(rounded, half_vushort);
}

// The bits of the largest 16-bit float that is no larger than x >= 0.
SSLK_INLINE uint16_t cut_off_bits(float x, bf16) { return static_cast<uint16_t>(bits_as<uint32_t>(x) >> 16); }
SSLK_INLINE uint16_t cut_off_bits(float x, f16) {
  const half_vushort nearest = narrow(splat(x), f16{});
  return nearest[0] - (widen(nearest, f16{})[0] > x);
}
template <typename T>
SSLK_INLINE uint16_t cut_off_bits(float, T) {
  return 0;
}

// ---- loads and stores of kFloats elements of memory type T ----

SSLK_INLINE vfloat load(const float* p) { return load_as<vfloat>(p); }
SSLK_INLINE vdouble load(const double* p) { return load_as<vdouble>(p); }
template <typename T>
SSLK_INLINE vfloat load(const T* p) {
  return widen(load_as<half_vushort>(p), T{});
}

// Four vectors' worth of elements in any order, for sums.
template <typename T>
SSLK_INLINE void load_unordered(const T* p, vfloat* v) {
  for (int u = 0; u < 4; ++u) {
    v[u] = load(p + u * kFloats);
  }
}
// The even elements are the lower halves of 32-bit words, the odd ones the upper: one instruction widens either.
SSLK_INLINE void load_unordered(const bf16* p, vfloat* v) {
  for (int u = 0; u < 4; u += 2) {
    const vuint words = load_as<vuint>(p + u * kFloats);
    v[u] = bits_as<vfloat>(words << 16);
    v[u + 1] = bits_as<vfloat>(words & 0xffff0000u);
  }
}

SSLK_INLINE void store(float* p, vfloat v) { store_as(p, v); }
SSLK_INLINE void store(double* p, vdouble v) { store_as(p, v); }
template <typename T>
SSLK_INLINE void store(T* p, vfloat v) {
  store_as(p, narrow(v, T{}));
}

// The first `count` < kFloats lanes; the rest are `fill`.
template <typename T>
SSLK_INLINE vfloat load_partial(const T* p, int64_t count, float fill = 0.0f) {
  T lanes[kFloats] = {};
  std::memcpy(lanes, p, count * sizeof(T));
  vfloat v = load(lanes);
  for (int64_t i = count; i < kFloats; ++i) {
    v[i] = fill;
  }
  return v;
}

template <typename T>
SSLK_INLINE void store_partial(T* p, vfloat v, int64_t count) {
  T lanes[kFloats];
  store(lanes, v);
  std::memcpy(p, lanes, count * sizeof(T));
}

// ---- one element at a time, for rows that need double precision ----

SSLK_INLINE double element(const double* p) { return *p; }
SSLK_INLINE double element(const float* p) { return *p; }
template <typename T>
SSLK_INLINE double element(const T* p) {
  return load_partial(p, 1)[0];
}

SSLK_INLINE void put_element(double* p, double x) { *p = x; }
SSLK_INLINE void put_element(float* p, double x) { *p = static_cast<float>(x); }
template <typename T>
SSLK_INLINE void put_element(T* p, double x) {
  store_partial(p, splat(static_cast<float>(x)), 1);
}

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

template <typename P>
struct memory;
template <typename T>
struct memory<const T*> {
  using type = T;
};
template <typename P>
using memory_t = typename memory<P>::type;

// Calls body(const T*) with the memory type of `dtype`.
template <typename Body>
SSLK_INLINE void with_type(Dtype dtype, Body body) {
  switch (dtype) {
    case Dtype::f64: return body(static_cast<const double*>(nullptr));
    case Dtype::f32: return body(static_cast<const float*>(nullptr));
    case Dtype::f16: return body(static_cast<const f16*>(nullptr));
    case Dtype::bf16: return body(static_cast<const bf16*>(nullptr));
  }
}

}  // namespace SSLK_ISA
}  // namespace sslk
