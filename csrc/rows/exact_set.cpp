#include "rows/exact_set.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace sslk {
namespace {

// A natural number of any size. Rows are scaled by a power of two to whole numbers; few need more than eight digits.
class Natural {
 public:
  Natural() = default;
  explicit Natural(uint64_t value) { add(value, 0); }

  // Adds value * 2^shift.
  void add(uint64_t value, int64_t shift) {
    size_t place = static_cast<size_t>(shift / 32);
    unsigned __int128 rest = static_cast<unsigned __int128>(value) << shift % 32;
    for (; rest != 0; ++place) {
      if (place >= digits_.size()) {
        digits_.resize(place + 1);
      }
      rest += digits_[place];
      digits_[place] = static_cast<uint32_t>(rest);
      rest >>= 32;
    }
  }

  friend Natural operator+(Natural a, const Natural& b) {
    for (size_t i = 0; i < b.digits_.size(); ++i) {
      a.add(b.digits_[i], 32 * static_cast<int64_t>(i));
    }
    return a;
  }

  friend Natural operator*(const Natural& a, const Natural& b) {
    Natural product;
    product.digits_.assign(a.digits_.size() + b.digits_.size(), 0);
    for (size_t i = 0; i < a.digits_.size(); ++i) {
      uint64_t carry = 0;
      for (size_t j = 0; j < b.digits_.size(); ++j) {
        carry += static_cast<uint64_t>(a.digits_[i]) * b.digits_[j] + product.digits_[i + j];
        product.digits_[i + j] = static_cast<uint32_t>(carry);
        carry >>= 32;
      }
      product.digits_[i + b.digits_.size()] = static_cast<uint32_t>(carry);
    }
    product.trim();
    return product;
  }

  // |a - b|
  friend Natural distance(Natural a, Natural b) {
    if (a < b) {
      std::swap(a, b);
    }
    int64_t borrow = 0;
    for (size_t i = 0; i < a.digits_.size(); ++i) {
      borrow += static_cast<int64_t>(a.digits_[i]) - (i < b.digits_.size() ? b.digits_[i] : 0);
      a.digits_[i] = static_cast<uint32_t>(borrow);
      borrow >>= 32;
    }
    a.trim();
    return a;
  }

  friend bool operator<(const Natural& a, const Natural& b) {
    return a.digits_.size() != b.digits_.size() ? a.digits_.size() < b.digits_.size()
                                                : std::lexicographical_compare(a.digits_.rbegin(), a.digits_.rend(),
                                                                               b.digits_.rbegin(), b.digits_.rend());
  }

 private:
  void trim() {
    while (!digits_.empty() && digits_.back() == 0) {
      digits_.pop_back();
    }
  }
  std::vector<uint32_t> digits_;  // least first, the last not zero
};

// |x| as a whole number times a power of two; the exponent of 0 is any.
struct Binary {
  uint64_t mantissa;
  int exponent;
  explicit Binary(double x) {
    int e = 0;
    mantissa = static_cast<uint64_t>(std::ldexp(std::frexp(std::fabs(x), &e), 53));
    const int zeros = mantissa == 0 ? 0 : __builtin_ctzll(mantissa);
    mantissa >>= zeros;
    exponent = e - 53 + zeros;
  }
};

}  // namespace

struct ExactSet::Sums {
  int unit = 0;                // every element is a whole number of 2^unit
  Natural count, plus, minus;  // D, and the sums of the positive elements and of the magnitudes of the negative ones
  Natural spread;              // eps^2 (D Q - S^2), times `weight` where eps is a fraction
  Natural weight;              // what the square of D x - S is multiplied by

  template <typename T>
  Sums(const T* x, int64_t d, double eps) : count(static_cast<uint64_t>(d)) {
    unit = 1024;
    for (int64_t j = 0; j < d; ++j) {
      if (x[j] != 0) {
        unit = std::min(unit, Binary(x[j]).exponent);
      }
    }
    Natural squares;
    for (int64_t j = 0; j < d; ++j) {
      if (x[j] != 0) {
        const Binary b(x[j]);
        (x[j] > 0 ? plus : minus).add(b.mantissa, b.exponent - unit);
        const unsigned __int128 square = static_cast<unsigned __int128>(b.mantissa) * b.mantissa;
        const int64_t shift = 2 * static_cast<int64_t>(b.exponent - unit);
        squares.add(static_cast<uint64_t>(square), shift);
        squares.add(static_cast<uint64_t>(square >> 64), shift + 64);
      }
    }
    const Natural sum = distance(plus, minus);
    const Binary e(eps);
    Natural up, down;
    up.add(1, e.exponent > 0 ? 2 * e.exponent : 0);
    down.add(1, e.exponent < 0 ? -2 * e.exponent : 0);
    spread = distance(count * squares, sum * sum) * Natural(e.mantissa) * Natural(e.mantissa) * up;
    weight = down;
  }
};

ExactSet::ExactSet(const double* x, int64_t d, double eps) : sums_(std::make_unique<const Sums>(x, d, eps)) {}
ExactSet::ExactSet(const float* x, int64_t d, double eps) : sums_(std::make_unique<const Sums>(x, d, eps)) {}
ExactSet::~ExactSet() = default;

int ExactSet::side(double x) const {
  Natural scaled;
  if (x != 0) {
    const Binary b(x);
    scaled.add(b.mantissa, b.exponent - sums_->unit);
  }
  scaled = scaled * sums_->count;
  // D x - S, its terms sorted by sign
  const Natural above = x > 0 ? scaled + sums_->minus : sums_->minus;
  const Natural below = x < 0 ? scaled + sums_->plus : sums_->plus;
  const Natural deviation = distance(above, below);
  return !(sums_->spread < deviation * deviation * sums_->weight) ? 0 : below < above ? 1 : -1;
}

}  // namespace sslk
