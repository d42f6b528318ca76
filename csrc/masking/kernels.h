// Masked variants of images and overlap of heatmaps with masks, on the CPU: what this folder provides per instruction
// set.
#pragma once

#include "cpu/isa.h"
#include "rows/rows.h"

namespace sslk {

// Pixels handled at a time: a chunk of one channel stays in the L1 cache between its one read and its V writes.
constexpr int64_t kPixelChunk = 4096;

// One variant as its output and what it keeps.
struct VariantPlane {
  void* out;            // [N, C, P] in the output type
  const uint8_t* mask;  // null: keep all; else one byte per pixel, 0 or anything else
  int64_t mask_stride;  // from sample to sample: P, or 0 for a mask shared by all
  bool inside;          // keep where the mask is not 0, else where it is 0
};

struct VariantArgs {
  const void* images;  // one element per sample, channel and pixel at the strides below
  int64_t n, channels, pixels;
  int64_t sample_stride, channel_stride, pixel_stride;  // in elements
  bool bytes;                                           // images are uint8, else of type image_dtype
  Dtype image_dtype;
  const float* mean;  // [C]
  const float* std;   // [C]
  void* tables;       // [C, 256] the output values of each byte, in the output type; unused unless `bytes`
  Dtype out_dtype;    // not f64
  const VariantPlane* planes;
  int64_t variants;
  bool stream;  // write around the cache
};

// Fills the tables.
SSLK_DECLARE_KERNEL(variant_tables, const VariantArgs&)

// Writes chunks [begin, end) of the n * ceil(pixels / kPixelChunk), every channel and variant of each.
SSLK_DECLARE_KERNEL(variant_chunks, const VariantArgs&, int64_t begin, int64_t end)

struct HeatArgs {
  const void* heat;     // [N, P]
  const uint8_t* mask;  // [N, P]
  int64_t pixels;
  Dtype dtype;
  double threshold;
  void* iou;  // [N] in the accumulation type
};

// Writes iou[begin:end].
SSLK_DECLARE_KERNEL(iou_rows, const HeatArgs&, int64_t begin, int64_t end)

}  // namespace sslk
