// Rows converted, scaled and shifted into a panel for a matrix product; their squared norms come along.
#include "rows/pack_kernels.h"

#include "cpu/simd.h"

namespace sslk {
namespace SSLK_ISA {
namespace {

SSLK_INLINE void store_lanes(float* p, vfloat v) { store(p, v); }
SSLK_INLINE void store_lanes(double* p, vfloat v) {
  float lanes[kFloats];
  store(lanes, v);
  store(p, __builtin_convertvector(load_as<half_vfloat>(lanes), vdouble));
  store(p + kDoubles, __builtin_convertvector(load_as<half_vfloat>(lanes + kDoubles), vdouble));
}

template <typename T, typename Z>
void pack_typed(const PackArgs& a, int64_t begin, int64_t end) {
  constexpr int64_t kBlock = 64 * kFloats;  // float sums of this many squares are added up in double
  const int64_t d = a.x.d;
  for (int64_t i = begin; i < end; ++i) {
    const T* x = static_cast<const T*>(a.x.data) + i * a.x.stride;
    Z* z = static_cast<Z*>(a.z) + (i - a.first) * a.z_stride;
    double squares = 0.0;
    if constexpr (sizeof(T) == sizeof(double)) {
      const double* origin = static_cast<const double*>(a.origin);
      const double* shift = static_cast<const double*>(a.shift);
      for (int64_t j = 0; j < d; ++j) {
        z[j] = (x[j] * a.scale - origin[j]) * a.gain - shift[j];
        squares += z[j] * z[j];
      }
    } else {
      const float* origin = static_cast<const float*>(a.origin);
      const float* shift = static_cast<const float*>(a.shift);
      const float scale = static_cast<float>(a.scale), gain = static_cast<float>(a.gain);
      int64_t j = 0;
      while (j + kFloats <= d) {
        vfloat q{};
        for (const int64_t stop = d - j > kBlock ? j + kBlock : d; j + kFloats <= stop; j += kFloats) {
          const vfloat y = (load(x + j) * scale - load(origin + j)) * gain - load(shift + j);
          store_lanes(z + j, y);
          q += y * y;
        }
        squares += sum_of(q);
      }
      for (; j < d; ++j) {
        const float y = (static_cast<float>(element(x + j)) * scale - origin[j]) * gain - shift[j];
        z[j] = y;
        squares += static_cast<double>(y) * y;
      }
    }
    if (a.squares != nullptr) {
      a.squares[i - a.first] = squares;
    }
  }
}

}  // namespace

void pack_rows(const PackArgs& a, int64_t begin, int64_t end) {
  with_type(a.x.dtype, [&](auto type) {
    using T = memory_t<decltype(type)>;
    if constexpr (sizeof(T) < sizeof(double)) {
      if (a.z_dtype == Dtype::f32) {
        return pack_typed<T, float>(a, begin, end);
      }
    }
    pack_typed<T, double>(a, begin, end);
  });
}

}  // namespace SSLK_ISA
}  // namespace sslk
