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

#include "rows/sum_partials.cuh"
#include "similarity/kernels.cuh"

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

constexpr int64_t kPanelBytes = 256 << 20;  // of centred rows at a time
constexpr int64_t kProductBytes = 1 << 30;  // of products kept at a time
constexpr int64_t kMostSummed = 1 << 14;    // terms of one product, which bounds the rounding error of float sums

// Reads x twice, for its range and then for its column means, which are sums in that range.
template <typename Machine>
Centred centred(Machine& machine, const Rows& x) {
  const int64_t chunks = std::min<int64_t>(256, (x.n + 127) / 128), chunk_rows = (x.n + chunks - 1) / chunks;
  const int64_t strips = (x.d + kMeanLanes - 1) / kMeanLanes;
  double* partials = machine.template zeros<double>(chunks * x.d);
  double* shift = machine.template allocate<double>(x.d);
  unsigned long long* sizes = machine.template zeros<unsigned long long>(2);
  const Centred out{x, shift, sizes};
  with_type(x.dtype, [&](auto type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
    machine.launch(column_range_kernel<T>, chunks * strips, kMeanLanes * kMeanRows, x, chunk_rows, sizes);
    machine.launch(column_sum_kernel<T>, chunks * strips, kMeanLanes * kMeanRows, out, chunk_rows, partials);
  });
  machine.launch(sum_partials_kernel<double>, (x.d + kSumColumns - 1) / kSumColumns, kSumColumns * kSumRows,
                 static_cast<const double*>(partials), chunks, x.d, 1.0 / static_cast<double>(x.n), shift);
  return out;
}

template <typename C, typename Machine>
void pack(Machine& machine, const Centred& a, const Panel& panel, C* out, double* squares) {
  with_type(a.x.dtype, [&](auto type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
    if constexpr (std::is_same_v<C, double> || !std::is_same_v<T, double>) {
      machine.launch(centred_panel_kernel<T, C>, std::min<int64_t>(panel.rows, 1 << 16), 256, a, panel, out, squares);
    }
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

// Sums a_ij b_ij (b absent: a_ij) into kSumSlices parts.
template <typename V, typename Machine>
void sum_products(Machine& machine, const Matrix<V>& a, const V* b, int64_t b_stride, bool skip_diagonal,
                  double* slices) {
  machine.launch(product_sum_kernel<V>, kSumSlices, 256, static_cast<const V*>(a.data), a.row_stride, b, b_stride,
                 a.rows, a.cols, skip_diagonal, slices);
}

inline int64_t blocks_for(int64_t threads) { return (threads + 255) / 256; }

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
    return std::clamp<int64_t>(kPanelBytes / (width() * int64_t{sizeof(C)}), 1, std::min(n, kMostSummed));
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
      for (int64_t v = begin; v < end; ++v) {
        for (int64_t w = v; w < count(); ++w) {
          const Matrix<C> m = product(v, w);
          sum_products(machine, m, static_cast<const C*>(m.data), m.row_stride, false,
                       squares + (v * count() + w) * kSumSlices);
        }
      }
      begin = end;
    }
  }
};

}  // namespace sslk
