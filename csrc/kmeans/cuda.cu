// sslk::kmeans_assign on CUDA.
#include <algorithm>
#include <array>

#include "kmeans/args.h"
#include "kmeans/kernels.cuh"
#include "rows/args.h"
#include "rows/launch.cuh"

namespace sslk {
namespace {

constexpr int64_t kTileBytes = 64 << 20;  // of packed rows and products: about the L2 cache of a large card

// a b' with sums in float32 (float64 for float64).
Tensor products_of(const Tensor& a, const Tensor& b) {
  const Tensor bt = torch::stable::transpose(b, 0, 1);
  if (a.scalar_type() == ScalarType::Double) {
    return torch::stable::matmul(a, bt);
  }
  std::array<StableIValue, 3> stack{torch::stable::detail::from(a), torch::stable::detail::from(bt),
                                    torch::stable::detail::from(ScalarType::Float)};
  SSLK_TORCH_CHECK(torch_call_dispatcher("aten::mm", "dtype", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

struct PackedRows {
  Tensor matrix, unscale, squares;

  PackedRows(const Tensor& like, int64_t n, int64_t d)
      : matrix(torch::stable::new_empty(
            like, {n, d}, like.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Half)),
        unscale(torch::stable::new_empty(like, {n}, ScalarType::Float)),
        squares(torch::stable::new_empty(like, {n}, ScalarType::Double)) {}

  void pack(const OnDeviceOf& device, const Rows& rows, const Tensor& shift) {
    const PackOp op{shift.const_data_ptr(), matrix.mutable_data_ptr(), static_cast<float*>(unscale.mutable_data_ptr()),
                    static_cast<double*>(squares.mutable_data_ptr())};
    launch_rows(device, rows, op);
  }
};

template <typename T>
void assign(const OnDeviceOf& device, const Tensor& x, const Tensor& centroids, const Tensor& assignment,
            const Tensor& distance) {
  const Rows rows = rows_of(x), centres = rows_of(centroids);
  const int64_t d = rows.d, k = centres.n;
  PackedRows packed_centres(x, k, d);
  const float* unscale = static_cast<const float*>(packed_centres.unscale.const_data_ptr());
  const double* squares = static_cast<const double*>(packed_centres.squares.const_data_ptr());
  Tensor shift = torch::stable::new_zeros(x, {d}, accumulation_type(x.scalar_type()));
  packed_centres.pack(device, centres, shift);  // says which are finite
  launch(device, centroid_mean_kernel<T>, (d + kMeanColumns - 1) / kMeanColumns, kMeanColumns * kMeanRows, centres,
         unscale, static_cast<product_t<T>*>(shift.mutable_data_ptr()));
  packed_centres.pack(device, centres, shift);
  Tensor largest = torch::stable::new_empty(x, {1}, ScalarType::Double);
  launch(device, largest_centroid_kernel, 1, Block::kMaxThreads, squares, unscale, k,
         static_cast<double*>(largest.mutable_data_ptr()));

  const int64_t row_bytes = d * int64_t{sizeof(packed_t<T>)} + k * int64_t{sizeof(product_t<T>)};
  const int64_t tile = std::min(rows.n, std::max<int64_t>(128, kTileBytes / row_bytes / 128 * 128));
  PackedRows packed(x, tile, d);
  for (int64_t first = 0; first < rows.n; first += tile) {
    Rows part = rows;
    part.data = static_cast<const T*>(rows.data) + first * rows.stride;
    part.n = std::min(tile, rows.n - first);
    packed.pack(device, part, shift);
    const Tensor products = products_of(torch::stable::narrow(packed.matrix, 0, 0, part.n), packed_centres.matrix);
    const AssignArgs args{rows,
                          centres,
                          first,
                          part.n,
                          products.const_data_ptr(),
                          static_cast<const float*>(packed.unscale.const_data_ptr()),
                          static_cast<const double*>(packed.squares.const_data_ptr()),
                          unscale,
                          squares,
                          static_cast<const double*>(largest.const_data_ptr()),
                          static_cast<int32_t*>(assignment.mutable_data_ptr()),
                          distance.mutable_data_ptr()};
    launch(device, assign_kernel<T>, (part.n + 7) / 8, 256, args);
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
