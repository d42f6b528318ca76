// sslk::masked_variants, circular_mask and heatmap_iou on the CPU.
#include "masking/args.h"
#include "masking/kernels.h"
#include "rows/cpu.h"

namespace sslk {
namespace {

// Pixel centres within `radius` of the image centre. No tensor argument: the mask is made on the CPU.
Tensor circular_mask(int64_t height, int64_t width, std::optional<double> radius) {
  check_circular_mask("sslk::circular_mask", height, width, radius);
  Tensor mask = torch::stable::empty({height, width}, ScalarType::Bool);
  bool* out = static_cast<bool*>(mask.mutable_data_ptr());
  const double r = disc_radius(radius, height, width);
  for (int64_t i = 0; i < height; ++i) {
    const double y = i + 0.5 - 0.5 * height;
    for (int64_t j = 0; j < width; ++j) {
      const double x = j + 0.5 - 0.5 * width;
      out[i * width + j] = y * y + x * x <= r * r;
    }
  }
  return mask;
}

// Whether one stride steps from pixel to pixel of a channel, so that [H, W] can be read as [H * W].
bool has_pixel_stride(const Tensor& images) {
  return images.size(2) <= 1 || images.stride(2) == images.size(3) * images.stride(3);
}

Tensor masked_variants_cpu(const Tensor& images_in, const std::optional<Tensor>& foreground_in,
                           const std::vector<double>& mean, const std::vector<double>& std,
                           const std::vector<int64_t>& variants, std::optional<double> radius,
                           std::optional<ScalarType> dtype) {
  check_masked_variants("sslk::masked_variants", images_in, foreground_in, mean, std, variants, radius, dtype);
  const Tensor images = has_pixel_stride(images_in) ? images_in : torch::stable::contiguous(images_in);
  const int64_t n = images.size(0), channels = images.size(1), height = images.size(2), width = images.size(3);
  const int64_t pixels = height * width, count = static_cast<int64_t>(variants.size());
  Tensor out = torch::stable::new_empty(images, {count, n, channels, height, width}, dtype.value_or(ScalarType::Float));
  if (out.numel() == 0) {
    return out;
  }
  std::optional<Tensor> foreground, disc;
  if (needs_foreground(variants)) {
    foreground = torch::stable::contiguous(*foreground_in);
  }
  if (needs_disc(variants)) {
    disc = circular_mask(height, width, radius);
  }
  const auto bytes_of = [](const std::optional<Tensor>& mask) {
    return mask ? static_cast<const uint8_t*>(mask->const_data_ptr()) : nullptr;
  };
  std::vector<VariantPlane> planes;
  const int64_t plane_bytes = n * channels * pixels * static_cast<int64_t>(out.element_size());
  for (int64_t v = 0; v < count; ++v) {
    const bool object = variants[v] == kForeground || variants[v] == kBackground;
    planes.push_back({static_cast<char*>(out.mutable_data_ptr()) + v * plane_bytes,
                      variants[v] == kOriginal ? nullptr : bytes_of(object ? foreground : disc), object ? pixels : 0,
                      variants[v] == kForeground || variants[v] == kCenter});
  }
  const std::vector<float> mean_f(mean.begin(), mean.end()), std_f(std.begin(), std.end());
  std::vector<float> tables(channels * 256);
  const VariantArgs args{images.const_data_ptr(),
                         n,
                         channels,
                         pixels,
                         images.stride(0),
                         images.stride(1),
                         images.stride(3),
                         images.scalar_type() == ScalarType::Byte,
                         kernel_dtype(images.scalar_type()),
                         mean_f.data(),
                         std_f.data(),
                         tables.data(),
                         kernel_dtype(out.scalar_type()),
                         planes.data(),
                         count,
                         count * plane_bytes >= kStreamBytes};
  if (args.bytes) {
    SSLK_KERNEL(variant_tables)(args);
  }
  torch::stable::parallel_for(0, n * ((pixels + kPixelChunk - 1) / kPixelChunk), 1,
                              [&](int64_t begin, int64_t end) { SSLK_KERNEL(variant_chunks)(args, begin, end); });
  return out;
}

Tensor heatmap_iou_cpu(const Tensor& heat_in, const Tensor& mask_in, double threshold) {
  check_heatmap_iou("sslk::heatmap_iou", heat_in, mask_in, threshold);
  const Tensor heat = torch::stable::contiguous(heat_in), mask = torch::stable::contiguous(mask_in);
  const int64_t n = heat.size(0), pixels = heat.size(1) * heat.size(2);
  Tensor iou = torch::stable::new_empty(heat, {n}, accumulation_type(heat.scalar_type()));
  const HeatArgs args{heat.const_data_ptr(),
                      static_cast<const uint8_t*>(mask.const_data_ptr()),
                      pixels,
                      kernel_dtype(heat.scalar_type()),
                      threshold,
                      iou.mutable_data_ptr()};
  torch::stable::parallel_for(0, n, std::max<int64_t>(1, kBytesPerTask / std::max<int64_t>(1, pixels)),
                              [&](int64_t begin, int64_t end) { SSLK_KERNEL(iou_rows)(args, begin, end); });
  return iou;
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CPU, m) {
  m.impl("masked_variants", TORCH_BOX(&sslk::masked_variants_cpu));
  m.impl("heatmap_iou", TORCH_BOX(&sslk::heatmap_iou_cpu));
}

// A function without tensors has no device to dispatch on.
STABLE_TORCH_LIBRARY_IMPL(sslk, CompositeExplicitAutograd, m) {
  m.impl("circular_mask", TORCH_BOX(&sslk::circular_mask));
}
