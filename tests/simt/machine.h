// The machine of csrc/cuda/machine.h on the emulator.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "simt.h"

namespace simt {

class HostMachine {
 public:
  template <typename V>
  V* allocate(int64_t count) {
    memory_.push_back(std::make_unique<std::vector<char>>(count * sizeof(V), 0x7b));  // rubbish, as on a device
    return reinterpret_cast<V*>(memory_.back()->data());
  }
  template <typename V>
  V* zeros(int64_t count) {
    V* data = allocate<V>(count);
    fill_zero(data, count);
    return data;
  }
  template <typename V>
  void fill_zero(V* data, int64_t count) {
    std::fill(data, data + count, V(0));
  }
  int multiprocessors() const { return 1; }
  template <typename Kernel, typename... Args>
  void launch(Kernel kernel, int64_t grid, int64_t block, const Args&... args) {
    SSLK_LAUNCH(kernel, grid, block, args...);
  }

 private:
  std::vector<std::unique_ptr<std::vector<char>>> memory_;
};

}  // namespace simt
