// Config to device: the one place that knows which backends were built.
#include <stdexcept>

#include "kernels/backend.h"
#include "kernels/base/log.h"
#include "kernels/cpu/cpu_backend.h"
#if SERVAL_CUDA
#include "kernels/cuda/cuda_backend.h"
#endif

namespace serval {

std::string cuda_problem() {
#if SERVAL_CUDA
  return cuda::device_problem();
#else
  return "this build knows only the CPU";
#endif
}

namespace {

std::unique_ptr<Backend> make_cuda([[maybe_unused]] const DeviceConfig& config) {
#if SERVAL_CUDA
  return std::make_unique<cuda::CudaBackend>(config);
#else
  return nullptr;
#endif
}

}  // namespace

std::unique_ptr<Backend> make_backend(const DeviceConfig& config) {
  if (config.device == "cpu") return std::make_unique<cpu::CpuBackend>(config);
  if (config.device != "auto" && config.device != "cuda")
    throw std::runtime_error("device is '" + config.device + "'; it takes auto, cpu or cuda");
  const std::string problem = cuda_problem();
  if (problem.empty()) return make_cuda(config);
  if (config.device == "cuda") throw std::runtime_error("device is 'cuda', but " + problem);
  log_info("serving on the CPU", {{"reason", problem}});
  return std::make_unique<cpu::CpuBackend>(config);
}

}  // namespace serval
