// sslk::kmeans_assign on CUDA.
#include <algorithm>
#include <array>

#include "kmeans/args.h"
#include "kmeans/kernels.cuh"
#include "rows/args.h"
#include "rows/launch.cuh"

namespace sslk {
namespace {

// Of packed rows and products: about the L2 cache of a large card. Rows of x that fit there too would be half as many
// or fewer, and then a tile's products would not fill the card and its launches would take as long as its work.
constexpr int64_t kTileBytes = 64 << 20;

// a bt with sums in float32 (float64 for float64).
Tensor products_of(const Tensor& a, const Tensor& bt) {
  if (a.scalar_type() == ScalarType::Double) {
    return torch::stable::matmul(a, bt);
  }
  std::array<StableIValue, 3> stack{torch::stable::detail::from(a), torch::stable::detail::from(bt),
                                    torch::stable::detail::from(ScalarType::Float)};
  SSLK_TORCH_CHECK(torch_call_dispatcher("aten::mm", "dtype", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

struct PackedRows {
  Tensor matrix, unscale, squares, lost;

  PackedRows(const Tensor& like, int64_t n, int64_t d)
      : matrix(torch::stable::new_empty(
            like, {n, d}, like.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Half)),
        unscale(torch::stable::new_empty(like, {n}, ScalarType::Float)),
        squares(torch::stable::new_empty(like, {n}, ScalarType::Double)),
        lost(torch::stable::new_empty(like, {n}, ScalarType::Float)) {}

  void pack(const OnDeviceOf& device, const Rows& rows, const Tensor& shift) {
    const PackOp op{shift.const_data_ptr(), matrix.mutable_data_ptr(), static_cast<float*>(unscale.mutable_data_ptr()),
                    static_cast<double*>(squares.mutable_data_ptr()), static_cast<float*>(lost.mutable_data_ptr())};
    launch_rows(device, rows, op);
  }
};

template <typename T>
void assign(const OnDeviceOf& device, const Tensor& x, const Tensor& centroids, const Tensor& assignment,
            const Tensor& distance) {
  const Rows rows = rows_of(x), centres = rows_of(centroids);
  const int64_t d = rows.d, k = centres.n;
  const int64_t columns = padded(k, kProductMultiple), entries = padded(k, kTableMultiple);
  PackedRows packed_centres(x, columns, d);
  if (columns > k) {  // no product of theirs counts, but all are computed
    torch::stable::zero_(packed_centres.matrix);
  }
  const float* unscale = static_cast<const float*>(packed_centres.unscale.const_data_ptr());
  Tensor shift = torch::stable::new_zeros(x, {d}, accumulation_type(x.scalar_type()));
  packed_centres.pack(device, centres, shift);  // says which are finite
  launch(device, centroid_mean_kernel<T>, (d + kMeanColumns - 1) / kMeanColumns, kMeanColumns * kMeanRows, centres,
         unscale, static_cast<product_t<T>*>(shift.mutable_data_ptr()));
  packed_centres.pack(device, centres, shift);
  Tensor summary = torch::stable::new_empty(x, {2, entries}, accumulation_type(x.scalar_type()));
  Tensor largest = torch::stable::new_empty(x, {2}, ScalarType::Double);
  product_t<T>* half_squares = static_cast<product_t<T>*>(summary.mutable_data_ptr());
  launch(device, summarize_centroids_kernel<product_t<T>>, 1, Block::kMaxThreads,
         static_cast<const double*>(packed_centres.squares.const_data_ptr()),
         static_cast<const float*>(packed_centres.lost.const_data_ptr()), unscale, k, entries, half_squares,
         half_squares + entries, static_cast<CentroidNorms*>(largest.mutable_data_ptr()));

  const int64_t row_bytes = d * int64_t{sizeof(packed_t<T>)} + columns * int64_t{sizeof(product_t<T>)};
  const int64_t tile = std::min(rows.n, std::max<int64_t>(128, kTileBytes / row_bytes / 128 * 128));
  PackedRows packed(x, tile, d);
  const Tensor transposed = torch::stable::transpose(packed_centres.matrix, 0, 1);
  for (int64_t first = 0; first < rows.n; first += tile) {
    Rows part = rows;
    part.data = static_cast<const T*>(rows.data) + first * rows.stride;
    part.n = std::min(tile, rows.n - first);
    packed.pack(device, part, shift);
    const Tensor products =
        products_of(part.n == tile ? packed.matrix : torch::stable::narrow(packed.matrix, 0, 0, part.n), transposed);
    const AssignArgs args{rows,
                          centres,
                          first,
                          part.n,
                          columns,
                          products.const_data_ptr(),
                          static_cast<const float*>(packed.unscale.const_data_ptr()),
                          static_cast<const double*>(packed.squares.const_data_ptr()),
                          static_cast<const float*>(packed.lost.const_data_ptr()),
                          half_squares,
                          half_squares + entries,
                          static_cast<const CentroidNorms*>(largest.const_data_ptr()),
                          static_cast<int32_t*>(assignment.mutable_data_ptr()),
                          distance.mutable_data_ptr()};
    constexpr int64_t kRowsPerBlock = kAssignThreads / 32;
    launch(device, assign_kernel<T>, (part.n + kRowsPerBlock - 1) / kRowsPerBlock, kAssignThreads, args);
  }
}

std::tuple<Tensor, Tensor> kmeans_assign_cuda(const Tensor& x_in, const Tensor& centroids_in) {
  check_kmeans_assign("sslk::kmeans_assign", x_in, centroids_in);
  Tensor assignment = torch::stable::new_empty(x_in, {x_in.size(0)}, ScalarType::Int);
  Tensor distance = torch::stable::new_empty(x_in, {x_in.size(0)}, accumulation_type(x_in.scalar_type()));
  if (x_in.size(0) == 0) {
    return {assignment, distance};
  }
  const OnDeviceOf device(x_in);
  const Tensor x = with_adjacent_columns(x_in), centroids = with_adjacent_columns(centroids_in);
  with_type(kernel_dtype(x.scalar_type()), [&](auto type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
    assign<T>(device, x, centroids, assignment, distance);
  });
  return {assignment, distance};
}

}  // namespace
}  // namespace sslk

STABLE_TORCH_LIBRARY_IMPL(sslk, CUDA, m) { m.impl("kmeans_assign", TORCH_BOX(&sslk::kmeans_assign_cuda)); }
