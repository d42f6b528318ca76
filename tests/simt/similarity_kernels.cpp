// CKA and CCA on the emulator, behind a C interface for ctypes. The machine multiplies by plain loops; factorisations
// come back from the test, which has numpy.
#include <algorithm>
#include <vector>

#include "machine.h"
#include "similarity/device_cca.cuh"
#include "similarity/device_hsic.cuh"

using namespace sslk;

namespace {

// a [rows, cols] contiguous; qr: r replaces the first cols rows; svd: u, s, vh.
using QrCallback = void (*)(double* a, int64_t rows, int64_t cols);
using SvdCallback = void (*)(const double* a, int64_t rows, int64_t cols, double* u, double* s, double* vh);
QrCallback qr_callback;
SvdCallback svd_callback;

class Machine : public simt::HostMachine {
 public:
  template <typename V>
  void copy(V* to, const V* from, int64_t count) {
    std::copy(from, from + count, to);
  }
  template <typename V>
  bool fetch(V* to, const V* from, int64_t count) {
    copy(to, from, count);
    return true;
  }
  template <typename C>
  void multiply(const Matrix<C>& out, const Matrix<C>& a, const Matrix<C>& b, bool accumulate) {
    for (int64_t i = 0; i < out.rows; ++i) {
      for (int64_t j = 0; j < out.cols; ++j) {
        C sum = 0;
        for (int64_t k = 0; k < a.cols; ++k) {
          sum += a.data[i * a.row_stride + k * a.col_stride] * b.data[k * b.row_stride + j * b.col_stride];
        }
        C& target = out.data[i * out.row_stride + j * out.col_stride];
        target = accumulate ? target + sum : sum;
      }
    }
  }
  void qr(const Matrix<double>& a) { qr_callback(a.data, a.rows, a.cols); }
  Svd svd(const Matrix<double>& a) {
    const int64_t k = std::min(a.rows, a.cols);
    double *u = allocate<double>(a.rows * k), *s = allocate<double>(k), *vh = allocate<double>(k * a.cols);
    svd_callback(a.data, a.rows, a.cols, u, s, vh);
    return {contiguous_matrix(u, a.rows, k), contiguous_matrix(vh, k, a.cols), s};
  }
};

template <typename Score>
bool run_cka(const std::vector<Rows>& x, bool debiased, bool one_pair, const void* grad, void* out,
             void* const* grads) {
  Machine machine;
  DeviceHsic<Score, Machine> hsic(machine, x, debiased, grad != nullptr);
  hsic.write_cka(one_pair, static_cast<Score*>(out));
  if (grad != nullptr) {
    hsic.gradient(one_pair, static_cast<const Score*>(grad), std::vector<void*>(grads, grads + x.size()));
  }
  return hsic.cancels_too_much();
}

}  // namespace

extern "C" {

void simt_factorisations(QrCallback qr, SvdCallback svd) {
  qr_callback = qr;
  svd_callback = svd;
}

// CKA, and its gradient where grad is given; whether the op would start again in double.
bool simt_cka(const Rows* x, int count, bool debiased, bool one_pair, const void* grad, void* out, void* const* grads) {
  const std::vector<Rows> representations(x, x + count);
  return x->dtype == Dtype::f64 ? run_cka<double>(representations, debiased, one_pair, grad, out, grads)
                                : run_cka<float>(representations, debiased, one_pair, grad, out, grads);
}

void simt_cca(const Rows* x, int count, double rtol, double ridge, void* out, int64_t* ranks) {
  Machine machine;
  DeviceCca<Machine> cca(machine, std::vector<Rows>(x, x + count), rtol, ridge);
  x->dtype == Dtype::f64 ? cca.write(static_cast<double*>(out), ranks) : cca.write(static_cast<float*>(out), ranks);
}

}  // extern "C"
