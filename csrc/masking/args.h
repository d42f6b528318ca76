// Argument checks of the masking family, the same on every device.
#pragma once

#include <cmath>
#include <numbers>

#include "masking/variants.h"
#include "sslk.h"

namespace sslk {

inline bool needs_foreground(const std::vector<int64_t>& variants) {
  for (const int64_t v : variants) {
    if (v == kForeground || v == kBackground) {
      return true;
    }
  }
  return false;
}

inline bool needs_disc(const std::vector<int64_t>& variants) {
  for (const int64_t v : variants) {
    if (v == kCenter || v == kBorder) {
      return true;
    }
  }
  return false;
}

inline void check_radius(const char* op, const std::optional<double>& radius) {
  SSLK_CHECK(!radius || (std::isfinite(*radius) && *radius >= 0.0), op,
             ": radius must be a finite number of pixels, zero or positive, got ", radius.value_or(0.0), ".");
}

// The disc of half the image's area, unless the caller names a radius.
inline double disc_radius(const std::optional<double>& radius, int64_t height, int64_t width) {
  return radius.value_or(std::sqrt(static_cast<double>(height) * width / (2.0 * std::numbers::pi)));
}

inline void check_masked_variants(const char* op, const Tensor& images, const std::optional<Tensor>& foreground,
                                  const std::vector<double>& mean, const std::vector<double>& std,
                                  const std::vector<int64_t>& variants, const std::optional<double>& radius,
                                  const std::optional<ScalarType>& dtype) {
  SSLK_CHECK(images.dim() == 4, op, ": images must have shape [N, C, H, W], got ", shape_of(images), ".");
  SSLK_CHECK(images.scalar_type() == ScalarType::Byte || is_floating(images.scalar_type()), op,
             ": images must be uint8 (0 to 255) or floating point (0 to 1), got ", dtype_of(images), ".");
  const int64_t channels = images.size(1);
  SSLK_CHECK(static_cast<int64_t>(mean.size()) == channels, op, ": mean must have one number per channel (", channels,
             "), got ", mean.size(), ".");
  SSLK_CHECK(static_cast<int64_t>(std.size()) == channels, op, ": std must have one number per channel (", channels,
             "), got ", std.size(), ".");
  for (const double s : std) {
    SSLK_CHECK(s > 0.0, op, ": std must be positive in every channel, got ", s, ".");
  }
  SSLK_CHECK(!variants.empty(), op, ": variants must name at least one variant, 0 to 4.");
  for (const int64_t v : variants) {
    SSLK_CHECK(v >= kOriginal && v <= kBorder, op,
               ": variants must be 0 (original), 1 (foreground), 2 (background), 3 (center) or 4 (border), got ", v,
               ".");
  }
  check_radius(op, radius);
  SSLK_CHECK(!dtype || *dtype == ScalarType::Float || *dtype == ScalarType::Half || *dtype == ScalarType::BFloat16, op,
             ": dtype must be float32, float16 or bfloat16, got ", dtype_name(dtype.value_or(ScalarType::Float)), ".");
  if (!foreground) {
    SSLK_CHECK(!needs_foreground(variants), op,
               ": foreground must be given for variants 1 (foreground) and 2 (background).");
    return;
  }
  SSLK_CHECK(is_bool(*foreground), op, ": foreground must be a bool mask, got ", dtype_of(*foreground), ".");
  SSLK_CHECK(foreground->dim() == 3 && foreground->size(0) == images.size(0) && foreground->size(1) == images.size(2) &&
                 foreground->size(2) == images.size(3),
             op, ": foreground must have shape [N, H, W] = [", images.size(0), ", ", images.size(2), ", ",
             images.size(3), "], got ", shape_of(*foreground), ".");
  SSLK_CHECK(foreground->device() == images.device(), op, ": foreground must be on the device of images, ",
             device_of(images), ", got ", device_of(*foreground), ".");
}

inline void check_circular_mask(const char* op, int64_t height, int64_t width, const std::optional<double>& radius) {
  SSLK_CHECK(height >= 0, op, ": height must be zero or positive, got ", height, ".");
  SSLK_CHECK(width >= 0, op, ": width must be zero or positive, got ", width, ".");
  check_radius(op, radius);
}

inline void check_heatmap_iou(const char* op, const Tensor& heat, const Tensor& mask, double threshold) {
  SSLK_CHECK(heat.dim() == 3, op, ": heat must have shape [N, H, W], got ", shape_of(heat), ".");
  SSLK_CHECK(is_floating(heat.scalar_type()), op, ": heat must be float64, float32, float16 or bfloat16, got ",
             dtype_of(heat), ".");
  SSLK_CHECK(is_bool(mask), op, ": mask must be bool, got ", dtype_of(mask), ".");
  SSLK_CHECK(
      mask.dim() == 3 && mask.size(0) == heat.size(0) && mask.size(1) == heat.size(1) && mask.size(2) == heat.size(2),
      op, ": mask must have the shape of heat, ", shape_of(heat), ", got ", shape_of(mask), ".");
  SSLK_CHECK(mask.device() == heat.device(), op, ": mask must be on the device of heat, ", device_of(heat), ", got ",
             device_of(mask), ".");
  SSLK_CHECK(!std::isnan(threshold), op, ": threshold must be a number, got NaN.");
}

}  // namespace sslk
