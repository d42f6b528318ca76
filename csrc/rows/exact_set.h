// The highly activating features of a row in exact integer arithmetic, for the few elements that lie within double's
// rounding of the threshold: x > mean + eps * sigma is D x - S > eps * sqrt(D Q - S^2), both sides squared.
#pragma once

#include <cstdint>
#include <memory>

namespace sslk {

class ExactSet {
 public:
  ExactSet(const double* x, int64_t d, double eps);
  ExactSet(const float* x, int64_t d, double eps);
  ~ExactSet();

  // Whether x, an element of the row, is more than eps deviations above the mean (1), below it (-1), or neither (0).
  int side(double x) const;

 private:
  struct Sums;
  std::unique_ptr<const Sums> sums_;
};

}  // namespace sslk
