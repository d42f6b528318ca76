// Representations centred panel by panel and multiplied, on CUDA. The machine is a template parameter, so that the
// emulator of tests/simt runs the same code. It provides
//   allocate<V>(count), zeros<V>(count)           memory until the machine goes
//   launch(kernel, grid, block, arguments...)
//   multiply(out, a, b, accumulate)               out (+)= a b
//   qr(a), svd(a)                                 for CCA: see device_cca.cuh
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "similarity/centred.cuh"
#include "similarity/product_sums.cuh"

namespace sslk {

template <typename C>
struct Matrix {
  C* data;
  int64_t rows, cols, row_stride, col_stride;

  Matrix transposed() const { return {data, cols, rows, col_stride, row_stride}; }
  Matrix columns(int64_t first, int64_t count) const {
    return {data + first * col_stride, rows, count, row_stride, col_stride};
  }
};

template <typename C>
Matrix<C> contiguous_matrix(C* data, int64_t rows, int64_t cols) {
  return {data, rows, cols, cols, 1};
}

constexpr int64_t kPanelBytes = 512 << 20;  // of centred rows at a time
constexpr int64_t kProductBytes = 1 << 30;  // of products kept at a time
constexpr int64_t kMostSummed = 1 << 14;    // terms of one product, which bounds the rounding error of float sums

// The parts of a whole, as equal as can be, none larger than `most`: a short last part would cost a product of its own.
inline int64_t part_of(int64_t whole, int64_t most) {
  const int64_t parts = (whole + most - 1) / most;
  return (whole + parts - 1) / parts;
}

inline int64_t blocks_for(int64_t threads) { return (threads + 255) / 256; }

// body(jobs, how many) for kTogether of them at a time.
template <typename Job, typename Body>
void in_launches(const std::vector<Job>& all, Body body) {
  const int64_t count = static_cast<int64_t>(all.size());
  for (int64_t first = 0; first < count; first += kTogether) {
    Jobs<Job> jobs{};
    const int64_t own = std::min<int64_t>(kTogether, count - first);
    std::copy(all.begin() + first, all.begin() + first + own, jobs.of);
    body(jobs, first, own);
  }
}

inline ColumnPlan column_plan(const std::vector<Centred>& representations) {
  const int64_t n = representations[0].x.n, chunks = std::min<int64_t>(256, (n + 127) / 128);
  int64_t widest = 0;
  for (const Centred& a : representations) {
    widest = std::max(widest, a.x.d);
  }
  return {chunks, (n + chunks - 1) / chunks, (widest + kSpan - 1) / kSpan, widest};
}

// Weighted column sums, or means in the units of z, to out [V, widest].
template <ColumnSum kSum, typename Machine>
void column_sums(Machine& machine, const std::vector<Centred>& representations, const double* weights, double* out) {
  const ColumnPlan plan = column_plan(representations);
  const int64_t at_once = std::min<int64_t>(kTogether, static_cast<int64_t>(representations.size()));
  double* partials = machine.template allocate<double>(at_once * plan.chunks * plan.widest);
  in_launches(representations, [&](const Jobs<Centred>& jobs, int64_t first, int64_t count) {
    const double* own_weights = weights == nullptr ? nullptr : weights + first * jobs.of[0].x.n;
    const int64_t grid = count * plan.chunks * plan.strips;
    const int64_t mean_grid = count * ((plan.widest + kMeanColumns - 1) / kMeanColumns);
    double* own_out = out + first * plan.widest;
    with_type(jobs.of[0].x.dtype, [&](auto type) {
      using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
      machine.launch(column_sum_kernel<kSum, T>, grid, kWarps * 32, jobs, plan, own_weights, partials);
      // Sums of doubles may overflow: once more, of scaled differences.
      if constexpr (kSum == ColumnSum::differences && std::is_same_v<T, double>) {
        machine.launch(column_sum_kernel<ColumnSum::scaled, T>, grid, kWarps * 32, jobs, plan, own_weights, partials);
        machine.launch(column_mean_kernel<ColumnSum::scaled>, mean_grid, kMeanColumns * kMeanRows, jobs, plan,
                       static_cast<const double*>(partials), own_out);
      } else {
        machine.launch(column_mean_kernel<kSum>, mean_grid, kMeanColumns * kMeanRows, jobs, plan,
                       static_cast<const double*>(partials), own_out);
      }
    });
  });
}

// Reads x once for its column means and range, float64 twice. All are of one type and as many rows.
template <typename Machine>
std::vector<Centred> centred(Machine& machine, const std::vector<Rows>& representations) {
  const int64_t count = static_cast<int64_t>(representations.size());
  unsigned long long* sizes = machine.template zeros<unsigned long long>(2 * count);
  std::vector<Centred> out;
  for (int64_t v = 0; v < count; ++v) {
    out.push_back({representations[v], nullptr, sizes + 2 * v});
  }
  const int64_t widest = column_plan(out).widest;
  double* shift = machine.template allocate<double>(count * widest);
  column_sums<ColumnSum::differences>(machine, out, nullptr, shift);
  for (int64_t v = 0; v < count; ++v) {
    out[v].shift = shift + v * widest;
  }
  return out;
}

template <typename C, typename Machine>
void pack(Machine& machine, const std::vector<Packing<C>>& all) {
  in_launches(all, [&](const Jobs<Packing<C>>& jobs, int64_t, int64_t count) {
    const bool whole_rows = jobs.of[0].squares != nullptr;
    int64_t tasks = 0, strip_columns = kStrip;
    for (int64_t k = 0; k < count; ++k) {
      const Panel& panel = jobs.of[k].panel;
      strip_columns = whole_rows ? std::max(strip_columns, panel.columns) : kStrip;
      const int64_t strips = whole_rows ? 1 : (panel.columns + kStrip - 1) / kStrip;
      tasks = std::max(tasks, (panel.rows + kWarpRows - 1) / kWarpRows * strips);
    }
    with_type(jobs.of[0].a.x.dtype, [&](auto type) {
      using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
      if constexpr (std::is_same_v<C, double> || !std::is_same_v<T, double>) {
        machine.launch(centred_panel_kernel<T, C>, (tasks + kWarps - 1) / kWarps * count, kWarps * 32, jobs, count,
                       strip_columns);
      }
    });
  });
}

// Memory that is used again, and replaced when it is too small.
template <typename C>
class Reused {
 public:
  template <typename Machine>
  C* get(Machine& machine, int64_t count) {
    if (count > size_) {
      data_ = machine.template allocate<C>(count);
      size_ = count;
    }
    return data_;
  }

 private:
  C* data_ = nullptr;
  int64_t size_ = 0;
};

template <typename V, typename Machine>
void sum_products(Machine& machine, const std::vector<ProductSum<V>>& sums) {
  in_launches(sums, [&](const Jobs<ProductSum<V>>& jobs, int64_t, int64_t count) {
    machine.launch(product_sum_kernel<V>, count * kSumSlices, kWarps * 32, jobs);
  });
}

// X_v' X_w for all pairs v <= w of blocks that are given a panel of rows at a time.
template <typename C>
struct PairProducts {
  std::vector<int64_t> offsets;     // of each block in a panel, and the width of all
  std::vector<Matrix<C>> products;  // X_v' [X_v X_v+1 ...]
  std::vector<Reused<C>> memory;

  int64_t count() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t width() const { return offsets.back(); }
  int64_t columns(int64_t v) const { return offsets[v + 1] - offsets[v]; }
  int64_t panel_rows(int64_t n) const {
    return part_of(n, std::clamp<int64_t>(kPanelBytes / (width() * int64_t{sizeof(C)}), 1, kMostSummed));
  }

  // X_v' X_w in any order; both must be in the same group.
  Matrix<C> product(int64_t v, int64_t w) const {
    return v <= w ? products[v].columns(offsets[w] - offsets[v], columns(w))
                  : products[w].columns(offsets[v] - offsets[w], columns(v)).transposed();
  }

  // fill(first_row, rows, first_block) gives the panel of the blocks from first_block on, each at its offset. The sums
  // of squares of all products go to `squares` [V, V, kSumSlices]. Products are computed in groups that fit in memory,
  // all at once where they are to be kept.
  template <typename Machine, typename Fill>
  void compute(Machine& machine, int64_t n, bool keep, double* squares, Fill fill) {
    products.assign(count(), {});
    memory.resize(count());
    for (int64_t begin = 0; begin < count();) {
      int64_t end = begin, bytes = 0;
      while (end < count() && (keep || end == begin || bytes < kProductBytes)) {
        bytes += columns(end) * (width() - offsets[end]) * int64_t{sizeof(C)};
        ++end;
      }
      for (int64_t v = begin; v < end; ++v) {
        const int64_t tail = width() - offsets[v];
        products[v] = contiguous_matrix(memory[v - begin].get(machine, columns(v) * tail), columns(v), tail);
      }
      const int64_t step = panel_rows(n);
      for (int64_t first = 0; first < n; first += step) {
        const Matrix<C> rows = fill(first, std::min(step, n - first), begin);
        for (int64_t v = begin; v < end; ++v) {
          machine.multiply(products[v], rows.columns(offsets[v], columns(v)).transposed(),
                           rows.columns(offsets[v], width() - offsets[v]), first > 0);
        }
      }
      std::vector<ProductSum<C>> sums;
      for (int64_t v = begin; v < end; ++v) {
        for (int64_t w = v; w < count(); ++w) {
          const Matrix<C> m = product(v, w);
          sums.push_back({m.data, m.data, m.row_stride, m.row_stride, m.rows, m.cols, false,
                          squares + (v * count() + w) * kSumSlices});
        }
      }
      sum_products(machine, sums);
      begin = end;
    }
  }
};

}  // namespace sslk
