// What every CUDA launcher needs from torch and the driver, over the stable ABI: guard, stream, launch check, size of
// the device.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "sslk.h"

namespace sslk {

// Makes the device of `t` current for its lifetime and knows its current stream. One per launcher, after the checks and
// the empty return.
class OnDeviceOf {
 public:
  explicit OnDeviceOf(const Tensor& t) : index_(t.get_device_index()), guard_(index_) {
    SSLK_TORCH_CHECK(aoti_torch_get_current_cuda_stream(index_, &stream_));
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, index_));
  }
  cudaStream_t stream() const { return static_cast<cudaStream_t>(stream_); }
  int multiprocessors() const { return multiprocessors_; }

 private:
  int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
  void* stream_ = nullptr;
  int multiprocessors_ = 0;
};

// A kernel call and its launch check; `kernel` and the arguments may hold commas.
template <typename Kernel, typename... Args>
void launch(const OnDeviceOf& device, Kernel kernel, int64_t grid, int64_t block, const Args&... args) {
  kernel<<<static_cast<unsigned>(grid), static_cast<unsigned>(block), 0, device.stream()>>>(args...);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace sslk
