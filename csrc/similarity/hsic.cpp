#include "similarity/hsic.h"

#include <algorithm>

#include "cpu/matmul.h"
#include "similarity/cancellation.h"
#include "similarity/kernels.h"

namespace sslk {
namespace {

constexpr int64_t kGramPanelBytes = 32 << 20;  // of columns packed at a time
constexpr int64_t kRowsPerTask = 8;            // of a Gram matrix

// The N x N form costs N^2 sum D_v, the D x D form N sum_{v <= w} D_v D_w; N x N is never formed for N > D.
bool gram_form_is_cheaper(const std::vector<Rows>& x) {
  double widths = 0.0, pairs = 0.0;
  int64_t widest = 0;
  for (const Rows& block : x) {
    widths += block.d;
    pairs += block.d * widths;
    widest = std::max(widest, block.d);
  }
  return x[0].n <= widest && x[0].n * widths < pairs;
}

int64_t gram_columns(int64_t n, int64_t d, const Tensor& like) {
  return std::min(d, std::max<int64_t>(256, kGramPanelBytes / (n * like.element_size())));
}

}  // namespace

LinearHsic::LinearHsic(const std::vector<Rows>& representations, bool debiased, bool keep)
    : n_(representations[0].n), debiased_(debiased) {
  for (const Rows& x : representations) {
    blocks_.push_back(centred(x));
  }
  type_ = representations[0].dtype == Dtype::f64 ? ScalarType::Double : ScalarType::Float;
  squares_.assign(count() * n_, 0.0);
  off_diagonal_.assign(count() * count(), 0.0);
  const bool gram = gram_form_is_cheaper(representations);
  gram ? from_grams() : from_products(keep);
  for (int64_t v = 0; v < count(); ++v) {
    double total = 0.0;
    for (int64_t i = 0; i < n_; ++i) {
      total += a(v, i);
    }
    totals_.push_back(total);
    for (int64_t w = 0; w < count(); ++w) {
      double dot = 0.0;
      for (int64_t i = 0; i < n_; ++i) {
        dot += a(v, i) * a(w, i);
      }
      square_dots_.push_back(dot);
      if (!gram && v <= w) {
        off_diagonal_[v * count() + w] -= dot;
      }
    }
  }
}

void LinearHsic::pack_panel(int64_t first, int64_t rows, int64_t first_block, void* panel, double* squares) const {
  const int64_t bytes = type_ == ScalarType::Double ? 8 : 4;
  for (int64_t v = first_block; v < count(); ++v) {
    blocks_[v].pack(first, rows, 0, blocks_[v].x.d, static_cast<char*>(panel) + products_->offset(v) * bytes,
                    products_->width(), type_, squares ? squares + v * n_ + first : nullptr);
  }
}

void LinearHsic::from_products(bool keep) {
  std::vector<int64_t> widths;
  for (const CentredBlock& block : blocks_) {
    widths.push_back(block.x.d);
  }
  products_.emplace(widths, n_, type_);
  for (int64_t begin = 0; begin < count();) {
    const int64_t end = keep ? count() : products_->group_end(begin);
    products_->compute(begin, end, [&](int64_t first, int64_t rows, int64_t first_block, void* panel) {
      pack_panel(first, rows, first_block, panel, squares_.data());
    });
    for (int64_t v = begin; v < end; ++v) {
      for (int64_t w = v; w < count(); ++w) {
        off_diagonal_[v * count() + w] = products_->square_sum(v, w);
      }
    }
    begin = end;
  }
}

void LinearHsic::from_grams() {
  std::vector<const void*> data;
  for (int64_t v = 0; v < count(); ++v) {
    grams_.push_back(torch::stable::empty({n_, n_}, type_));
    const Tensor& gram = grams_[v];
    data.push_back(gram.const_data_ptr());
    const int64_t d = blocks_[v].x.d, columns = gram_columns(n_, d, gram);
    const Tensor z = torch::stable::empty({n_, columns}, type_);
    for (int64_t first = 0; first < d; first += columns) {
      const int64_t width = std::min(columns, d - first);
      blocks_[v].pack(0, n_, first, width, z.mutable_data_ptr(), columns, type_, nullptr);
      multiply(gram, matrix_view(z.const_data_ptr(), n_, width, columns, 1, type_),
               matrix_view(z.const_data_ptr(), width, n_, 1, columns, type_), first > 0);
    }
    // The diagonal is kept apart: the debiased criterion leaves it out.
    const auto take_diagonal = [&](auto* k) {
      for (int64_t i = 0; i < n_; ++i) {
        squares_[v * n_ + i] = k[i * n_ + i];
        k[i * n_ + i] = 0;
      }
    };
    type_ == ScalarType::Double ? take_diagonal(static_cast<double*>(gram.mutable_data_ptr()))
                                : take_diagonal(static_cast<float*>(gram.mutable_data_ptr()));
  }
  const GramArgs args{data.data(), count(), n_, kernel_dtype(type_)};
  const int64_t pairs = count() * count(), chunks = (n_ + kRowsPerTask - 1) / kRowsPerTask;
  std::vector<double> dots(chunks * pairs, 0.0);
  torch::stable::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      SSLK_KERNEL(add_gram_dots)
      (args, c * kRowsPerTask, std::min(n_, (c + 1) * kRowsPerTask), dots.data() + c * pairs);
    }
  });
  for (int64_t c = 0; c < chunks; ++c) {
    for (int64_t k = 0; k < pairs; ++k) {
      off_diagonal_[k] += dots[c * pairs + k];
    }
  }
}

double LinearHsic::value(int64_t v, int64_t w) const {
  const double t = off_diagonal_[std::min(v, w) * count() + std::max(v, w)], dot = square_dots_[v * count() + w];
  if (!debiased_) {
    return t + dot;
  }
  const double n = static_cast<double>(n_);
  const double h = t + totals_[v] * totals_[w] / ((n - 1) * (n - 2)) - 2.0 / (n - 2) * dot;
  const double rounding = type_ == ScalarType::Double ? left_by_rounding<double>(n_, blocks_[v].x.d)
                                                      : left_by_rounding<float>(n_, blocks_[v].x.d);
  return v == w && h <= rounding * terms(v) ? 0.0 : h;
}

double LinearHsic::terms(int64_t v) const {
  const double n = static_cast<double>(n_), dot = square_dots_[v * count() + v];
  const double diagonal = grams_.empty() ? dot : 0.0;  // what T was freed of
  return off_diagonal_[v * count() + v] + 2.0 * diagonal + totals_[v] * totals_[v] / ((n - 1) * (n - 2)) +
         2.0 / (n - 2) * dot;
}

bool LinearHsic::cancels_too_much() const {
  for (int64_t v = 0; debiased_ && type_ == ScalarType::Float && v < count(); ++v) {
    if (cancels(value(v, v), terms(v))) {
      return true;
    }
  }
  return false;
}

// A(L) K is the criterion's bilinear form: A(L) = L for centred data; debiased, off the diagonal,
// A(L)_ij = L_ij + S / ((n-1)(n-2)) + (b_i + b_j) / (n-2) with S = -sum b, and A(L)_ii = 0.
void LinearHsic::gradient(const std::vector<double>& e, const std::vector<GradientRows>& grads) {
  grams_.empty() ? gradient_from_products(e, grads) : gradient_from_grams(e, grads);
}

void LinearHsic::gradient_from_grams(const std::vector<double>& e, const std::vector<GradientRows>& grads) {
  const double n = static_cast<double>(n_);
  std::vector<const void*> data;
  for (int64_t v = 0; v < count(); ++v) {
    data.push_back(grams_[v].const_data_ptr());
  }
  const Tensor mixed = torch::stable::empty({n_, n_}, type_);
  for (int64_t v = 0; v < count(); ++v) {
    const double* weights = e.data() + v * count();
    std::vector<double> addend(n_, 0.0), diagonal(n_, 0.0);
    for (int64_t i = 0; i < n_; ++i) {
      for (int64_t w = 0; w < count(); ++w) {
        addend[i] += weights[w] * (a(w, i) / (n - 2) - 0.5 * totals_[w] / ((n - 1) * (n - 2)));
        diagonal[i] += weights[w] * a(w, i);
      }
    }
    const MixArgs mix{{data.data(), count(), n_, kernel_dtype(type_)},
                      weights,
                      debiased_ ? addend.data() : nullptr,
                      mixed.mutable_data_ptr()};
    torch::stable::parallel_for(0, n_, kRowsPerTask,
                                [&](int64_t begin, int64_t end) { SSLK_KERNEL(mix_grams)(mix, begin, end); });
    const CentredBlock& block = blocks_[v];
    const int64_t d = block.x.d, columns = gram_columns(n_, d, mixed);
    const Tensor z = torch::stable::empty({n_, columns}, type_), product = torch::stable::empty({n_ * columns}, type_);
    const std::vector<double> zeros(columns, 0.0);  // the constant of write_gradient, all bits zero in either type
    const int64_t bytes = block.x.dtype == Dtype::f64 ? 8 : block.x.dtype == Dtype::f32 ? 4 : 2;
    for (int64_t first = 0; first < d; first += columns) {
      const int64_t width = std::min(columns, d - first);
      block.pack(0, n_, first, width, z.mutable_data_ptr(), columns, type_, nullptr);
      multiply(matrix_view(product.const_data_ptr(), n_, width, width, 1, type_), mixed,
               matrix_view(z.const_data_ptr(), n_, width, columns, 1, type_));
      const GradientRowsArgs args{product.const_data_ptr(),
                                  debiased_ ? nullptr : z.const_data_ptr(),
                                  columns,
                                  diagonal.data(),
                                  zeros.data(),
                                  width,
                                  kernel_dtype(type_),
                                  block.scale * block.gain,
                                  0,
                                  static_cast<char*>(grads[v].data) + first * bytes,
                                  grads[v].stride,
                                  block.x.dtype};
      torch::stable::parallel_for(0, n_, kRowsPerTask,
                                  [&](int64_t begin, int64_t end) { SSLK_KERNEL(write_gradient)(args, begin, end); });
    }
  }
}

// A(L) X = Y (Y'X) + diag(c) X + 1 (X'b)' / (n-2), c_i = -n/(n-2) b_i + sum(b) / ((n-1)(n-2)); biased: Y (Y'X).
void LinearHsic::gradient_from_products(const std::vector<double>& e, const std::vector<GradientRows>& grads) {
  const double n = static_cast<double>(n_);
  const int64_t width = products_->width(), rows_at_once = products_->panel_rows(), v_count = count();
  const int64_t bytes = type_ == ScalarType::Double ? 8 : 4;
  std::vector<double> diagonal(v_count * n_, 0.0);
  Tensor constant = torch::stable::empty({v_count, width}, type_);  // row v holds its own columns' constant
  torch::stable::zero_(constant);
  const Tensor panel = torch::stable::empty({rows_at_once, width}, type_);
  const char* z = static_cast<const char*>(panel.const_data_ptr());
  if (debiased_) {
    Tensor weights = torch::stable::empty({v_count, n_}, type_);
    const auto fill = [&](auto* out) {
      for (int64_t v = 0; v < v_count; ++v) {
        for (int64_t i = 0; i < n_; ++i) {
          double mixed = 0.0;
          for (int64_t w = 0; w < v_count; ++w) {
            mixed += e[v * v_count + w] * a(w, i);
            diagonal[v * n_ + i] += e[v * v_count + w] * totals_[w] / ((n - 1) * (n - 2));
          }
          diagonal[v * n_ + i] -= n / (n - 2) * mixed;
          out[v * n_ + i] = mixed / (n - 2);
        }
      }
    };
    type_ == ScalarType::Double ? fill(static_cast<double*>(weights.mutable_data_ptr()))
                                : fill(static_cast<float*>(weights.mutable_data_ptr()));
    const char* w = static_cast<const char*>(weights.const_data_ptr());
    for (int64_t first = 0; first < n_; first += rows_at_once) {
      const int64_t rows = std::min(rows_at_once, n_ - first);
      pack_panel(first, rows, 0, panel.mutable_data_ptr(), nullptr);
      multiply(constant, matrix_view(w + first * bytes, v_count, rows, n_, 1, type_),
               matrix_view(z, rows, width, width, 1, type_), first > 0);
    }
  }
  int64_t widest = 0;
  for (const CentredBlock& block : blocks_) {
    widest = std::max(widest, block.x.d);
  }
  const Tensor product = torch::stable::empty({rows_at_once * widest}, type_);
  for (int64_t first = 0; first < n_; first += rows_at_once) {
    const int64_t rows = std::min(rows_at_once, n_ - first);
    pack_panel(first, rows, 0, panel.mutable_data_ptr(), nullptr);
    for (int64_t v = 0; v < v_count; ++v) {
      const int64_t d = blocks_[v].x.d;
      const Tensor out = matrix_view(product.const_data_ptr(), rows, d, d, 1, type_);
      for (int64_t w = 0; w < v_count; ++w) {
        multiply(out, matrix_view(z + products_->offset(w) * bytes, rows, blocks_[w].x.d, width, 1, type_),
                 products_->product(w, v), w > 0, e[v * v_count + w]);
      }
      const char* own =
          static_cast<const char*>(constant.const_data_ptr()) + (v * width + products_->offset(v)) * bytes;
      const GradientRowsArgs args{product.const_data_ptr(),
                                  debiased_ ? z + products_->offset(v) * bytes : nullptr,
                                  width,
                                  diagonal.data() + v * n_,
                                  own,
                                  d,
                                  kernel_dtype(type_),
                                  blocks_[v].scale * blocks_[v].gain,
                                  first,
                                  grads[v].data,
                                  grads[v].stride,
                                  blocks_[v].x.dtype};
      torch::stable::parallel_for(first, first + rows, kRowsPerTask,
                                  [&](int64_t begin, int64_t end) { SSLK_KERNEL(write_gradient)(args, begin, end); });
    }
  }
}

}  // namespace sslk
