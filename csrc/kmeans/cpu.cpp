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

// A tile of products between the matrix product and the scan: 1 MB of float32 a thread, more rows where the centroids
// are too large to be packed anew for each tile.
constexpr int64_t kTileCentroids = 512, kTileProducts = 1 << 18;
constexpr int64_t kLeastTileRows = 512, kMostTileRows = 8192;
constexpr int64_t kRowsPerTask = 64;

// The centroids as the products see them: scaled to order 1 where their squares might leave the range, and moved by
// their mean where they lie far from the origin, so that the products do not drown the differences.
struct PreparedCentroids {
  double scale = 1.0;                // a power of two
  std::vector<double> shift_double;  // [D], for float64
  std::vector<float> shift;          // [D], for everything else
  std::vector<double> zeros;         // [D], in either type
  bool shifted = false;
  Tensor matrix;      // [K, D] in the computing type
  Tensor half_norms;  // [K]
  double largest = 0.0;

  // Row `first` of x goes to row 0 of z.
  PackArgs packing(const Rows& x, int64_t first, void* z, Dtype z_dtype, double* squares) const {
    const void* origin = shift_double.empty() ? static_cast<const void*>(shift.data()) : shift_double.data();
    return {x, scale, 1.0, origin, zeros.data(), first, z, x.d, z_dtype, squares};
  }
};

// Writes x * scale - shift of all centroids to the matrix and returns their squared norms.
std::vector<double> pack(const Rows& centroids, PreparedCentroids* out) {
  std::vector<double> squares(centroids.n);
  const PackArgs args = out->packing(centroids, 0, out->matrix.mutable_data_ptr(),
                                     kernel_dtype(out->matrix.scalar_type()), squares.data());
  torch::stable::parallel_for(0, centroids.n, kRowsPerTask,
                              [&](int64_t begin, int64_t end) { SSLK_KERNEL(pack_rows)(args, begin, end); });
  return squares;
}

// 1 for numbers whose squares stay far from both ends of the range, else the power of two that brings them to order 1.
template <typename C>
double scale_of(const C* values, int64_t count) {
  constexpr bool wide = sizeof(C) == sizeof(double);
  double largest = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    if (std::isfinite(values[i])) {
      largest = std::max<double>(largest, std::fabs(values[i]));
    }
  }
  int exponent = 0;
  std::frexp(largest, &exponent);
  const int most = wide ? 1000 : 120;  // the scale itself stays a normal number
  return std::abs(exponent) <= (wide ? 200 : 20) ? 1.0 : std::ldexp(1.0, std::clamp(-exponent, -most, most));
}

template <typename C>
PreparedCentroids prepare(const Tensor& centroids) {
  const Rows rows = rows_of(centroids);
  const int64_t k = rows.n, d = rows.d;
  constexpr bool wide = sizeof(C) == sizeof(double);
  PreparedCentroids out;
  out.shift.assign(wide ? 0 : d, 0.0f);
  out.shift_double.assign(wide ? d : 0, 0.0);
  out.matrix = torch::stable::empty({k, d}, wide ? ScalarType::Double : ScalarType::Float);
  out.half_norms = torch::stable::empty({k}, out.matrix.scalar_type());
  out.zeros.assign(d, 0.0);
  C* matrix = static_cast<C*>(out.matrix.mutable_data_ptr());
  std::vector<double> squares = pack(rows, &out), mean(d, 0.0);
  out.scale = scale_of(matrix, k * d);
  if (out.scale != 1.0) {
    squares = pack(rows, &out);
  }
  double total = 0.0, mean_square = 0.0, finite = 0.0;
  for (int64_t i = 0; i < k; ++i) {
    if (std::isfinite(squares[i])) {
      total += squares[i];
      finite += 1.0;
      for (int64_t j = 0; j < d; ++j) {
        mean[j] += matrix[i * d + j];
      }
    }
  }
  for (double& m : mean) {
    m /= std::max(1.0, finite);
    mean_square += m * m;
  }
  // |c|^2 on average is the mean's square plus the spread; moving costs a copy of x, so only where it matters.
  out.shifted = std::isfinite(mean_square) && mean_square > 0.8 * total / std::max(1.0, finite);
  if (out.shifted) {
    for (int64_t j = 0; j < d; ++j) {
      wide ? out.shift_double[j] = mean[j] : out.shift[j] = static_cast<float>(mean[j]);
    }
    squares = pack(rows, &out);
  }
  C* half = static_cast<C*>(out.half_norms.mutable_data_ptr());
  for (int64_t i = 0; i < k; ++i) {
    if (std::isfinite(squares[i])) {
      half[i] = static_cast<C>(0.5 * squares[i]);
      out.largest = std::max(out.largest, std::sqrt(squares[i]));
    } else {
      std::fill(matrix + i * d, matrix + (i + 1) * d, C(0));
      half[i] = std::numeric_limits<C>::infinity();
    }
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
  const bool wide = type == ScalarType::Double;
  const PreparedCentroids prepared = wide ? prepare<double>(centroids) : prepare<float>(centroids);
  const bool packed = converted || prepared.shifted || prepared.scale != 1.0 || rows.stride < d;
  const int64_t bytes = wide ? 8 : 4;
  const char* matrix = static_cast<const char*>(prepared.matrix.const_data_ptr());
  const int64_t tile_columns = std::min(k, kTileCentroids);
  const int64_t rows_per_thread =
      std::clamp(std::max(std::min<int64_t>(2 * d, 2048), kTileProducts / tile_columns), kLeastTileRows, kMostTileRows);
  const int64_t most = std::min<int64_t>(n, torch::stable::get_num_threads() * rows_per_thread);
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
  // The product stands between our parallel loops, never inside one: see cpu/matmul.h.
  for (int64_t first = 0; first < n; first += most) {
    const int64_t count = std::min(most, n - first);
    args.first = first;
    if (packed) {
      const PackArgs pack = prepared.packing(rows, first, panel.data(), kernel_dtype(type), norms.data());
      torch::stable::parallel_for(first, first + count, kRowsPerTask,
                                  [&](int64_t begin, int64_t end) { SSLK_KERNEL(pack_rows)(pack, begin, end); });
    }
    const Tensor block = packed ? matrix_view(panel.data(), count, d, d, 1, type)
                                : matrix_view(static_cast<const char*>(rows.data) + first * rows.stride * bytes, count,
                                              d, rows.stride, 1, type);
    for (int64_t start = 0; start < k; start += tile_columns) {
      args.first_centroid = start;
      args.columns = std::min(tile_columns, k - start);
      args.half_norms = static_cast<const char*>(prepared.half_norms.const_data_ptr()) + start * bytes;
      multiply(matrix_view(products.data(), count, args.columns, args.columns, 1, type), block,
               matrix_view(matrix + start * d * bytes, d, args.columns, 1, d, type));
      torch::stable::parallel_for(first, first + count, kRowsPerTask,
                                  [&](int64_t begin, int64_t end) { SSLK_KERNEL(assign_rows)(args, begin, end); });
    }
  }
  return {assignment, distance};
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CPU, m) { m.impl("kmeans_assign", TORCH_BOX(&sslk::kmeans_assign_cpu)); }
