// Masked variants of images and overlap of heatmaps with masks, on CUDA.
#pragma once

#include "masking/variants.h"
#include "rows/team.cuh"

namespace sslk {

constexpr int kMaxChannels = 16, kMaxVariants = 16;  // of one launch

// Pixels of a thread: what one 16-byte store takes.
template <typename Out>
constexpr int kPixelsPerThread = 16 / sizeof(Out);

struct VariantsArgs {
  const void* images;  // one element per sample, channel and pixel at the strides below
  int64_t n, channels, height, width;
  int64_t sample_stride, channel_stride, pixel_stride;  // in elements
  const uint8_t* foreground;                            // [N, H * W], or null if no variant needs it
  bool disc;                                            // whether a variant needs it
  double radius;                                        // of the disc
  void* out;                                            // [V, N, C, H * W]
  int first_channel, channel_count;                     // of this launch
  float mean[kMaxChannels], std[kMaxChannels];
  int first_variant, variant_count;
  int8_t variants[kMaxVariants];

  // Threads of masked_variants_kernel<., Out> per sample.
  template <typename Out>
  constexpr int64_t threads_per_sample() const {
    return (height * width + kPixelsPerThread<Out> - 1) / kPixelsPerThread<Out>;
  }
};

SSLK_DEVICE float to_unit(uint8_t x) { return static_cast<float>(x) / 255.0f; }
template <typename In>
SSLK_DEVICE float to_unit(In x) {
  return static_cast<float>(widen(x));
}

// (x - mean) / std of a channel as it is stored.
template <typename In, typename Out>
struct Normalized {
  SSLK_DEVICE void prepare(const VariantsArgs&) {}
  SSLK_DEVICE Out value(const VariantsArgs& a, int c, In x) const {
    Out out;
    narrow((to_unit(x) - a.mean[c]) / a.std[c], &out);
    return out;
  }
};
// Bytes have few values: a table of a block's own spares two divisions per element and gives the same bits.
template <typename Out>
struct Normalized<uint8_t, Out> {
  Out values[kMaxChannels][256];

  SSLK_DEVICE void prepare(const VariantsArgs& a) {
    for (int x = threadIdx.x; x < 256; x += blockDim.x) {
      const float unit = to_unit(static_cast<uint8_t>(x));
      for (int c = 0; c < a.channel_count; ++c) {
        narrow((unit - a.mean[c]) / a.std[c], &values[c][x]);
      }
    }
    __syncthreads();
  }
  SSLK_DEVICE Out value(const VariantsArgs&, int c, uint8_t x) const { return values[c][x]; }
};

// Adjacent pixels as words: elements are taken apart where they are used, so that a load stays under way until then.
template <typename T, int kCount>
struct Pixels {
  static constexpr int kWords = kCount * sizeof(T) / 4;
  struct alignas(kWords < 4 ? kWords * 4 : 16) Piece {
    uint32_t words[kWords < 4 ? kWords : 4];
  };
  uint32_t words[kWords];

  // The first `count` at steps of `stride` from `p`; what follows them is of no use.
  SSLK_DEVICE void load(const T* p, int64_t stride, int count) {
    if (stride == 1 && count == kCount && reinterpret_cast<uintptr_t>(p) % sizeof(Piece) == 0) {
#pragma unroll
      for (int k = 0; k < kWords * 4 / static_cast<int>(sizeof(Piece)); ++k) {
        const Piece piece = reinterpret_cast<const Piece*>(p)[k];
        memcpy(words + k * sizeof(Piece) / 4, piece.words, sizeof(Piece));
      }
      return;
    }
    T elements[kCount];
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      elements[u] = p[(u < count ? u : 0) * stride];
    }
    memcpy(words, elements, sizeof(words));
  }
  SSLK_DEVICE T element(int u) const {
    T out;
    if constexpr (sizeof(T) < 4) {
      constexpr int kPerWord = 4 / sizeof(T);
      const uint32_t word = words[u / kPerWord] >> u % kPerWord * 8 * sizeof(T);
      memcpy(&out, &word, sizeof(T));
    } else {
      memcpy(&out, words + u * sizeof(T) / 4, sizeof(T));
    }
    return out;
  }
};

// Four words of Out elements; a mask has all bits of an element or none.
template <typename Out>
struct Words {
  static constexpr int kCount = kPixelsPerThread<Out>, kPerWord = kCount / 4;
  uint32_t words[4];

  template <typename Keep>
  SSLK_DEVICE void set_mask(Keep keep) {
    constexpr uint32_t kElement = kPerWord == 1 ? 0xffffffffu : 0xffffu;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      words[w] = 0;
#pragma unroll
      for (int u = 0; u < kPerWord; ++u) {
        words[w] |= keep(w * kPerWord + u) ? kElement << u * 16 : 0u;
      }
    }
  }
  SSLK_DEVICE void store(Out* out, int count) const {
    if (count == kCount && reinterpret_cast<uintptr_t>(out) % 16 == 0) {
      *reinterpret_cast<uint4*>(out) = uint4{words[0], words[1], words[2], words[3]};
      return;
    }
    Out elements[kCount];
    memcpy(elements, words, 16);
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      if (u < count) {
        out[u] = elements[u];
      }
    }
  }
};

// A bit per pixel from p on: is its centre within the radius of the image centre.
template <int kCount>
SSLK_DEVICE unsigned disc_bits(const VariantsArgs& a, int64_t p) {
  const int64_t row = p / a.width;
  const double left = 0.5 - 0.5 * static_cast<double>(a.width), square = a.radius * a.radius;
  double y = static_cast<double>(row) + 0.5 - 0.5 * static_cast<double>(a.height);
  int64_t column = p - row * a.width;
  double x = static_cast<double>(column) + left;
  unsigned bits = 0;
#pragma unroll
  for (int u = 0; u < kCount; ++u) {
    bits |= static_cast<unsigned>(y * y + x * x <= square) << u;
    x += 1.0;
    if (++column == a.width) {
      column = 0;
      x = left;
      y += 1.0;
    }
  }
  return bits;
}

// A thread has the same pixels in every channel and variant: images are read once, masks once.
template <typename In, typename Out>
__global__ void __launch_bounds__(256) masked_variants_kernel(VariantsArgs a) {
  constexpr int kCount = kPixelsPerThread<Out>;
  __shared__ Normalized<In, Out> normalized;
  const int64_t pixels = a.height * a.width, per_sample = a.threads_per_sample<Out>();
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const bool inside = index < a.n * per_sample;
  const int64_t sample = index / per_sample, p = (index - sample * per_sample) * kCount;
  const int count = static_cast<int>(pixels - p < kCount ? pixels - p : kCount);
  const In* x = static_cast<const In*>(a.images) + sample * a.sample_stride + a.first_channel * a.channel_stride +
                p * a.pixel_stride;
  Pixels<In, kCount> next{};
  Pixels<uint8_t, kCount> object{};
  if (inside) {  // under way while the table is made
    next.load(x, a.pixel_stride, count);
    if (a.foreground != nullptr) {
      object.load(a.foreground + sample * pixels + p, 1, count);
    }
  }
  normalized.prepare(a);
  if (!inside) {
    return;
  }
  Words<Out> foreground{}, disc{};
  foreground.set_mask([&](int u) { return object.element(u) != 0; });
  if (a.disc) {
    const unsigned bits = disc_bits<kCount>(a, p);
    disc.set_mask([&](int u) { return (bits >> u & 1) != 0; });
  }
  Out* const out =
      static_cast<Out*>(a.out) + ((a.first_variant * a.n + sample) * a.channels + a.first_channel) * pixels + p;
  const int64_t variant_step = a.n * a.channels * pixels;
  for (int c = 0; c < a.channel_count; ++c) {
    const Pixels<In, kCount> in = next;
    if (c + 1 < a.channel_count) {  // under way while this channel is stored
      x += a.channel_stride;
      next.load(x, a.pixel_stride, count);
    }
    Out values[kCount];
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      values[u] = normalized.value(a, c, in.element(u));
    }
    Words<Out> whole;
    memcpy(whole.words, values, 16);
    Out* plane = out + c * pixels;
    for (int v = 0; v < a.variant_count; ++v, plane += variant_step) {
      const int variant = a.variants[v];
      const bool wants_object = variant == kForeground || variant == kBackground;
      const uint32_t used = variant == kOriginal ? 0u : ~0u;
      const uint32_t flipped = variant == kForeground || variant == kCenter ? 0u : ~0u;
      Words<Out> kept;  // a masked element is +0, whatever it was: NaN and negative numbers too
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        kept.words[w] = whole.words[w] & (((wants_object ? foreground.words[w] : disc.words[w]) & used) ^ flipped);
      }
      kept.store(plane, count);
    }
  }
}

struct HeatSums {
  double intersection, whole;
  SSLK_DEVICE void merge(const HeatSums& other) { intersection += other.intersection, whole += other.whole; }
};

// A block's sums of the heat of one sample, times a power of two; a NaN pixel anywhere makes both NaN.
template <typename T>
SSLK_DEVICE HeatSums heat_sums(Block& team, const T* heat, const uint8_t* mask, int64_t pixels, double threshold,
                               double scale) {
  HeatSums sums{0.0, 0.0};
#pragma unroll 4
  for (int64_t p = team.rank; p < pixels; p += team.width()) {
    const double x = static_cast<double>(widen(heat[p]));
    const bool masked = mask[p] != 0, region = !(x <= threshold), nan = x != x;
    sums.intersection += region && (masked || nan) ? x * scale : 0.0;
    sums.whole += region || masked ? x * scale : 0.0;
  }
  return team.reduce(sums);
}

// A block per sample.
template <typename T>
__global__ void __launch_bounds__(Block::kMaxThreads)
    heatmap_iou_kernel(const T* heat, const uint8_t* mask, int64_t n, int64_t pixels, double threshold,
                       accumulation_t<T>* iou) {
  __shared__ Block::Scratch scratch;
  Block team(scratch);
  for (int64_t i = blockIdx.x; i < n; i += gridDim.x) {
    HeatSums sums = heat_sums(team, heat + i * pixels, mask + i * pixels, pixels, threshold, 1.0);
    if (!(sums.intersection - sums.intersection == 0.0 && sums.whole - sums.whole == 0.0)) {
      sums = heat_sums(team, heat + i * pixels, mask + i * pixels, pixels, threshold, 0x1p-64);  // its sum overflows
    }
    if (team.rank == 0) {
      narrow(sums.whole == 0.0 && sums.intersection == 0.0 ? 0.0 : sums.intersection / sums.whole, iou + i);
    }
  }
}

}  // namespace sslk
