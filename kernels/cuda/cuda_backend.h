// The Backend of a CUDA device: memory, one stream, the kernels of this folder, graphs of decode steps. The
// host arrays of a step are copied to fixed places once, at begin_step, so that what a graph recorded stays
// true; ops name them by the host pointers they were given. Activations and weights are bf16 or f16 as the
// checkpoint is (f32 checkpoints are rounded to bf16), sums and logits f32.
//
// Nothing here waits for the device but wait_sampled(), download() and a begin_step() three steps ahead of it.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "kernels/attention_plan.h"
#include "kernels/backend.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/sampler.h"
#include "kernels/cuda/staging.h"
#include "kernels/cuda/state.h"
#include "kernels/cuda/vendor_gemm.h"

namespace serval::cuda {

class CudaBackend final : public Backend {
 public:
  // Throws when there is no device that can be used.
  explicit CudaBackend(const DeviceConfig& config);
  ~CudaBackend() override;

  std::string_view name() const override { return name_; }
  bool is_asynchronous() const override { return true; }
  Buffer allocate(size_t bytes, const Progress& progress = {}) override;
  void upload(void* to, const void* from, size_t bytes) override;
  void download(void* to, const void* from, size_t bytes) override;
  size_t available_bytes() const override { return free_device_bytes(); }
  DType activation_dtype(DType weights) const override;
  bool supports(WeightFormat format) const override {
    return format == WeightFormat::kF16 || format == WeightFormat::kBF16;
  }
  LinearWeight pack_linear(std::span<const LinearSource> parts, std::span<const Tensor> biases) override;
  size_t packed_bytes(int64_t n, int64_t k, WeightFormat format, bool bias) const override;
  DType preferred_kv_dtype(DType weights) const override { return activation_dtype(weights); }
  bool takes_kv_dtype(DType kv, DType weights) const override;
  size_t reserve(const BackendLimits& limits) override;

  void begin_step(const ForwardInput& input) override;
  int padded_rows(int num_rows) const override;
  std::span<const int> captured_rows() const override { return ladder_; }
  bool is_captured(int num_rows) const { return captured_rung(num_rows) >= 0; }
  void capture(int num_rows, const std::function<void()>& body) override;
  void run_captured(int num_rows, const std::function<void()>& body) override;

  void embed(const LinearWeight& table, std::span<const int32_t> ids, float scale,
             const Tensor& out) override;
  void add_rms_norm(const Tensor& residual, const Tensor& x, const Tensor& weight, float eps,
                    const Tensor& out) override;
  void add_layer_norm(const Tensor& residual, const Tensor& x, const Tensor& weight, const Tensor& bias,
                      float eps, const Tensor& out) override;
  void head_rms_norm(const Tensor& x, int64_t row_stride, const Tensor& weight, float eps) override;
  void linear(const Tensor& x, const LinearWeight& w, const Tensor& out) override;
  void rope(const RopeArgs& args) override;
  void write_kv(const WriteKvArgs& args) override;
  void qk_norm_rope_write_kv(const serval::QkNormRopeWriteKvArgs& args) override;
  void attention(const AttentionArgs& args, int64_t q_row_stride) override;
  void gated_activation(Activation act, const Tensor& gate_up, const Tensor& out) override;
  void activation(Activation act, const Tensor& x, const Tensor& out) override;
  void soft_cap(const Tensor& x, float cap) override;
  void gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) override;
  void route_experts(RoutingRule rule, const Tensor& logits, const ExpertRouting& routing) override;
  void dispatch_rows(const Tensor& x, const ExpertRouting& routing, const Tensor& out) override;
  void expert_linear(const Tensor& x, std::span<const LinearWeight> experts, const ExpertRouting& routing,
                     const Tensor& out) override;
  void combine_experts(const Tensor& x, const ExpertRouting& routing, const Tensor& out) override;
  void copy_kv_blocks(const KvLayer& kv, std::span<const BlockCopy> copies) override;
  void move_kv(const KvLayer& kv, std::span<const KvMove> moves) override;
  void causal_conv(const CausalConvArgs& args) override;
  void selective_scan(const SelectiveScanArgs& args) override;
  int sample(const SampleArgs& args) override;
  void wait_sampled(int ticket) override;

 private:
  // A host array of the step and where it lies on the device.
  struct Mirror {
    const int32_t* host;
    int32_t* device;
  };
  // The device's copies of one KV group's arrays, and its plan.
  struct Group {
    int32_t* slots = nullptr;
    int32_t* block_table = nullptr;
    int32_t* counts = nullptr;  // [2]: sequences, width of the block table
    int32_t* item_start = nullptr;
    int32_t* tile_start = nullptr;
    const int32_t* host_table = nullptr;
    AttentionPlan plan;
  };

  // At begin_step: copies a host array to its place.
  void mirror(const int32_t* host, int32_t* device, int64_t count);
  void add_norm(bool is_centred, const Tensor& residual, const Tensor& x, const Tensor& weight,
                const Tensor& bias, float eps, const Tensor& out);
  // Where a mirrored array lies. Another one is our own mistake.
  const int32_t* device_array(const int32_t* host) const;
  const Group& group_of(const AttentionBatch& batch) const;
  StateBatch state_batch(const AttentionBatch& batch, const KvLayer& kv) const;
  int captured_rung(int num_rows) const;  // of graphs_; -1: none is kept for so many rows
  const int32_t* stage_list(const int32_t* values, int64_t count);  // one op's own list
  int32_t* take_ints(int64_t count);                                // at reserve: a piece of int_memory_

  std::string name_;
  DeviceProperties device_;
  bool is_invariant_;
  const OwnedStream stream_;  // before all that waits for it when it is destroyed
  Staging staging_;
  DeviceSampler sampler_;
  std::unique_ptr<VendorGemm> vendor_gemm_;

  BackendLimits limits_;
  Buffer int_memory_;
  size_t ints_taken_ = 0;
  int32_t* token_ids_ = nullptr;
  int32_t* positions_ = nullptr;
  int32_t* row_start_ = nullptr;
  int32_t* first_pos_ = nullptr;
  uint64_t* tree_masks_ = nullptr;
  int32_t* tree_start_ = nullptr;
  std::array<Group, kMaxKvGroups> groups_;
  int32_t* list_ = nullptr;  // of the step's ops
  int64_t list_ints_ = 0, list_used_ = 0;
  std::vector<Mirror> mirrors_;
  std::vector<int32_t> host_starts_;  // scratch of begin_step
  Buffer item_memory_;                // states of all items, then their values
  size_t sampler_bytes_ = 0, max_list_ints_ = 0;
  int max_items_ = 0;
  // Every sequence of the step is split: attention needs only one of its kernels.
  bool is_split_only_ = false;

  std::vector<int> ladder_;
  std::vector<Graph> graphs_;           // of the ladder's sizes; null until captured
  std::vector<CountedTokens> counted_;  // of one launch
  std::array<SampleArgs, kMaxTickets> tickets_;
};

}  // namespace serval::cuda
