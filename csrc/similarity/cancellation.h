// What the debiased criterion of a representation with itself loses: a few samples far from the rest leave large terms
// that cancel, and with them the digits of float32 products. Plain numbers, for every device.
#pragma once

#include <cstdint>
#include <limits>

namespace sslk {

// Terms that add up to `own`, h_vv, relative to it. Products of float32 serve up to this: it costs some 4e-6 of CKA.
// Above it the op starts again in double.
constexpr double kMostCancelled = 32.0;

// False where either is not finite: such a representation is NaN in double too.
inline bool cancels(double own, double terms) {
  return terms > kMostCancelled * own && terms <= std::numeric_limits<double>::max();
}

// An own criterion up to this share of its terms, which the rounding of sums over n rows and d features alone can have
// left, counts as zero, as that of a constant representation. Of float32 products that is asked where nothing is
// computed again.
template <typename Product>
constexpr double left_by_rounding(int64_t n, int64_t d) {
  const double sums = sizeof(Product) == 8 ? static_cast<double>(n + d) : 0.0;
  return (64.0 + sums) * std::numeric_limits<Product>::epsilon();
}

}  // namespace sslk
