// The variants of an image by number. No torch header: kernels include this.
#pragma once

#include <cstdint>

namespace sslk {

// What a variant keeps of the image; the numbers are the op's interface.
enum Variant : int64_t { kOriginal = 0, kForeground = 1, kBackground = 2, kCenter = 3, kBorder = 4 };

}  // namespace sslk
