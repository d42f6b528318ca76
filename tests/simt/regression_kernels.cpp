// The step of softmax regression on the emulator, behind a C interface for ctypes.
#include "machine.h"
#include "regression/kernels.cuh"

using namespace sslk;

namespace {

template <typename C>
void run(const SparseBatch& batch, int64_t width, void* const* state, const double* factors, double* loss) {
  simt::HostMachine machine;
  SoftmaxStep<C> a{};
  a.batch = batch;
  a.width = width;
  a.weight = static_cast<C*>(state[0]);
  a.bias = static_cast<C*>(state[1]);
  a.velocity = static_cast<C*>(state[2]);
  a.bias_velocity = static_cast<C*>(state[3]);
  a.learning_rate = static_cast<C>(factors[0]);
  a.momentum = static_cast<C>(factors[1]);
  a.weight_decay = static_cast<C>(factors[2]);
  a.loss = loss;
  softmax_step(machine, a);
}

}  // namespace

extern "C" {

// state and table: the first four and the last four tensors of sparse_softmax_sgd_; sizes: rows, ones, n, M, K, W.
void simt_softmax_step(bool wide, void* const* state, const void* const* table, const int64_t* sizes,
                       const double* factors, double* loss) {
  SparseBatch batch{};
  batch.columns = static_cast<const int32_t*>(table[0]);
  batch.offsets = static_cast<const int64_t*>(table[1]);
  batch.target = static_cast<const int64_t*>(table[2]);
  batch.index = static_cast<const int64_t*>(table[3]);
  batch.rows = sizes[0], batch.ones = sizes[1], batch.n = sizes[2], batch.concepts = sizes[3], batch.classes = sizes[4];
  wide ? run<double>(batch, sizes[5], state, factors, loss) : run<float>(batch, sizes[5], state, factors, loss);
}

}  // extern "C"
