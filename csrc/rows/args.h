// Checks shared by every op that takes representations `h` [N, D] and a set of discriminative features [D].
#pragma once

#include "sslk.h"

namespace sslk {

inline void check_representations(const char* op, const Tensor& h) {
  SSLK_CHECK(h.dim() == 2, op, ": h must be a matrix [N, D], got shape ", shape_of(h), ".");
  SSLK_CHECK(h.size(1) > 0, op, ": h must have at least one feature (D > 0), got shape ", shape_of(h), ".");
  SSLK_CHECK(is_floating(h.scalar_type()), op, ": h must be float64, float32, float16 or bfloat16, got ", dtype_of(h),
             ".");
}

inline void check_discriminative(const char* op, const Tensor& h, const Tensor& discriminative) {
  SSLK_CHECK(is_bool(discriminative), op, ": discriminative must be a bool mask, got ", dtype_of(discriminative), ".");
  SSLK_CHECK(discriminative.dim() == 1 && discriminative.size(0) == h.size(1), op,
             ": discriminative must have one entry per feature, shape [", h.size(1), "], got ",
             shape_of(discriminative), ".");
  SSLK_CHECK(discriminative.device() == h.device(), op, ": discriminative must be on the device of h, ", device_of(h),
             ", got ", device_of(discriminative), ".");
}

inline void check_eps(const char* op, double eps) {
  SSLK_CHECK(eps >= 0.0, op, ": eps must be zero or positive, got ", eps, ".");
}

inline void check_vector(const char* op, const char* name, const Tensor& v, int64_t size, const Tensor& like) {
  SSLK_CHECK(v.dim() == 1 && v.size(0) == size, op, ": ", name, " must have shape [", size, "], got ", shape_of(v),
             ".");
  SSLK_CHECK(v.scalar_type() == accumulation_type(like.scalar_type()), op, ": ", name, " must be ",
             dtype_name(accumulation_type(like.scalar_type())), " for h of ", dtype_of(like), ", got ", dtype_of(v),
             ".");
  SSLK_CHECK(v.device() == like.device(), op, ": ", name, " must be on the device of h, ", device_of(like), ", got ",
             device_of(v), ".");
}

// Rows are read in place when their elements are adjacent; anything else is copied once.
inline Tensor with_adjacent_columns(const Tensor& h) {
  return h.stride(1) == 1 || h.size(1) == 1 || h.numel() == 0 ? h : torch::stable::contiguous(h);
}

inline Rows rows_of(const Tensor& h) {
  return {h.const_data_ptr(), h.size(0), h.size(1), h.stride(0), kernel_dtype(h.scalar_type())};
}

}  // namespace sslk
