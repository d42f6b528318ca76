// Mean, deviation and norm of one row, and its highly activating features: the core that every row kernel shares.
//
// Two paths give the same active set as exact arithmetic would, but for elements within double's rounding of the
// threshold (the CPU decides those in whole numbers):
//   FastRow   float32, two passes over the row in registers. An element within the rounding error of the threshold
//             sends the row to the other path, as do scales whose squares leave float32, and NaN.
//   ExactRow  double, from registers or memory, scaled by a power of two where double needs it: any finite row of any
//             length.
#pragma once

#include "rows/held_row.cuh"

namespace sslk {

constexpr double kNormFloor = 1e-12;  // as torch.nn.functional.normalize
// Bounds on the error of FastRow's threshold. A sum of squares or of magnitudes is within 33 * 2^-24 = 2.0e-6 of
// itself: at most 8 additions in a row per accumulator, 2 to join the four, 5 across the warp and 15 across warps, 3
// roundings of the term. About the mean, half of that reaches sigma. About 0, where the mean is at most sigma, 2.42
// times that and the mean is off by 1.42 times of it. The rest covers the roots and products at the end.
constexpr float kErrorAboutMean = 4e-6f, kErrorAboutZero = 6e-6f;

template <typename T>
SSLK_DEVICE const T* row_at(const Rows& h, int64_t i) {
  return static_cast<const T*>(h.data) + i * h.stride;
}

struct FastRow {
  float shift;
  float delta;  // mean - shift
  float sigma;
  float norm;
  float inverse;  // 1 / norm
  float unit;     // a threshold of eps deviations is off by less than (1 + eps) of this
};

struct Moments {
  float sum, squares;
  SSLK_DEVICE void merge(const Moments& other) { sum += other.sum, squares += other.squares; }
};

// The sums over this thread's items of their differences from `shift`.
template <bool kPartial, typename T, typename Team, int kSlots>
SSLK_DEVICE Moments moments_about(float shift, const HeldRow<T, Team, kSlots>& row) {
  constexpr int kSums = 4;
  float s[kSums], q[kSums];
#pragma unroll
  for (int i = 0; i < row.kItems; ++i) {
    const float c = !kPartial || (row.layout.valid >> i & 1) ? row.values[i] - shift : 0.0f;
    s[i % kSums] = i < kSums ? c : s[i % kSums] + c;
    q[i % kSums] = i < kSums ? c * c : q[i % kSums] + c * c;
  }
  return {(s[0] + s[1]) + (s[2] + s[3]), (q[0] + q[1]) + (q[2] + q[3])};
}

// False when the row needs ExactRow.
template <typename T, typename Team, int kSlots>
SSLK_DEVICE bool fast_row(Team& team, const HeldRow<T, Team, kSlots>& row, FastRow* out) {
  const float per_column = 1.0f / static_cast<float>(row.d);
  Moments m = team.reduce(moments_about<false>(0.0f, row));  // items that are not valid are 0
  const float mean = m.sum * per_column;
  float mean_square = m.squares * per_column;
  // Squares that overflow, underflow or are NaN need double.
  if (!(mean_square > 1e-20f && mean_square < 1e24f)) {
    return false;
  }
  // Sums about 0 will do for a mean that is no larger than the deviation, as that of most representations.
  const float variance = mean_square - mean * mean;
  if (variance >= mean * mean) {
    const float root = fast_inverse_sqrt(variance), inverse = fast_inverse_sqrt(m.squares);
    const float sigma = variance * root;
    *out = {0.0f, mean, sigma, m.squares * inverse, inverse, kErrorAboutZero * sigma};
    return true;
  }
  m = team.reduce(row.layout.valid == row.layout.kAll ? moments_about<false>(mean, row)
                                                      : moments_about<true>(mean, row));
  mean_square = m.squares * per_column;
  const float delta = m.sum * per_column;
  if (!(mean_square > 1e-20f && delta * delta <= 0.01f * mean_square)) {
    return false;
  }
  const float own = mean_square - delta * delta, sigma = own * fast_inverse_sqrt(own);
  const float square = m.squares + static_cast<float>(row.d) * mean * (2.0f * delta + mean);
  const float inverse = fast_inverse_sqrt(square);
  *out = {mean, delta, sigma, square * inverse, inverse, kErrorAboutMean * (sigma + fabsf(delta))};
  // The norm of a row that nearly cancels its shift would lose digits; so would a row that is its mean plus dust.
  return square > 1e-3f * m.squares && sigma > 1e-5f * fabsf(mean);
}

// The features selected of a row: those that activate highly and lie in the set.
struct Selection {
  float sum;  // of their deviations from the mean (absolute ones when two-sided)
  int count;
  int also;   // see Also
  bool near;  // an element so close to the threshold that float32 cannot decide: the rest means nothing
};

// What else is counted: nothing, all items of the row that activate highly, or the selected ones below the mean.
enum class Also { nothing, all, below };

// A thread's share of a selection in two words, which is what a reduction moves: rows in registers have less than 2^16
// items, so both counts fit in one. NaN for near.
struct PackedSelection {
  float sum;
  uint32_t counts;
  SSLK_DEVICE void merge(const PackedSelection& other) { sum += other.sum, counts += other.counts; }
};

constexpr int kLook = 4;  // items that are looked at together

// The two elements of a pair as floats.
SSLK_DEVICE void halves_of(const __nv_bfloat162& pair, float* even, float* odd) {
  uint32_t word;
  memcpy(&word, &pair, 4);
  const uint32_t low = word << 16, high = word & 0xffff0000u;
  memcpy(even, &low, 4);
  memcpy(odd, &high, 4);
}
SSLK_DEVICE void halves_of(const __half2& pair, float* even, float* odd) {
  *even = __low2float(pair), *odd = __high2float(pair);
}

// Is one of kLook items from `i` on outside [low, high]?
template <bool kTwoSided, typename T, int kSlots>
SSLK_DEVICE bool any_outside(const RawRow<T, kSlots>& values, int i, float low, float high) {
  if constexpr (sizeof(T) == 2) {  // the largest and the least of two elements each by one instruction
    using Pair = std::conditional_t<std::is_same_v<T, bf16>, __nv_bfloat162, __half2>;
    const uint4& slot = values.slots[i / 8];
    const uint32_t words[2] = {i % 8 ? slot.z : slot.x, i % 8 ? slot.w : slot.y};
    Pair pairs[2];
    memcpy(pairs, words, sizeof(pairs));
    float even, odd;
    halves_of(__hmax2(pairs[0], pairs[1]), &even, &odd);
    bool any = (even > high) | (odd > high);
    if constexpr (kTwoSided) {
      halves_of(__hmin2(pairs[0], pairs[1]), &even, &odd);
      any = any | (even < low) | (odd < low);
    }
    return any;
  }
  bool any = false;
#pragma unroll
  for (int u = 0; u < kLook; ++u) {
    any = any | (values[i + u] > high) | (kTwoSided && values[i + u] < low);
  }
  return any;
}

template <Also kAlso, bool kTwoSided, typename T, typename Team, int kSlots>
SSLK_DEVICE uint32_t select_items(Team& team, const HeldRow<T, Team, kSlots>& row, const FastRow& stats,
                                  uint32_t candidates, float eps, Selection* total) {
  const float error = (1.0f + eps) * stats.unit;
  const float threshold = eps * stats.sigma + (kTwoSided ? 0.0f : stats.delta);
  const float low = threshold - error, high = threshold + error;
  // The same bound on the items themselves, wider by more than its roundings: most items are not near it.
  const float centre = stats.shift + (kTwoSided ? stats.delta : 0.0f);
  const float reach = low - 1e-6f * (fabsf(stats.shift) + fabsf(stats.delta) + fabsf(low));
  recompute_from(candidates);
  const uint32_t considered = kAlso == Also::all ? row.layout.valid : candidates;
  uint32_t active = 0, below = 0;
  float sum = 0.0f, smallest = INFINITY;
#pragma unroll
  for (int first = 0; first < row.kItems; first += kLook) {
    if (any_outside<kTwoSided>(row.values, first, centre - reach, centre + reach)) {
#pragma unroll
      for (int i = first; i < first + kLook; ++i) {
        const float c = row.values[i] - stats.shift;
        const float y = kTwoSided ? fabsf(c - stats.delta) : c;
        if ((considered >> i & 1) && y > low) {
          active |= 1u << i;
          sum += kAlso != Also::all || (candidates >> i & 1) ? y : 0.0f;
          smallest = fminf(smallest, y);
          if constexpr (kAlso == Also::below && kTwoSided) {
            below += c < stats.delta;
          }
        }
      }
    }
  }
  const uint32_t selected = active & candidates;
  const uint32_t also = kAlso == Also::all ? __popc(active) : below;
  const PackedSelection packed =
      team.reduce(PackedSelection{smallest <= high ? NAN : sum, static_cast<uint32_t>(__popc(selected)) | also << 16});
  const int count = static_cast<int>(packed.counts & 0xffff);
  *total = {kTwoSided ? packed.sum : packed.sum - static_cast<float>(count) * stats.delta, count,
            static_cast<int>(packed.counts >> 16), packed.sum != packed.sum};
  return selected;
}

// Bits of this thread's items among `candidates` that activate highly, and the sums over the whole team.
template <Also kAlso = Also::nothing, typename T, typename Team, int kSlots>
SSLK_DEVICE uint32_t select_fast(Team& team, const HeldRow<T, Team, kSlots>& row, const FastRow& stats,
                                 uint32_t candidates, double eps, bool two_sided, Selection* total) {
  const float e = static_cast<float>(eps);
  return two_sided ? select_items<kAlso, true>(team, row, stats, candidates, e, total)
                   : select_items<kAlso, false>(team, row, stats, candidates, e, total);
}

struct ExactRow {
  double scale;  // power of two applied before everything else
  double shift;  // of the scaled row
  double delta;  // mean - shift
  double sigma;  // of the scaled row
  double norm;   // of the scaled row: that of the row itself may be larger than any number
  bool finite;

  SSLK_DEVICE double deviation(double x) const { return x * scale - shift - delta; }
};

struct Magnitude {
  double largest;
  int64_t not_finite;
  SSLK_DEVICE void merge(const Magnitude& other) {
    largest = fmax(largest, other.largest);
    not_finite += other.not_finite;
  }
};

struct ExactMoments {
  double sum, squares;
  SSLK_DEVICE void merge(const ExactMoments& other) { sum += other.sum, squares += other.squares; }
};

// Of a MemoryRow or a HeldRow.
template <typename Team, typename Row>
SSLK_DEVICE ExactRow exact_row(Team& team, const Row& x) {
  const double d = static_cast<double>(x.d);
  ExactRow row{1.0, 0.0, 0.0, 0.0, 0.0, true};
  if constexpr (std::is_same_v<typename Row::Element, double>) {  // the squares of others never leave double
    Magnitude size{0.0, 0};
    x.each(team, [&](int64_t, double v) {
      size.largest = fmax(size.largest, fabs(v));
      size.not_finite += !(fabs(v) <= 1.7976931348623157e308);
    });
    size = team.reduce(size);
    row.finite = size.not_finite == 0;
    if (row.finite && size.largest != 0.0 && (size.largest > 0x1p300 || size.largest < 0x1p-300)) {
      const int exponent = ilogb(size.largest);
      row.scale = scalbn(1.0, exponent < -1000 ? 1000 : -exponent);
    }
  }
  row.shift = x.first() * row.scale;
  Sum<double> sum{0.0};
  x.each(team, [&](int64_t, double v) { sum.value += row.deviation(v); });  // delta is still 0
  row.delta = team.reduce(sum).value / d;
  row.finite = row.finite && fabs(row.delta) < INFINITY;
  if (!row.finite) {
    return {1.0, 0.0, 0.0, 0.0, static_cast<double>(NAN), false};
  }
  ExactMoments m{0.0, 0.0};
  x.each(team, [&](int64_t, double v) {
    const double c = row.deviation(v);
    m.sum += c;
    m.squares += c * c;
  });
  m = team.reduce(m);
  row.delta += m.sum / d;
  row.sigma = sqrt(m.squares / d);
  const double mean = row.shift + row.delta;
  row.norm = sqrt(m.squares + d * mean * mean);
  return row;
}

struct ExactSelection {
  double sum;  // of deviations of the scaled row
  int count, direction;
  SSLK_DEVICE void merge(const ExactSelection& other) {
    sum += other.sum, count += other.count, direction += other.direction;
  }
  // Deviation in the row's own units; 0 of none.
  SSLK_DEVICE double mean(const ExactRow& row) const { return count == 0 ? 0.0 : sum / count / row.scale; }
};

SSLK_DEVICE bool is_active(double deviation, double threshold, bool two_sided) {
  return (two_sided ? fabs(deviation) : deviation) > threshold;
}

template <typename Team, typename Row>
SSLK_DEVICE ExactSelection select_exact(Team& team, const Row& x, const ExactRow& row, const uint8_t* set, double eps,
                                        bool two_sided) {
  const double threshold = eps * row.sigma;
  ExactSelection selection{0.0, 0, 0};
  x.each(team, [&](int64_t j, double v) {
    const double c = row.deviation(v);
    if (is_active(c, threshold, two_sided) && set[j] != 0) {
      selection.sum += two_sided ? fabs(c) : c;
      selection.count += 1;
      selection.direction += c < 0.0 ? -1 : 1;
    }
  });
  return team.reduce(selection);
}

// The number of features that activate highly, of a finite row.
template <typename Team, typename Row>
SSLK_DEVICE int count_exact(Team& team, const Row& x, const ExactRow& row, double eps, bool two_sided) {
  const double threshold = eps * row.sigma;
  Sum<int> count{0};
  x.each(team,
         [&](int64_t, double v) { count.value += row.finite && is_active(row.deviation(v), threshold, two_sided); });
  return team.reduce(count).value;
}

// 1 / max(norm, floor), which a normalised row is multiplied by; NaN for a row with NaN or infinity.
SSLK_DEVICE double inverse_norm(double norm) { return norm <= kNormFloor ? 1.0 / kNormFloor : 1.0 / norm; }
SSLK_DEVICE double inverse_norm(const ExactRow& row) {
  return row.norm / row.scale <= kNormFloor ? 1.0 / kNormFloor : row.scale / row.norm;
}

// The same from registers where squares stay in float32, else from ExactRow.
template <typename T, typename Team, int kSlots>
SSLK_DEVICE double inverse_norm_of(Team& team, const HeldRow<T, Team, kSlots>& row) {
  float q[4] = {};
#pragma unroll
  for (int i = 0; i < row.kItems; ++i) {
    q[i % 4] += row.values[i] * row.values[i];
  }
  const float squares = team.reduce(Sum<float>{(q[0] + q[1]) + (q[2] + q[3])}).value;
  return squares > 1e-20f * static_cast<float>(row.d) && squares < 1e30f
             ? inverse_norm(static_cast<double>(sqrtf(squares)))
             : inverse_norm(exact_row(team, row));
}

}  // namespace sslk
