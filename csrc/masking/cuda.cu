// sslk::masked_variants and heatmap_iou on CUDA. (circular_mask has no tensor argument: see cpu.cpp.)
#include <algorithm>

#include "cuda/device.h"
#include "masking/args.h"
#include "masking/kernels.cuh"

namespace sslk {
namespace {

// Whether one stride steps from pixel to pixel of a channel, so that [H, W] can be read as [H * W].
bool has_pixel_stride(const Tensor& images) {
  return images.size(2) <= 1 || images.stride(2) == images.size(3) * images.stride(3);
}

template <typename In, typename Out>
void launch_variants(const OnDeviceOf& device, const VariantsArgs& args) {
  launch(device, masked_variants_kernel<In, Out>, (args.n * args.threads_per_sample<Out>() + 255) / 256, 256, args);
}
template <typename In>
void launch_variants(const OnDeviceOf& device, ScalarType out, const VariantsArgs& args) {
  switch (out) {
    case ScalarType::Half: return launch_variants<In, f16>(device, args);
    case ScalarType::BFloat16: return launch_variants<In, bf16>(device, args);
    default: return launch_variants<In, float>(device, args);
  }
}

Tensor masked_variants_cuda(const Tensor& images_in, const std::optional<Tensor>& foreground_in,
                            const std::vector<double>& mean, const std::vector<double>& std,
                            const std::vector<int64_t>& variants, std::optional<double> radius,
                            std::optional<ScalarType> dtype) {
  check_masked_variants("sslk::masked_variants", images_in, foreground_in, mean, std, variants, radius, dtype);
  const int64_t count = static_cast<int64_t>(variants.size());
  Tensor out = torch::stable::new_empty(
      images_in, {count, images_in.size(0), images_in.size(1), images_in.size(2), images_in.size(3)},
      dtype.value_or(ScalarType::Float));
  if (out.numel() == 0) {
    return out;
  }
  const OnDeviceOf device(images_in);
  const Tensor images = has_pixel_stride(images_in) ? images_in : torch::stable::contiguous(images_in);
  std::optional<Tensor> foreground;
  if (needs_foreground(variants)) {
    foreground = torch::stable::contiguous(*foreground_in);
  }
  VariantsArgs args{};
  args.images = images.const_data_ptr();
  args.n = images.size(0), args.channels = images.size(1), args.height = images.size(2), args.width = images.size(3);
  args.sample_stride = images.stride(0), args.channel_stride = images.stride(1), args.pixel_stride = images.stride(3);
  args.foreground = foreground ? static_cast<const uint8_t*>(foreground->const_data_ptr()) : nullptr;
  args.disc = needs_disc(variants);
  args.radius = disc_radius(radius, args.height, args.width);
  args.out = out.mutable_data_ptr();
  for (int64_t channel = 0; channel < args.channels; channel += kMaxChannels) {
    args.first_channel = static_cast<int>(channel);
    args.channel_count = static_cast<int>(std::min<int64_t>(kMaxChannels, args.channels - channel));
    std::copy_n(mean.begin() + channel, args.channel_count, args.mean);
    std::copy_n(std.begin() + channel, args.channel_count, args.std);
    for (int64_t variant = 0; variant < count; variant += kMaxVariants) {
      args.first_variant = static_cast<int>(variant);
      args.variant_count = static_cast<int>(std::min<int64_t>(kMaxVariants, count - variant));
      std::copy_n(variants.begin() + variant, args.variant_count, args.variants);
      if (images.scalar_type() == ScalarType::Byte) {
        launch_variants<uint8_t>(device, out.scalar_type(), args);
      } else {
        with_type(kernel_dtype(images.scalar_type()), [&](auto type) {
          using In = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
          launch_variants<In>(device, out.scalar_type(), args);
        });
      }
    }
  }
  return out;
}

Tensor heatmap_iou_cuda(const Tensor& heat_in, const Tensor& mask_in, double threshold) {
  check_heatmap_iou("sslk::heatmap_iou", heat_in, mask_in, threshold);
  const int64_t n = heat_in.size(0), pixels = heat_in.size(1) * heat_in.size(2);
  Tensor iou = torch::stable::new_empty(heat_in, {n}, accumulation_type(heat_in.scalar_type()));
  if (n == 0) {
    return iou;
  }
  const OnDeviceOf device(heat_in);
  const Tensor heat = torch::stable::contiguous(heat_in), mask = torch::stable::contiguous(mask_in);
  with_type(kernel_dtype(heat.scalar_type()), [&](auto type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
    const auto kernel = heatmap_iou_kernel<T>;
    const int64_t grid = std::min<int64_t>(n, int64_t{resident_blocks(kernel, 256)} * device.multiprocessors());
    launch(device, kernel, grid, 256, static_cast<const T*>(heat.const_data_ptr()),
           static_cast<const uint8_t*>(mask.const_data_ptr()), n, pixels, threshold,
           static_cast<accumulation_t<T>*>(iou.mutable_data_ptr()));
  });
  return iou;
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CUDA, m) {
  m.impl("masked_variants", TORCH_BOX(&sslk::masked_variants_cuda));
  m.impl("heatmap_iou", TORCH_BOX(&sslk::heatmap_iou_cuda));
}
