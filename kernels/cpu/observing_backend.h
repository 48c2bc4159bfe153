// The CPU's backend, which tells of every matrix what rows it is multiplied with; what it computes is the same.
#pragma once

#include <functional>
#include <utility>

#include "kernels/cpu/cpu_backend.h"

namespace serval::cpu {

class ObservingBackend final : public CpuBackend {
 public:
  // x f32 [rows, k], before it is rounded where the format does that. On the thread that calls the ops.
  using Observer = std::function<void(const LinearWeight& weight, const Tensor& x)>;

  ObservingBackend(const DeviceConfig& config, Observer observer) : CpuBackend(config), observer_(std::move(observer)) {}

  void linear(const Tensor& x, const LinearWeight& w, const Tensor& out) override {
    observer_(w, x);
    CpuBackend::linear(x, w, out);
  }
  void expert_linear(const Tensor& x, std::span<const LinearWeight> experts, const ExpertRouting& routing,
                     const Tensor& out) override {
    const auto* const starts = routing.starts.as<int32_t>();
    for (size_t e = 0; e < experts.size(); ++e) {
      const int64_t count = starts[e + 1] - starts[e];
      if (count > 0) observer_(experts[e], Tensor(x.at(starts[e] * x.dim(1)), x.dtype, {count, x.dim(1)}));
    }
    CpuBackend::expert_linear(x, experts, routing, out);
  }

 private:
  Observer observer_;
};

}  // namespace serval::cpu
