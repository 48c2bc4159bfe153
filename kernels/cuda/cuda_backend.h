// The Backend of a CUDA device: memory, one stream, the kernels of this folder. Ops name a step's arrays by the
// host pointers they were given, and find them on the device through the step's context (step_context.h).
// Activations and weights are bf16 or f16 as the checkpoint is (f32 checkpoints are rounded to bf16), sums and
// logits f32.
//
// Nothing here waits for the device but allocate(), upload() and download().
#pragma once

#include <memory>
#include <string>

#include "kernels/backend.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/state.h"
#include "kernels/cuda/step_context.h"
#include "kernels/cuda/vendor_gemm.h"

namespace serval::cuda {

class CudaBackend final : public Backend {
 public:
  // Throws when there is no device that can be used.
  explicit CudaBackend(const DeviceConfig& config);

  std::string_view name() const override { return name_; }
  bool is_asynchronous() const override { return true; }
  Buffer allocate(size_t bytes) override;
  void upload(void* to, const void* from, size_t bytes) override;
  void download(void* to, const void* from, size_t bytes) override;
  size_t available_bytes() const override { return free_device_bytes(); }
  DType activation_dtype(DType weights) const override;
  bool supports(WeightFormat format) const override {
    return format == WeightFormat::kF16 || format == WeightFormat::kBF16;
  }
  bool has(RareOp op) const override { return op == RareOp::kLinearScan; }
  LinearWeight pack_linear(std::span<const LinearSource> parts, std::span<const Tensor> biases) override;
  size_t packed_bytes(int64_t n, int64_t k, const MatrixFormat& format, bool bias) const override;
  DType preferred_kv_dtype(DType weights) const override { return activation_dtype(weights); }
  bool takes_kv_dtype(DType kv, DType weights) const override;
  std::unique_ptr<StepContext> make_step_context(const StepLimits& limits) override;
  size_t step_context_bytes(const StepLimits& limits) const override;

  void embed(const LinearWeight& table, std::span<const int32_t> ids, float scale,
             const Tensor& out) override;
  void add_rms_norm(const Tensor& residual, const Tensor& x, const Tensor& weight, float eps,
                    const Tensor& out) override;
  void add_layer_norm(const Tensor& residual, const Tensor& x, const Tensor& weight, const Tensor& bias,
                      float eps, const Tensor& out) override;
  void head_rms_norm(const Tensor& x, int64_t row_stride, const Tensor& weight, float eps) override;
  void head_layer_norm(const Tensor& x, int64_t row_stride, const Tensor& weight, const Tensor& bias, float eps) override;
  void clamp(const Tensor& x, float limit) override;
  void linear(const Tensor& x, const LinearWeight& w, const Tensor& out) override;
  void rope(const RopeArgs& args) override;
  void write_kv(const WriteKvArgs& args) override;
  void qk_norm_rope_write_kv(const serval::QkNormRopeWriteKvArgs& args) override;
  void attention(const AttentionArgs& args, int64_t q_row_stride) override;
  void gated_activation(Activation act, const Tensor& gate_up, const Tensor& out) override;
  void activation(Activation act, const Tensor& x, const Tensor& out) override;
  void gate(Activation act, const Tensor& x, int64_t x_stride, const Tensor& up, int64_t up_stride,
            const Tensor& out) override;
  void scaled_add(const Tensor& x, float scale, const Tensor& y, const Tensor& out) override;
  void xielu(const Tensor& x, const Tensor& alphas, const Tensor& out) override;
  void soft_cap(const Tensor& x, float cap) override;
  void gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) override;
  void clamp_gate_up(const Tensor& gate_up, float limit, float up_offset) override;
  void route_experts(const RoutingRule& rule, const Tensor& logits, const Tensor& bias,
                     const ExpertRouting& routing) override;
  void dispatch_rows(const Tensor& x, const ExpertRouting& routing, const Tensor& out) override;
  void expert_linear(const Tensor& x, std::span<const LinearWeight> experts, const ExpertRouting& routing,
                     const Tensor& out) override;
  void combine_experts(const Tensor& x, const ExpertRouting& routing, const Tensor& shared_gate,
                       const Tensor& out) override;
  void copy_kv_blocks(const KvLayer& kv, std::span<const BlockCopy> copies) override;
  void move_kv(const KvLayer& kv, std::span<const KvMove> moves) override;
  void causal_conv(const CausalConvArgs& args) override;
  void selective_scan(const SelectiveScanArgs& args) override;
  void linear_scan(const serval::LinearScanArgs& args) override;
  void scan_gates(const serval::ScanGatesArgs& args) override;

 private:
  void add_norm(bool is_centred, const Tensor& residual, const Tensor& x, const Tensor& weight,
                const Tensor& bias, float eps, const Tensor& out);
  StateBatch state_batch(const AttentionBatch& batch, const KvLayer& kv);
  CudaStepContext& step();  // that has begun

  std::string name_;
  DeviceProperties device_;
  bool is_invariant_;
  const OwnedStream stream_;
  std::unique_ptr<VendorGemm> vendor_gemm_;
  CudaStepContext* step_ = nullptr;  // set by the one whose step has begun
};

}  // namespace serval::cuda
