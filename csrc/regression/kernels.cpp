// Softmax regression on sparse binary rows: both products are sums of table rows picked by a list.
#include "regression/kernels.h"

#include "cpu/simd.h"

namespace sslk {
namespace SSLK_ISA {
namespace {

template <typename C>
using vector_t = decltype(load(static_cast<const C*>(nullptr)));
template <typename C>
constexpr int64_t lanes_of = sizeof(vector_t<C>) / sizeof(C);
// Sums held in registers at once: the 16 of SSE and AVX2 leave room for 8.
template <typename C>
constexpr int64_t kHeld = kStrip / lanes_of<C> < 8 ? kStrip / lanes_of<C> : 8;

// exp(x) for x <= 0, within 2 units in the last place: 2^k times the Taylor polynomial on [-ln 2 / 2, ln 2 / 2]. NaN
// stays NaN; results below the smallest normal number are 0.
SSLK_INLINE vfloat exp_of(vfloat x) {
  constexpr float kShift = 0x1.8p23f;  // adding it rounds to an integer and leaves that in the low bits
  const vfloat shifted = x * 0x1.715476p0f + kShift;
  const vfloat k = shifted - kShift;
  const vfloat r = (x - k * 0x1.62e4p-1f) - k * 0x1.7f7d1cp-20f;  // ln 2 in two parts: k times the first is exact
  vfloat p = r * (1.0f / 5040) + (1.0f / 720);
  p = p * r + (1.0f / 120);
  p = p * r + (1.0f / 24);
  p = p * r + (1.0f / 6);
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const vfloat power = bits_as<vfloat>((bits_as<vuint>(shifted) << 23) + 0x3f800000u);  // unsigned: it may wrap
  return select(x < -87.0f, vfloat{}, p * power);
}
SSLK_INLINE vdouble exp_of(vdouble x) {
  for (int64_t l = 0; l < kDoubles; ++l) {
    x[l] = __builtin_exp(x[l]);
  }
  return x;
}

template <typename V>
SSLK_INLINE V larger(V a, V b) {
  return a > b ? a : b;
}
// The largest lane, halving the vector.
template <typename V>
SSLK_INLINE auto largest_lane(V v) {
  using C = decltype(v[0] + 0);
  constexpr int64_t lanes = sizeof(V) / sizeof(C);
  C lane[lanes];
  store_as(lane, v);
  for (int64_t half = lanes / 2; half > 0; half /= 2) {
    for (int64_t l = 0; l < half; ++l) {
      lane[l] = lane[l] > lane[l + half] ? lane[l] : lane[l + half];
    }
  }
  return lane[0];
}

// out[0:width] = start[0:width] + the rows of `table` that the list names.
template <typename C>
SSLK_INLINE void sum_rows(const C* table, int64_t stride, const int32_t* list, int64_t count, const C* start,
                          int64_t width, C* out) {
  using V = vector_t<C>;
  constexpr int64_t lanes = lanes_of<C>, held = kHeld<C>;
  int64_t j = 0;
  for (; j + held * lanes <= width; j += held * lanes) {
    V sum[held];
    for (int64_t u = 0; u < held; ++u) {
      sum[u] = load(start + j + u * lanes);
    }
    for (int64_t i = 0; i < count; ++i) {
      const C* row = table + list[i] * stride + j;
      for (int64_t u = 0; u < held; ++u) {
        sum[u] += load(row + u * lanes);
      }
    }
    for (int64_t u = 0; u < held; ++u) {
      store(out + j + u * lanes, sum[u]);
    }
  }
  for (; j + lanes <= width; j += lanes) {
    V sum = load(start + j);
    for (int64_t i = 0; i < count; ++i) {
      sum += load(table + list[i] * stride + j);
    }
    store(out + j, sum);
  }
  for (; j < width; ++j) {
    C sum = start[j];
    for (int64_t i = 0; i < count; ++i) {
      sum += table[list[i] * stride + j];
    }
    out[j] = sum;
  }
}

// Asks for `width` elements of memory that the processor would not foresee, or not soon enough.
template <typename C>
SSLK_INLINE void prefetch(const C* p, int64_t width) {
  for (int64_t j = 0; j < width; j += 64 / sizeof(C)) {
    __builtin_prefetch(p + j, 0, 2);
  }
}

// Where a strip lies.
template <typename C>
struct Strip {
  int64_t offset;       // of its first column of concept 0 in the weights
  int64_t width;        // columns that the weights have
  int64_t first_class;  // of its first column
  int64_t classes;      // at most width: what the weights have past the last class is rubbish
  C* errors;            // [n, kStrip]

  SSLK_INLINE Strip(const SoftmaxStepArgs& a, int64_t number) {
    const int64_t tile = number / a.strips_of_tile, column = number % a.strips_of_tile * kStrip;
    offset = tile * a.bits.concepts * a.width + column;
    width = a.width - column < kStrip ? a.width - column : kStrip;
    first_class = tile * a.width + column;
    classes = a.classes - first_class < width ? a.classes - first_class : width;
    errors = static_cast<C*>(a.errors) + number * a.bits.n * kStrip;
  }
};

template <typename C>
SSLK_INLINE void forward_strip(const SoftmaxStepArgs& a, int64_t number, bool more) {
  using V = vector_t<C>;
  constexpr int64_t lanes = lanes_of<C>;
  const Strip<C> strip(a, number);
  const C* weight = static_cast<const C*>(a.weight) + strip.offset;
  const C* bias = static_cast<const C*>(a.bias) + number * kStrip;
  const Strip<C> next(a, number + more);
  int64_t fetched = more ? 0 : a.bits.concepts;  // of the next strip, evenly over the rows
  for (int64_t r = 0; r < a.bits.n; ++r) {
    for (; fetched * a.bits.n < (r + 1) * a.bits.concepts; ++fetched) {
      prefetch(static_cast<const C*>(a.weight) + next.offset + fetched * a.width, next.width);
    }
    C* logits = strip.errors + r * kStrip;
    const int32_t first = a.bits.row_start[r];
    sum_rows(weight, a.width, a.bits.columns + first, a.bits.row_start[r + 1] - first, bias, strip.width, logits);
    for (int64_t j = strip.classes; j < kStrip; ++j) {
      logits[j] = -static_cast<C>(__builtin_inf());
    }
    const int64_t target = a.target[r] - strip.first_class;
    if (target >= 0 && target < strip.width) {
      static_cast<C*>(a.target_logit)[r] = logits[target];
    }
    V most = load(logits);
    for (int64_t j = lanes; j < kStrip; j += lanes) {
      most = larger(load(logits + j), most);
    }
    const C highest = largest_lane(most);
    V total = {};
    for (int64_t j = 0; j < kStrip; j += lanes) {
      const V e = exp_of(load(logits + j) - highest);
      store(logits + j, e);
      total += e;
    }
    static_cast<C*>(a.highest)[r * a.strips_padded + number] = highest;
    static_cast<C*>(a.total)[r * a.strips_padded + number] = sum_of(total);
  }
}

template <typename C>
SSLK_INLINE void normalize_row(const SoftmaxStepArgs& a, int64_t r) {
  using V = vector_t<C>;
  constexpr int64_t lanes = lanes_of<C>;
  C* highest = static_cast<C*>(a.highest) + r * a.strips_padded;
  const C* total = static_cast<const C*>(a.total) + r * a.strips_padded;
  V most = load(highest);
  for (int64_t s = lanes; s < a.strips_padded; s += lanes) {
    most = larger(load(highest + s), most);
  }
  const C shift = largest_lane(most);
  V sums = {};
  for (int64_t s = 0; s < a.strips_padded; s += lanes) {
    const V scale = exp_of(load(highest + s) - shift);
    store(highest + s, scale);
    sums += scale * load(total + s);
  }
  const C sum = sum_of(sums);
  const C share = 1 / (sum * static_cast<C>(a.bits.n));
  for (int64_t s = 0; s < a.strips_padded; s += lanes) {
    store(highest + s, load(highest + s) * share);
  }
  const double above = static_cast<double>(shift) - static_cast<double>(static_cast<const C*>(a.target_logit)[r]);
  a.loss[r] = __builtin_log(static_cast<double>(sum)) + above;
}

// Turns exponentials into errors over n and sums them up over the rows.
template <typename C>
SSLK_INLINE void finish_errors(const SoftmaxStepArgs& a, int64_t number, const Strip<C>& strip) {
  using V = vector_t<C>;
  constexpr int64_t lanes = lanes_of<C>, vectors = kStrip / lanes;
  const C part = 1 / static_cast<C>(a.bits.n);
  V sum[vectors] = {};
  for (int64_t r = 0; r < a.bits.n; ++r) {
    C* e = strip.errors + r * kStrip;
    const C factor = static_cast<const C*>(a.highest)[r * a.strips_padded + number];
    const int64_t target = a.target[r] - strip.first_class;
    for (int64_t u = 0; u < vectors; ++u) {
      store(e + u * lanes, load(e + u * lanes) * factor);
    }
    if (target >= 0 && target < strip.width) {
      e[target] -= part;
    }
    for (int64_t u = 0; u < vectors; ++u) {
      sum[u] += load(e + u * lanes);
    }
  }
  for (int64_t u = 0; u < vectors; ++u) {
    store(static_cast<C*>(a.bias_gradient) + number * kStrip + u * lanes, sum[u]);
  }
}

constexpr int64_t kAhead = 4;  // weight rows

template <typename C>
SSLK_INLINE void update_strip(const SoftmaxStepArgs& a, int64_t number) {
  using V = vector_t<C>;
  constexpr int64_t lanes = lanes_of<C>;
  const Strip<C> strip(a, number);
  finish_errors(a, number, strip);
  const C momentum = static_cast<C>(a.momentum), decay = static_cast<C>(a.weight_decay),
          rate = static_cast<C>(a.learning_rate);
  const C zero[kStrip] = {};
  for (int64_t m = 0; m < a.bits.concepts; ++m) {
    C* weight = static_cast<C*>(a.weight) + strip.offset + m * a.width;
    C* velocity = static_cast<C*>(a.velocity) + strip.offset + m * a.width;
    if (m + kAhead < a.bits.concepts) {
      prefetch(weight + kAhead * a.width, strip.width);
      prefetch(velocity + kAhead * a.width, strip.width);
    }
    const int32_t first = a.bits.column_start[m];
    C gradient[kStrip];
    sum_rows(strip.errors, kStrip, a.bits.rows + first, a.bits.column_start[m + 1] - first, zero, kStrip, gradient);
    int64_t j = 0;
    for (; j + lanes <= strip.width; j += lanes) {
      const V w = load(weight + j);
      const V v = load(velocity + j) * momentum + (load(gradient + j) + w * decay);
      store(velocity + j, v);
      store(weight + j, w - v * rate);
    }
    for (; j < strip.width; ++j) {
      velocity[j] = velocity[j] * momentum + (gradient[j] + weight[j] * decay);
      weight[j] -= velocity[j] * rate;
    }
  }
}

// Calls body(C{}) with the type of the weights.
template <typename Body>
SSLK_INLINE void with_real(Dtype dtype, Body body) {
  dtype == Dtype::f64 ? body(0.0) : body(0.0f);
}

}  // namespace

void softmax_forward(const SoftmaxStepArgs& a, int64_t begin, int64_t end) {
  with_real(a.dtype, [&](auto real) {
    for (int64_t number = begin; number < end; ++number) {
      forward_strip<decltype(real)>(a, number, number + 1 < end);
    }
  });
}

void softmax_normalize(const SoftmaxStepArgs& a, int64_t begin, int64_t end) {
  with_real(a.dtype, [&](auto real) {
    for (int64_t r = begin; r < end; ++r) {
      normalize_row<decltype(real)>(a, r);
    }
  });
}

void softmax_update(const SoftmaxStepArgs& a, int64_t begin, int64_t end) {
  with_real(a.dtype, [&](auto real) {
    for (int64_t number = begin; number < end; ++number) {
      update_strip<decltype(real)>(a, number);
    }
  });
}

}  // namespace SSLK_ISA
}  // namespace sslk
