// Argument checks of kmeans_assign, the same on every device.
#pragma once

#include <limits>

#include "sslk.h"

namespace sslk {

inline void check_kmeans_assign(const char* op, const Tensor& x, const Tensor& centroids) {
  SSLK_CHECK(x.dim() == 2, op, ": x must be a matrix [N, D], got shape ", shape_of(x), ".");
  SSLK_CHECK(x.size(1) > 0, op, ": x must have at least one feature (D > 0), got shape ", shape_of(x), ".");
  SSLK_CHECK(is_floating(x.scalar_type()), op, ": x must be float64, float32, float16 or bfloat16, got ", dtype_of(x),
             ".");
  SSLK_CHECK(centroids.dim() == 2 && centroids.size(1) == x.size(1), op,
             ": centroids must be a matrix with the features of x, [K, ", x.size(1), "], got shape ",
             shape_of(centroids), ".");
  SSLK_CHECK(centroids.size(0) > 0 && centroids.size(0) <= std::numeric_limits<int32_t>::max(), op,
             ": centroids must hold between 1 and 2^31 - 1 of them, got shape ", shape_of(centroids), ".");
  SSLK_CHECK(centroids.scalar_type() == x.scalar_type(), op, ": centroids must have the dtype of x, ", dtype_of(x),
             ", got ", dtype_of(centroids), ".");
  SSLK_CHECK(centroids.device() == x.device(), op, ": centroids must be on the device of x, ", device_of(x), ", got ",
             device_of(centroids), ".");
}

}  // namespace sslk
