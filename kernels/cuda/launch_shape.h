// How a kernel is started; the same on the device and in the emulation.
#pragma once

#include <cstddef>

namespace serval::simt {

using Stream = void*;  // work in order on one device; made by runtime.h

struct LaunchShape {
  int grid_x = 1;
  int grid_y = 1;
  int threads = 32;         // of a block, a multiple of 32
  size_t shared_bytes = 0;  // of a block, what its SharedMemory may hand out
};

inline constexpr int kWarp = 32;

}  // namespace serval::simt
