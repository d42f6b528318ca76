// Scale, normalise, mask and cast in one pass: each pixel is read and normalised once, then written V times as bits
// with the removed pixels' bits cleared, so that a variant and its complement are exact.
#include "masking/kernels.h"

#include "cpu/simd.h"
#include "cpu/stream_store.h"

namespace sslk {
namespace SSLK_ISA {
namespace {

// The bits of kFloats output elements, and all-ones lanes where the mask keeps a pixel.
template <typename T>
struct Lanes {
  typedef half_vushort bits;
};
template <>
struct Lanes<float> {
  typedef vuint bits;
};

template <typename T>
SSLK_INLINE void put(T* p, typename Lanes<T>::bits v, bool stream) {
  if (!stream) {
    store_as(p, v);
  } else if constexpr (sizeof(T) == 4) {
    stream_bytes(p, bits_as<vfloat>(v));
  } else {
    stream_half_bytes(p, v);
  }
}

template <bool kInside, typename T>
SSLK_INLINE typename Lanes<T>::bits keep(const uint8_t* mask) {
  // Compared, not negated: a bool tensor made by a view may hold any byte, and all but 0 are true.
  const auto m = __builtin_convertvector(load_as<quarter_vuchar>(mask), typename Lanes<T>::bits);
  return bits_as<typename Lanes<T>::bits>(kInside ? m != 0 : m == 0);
}

template <bool kMasked, bool kInside, typename T>
SSLK_INLINE void write_plane(const T* values, const uint8_t* mask, T* out, int64_t count, bool stream) {
  const T zero{};
  const auto one = [&](int64_t p) { out[p] = !kMasked || (mask[p] != 0) == kInside ? values[p] : zero; };
  int64_t p = 0;
  for (const int64_t head = stream ? stream_head(out, count) : 0; p < head; ++p) {
    one(p);
  }
  for (; p + kFloats <= count; p += kFloats) {
    auto bits = load_as<typename Lanes<T>::bits>(values + p);
    if constexpr (kMasked) {
      bits &= keep<kInside, T>(mask + p);
    }
    put(out + p, bits, stream);
  }
  for (; p < count; ++p) {
    one(p);
  }
}

template <typename T>
SSLK_INLINE void write_variant(const VariantPlane& plane, const T* values, int64_t sample, int64_t offset,
                               int64_t first, int64_t count, bool stream) {
  T* out = static_cast<T*>(plane.out) + offset;
  if (plane.mask == nullptr) {
    return write_plane<false, true>(values, plane.mask, out, count, stream);
  }
  const uint8_t* mask = plane.mask + sample * plane.mask_stride + first;
  plane.inside ? write_plane<true, true>(values, mask, out, count, stream)
               : write_plane<true, false>(values, mask, out, count, stream);
}

// (x - mean) / std of `count` pixels, in the output type. Division, not multiplication by 1 / std: the values then
// equal torchvision's bit for bit.
template <typename In, typename T>
SSLK_INLINE void normalise(const In* x, int64_t count, float mean, float std, T* values) {
  if constexpr (sizeof(In) == sizeof(double)) {
    for (int64_t p = 0; p < count; ++p) {
      put_element(values + p, (static_cast<float>(x[p]) - mean) / std);
    }
  } else {
    const vfloat m = splat(mean), s = splat(std);
    int64_t p = 0;
    for (; p + kFloats <= count; p += kFloats) {
      store(values + p, (load(x + p) - m) / s);
    }
    if (p < count) {
      store_partial(values + p, (load_partial(x + p, count - p) - m) / s, count - p);
    }
  }
}

template <typename T, typename Fill>
SSLK_INLINE void each_chunk(const VariantArgs& a, int64_t begin, int64_t end, Fill fill) {
  const int64_t chunks = (a.pixels + kPixelChunk - 1) / kPixelChunk;
  T values[kPixelChunk];
  for (int64_t i = begin; i < end; ++i) {
    const int64_t sample = i / chunks, first = i % chunks * kPixelChunk;
    const int64_t count = a.pixels - first < kPixelChunk ? a.pixels - first : kPixelChunk;
    for (int64_t channel = 0; channel < a.channels; ++channel) {
      fill(channel, sample * a.sample_stride + channel * a.channel_stride + first * a.pixel_stride, count, values);
      for (int64_t v = 0; v < a.variants; ++v) {
        write_variant(a.planes[v], values, sample, (sample * a.channels + channel) * a.pixels + first, first, count,
                      a.stream);
      }
    }
  }
  if (a.stream) {
    stream_fence();
  }
}

template <typename T>
struct FillFromBytes {
  const VariantArgs& a;
  SSLK_INLINE void operator()(int64_t channel, int64_t offset, int64_t count, T* values) const {
    const T* table = static_cast<const T*>(a.tables) + 256 * channel;
    const uint8_t* x = static_cast<const uint8_t*>(a.images) + offset;
    const int64_t stride = a.pixel_stride;
    for (int64_t p = 0; p < count; ++p) {
      values[p] = table[x[p * stride]];
    }
  }
};

template <typename In, typename T>
struct FillFromFloats {
  const VariantArgs& a;
  In gathered[kPixelChunk];
  SSLK_INLINE void operator()(int64_t channel, int64_t offset, int64_t count, T* values) {
    const In* x = static_cast<const In*>(a.images) + offset;
    if (a.pixel_stride != 1) {
      for (int64_t p = 0; p < count; ++p) {
        gathered[p] = x[p * a.pixel_stride];
      }
      x = gathered;
    }
    normalise(x, count, a.mean[channel], a.std[channel], values);
  }
};

struct HeatSums {
  double intersection, whole;
};

// Sums of the heat, times a power of two, over the intersection and the union; a NaN pixel anywhere makes both NaN.
template <typename T>
SSLK_INLINE HeatSums heat_sums(const T* heat, const uint8_t* mask, int64_t pixels, double threshold, float scale) {
  constexpr int64_t kFlush = 64 * kFloats;  // float sums of this many elements are added up in double
  double intersection = 0.0, whole = 0.0;
  int64_t p = 0;
  if constexpr (sizeof(T) < sizeof(double)) {
    // x > threshold for a float x is x > t with t the largest float not above the threshold.
    float t = static_cast<float>(threshold);
    if (t > threshold) {
      t = __builtin_nextafterf(t, -__builtin_inff());
    }
    while (p + kFloats <= pixels) {
      vfloat in{}, all{};
      for (const int64_t end = pixels - p > kFlush ? p + kFlush : pixels; p + kFloats <= end; p += kFloats) {
        const vfloat x = load(heat + p);
        const vint m = __builtin_convertvector(load_as<quarter_vuchar>(mask + p), vint) != 0;
        const vint r = ~(x <= t);  // NaN is kept, and poisons the sums
        const vfloat y = x * scale;
        in += select(r & (m | (x != x)), y, vfloat{});
        all += select(r | m, y, vfloat{});
      }
      intersection += sum_of(in);
      whole += sum_of(all);
    }
  }
  for (; p < pixels; ++p) {
    const double x = element(heat + p);
    const bool region = !(x <= threshold), nan = x != x;
    intersection += region && (mask[p] != 0 || nan) ? x * scale : 0.0;
    whole += region || mask[p] != 0 ? x * scale : 0.0;
  }
  return {intersection, whole};
}

template <typename T>
SSLK_INLINE double iou_of(const T* heat, const uint8_t* mask, int64_t pixels, double threshold) {
  HeatSums sums = heat_sums(heat, mask, pixels, threshold, 1.0f);
  if (!(sums.intersection - sums.intersection == 0.0 && sums.whole - sums.whole == 0.0)) {
    sums = heat_sums(heat, mask, pixels, threshold, 0x1p-64f);  // finite heat whose sum is not
  }
  return sums.whole == 0.0 && sums.intersection == 0.0 ? 0.0 : sums.intersection / sums.whole;
}

template <typename Body>
SSLK_INLINE void with_output_type(Dtype dtype, Body body) {
  switch (dtype) {
    case Dtype::f16: return body(static_cast<const f16*>(nullptr));
    case Dtype::bf16: return body(static_cast<const bf16*>(nullptr));
    default: return body(static_cast<const float*>(nullptr));
  }
}

}  // namespace

void variant_tables(const VariantArgs& a) {
  float x[256];
  for (int i = 0; i < 256; ++i) {
    x[i] = static_cast<float>(i) / 255.0f;
  }
  with_output_type(a.out_dtype, [&](auto out) {
    using T = memory_t<decltype(out)>;
    for (int64_t channel = 0; channel < a.channels; ++channel) {
      normalise(x, 256, a.mean[channel], a.std[channel], static_cast<T*>(a.tables) + 256 * channel);
    }
  });
}

void variant_chunks(const VariantArgs& a, int64_t begin, int64_t end) {
  with_output_type(a.out_dtype, [&](auto out) {
    using T = memory_t<decltype(out)>;
    if (a.bytes) {
      return each_chunk<T>(a, begin, end, FillFromBytes<T>{a});
    }
    with_type(a.image_dtype, [&](auto in) {
      using In = memory_t<decltype(in)>;
      each_chunk<T>(a, begin, end, FillFromFloats<In, T>{a, {}});
    });
  });
}

void iou_rows(const HeatArgs& a, int64_t begin, int64_t end) {
  with_type(a.dtype, [&](auto type) {
    using T = memory_t<decltype(type)>;
    using Score = accumulation_t<T>;
    for (int64_t i = begin; i < end; ++i) {
      static_cast<Score*>(a.iou)[i] = static_cast<Score>(
          iou_of(static_cast<const T*>(a.heat) + i * a.pixels, a.mask + i * a.pixels, a.pixels, a.threshold));
    }
  });
}

}  // namespace SSLK_ISA
}  // namespace sslk
