// The emulated device has none of Hopper's own instructions; serval-gpu refuses to ask it (gpu_main.cc).
#include "loadtest/gpu/hopper_probe.h"

namespace serval::gpu {

boost::json::object probe_hopper() {
  return {{"problem", "the device is emulated"}};
}

}  // namespace serval::gpu
