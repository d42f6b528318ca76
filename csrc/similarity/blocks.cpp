#include "similarity/blocks.h"

#include <algorithm>
#include <cmath>

#include "cpu/matmul.h"
#include "rows/pack_kernels.h"
#include "similarity/kernels.h"

namespace sslk {
namespace {

constexpr int64_t kPanelBytes = 32 << 20;     // of all blocks' rows packed at a time
constexpr int64_t kProductBytes = 256 << 20;  // of products held at a time
constexpr int64_t kRowsPerFlush = 1 << 14;    // summed in float before the sum goes on in double
constexpr int64_t kElementsPerTask = 1 << 15;

int64_t rows_of_task(int64_t d) { return std::max<int64_t>(1, kElementsPerTask / d); }

// Row 0; of the differences x * scale - row 0 * scale the sums of columns, and the largest of all.
struct Differences {
  std::vector<double> first, sums;
  double largest;
};

Differences differences(const Rows& x, double scale) {
  // Chunk bounds depend on the shape alone: the mean does not depend on the number of threads.
  constexpr int64_t kMaxChunks = 32;
  const int64_t per_chunk = std::max<int64_t>(256, (x.n + kMaxChunks - 1) / kMaxChunks);
  const int64_t chunks = (x.n + per_chunk - 1) / per_chunk;
  Differences out{std::vector<double>(x.d), std::vector<double>(x.d, 0.0), 0.0};
  std::vector<double> sums(chunks * x.d, 0.0), largest(chunks, 0.0);
  torch::stable::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(x.dtype == Dtype::f64 ? 0 : x.d, 0.0f);
    for (int64_t c = begin; c < end; ++c) {
      SSLK_KERNEL(sum_differences)
      ({x, scale, scratch.data(), sums.data() + c * x.d, &largest[c]}, c * per_chunk,
       std::min(x.n, (c + 1) * per_chunk));
    }
  });
  for (int64_t c = 0; c < chunks; ++c) {
    out.largest = std::max(out.largest, largest[c]);
    for (int64_t j = 0; j < x.d; ++j) {
      out.sums[j] += sums[c * x.d + j];
    }
  }
  const std::vector<double> zeros(x.d, 0.0);  // of either type
  SSLK_KERNEL(pack_rows)
  ({x, 1.0, 1.0, zeros.data(), zeros.data(), 0, out.first.data(), x.d, Dtype::f64, nullptr}, 0, 1);
  return out;
}

}  // namespace

CentredBlock centred(const Rows& x) {
  const bool wide = x.dtype == Dtype::f64;
  CentredBlock block;
  block.x = x;
  Differences found = differences(x, block.scale);
  // Differences or their sums may have overflowed: once more, of smaller numbers.
  if (!(found.largest < (wide ? 0x1p900 : 0x1p100))) {
    block.scale = 0x1p-40;
    found = differences(x, block.scale);
  }
  int exponent = 0;
  if (std::isfinite(found.largest)) {
    const int most = wide ? 1000 : 120;  // the factors of gradients stay normal numbers
    std::frexp(found.largest, &exponent);
    exponent = std::clamp(exponent, -most, most);
  }
  block.gain = std::ldexp(1.0, -exponent);
  for (int64_t j = 0; j < x.d; ++j) {
    const double origin = found.first[j] * block.scale, shift = found.sums[j] * block.gain / x.n;
    if (wide) {
      block.origin_double.push_back(origin);
      block.shift_double.push_back(shift);
    } else {
      block.origin.push_back(static_cast<float>(origin));
      block.shift.push_back(static_cast<float>(shift));
    }
  }
  return block;
}

void CentredBlock::pack(int64_t first, int64_t rows, int64_t column, int64_t columns, void* z, int64_t z_stride,
                        ScalarType type, double* squares) const {
  const bool wide = x.dtype == Dtype::f64;
  const int64_t bytes = wide ? 8 : x.dtype == Dtype::f32 ? 4 : 2;
  const PackArgs args{{static_cast<const char*>(x.data) + column * bytes, x.n, columns, x.stride, x.dtype},
                      scale,
                      gain,
                      wide ? static_cast<const void*>(origin_double.data() + column) : origin.data() + column,
                      wide ? static_cast<const void*>(shift_double.data() + column) : shift.data() + column,
                      first,
                      z,
                      z_stride,
                      kernel_dtype(type),
                      squares};
  torch::stable::parallel_for(first, first + rows, rows_of_task(columns),
                              [&](int64_t begin, int64_t end) { SSLK_KERNEL(pack_rows)(args, begin, end); });
}

Tensor with_adjacent_features(const Tensor& x) {
  return x.stride(2) == 1 || x.size(2) == 1 || x.numel() == 0 ? x : torch::stable::contiguous(x);
}

std::vector<Rows> matrices_of(const Tensor& x) {
  std::vector<Rows> out;
  for (int64_t v = 0; v < x.size(0); ++v) {
    out.push_back({static_cast<const char*>(x.const_data_ptr()) + v * x.stride(0) * x.element_size(), x.size(1),
                   x.size(2), x.stride(1), kernel_dtype(x.scalar_type())});
  }
  return out;
}

BlockProducts::BlockProducts(std::vector<int64_t> widths, int64_t n, ScalarType type)
    : widths_(std::move(widths)), offsets_{0}, n_(n), type_(type) {
  for (const int64_t w : widths_) {
    offsets_.push_back(offsets_.back() + w);
  }
  const int64_t bytes = std::max<int64_t>(1, width()) * (type == ScalarType::Double ? 8 : 4);
  const int64_t most = std::clamp<int64_t>(kPanelBytes / bytes, 256, kRowsPerFlush / 2);
  const int64_t panels = (n + most - 1) / most;
  panel_rows_ = (n + panels - 1) / panels;
}

int64_t BlockProducts::group_end(int64_t begin) const {
  int64_t end = begin, bytes = 0;
  while (end < static_cast<int64_t>(widths_.size())) {
    bytes += widths_[end] * tail(end) * (type_ == ScalarType::Double ? 8 : 4);
    if (end > begin && bytes > kProductBytes) {
      break;
    }
    ++end;
  }
  return end;
}

void BlockProducts::compute(int64_t begin, int64_t end, const Fill& fill) {
  const bool flush = type_ == ScalarType::Float && n_ > kRowsPerFlush;
  sums_.assign(widths_.size(), Tensor());
  double_sums_.assign(widths_.size(), Tensor());
  for (int64_t v = begin; v < end; ++v) {
    sums_[v] = torch::stable::empty({widths_[v], tail(v)}, type_);
    if (flush) {
      double_sums_[v] = torch::stable::empty({widths_[v], tail(v)}, ScalarType::Double);
      torch::stable::zero_(double_sums_[v]);
    }
  }
  const Tensor panel = torch::stable::empty({panel_rows_, width()}, type_);
  const char* data = static_cast<const char*>(panel.const_data_ptr());
  const int64_t bytes = panel.element_size();
  int64_t unflushed = 0;
  for (int64_t first = 0; first < n_; first += panel_rows_) {
    const int64_t rows = std::min(panel_rows_, n_ - first);
    fill(first, rows, begin, panel.mutable_data_ptr());
    const bool last = first + rows == n_;
    for (int64_t v = begin; v < end; ++v) {
      const char* block = data + offset(v) * bytes;
      multiply(sums_[v], matrix_view(block, widths_[v], rows, 1, width(), type_),
               matrix_view(block, rows, tail(v), width(), 1, type_), unflushed > 0);
    }
    unflushed += rows;
    if (flush && (unflushed + panel_rows_ > kRowsPerFlush || last)) {
      unflushed = 0;
      for (int64_t v = begin; v < end; ++v) {
        const float* from = static_cast<const float*>(sums_[v].const_data_ptr());
        double* to = static_cast<double*>(double_sums_[v].mutable_data_ptr());
        torch::stable::parallel_for(0, sums_[v].numel(), kElementsPerTask,
                                    [&](int64_t i, int64_t stop) { SSLK_KERNEL(add_floats)(from, to, i, stop); });
        if (last) {
          torch::stable::copy_(sums_[v], double_sums_[v]);
        }
      }
    }
  }
}

double BlockProducts::square_sum(int64_t v, int64_t w) const {
  const Tensor& sums = double_sums_[v].defined() ? double_sums_[v] : sums_[v];
  const char* data = static_cast<const char*>(sums.const_data_ptr()) + (offset(w) - offset(v)) * sums.element_size();
  const SquareArgs args{data, widths_[w], tail(v), kernel_dtype(sums.scalar_type())};
  const int64_t per_chunk = rows_of_task(widths_[w]), chunks = (widths_[v] + per_chunk - 1) / per_chunk;
  std::vector<double> totals(chunks, 0.0);
  torch::stable::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      SSLK_KERNEL(add_squares)(args, c * per_chunk, std::min(widths_[v], (c + 1) * per_chunk), &totals[c]);
    }
  });
  double total = 0.0;
  for (const double t : totals) {
    total += t;
  }
  return total;
}

Tensor BlockProducts::product(int64_t v, int64_t w) const {
  const int64_t a = std::min(v, w), b = std::max(v, w);
  const Tensor& sums = sums_[a];
  const char* data = static_cast<const char*>(sums.const_data_ptr()) + (offset(b) - offset(a)) * sums.element_size();
  return v <= w ? matrix_view(data, widths_[v], widths_[w], tail(a), 1, type_)
                : matrix_view(data, widths_[v], widths_[w], 1, tail(a), type_);
}

}  // namespace sslk
