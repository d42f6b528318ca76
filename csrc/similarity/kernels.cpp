// Everything around the matrix products of CKA and CCA: centring while packing, fused Frobenius reductions, gradients.
#include "similarity/kernels.h"

#include "cpu/simd.h"

namespace sslk {
namespace SSLK_ISA {
namespace {

template <typename T>
SSLK_INLINE const T* row_at(const Rows& x, int64_t i) {
  return static_cast<const T*>(x.data) + i * x.stride;
}

// The vector of a computing type: float or double.
template <typename C>
struct Vector {
  typedef vfloat type;
  static constexpr int64_t lanes = kFloats;
};
template <>
struct Vector<double> {
  typedef vdouble type;
  static constexpr int64_t lanes = kDoubles;
};

// Float sums are moved into double ones every kRowsPerFlush rows, which bounds their rounding error.
constexpr int64_t kRowsPerFlush = 128;

template <typename T>
void differences_typed(const DifferenceArgs& a, int64_t begin, int64_t end) {
  const int64_t d = a.x.d;
  const T* first = row_at<T>(a.x, 0);
  double largest = *a.largest;
  if constexpr (sizeof(T) == sizeof(double)) {
    for (int64_t i = begin; i < end; ++i) {
      const T* x = row_at<T>(a.x, i);
      for (int64_t j = 0; j < d; ++j) {
        const double y = x[j] * a.scale - first[j] * a.scale;
        a.sums[j] += y;
        largest = __builtin_fabs(y) > largest ? __builtin_fabs(y) : largest;
      }
    }
  } else {
    const float scale = static_cast<float>(a.scale);
    vfloat most{};
    for (int64_t i = begin; i < end; ++i) {
      const T* x = row_at<T>(a.x, i);
      int64_t j = 0;
      for (; j + kFloats <= d; j += kFloats) {
        const vfloat y = load(x + j) * scale - load(first + j) * scale;
        store(a.scratch + j, load(a.scratch + j) + y);
        most = select(absolute(y) > most, absolute(y), most);
      }
      for (; j < d; ++j) {
        const float y = static_cast<float>(element(x + j)) * scale - static_cast<float>(element(first + j)) * scale;
        a.scratch[j] += y;
        most[0] = __builtin_fabsf(y) > most[0] ? __builtin_fabsf(y) : most[0];
      }
      if ((i - begin) % kRowsPerFlush == kRowsPerFlush - 1 || i + 1 == end) {
        for (j = 0; j < d; ++j) {
          a.sums[j] += a.scratch[j];
          a.scratch[j] = 0.0f;
        }
      }
    }
    for (int64_t l = 0; l < kFloats; ++l) {
      largest = most[l] > largest ? most[l] : largest;
    }
  }
  *a.largest = largest;
}

template <typename C>
SSLK_INLINE double dot(const C* a, const C* b, int64_t count) {
  using V = typename Vector<C>::type;
  constexpr int64_t lanes = Vector<C>::lanes, kBlock = 256 * lanes;
  double total = 0.0;
  int64_t j = 0;
  while (j + 4 * lanes <= count) {
    V s0{}, s1{}, s2{}, s3{};
    for (const int64_t stop = count - j > kBlock ? j + kBlock : count; j + 4 * lanes <= stop; j += 4 * lanes) {
      s0 += load(a + j) * load(b + j);
      s1 += load(a + j + lanes) * load(b + j + lanes);
      s2 += load(a + j + 2 * lanes) * load(b + j + 2 * lanes);
      s3 += load(a + j + 3 * lanes) * load(b + j + 3 * lanes);
    }
    total += sum_of((s0 + s1) + (s2 + s3));
  }
  for (; j < count; ++j) {
    total += static_cast<double>(a[j]) * b[j];
  }
  return total;
}

template <typename C>
void mix_typed(const MixArgs& a, int64_t begin, int64_t end) {
  const int64_t n = a.grams.n;
  for (int64_t i = begin; i < end; ++i) {
    C* out = static_cast<C*>(a.out) + i * n;
    for (int64_t j = 0; j < n; ++j) {
      out[j] = a.addend != nullptr ? static_cast<C>(a.addend[i] + a.addend[j]) : C(0);
    }
    for (int64_t v = 0; v < a.grams.v; ++v) {
      const C* k = static_cast<const C*>(a.grams.grams[v]) + i * n;
      const C weight = static_cast<C>(a.weights[v]);
      for (int64_t j = 0; j < n; ++j) {
        out[j] += weight * k[j];
      }
    }
    if (a.addend != nullptr) {
      out[i] = C(0);
    }
  }
}

template <typename C, typename T>
void gradient_typed(const GradientRowsArgs& a, int64_t begin, int64_t end) {
  using V = typename Vector<C>::type;
  constexpr int64_t lanes = Vector<C>::lanes;
  const C scale = static_cast<C>(a.scale);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t r = i - a.first;
    const C* product = static_cast<const C*>(a.product) + r * a.cols;
    const C* z = a.z != nullptr ? static_cast<const C*>(a.z) + r * a.z_stride : nullptr;
    const C* constant = static_cast<const C*>(a.constant);
    const C diagonal = z != nullptr ? static_cast<C>(a.diagonal[i]) : C(0);
    T* grad = static_cast<T*>(a.grad) + i * a.grad_stride;
    int64_t j = 0;
    if constexpr ((sizeof(C) == sizeof(double)) == (sizeof(T) == sizeof(double))) {
      for (; j + lanes <= a.cols; j += lanes) {
        V g = load(product + j);
        if (z != nullptr) {
          g += diagonal * load(z + j) + load(constant + j);
        }
        store(grad + j, scale * g);
      }
    }
    for (; j < a.cols; ++j) {
      put_element(grad + j, scale * (z != nullptr ? product[j] + diagonal * z[j] + constant[j] : product[j]));
    }
  }
}

// Calls body(const C*) with the computing type.
template <typename Body>
SSLK_INLINE void with_computing_type(Dtype dtype, Body body) {
  dtype == Dtype::f64 ? body(static_cast<const double*>(nullptr)) : body(static_cast<const float*>(nullptr));
}

}  // namespace

void sum_differences(const DifferenceArgs& a, int64_t begin, int64_t end) {
  with_type(a.x.dtype, [&](auto type) { differences_typed<memory_t<decltype(type)>>(a, begin, end); });
}

void add_floats(const float* from, double* to, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    to[i] += from[i];
  }
}

void add_squares(const SquareArgs& a, int64_t begin, int64_t end, double* total) {
  with_computing_type(a.dtype, [&](auto type) {
    using C = memory_t<decltype(type)>;
    for (int64_t i = begin; i < end; ++i) {
      const C* row = static_cast<const C*>(a.p) + i * a.stride;
      *total += dot(row, row, a.cols);
    }
  });
}

void add_gram_dots(const GramArgs& a, int64_t begin, int64_t end, double* dots) {
  with_computing_type(a.dtype, [&](auto type) {
    using C = memory_t<decltype(type)>;
    const auto row = [&](int64_t v, int64_t i) { return static_cast<const C*>(a.grams[v]) + i * a.n; };
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t v = 0; v < a.v; ++v) {
        for (int64_t w = v; w < a.v; ++w) {
          dots[v * a.v + w] += dot(row(v, i), row(w, i), a.n);
        }
      }
    }
  });
}

void mix_grams(const MixArgs& a, int64_t begin, int64_t end) {
  with_computing_type(a.grams.dtype, [&](auto type) { mix_typed<memory_t<decltype(type)>>(a, begin, end); });
}

void write_gradient(const GradientRowsArgs& a, int64_t begin, int64_t end) {
  with_computing_type(a.dtype, [&](auto computing) {
    with_type(a.grad_dtype, [&](auto type) {
      gradient_typed<memory_t<decltype(computing)>, memory_t<decltype(type)>>(a, begin, end);
    });
  });
}

}  // namespace SSLK_ISA
}  // namespace sslk
