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

constexpr int64_t kTileBytes = 4 << 20;      // of products between the matrix product and the scan
constexpr int64_t kTileCentroids = 2048;
constexpr int64_t kRowsPerTask = 32;

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
  if (n == 0) {
    return {assignment, distance};
  }
  const bool converted = x.scalar_type() != type;
  const PreparedCentroids prepared = prepare(centroids, converted);
  const bool packed = converted || prepared.shifted || (x.stride(0) < d && n > 1);
  const int64_t bytes = type == ScalarType::Double ? 8 : 4;
  const int64_t columns = std::min(k, kTileCentroids);
  const int64_t rows = std::min(n, std::max<int64_t>(64, kTileBytes / (columns * bytes)));
  const Tensor products = torch::stable::empty({rows * columns}, type);
  const Tensor panel = torch::stable::empty({packed ? rows : 0, d}, type);
  std::vector<double> norms(rows);
  std::vector<Nearest> nearest(rows);
  const std::vector<float> shift(prepared.shift.begin(), prepared.shift.end());
  const char* matrix = static_cast<const char*>(prepared.matrix.const_data_ptr());
  AssignArgs args{rows_of(x), rows_of(centroids), prepared.largest, 0, products.const_data_ptr(), nullptr, 0, 0,
                  kernel_dtype(type), nearest.data(), static_cast<int32_t*>(assignment.mutable_data_ptr()),
                  distance.mutable_data_ptr()};
  const auto for_rows = [&](int64_t first, int64_t count, auto body) {
    torch::stable::parallel_for(first, first + count, kRowsPerTask, body);
  };
  for (int64_t first = 0; first < n; first += rows) {
    const int64_t count = std::min(rows, n - first);
    args.first = first;
    if (packed) {
      const PackArgs pack{args.x, 1.0,
                          type == ScalarType::Double ? static_cast<const void*>(prepared.shift.data()) : shift.data(),
                          first, panel.mutable_data_ptr(), d, kernel_dtype(type), norms.data()};
      for_rows(first, count, [&](int64_t begin, int64_t end) { SSLK_KERNEL(pack_rows)(pack, begin, end); });
    }
    for_rows(first, count, [&](int64_t begin, int64_t end) {
      SSLK_KERNEL(start_nearest)(args, packed ? norms.data() : nullptr, begin, end);
    });
    const Tensor block =
        packed ? matrix_view(panel.const_data_ptr(), count, d, d, 1, type)
               : matrix_view(static_cast<const char*>(x.const_data_ptr()) + first * args.x.stride * bytes, count, d,
                             args.x.stride, 1, type);
    for (int64_t start = 0; start < k; start += columns) {
      args.first_centroid = start;
      args.columns = std::min(columns, k - start);
      args.half_norms = static_cast<const char*>(prepared.half_norms.const_data_ptr()) + start * bytes;
      multiply(matrix_view(products.const_data_ptr(), count, args.columns, args.columns, 1, type), block,
               matrix_view(matrix + start * d * bytes, d, args.columns, 1, d, type));
      for_rows(first, count, [&](int64_t begin, int64_t end) { SSLK_KERNEL(scan_tile)(args, begin, end); });
    }
    for_rows(first, count, [&](int64_t begin, int64_t end) { SSLK_KERNEL(finish_nearest)(args, begin, end); });
  }
  return {assignment, distance};
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CPU, m) { m.impl("kmeans_assign", TORCH_BOX(&sslk::kmeans_assign_cpu)); }
