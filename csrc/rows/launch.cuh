// Launches the row kernel of an op.
#pragma once

#include "cuda/device.h"
#include "rows/row_kernel.cuh"

namespace sslk {

template <typename Op>
void launch_rows(const OnDeviceOf& device, const Rows& rows, const Op& op) {
  with_row_kernel<Op>(rows, device.multiprocessors(),
                      [&](auto kernel, int64_t grid, int64_t block) { launch(device, kernel, grid, block, rows, op); });
}

}  // namespace sslk
