// Masked variants of images and overlap of heatmaps with masks, on CUDA.
#pragma once

#include "masking/variants.h"
#include "rows/team.cuh"

namespace sslk {

constexpr int kMaxChannels = 16, kMaxVariants = 16;  // of one launch
constexpr int kPixelsPerThread = 4;

struct VariantsArgs {
  const void* images;  // one element per sample, channel and pixel at the strides below
  int64_t n, channels, height, width;
  int64_t sample_stride, channel_stride, pixel_stride;  // in elements
  const uint8_t* foreground;                            // [N, H * W], or null if no variant needs it
  double radius;                                        // of the disc
  void* out;                                            // [V, N, C, H * W]
  int first_channel, channel_count;                     // of this launch
  float mean[kMaxChannels], std[kMaxChannels];
  int first_variant, variant_count;
  int8_t variants[kMaxVariants];
};

SSLK_DEVICE float to_unit(uint8_t x) { return static_cast<float>(x) / 255.0f; }
template <typename In>
SSLK_DEVICE float to_unit(In x) {
  return static_cast<float>(widen(x));
}

// kPixelsPerThread elements as one access; true if that is possible at `p`.
template <typename T>
struct alignas(kPixelsPerThread * sizeof(T)) Quad {
  T elements[kPixelsPerThread];
};
template <typename T>
SSLK_DEVICE bool fits_quad(const T* p, int count) {
  return count == kPixelsPerThread && reinterpret_cast<uintptr_t>(p) % sizeof(Quad<T>) == 0;
}

// A bit per pixel [p, p + count): is its centre within the radius of the image centre.
SSLK_DEVICE unsigned disc_bits(const VariantsArgs& a, int64_t p, int count) {
  unsigned bits = 0;
  for (int u = 0; u < count; ++u) {
    const double y = static_cast<double>((p + u) / a.width) + 0.5 - 0.5 * static_cast<double>(a.height);
    const double x = static_cast<double>((p + u) % a.width) + 0.5 - 0.5 * static_cast<double>(a.width);
    bits |= static_cast<unsigned>(y * y + x * x <= a.radius * a.radius) << u;
  }
  return bits;
}

// A thread has the same pixels in every channel and variant: images are read once, masks once.
template <typename In, typename Out>
__global__ void __launch_bounds__(256) masked_variants_kernel(VariantsArgs a) {
  const int64_t pixels = a.height * a.width, quads = (pixels + kPixelsPerThread - 1) / kPixelsPerThread;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= a.n * quads) {
    return;
  }
  const int64_t sample = index / quads, p = index % quads * kPixelsPerThread;
  const int count = static_cast<int>(pixels - p < kPixelsPerThread ? pixels - p : kPixelsPerThread);
  bool wants_foreground = false, wants_disc = false;
  for (int v = 0; v < a.variant_count; ++v) {
    wants_foreground |= a.variants[v] == kForeground || a.variants[v] == kBackground;
    wants_disc |= a.variants[v] == kCenter || a.variants[v] == kBorder;
  }
  const unsigned disc = wants_disc ? disc_bits(a, p, count) : 0;
  unsigned foreground = 0;
  if (wants_foreground) {
    for (int u = 0; u < count; ++u) {
      foreground |= static_cast<unsigned>(a.foreground[sample * pixels + p + u] != 0) << u;
    }
  }
  for (int c = 0; c < a.channel_count; ++c) {
    const int64_t channel = a.first_channel + c;
    const In* x =
        static_cast<const In*>(a.images) + sample * a.sample_stride + channel * a.channel_stride + p * a.pixel_stride;
    Quad<In> in;
    if (a.pixel_stride == 1 && fits_quad(x, count)) {
      in = *reinterpret_cast<const Quad<In>*>(x);
    } else {
#pragma unroll
      for (int u = 0; u < kPixelsPerThread; ++u) {
        in.elements[u] = x[(u < count ? u : 0) * a.pixel_stride];
      }
    }
    Quad<Out> whole, nothing;
#pragma unroll
    for (int u = 0; u < kPixelsPerThread; ++u) {
      narrow((to_unit(in.elements[u]) - a.mean[c]) / a.std[c], &whole.elements[u]);
      narrow(0.0f, &nothing.elements[u]);
    }
    for (int v = 0; v < a.variant_count; ++v) {
      const int variant = a.variants[v];
      const unsigned keep = variant == kOriginal     ? 0xfu
                            : variant == kForeground ? foreground
                            : variant == kBackground ? ~foreground
                            : variant == kCenter     ? disc
                                                     : ~disc;
      Out* out =
          static_cast<Out*>(a.out) + (((a.first_variant + v) * a.n + sample) * a.channels + channel) * pixels + p;
      Quad<Out> kept;
#pragma unroll
      for (int u = 0; u < kPixelsPerThread; ++u) {
        kept.elements[u] = keep >> u & 1 ? whole.elements[u] : nothing.elements[u];
      }
      if (fits_quad(out, count)) {
        *reinterpret_cast<Quad<Out>*>(out) = kept;
      } else {
#pragma unroll
        for (int u = 0; u < kPixelsPerThread; ++u) {
          if (u < count) {
            out[u] = kept.elements[u];
          }
        }
      }
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
