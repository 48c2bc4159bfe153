// Config to device: the one place that knows which backends were built.
#include <stdexcept>

#include "kernels/backend.h"
#include "kernels/cpu/cpu_backend.h"

namespace serval {

std::unique_ptr<Backend> make_backend(const DeviceConfig& config) {
  if (config.device == "cpu") return std::make_unique<cpu::CpuBackend>(config);
  throw std::runtime_error("device is '" + config.device + "'; this build knows cpu");
}

}  // namespace serval
