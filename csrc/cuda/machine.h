// The machine of host code that the emulator of tests/simt runs too: torch's allocator and launches on the current
// stream. Memory lasts until the machine goes.
#pragma once

#include <vector>

#include "cuda/device.h"

namespace sslk {

class DeviceMachine {
 public:
  explicit DeviceMachine(const Tensor& like) : device_(like), like_(like) {}

  template <typename V>
  V* allocate(int64_t count) {
    memory_.push_back(torch::stable::new_empty(like_, {count * int64_t{sizeof(V)}}, ScalarType::Byte));
    return static_cast<V*>(memory_.back().mutable_data_ptr());
  }
  template <typename V>
  V* zeros(int64_t count) {
    V* data = allocate<V>(count);
    fill_zero(data, count);
    return data;
  }
  template <typename V>
  void fill_zero(V* data, int64_t count) {
    STD_CUDA_CHECK(cudaMemsetAsync(data, 0, count * sizeof(V), device_.stream()));
  }
  int multiprocessors() const { return device_.multiprocessors(); }
  template <typename Kernel, typename... Args>
  void launch(Kernel kernel, int64_t grid, int64_t block, const Args&... args) {
    sslk::launch(device_, kernel, grid, block, args...);
  }

 protected:
  OnDeviceOf device_;
  Tensor like_;
  std::vector<Tensor> memory_;
};

}  // namespace sslk
