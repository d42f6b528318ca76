// Mean, deviation and norm of one row, and its highly activating features: the core that every row kernel shares.
//
// Two paths give the same active set as exact arithmetic would, but for elements within double's rounding of the
// threshold (the CPU decides those in whole numbers):
//   FastRow   float32, two passes over the row in registers. An element within the rounding error of the threshold
//             sends the row to the other path, as do scales whose squares leave float32, and NaN.
//   ExactRow  double, reading memory again, scaled by a power of two: any finite row of any length.
#pragma once

#include "rows/held_row.cuh"

namespace sslk {

constexpr double kNormFloor = 1e-12;  // as torch.nn.functional.normalize
// Bound on the error of FastRow's moments relative to the deviation: at most 8 additions in a row per accumulator, 2 to
// join the four, 5 across the warp and 15 across warps, and 3 roundings of the term: 33 * 2^-24 = 2.0e-6 on sums of
// squares and of magnitudes; half of the former on sigma; the rest covers the final divisions and the square root.
constexpr float kRelativeError = 4e-6f;

template <typename T>
SSLK_DEVICE const T* row_at(const Rows& h, int64_t i) {
  return static_cast<const T*>(h.data) + i * h.stride;
}

struct FastRow {
  float shift;
  float delta;  // mean - shift
  float sigma;
  float norm;
};

struct Moments {
  float sum, squares;
  SSLK_DEVICE void merge(const Moments& other) { sum += other.sum, squares += other.squares; }
};

template <bool kPartial, int kItems>
SSLK_DEVICE Moments moments_about(float shift, const float (&x)[kItems], uint32_t valid) {
  float s[4] = {}, q[4] = {};
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const float c = !kPartial || (valid >> i & 1) ? x[i] - shift : 0.0f;
    s[i % 4] += c;
    q[i % 4] += c * c;
  }
  return {(s[0] + s[1]) + (s[2] + s[3]), (q[0] + q[1]) + (q[2] + q[3])};
}

// False when the row needs ExactRow.
template <typename T, typename Team, int kSlots>
SSLK_DEVICE bool fast_row(Team& team, const HeldRow<T, Team, kSlots>& row, FastRow* out) {
  constexpr int kItems = Layout<T, kSlots>::kItems;
  const float per_column = 1.0f / static_cast<float>(row.d);
  float s[4] = {};
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    s[i % 4] += row.values[i];
  }
  // Any value near the mean will do: what it misses comes back as delta.
  const float shift = team.reduce(Sum<float>{(s[0] + s[1]) + (s[2] + s[3])}).value * per_column;
  const Moments m =
      team.reduce(row.layout.valid == row.layout.kAll ? moments_about<false>(shift, row.values, row.layout.valid)
                                                      : moments_about<true>(shift, row.values, row.layout.valid));
  const float mean_square = m.squares * per_column, delta = m.sum * per_column;
  // Squares that overflow, underflow or are NaN need double.
  if (!(mean_square > 1e-20f && mean_square < 1e24f && fabsf(shift) < 1e13f && delta * delta <= 0.01f * mean_square)) {
    return false;
  }
  const float square = m.squares + static_cast<float>(row.d) * shift * (2.0f * delta + shift);
  *out = {shift, delta, sqrtf(mean_square - delta * delta), sqrtf(fmaxf(square, 0.0f))};
  // The norm of a row that nearly cancels its shift would lose digits; so would a row that is its mean plus dust.
  return square > 1e-3f * m.squares && out->sigma > 1e-5f * fabsf(shift);
}

// The features selected of a row: those that activate highly and lie in the set.
struct Selection {
  float sum;  // of their deviations from the mean (absolute ones when two-sided)
  int count;
  int direction;  // features above minus features below the mean: count, unless two-sided
  int near;       // elements so close to the threshold that float32 cannot decide
  SSLK_DEVICE void merge(const Selection& other) {
    sum += other.sum, count += other.count, direction += other.direction, near += other.near;
  }
};

// Bits of this thread's items among `candidates` that activate highly, and the sums over the whole team. With
// total.near != 0 neither means anything.
template <typename T, typename Team, int kSlots>
SSLK_DEVICE uint32_t select_fast(Team& team, const HeldRow<T, Team, kSlots>& row, const FastRow& stats,
                                 uint32_t candidates, double eps, bool two_sided, Selection* total) {
  const float e = static_cast<float>(eps);
  const float error = kRelativeError * (1.0f + e) * (stats.sigma + fabsf(stats.delta));
  const float threshold = e * stats.sigma + (two_sided ? 0.0f : stats.delta);
  const float low = threshold - error, high = threshold + error;
  const float centre = two_sided ? stats.delta : 0.0f;
  recompute_from(candidates);
  uint32_t selected = 0;
  float sum[2] = {}, smallest = INFINITY;
#pragma unroll
  for (int i = 0; i < row.kItems; ++i) {
    const float c = row.values[i] - stats.shift - centre;
    const float y = two_sided ? fabsf(c) : c;
    if ((candidates >> i & 1) && y > low) {
      selected |= 1u << i;
      sum[i % 2] += y;
      smallest = fminf(smallest, y);
    }
  }
  const int count = __popc(selected);
  int direction = count;
  if (two_sided) {
    uint32_t below = 0;
#pragma unroll
    for (int i = 0; i < row.kItems; ++i) {
      below |= static_cast<uint32_t>(row.values[i] - stats.shift < stats.delta) << i;
    }
    direction -= 2 * __popc(selected & below);
  }
  *total = team.reduce(Selection{sum[0] + sum[1], count, direction, smallest <= high});
  total->sum -= two_sided ? 0.0f : static_cast<float>(total->count) * stats.delta;
  return selected;
}

struct ExactRow {
  double scale;  // power of two applied before everything else
  double shift;  // of the scaled row
  double delta;  // mean - shift
  double sigma;  // of the scaled row
  double norm;   // of the scaled row: that of the row itself may be larger than any number
  bool finite;

  template <typename T>
  SSLK_DEVICE double deviation(T x) const {
    return static_cast<double>(widen(x)) * scale - shift - delta;
  }
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

template <typename T, typename Team>
SSLK_DEVICE ExactRow exact_row(Team& team, const T* x, int64_t d) {
  Magnitude size{0.0, 0};
#pragma unroll 1
  for (int64_t j = team.rank; j < d; j += team.width()) {
    const double magnitude = fabs(static_cast<double>(widen(x[j])));
    size.largest = fmax(size.largest, magnitude);
    size.not_finite += !(magnitude <= 1.7976931348623157e308);
  }
  size = team.reduce(size);
  ExactRow row{1.0, 0.0, 0.0, 0.0, 0.0, size.not_finite == 0};
  if (!row.finite || size.largest == 0.0) {
    row.norm = row.finite ? 0.0 : static_cast<double>(NAN);
    return row;
  }
  if (size.largest > 0x1p300 || size.largest < 0x1p-300) {
    const int exponent = ilogb(size.largest);
    row.scale = scalbn(1.0, exponent < -1000 ? 1000 : -exponent);
  }
  row.shift = static_cast<double>(widen(x[0])) * row.scale;
  Sum<double> sum{0.0};
#pragma unroll 1
  for (int64_t j = team.rank; j < d; j += team.width()) {
    sum.value += row.deviation(x[j]);  // delta is still 0
  }
  row.delta = team.reduce(sum).value / static_cast<double>(d);
  ExactMoments m{0.0, 0.0};
#pragma unroll 1
  for (int64_t j = team.rank; j < d; j += team.width()) {
    const double c = row.deviation(x[j]);
    m.sum += c;
    m.squares += c * c;
  }
  m = team.reduce(m);
  row.delta += m.sum / static_cast<double>(d);
  row.sigma = sqrt(m.squares / static_cast<double>(d));
  const double mean = row.shift + row.delta;
  row.norm = sqrt(m.squares + static_cast<double>(d) * mean * mean);
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

template <typename T, typename Team>
SSLK_DEVICE ExactSelection select_exact(Team& team, const T* x, int64_t d, const ExactRow& row, const uint8_t* set,
                                        double eps, bool two_sided) {
  const double threshold = eps * row.sigma;
  ExactSelection selection{0.0, 0, 0};
#pragma unroll 1
  for (int64_t j = team.rank; j < d; j += team.width()) {
    const double c = row.deviation(x[j]);
    if (set[j] != 0 && is_active(c, threshold, two_sided)) {
      selection.sum += two_sided ? fabs(c) : c;
      selection.count += 1;
      selection.direction += c < 0.0 ? -1 : 1;
    }
  }
  return team.reduce(selection);
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
             : inverse_norm(exact_row(team, row.x, row.d));
}

}  // namespace sslk
