// The masking and k-means kernels on the emulator, behind a C interface for ctypes. The order of work follows
// csrc/*/*cuda.cu; the matrix product that torch does there is a plain loop here.
#include <algorithm>
#include <vector>

#include "kmeans/kernels.cuh"
#include "masking/kernels.cuh"

using namespace sslk;

namespace {

constexpr int kMultiprocessors = 4;

template <typename In, typename Out>
void variants(const VariantsArgs& a) {
  const int64_t blocks = (a.n * a.threads_per_sample<Out>() + 63) / 64;
  SSLK_LAUNCH((masked_variants_kernel<In, Out>), blocks, 64, a);
}

template <typename In>
void variants(Dtype out, const VariantsArgs& a) {
  switch (out) {
    case Dtype::f16: return variants<In, f16>(a);
    case Dtype::bf16: return variants<In, bf16>(a);
    default: return variants<In, float>(a);
  }
}

template <typename T>
struct Packed {
  std::vector<packed_t<T>> matrix;
  std::vector<float> unscale;
  std::vector<double> squares;
  std::vector<float> lost;

  Packed(int64_t n, int64_t d) : matrix(n * d), unscale(n), squares(n), lost(n) {}
  void pack(const Rows& rows, const product_t<T>* shift) {
    const PackOp op{shift, matrix.data(), unscale.data(), squares.data(), lost.data()};
    with_row_kernel<PackOp>(rows, kMultiprocessors, [&](auto kernel, int64_t grid, int64_t block) {
      SSLK_LAUNCH(kernel, grid, block, rows, op);
    });
  }
};

template <typename T>
void assign(const Rows& x, const Rows& c, int64_t tile, int32_t* assignment, void* distance) {
  const int64_t columns = padded(c.n, kProductMultiple), entries = padded(c.n, kTableMultiple);
  std::vector<product_t<T>> shift(x.d, 0), products(tile * columns), half_squares(entries), factors(entries);
  Packed<T> centres(columns, c.d), packed(tile, x.d);
  centres.pack(c, shift.data());
  SSLK_LAUNCH(centroid_mean_kernel<T>, (c.d + kMeanColumns - 1) / kMeanColumns, kMeanColumns * kMeanRows, c,
              static_cast<const float*>(centres.unscale.data()), shift.data());
  centres.pack(c, shift.data());
  CentroidNorms largest;
  SSLK_LAUNCH(summarize_centroids_kernel<product_t<T>>, 1, Block::kMaxThreads,
              static_cast<const double*>(centres.squares.data()), static_cast<const float*>(centres.lost.data()),
              static_cast<const float*>(centres.unscale.data()), c.n, entries, half_squares.data(), factors.data(),
              &largest);
  for (int64_t first = 0; first < x.n; first += tile) {
    Rows part = x;
    part.data = static_cast<const T*>(x.data) + first * x.stride;
    part.n = std::min(tile, x.n - first);
    packed.pack(part, shift.data());
    for (int64_t i = 0; i < part.n; ++i) {
      for (int64_t k = 0; k < columns; ++k) {
        product_t<T> sum = 0;
        for (int64_t j = 0; j < x.d; ++j) {
          sum += static_cast<product_t<T>>(widen(packed.matrix[i * x.d + j])) * widen(centres.matrix[k * x.d + j]);
        }
        products[i * columns + k] = sum;
      }
    }
    const AssignArgs args{x,
                          c,
                          first,
                          part.n,
                          columns,
                          products.data(),
                          packed.unscale.data(),
                          packed.squares.data(),
                          packed.lost.data(),
                          half_squares.data(),
                          factors.data(),
                          &largest,
                          assignment,
                          distance};
    constexpr int64_t kRowsPerBlock = kAssignThreads / 32;
    SSLK_LAUNCH(assign_kernel<T>, (part.n + kRowsPerBlock - 1) / kRowsPerBlock, kAssignThreads, args);
  }
}

}  // namespace

extern "C" {

void simt_variants(bool bytes, const Rows* images, int64_t channels, int64_t height, int64_t width,
                   const int64_t* strides, const uint8_t* foreground, double radius, const float* mean,
                   const float* std, const int8_t* codes, int count, int out_dtype, void* out) {
  VariantsArgs a{};
  a.images = images->data, a.n = images->n, a.channels = channels, a.height = height, a.width = width;
  a.sample_stride = strides[0], a.channel_stride = strides[1], a.pixel_stride = strides[2];
  a.foreground = foreground, a.disc = true, a.radius = radius, a.out = out;
  a.channel_count = static_cast<int>(channels), a.variant_count = count;
  std::copy_n(mean, channels, a.mean);
  std::copy_n(std, channels, a.std);
  std::copy_n(codes, count, a.variants);
  if (bytes) {
    return variants<uint8_t>(static_cast<Dtype>(out_dtype), a);
  }
  with_type(images->dtype, [&](auto type) {
    variants<std::remove_const_t<std::remove_pointer_t<decltype(type)>>>(static_cast<Dtype>(out_dtype), a);
  });
}

void simt_iou(const Rows* heat, const uint8_t* mask, double threshold, void* iou) {
  with_type(heat->dtype, [&](auto type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
    SSLK_LAUNCH(heatmap_iou_kernel<T>, std::min<int64_t>(heat->n, 3), 128, static_cast<const T*>(heat->data), mask,
                heat->n, heat->d, threshold, static_cast<accumulation_t<T>*>(iou));
  });
}

void simt_assign(const Rows* x, const Rows* centroids, int64_t tile, int32_t* assignment, void* distance) {
  with_type(x->dtype, [&](auto type) {
    assign<std::remove_const_t<std::remove_pointer_t<decltype(type)>>>(*x, *centroids, tile, assignment, distance);
  });
}

}  // extern "C"
