// sslk::kmeans_assign on the CPU.
#include <algorithm>
#include <cmath>

#include "cpu/matmul.h"
#include "kmeans/args.h"
#include "kmeans/kernels.h"
#include "rows/args.h"
#include "rows/pack_kernels.h"

namespace sslk {
namespace {

// A tile of products between the matrix product and the scan: 1 MB of float32, more rows where the centroids are too
// large to be packed anew for each tile.
constexpr int64_t kTileCentroids = 512;
constexpr int64_t kLeastTileRows = 512, kMostTileRows = 2048;
constexpr int64_t kRowsPerTask = 64;

// The centroids as the products see them: moved by the mean when they lie far from the origin, where the products of
// far-off vectors would drown the differences.
struct PreparedCentroids {
  std::vector<double> shift;   // [D], zeros if they are not moved
  bool shifted = false;
  Tensor matrix;               // [K, D] in the computing type
  Tensor half_norms;           // [K]
  double largest = 0.0;
};

template <typename C>
void finish_centroids(PreparedCentroids* out, int64_t k, int64_t d) {
  C* matrix = static_cast<C*>(out->matrix.mutable_data_ptr());
  C* half = static_cast<C*>(out->half_norms.mutable_data_ptr());
  for (int64_t i = 0; i < k; ++i) {
    C* row = matrix + i * d;
    double squares = 0.0;
    for (int64_t j = 0; j < d; ++j) {
      row[j] -= static_cast<C>(out->shift[j]);
      squares += static_cast<double>(row[j]) * row[j];
    }
    if (std::isfinite(squares)) {
      half[i] = static_cast<C>(0.5 * squares);
      out->largest = std::max(out->largest, std::sqrt(squares));
    } else {
      std::fill(row, row + d, C(0));
      half[i] = std::numeric_limits<C>::infinity();
    }
  }
}

template <typename C>
void find_shift(PreparedCentroids* out, int64_t k, int64_t d, bool always) {
  const C* matrix = static_cast<const C*>(out->matrix.const_data_ptr());
  std::vector<double> mean(d, 0.0);
  double squares = 0.0;
  int64_t finite = 0;
  for (int64_t i = 0; i < k; ++i) {
    const C* row = matrix + i * d;
    double own = 0.0;
    for (int64_t j = 0; j < d; ++j) {
      own += static_cast<double>(row[j]) * row[j];
    }
    if (std::isfinite(own)) {
      squares += own;
      ++finite;
      for (int64_t j = 0; j < d; ++j) {
        mean[j] += row[j];
      }
    }
  }
  double mean_square = 0.0;
  for (int64_t j = 0; j < d; ++j) {
    mean[j] /= std::max<int64_t>(1, finite);
    mean_square += mean[j] * mean[j];
  }
  // |c|^2 splits into the mean's square and the spread.
  out->shifted = always || mean_square > 0.8 * squares / std::max<int64_t>(1, finite);
  out->shift = out->shifted && std::isfinite(mean_square) ? mean : std::vector<double>(d, 0.0);
}

PreparedCentroids prepare(const Tensor& centroids, bool always_shift) {
  const int64_t k = centroids.size(0), d = centroids.size(1);
  const ScalarType type = accumulation_type(centroids.scalar_type());
  PreparedCentroids out;
  out.matrix = torch::stable::empty({k, d}, type);
  torch::stable::copy_(out.matrix, centroids);
  out.half_norms = torch::stable::empty({k}, type);
  if (type == ScalarType::Double) {
    find_shift<double>(&out, k, d, always_shift);
    finish_centroids<double>(&out, k, d);
  } else {
    find_shift<float>(&out, k, d, always_shift);
    finish_centroids<float>(&out, k, d);
  }
  return out;
}

std::tuple<Tensor, Tensor> kmeans_assign_cpu(const Tensor& x_in, const Tensor& centroids_in) {
  check_kmeans_assign("sslk::kmeans_assign", x_in, centroids_in);
  const Tensor x = with_adjacent_columns(x_in), centroids = torch::stable::contiguous(centroids_in);
  const ScalarType type = accumulation_type(x.scalar_type());
  const int64_t n = x.size(0), d = x.size(1), k = centroids.size(0);
  Tensor assignment = torch::stable::new_empty(x, {n}, ScalarType::Int);
  Tensor distance = torch::stable::new_empty(x, {n}, type);
  const Rows rows = rows_of(x);
  const bool converted = x.scalar_type() != type;
  const PreparedCentroids prepared = prepare(centroids, converted);
  const bool packed = converted || prepared.shifted || rows.stride < d;
  const std::vector<float> shift(prepared.shift.begin(), prepared.shift.end());
  const bool wide = type == ScalarType::Double;
  const int64_t bytes = wide ? 8 : 4;
  const char* matrix = static_cast<const char*>(prepared.matrix.const_data_ptr());
  const int64_t tile_columns = std::min(k, kTileCentroids);
  const int64_t tile_rows = std::clamp(2 * d, kLeastTileRows, kMostTileRows);
  // Each thread multiplies and scans its own tiles, which stay in its cache; torch's product does not fork again there.
  torch::stable::parallel_for(0, n, kRowsPerTask, [&](int64_t begin, int64_t end) {
    const int64_t most = std::min(tile_rows, end - begin);
    std::vector<char> products(most * tile_columns * bytes), panel(packed ? most * d * bytes : 0);
    std::vector<double> norms(packed ? most : 0);
    std::vector<Nearest> nearest(most);
    AssignArgs args{rows,
                    rows_of(centroids),
                    prepared.largest,
                    0,
                    products.data(),
                    packed ? norms.data() : nullptr,
                    nullptr,
                    0,
                    0,
                    kernel_dtype(type),
                    nearest.data(),
                    static_cast<int32_t*>(assignment.mutable_data_ptr()),
                    distance.mutable_data_ptr()};
    for (int64_t first = begin; first < end; first += most) {
      const int64_t count = std::min(most, end - first);
      args.first = first;
      if (packed) {
        SSLK_KERNEL(pack_rows)
        ({rows, 1.0, wide ? static_cast<const void*>(prepared.shift.data()) : shift.data(), first, panel.data(), d,
          kernel_dtype(type), norms.data()},
         first, first + count);
      }
      const Tensor block = packed ? matrix_view(panel.data(), count, d, d, 1, type)
                                  : matrix_view(static_cast<const char*>(rows.data) + first * rows.stride * bytes,
                                                count, d, rows.stride, 1, type);
      for (int64_t start = 0; start < k; start += tile_columns) {
        args.first_centroid = start;
        args.columns = std::min(tile_columns, k - start);
        args.half_norms = static_cast<const char*>(prepared.half_norms.const_data_ptr()) + start * bytes;
        multiply(matrix_view(products.data(), count, args.columns, args.columns, 1, type), block,
                 matrix_view(matrix + start * d * bytes, d, args.columns, 1, d, type));
        SSLK_KERNEL(assign_rows)(args, first, first + count);
      }
    }
  });
  return {assignment, distance};
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CPU, m) { m.impl("kmeans_assign", TORCH_BOX(&sslk::kmeans_assign_cpu)); }
