// The Backend of a CPU: the op families in linear.cc, attention.cc and elementwise.cc over the kernel table
// of one instruction set and one thread pool. It allocates nothing beyond what it hands out; a call that exceeds
// the scratch of its step is our own mistake and is checked.
#pragma once

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/dot_table.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/step_context.h"
#include "kernels/cpu/thread_pool.h"

namespace serval::cpu {

class CpuBackend : public Backend {
 public:
  // Throws when config.isa names an instruction set that is unknown or not there.
  explicit CpuBackend(const DeviceConfig& config);

  std::string_view name() const override { return name_; }
  int num_threads() const { return pool_.num_threads(); }
  const KernelTable& kernels() const { return kernels_; }

  ~CpuBackend() override;
  Buffer allocate(size_t bytes) override;
  Buffer reserve(size_t bytes) override;
  void for_each_on_host(int64_t count, const std::function<void(int64_t)>& task) override;
  std::string_view packed_layout() const override { return "panels of 32"; }
  void upload(void* to, const void* from, size_t bytes) override;
  void download(void* to, const void* from, size_t bytes) override;
  size_t available_bytes() const override;
  DType activation_dtype(DType) const override { return DType::kF32; }
  bool supports(WeightFormat) const override { return true; }
  LinearWeight pack_linear(std::span<const LinearSource> parts, std::span<const Tensor> biases) override;
  size_t packed_bytes(int64_t n, int64_t k, const MatrixFormat& format, bool bias) const override;
  DType preferred_kv_dtype(DType weights) const override;
  bool takes_kv_dtype(DType kv, DType) const override { return kv != DType::kF16 && kv != DType::kI32; }
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
  void attention(const AttentionArgs& args, int64_t q_row_stride) override;
  void choose_keys(const ChooseKeysArgs& args) override;
  void write_rows(const WriteRowsArgs& args) override;
  void compress_rows(const CompressRowsArgs& args) override;
  void choose_rows(const ChooseRowsArgs& args) override;
  void attend_rows(const AttendRowsArgs& args) override;
  void gated_activation(Activation act, const Tensor& gate_up, const Tensor& out) override;
  void activation(Activation act, const Tensor& x, const Tensor& out) override;
  void gate(Activation act, const Tensor& x, int64_t x_stride, const Tensor& up, int64_t up_stride,
            const Tensor& out) override;
  void scaled_add(const Tensor& x, float scale, const Tensor& y, const Tensor& out) override;
  void xielu(const Tensor& x, const Tensor& alphas, const Tensor& out) override;
  void gated_scan(const GatedScanArgs& args) override;
  void mean_scan(const MeanScanArgs& args) override;
  void replacing_scan(const ReplacingScanArgs& args) override;
  void mix_streams(const MixStreamsArgs& args) override;
  void correct_streams(const CorrectStreamsArgs& args) override;
  void match_size(const Tensor& x, const Tensor& target, float least) override;
  void cut_rows(const Tensor& x, int64_t x_stride, float deviations) override;
  void collapse_residuals(const MixedResidualsArgs& args, const Tensor& out) override;
  void expand_residuals(const Tensor& residuals, const Tensor& mixes, const Tensor& x) override;
  void soft_cap(const Tensor& x, float cap) override;
  void gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) override;
  void clamp_gate_up(const Tensor& gate_up, float limit, float up_offset) override;
  void copy_heads(const CopyHeadsArgs& args) override;
  void head_linear(const HeadLinearArgs& args) override;
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
  void scan_gates(const ScanGatesArgs& args) override;

 private:
  // linear() of rows that lie apart.
  struct LinearRows {
    const float* x;
    int64_t x_stride;
    float* out;
    int64_t out_stride;
    int64_t count;
  };
  void linear_rows(const LinearRows& rows, const LinearWeight& w);
  void dot_rows(const LinearRows& rows, const LinearWeight& w);  // of a format that rounds them
  // Keys and values of one KV head that a branch reads from block first_block on, in the order in which it reads them, in
  // the worker's scratch: keys of a block, then its values. Null where the sequence is no branch.
  const char* gather_tail(int worker, const KvLayer& kv, const AttentionBatch& batch, int seq, int kv_head, int window);
  static Buffer take(size_t bytes);  // allocate() without the zeros: nobody has touched it
  // Runs body(row) for every row; several rows to a task when a row is little work.
  template <class Body>
  void for_rows(int64_t rows, int64_t row_elements, const Body& body);
  // Runs body(first row, rows) for pieces of the channels of every sequence.
  template <class Body>
  void for_state_pieces(const AttentionBatch& batch, const KvLayer& kv, int64_t channels, const Body& body);
  StepScratch& step();  // of the step that has begun
  // Of a row, which may have the token that was drawn last for a slot (ForwardInput::token_ids).
  int64_t token_of(int32_t id) { return id >= 0 ? id : step().sample.last_drawn.at(-1 - id); }

  const KernelTable& kernels_;
  const DotTable& dots_;
  ThreadPool pool_;
  std::string name_;
  std::atomic<bool> stop_{false};
  std::vector<std::thread> touching_;  // what reserve() gave
  StepScratch* step_ = nullptr;  // set by the CpuStepContext whose step has begun
};

template <class Body>
void CpuBackend::for_rows(int64_t rows, int64_t row_elements, const Body& body) {
  // About a microsecond or two of work: what a hand-over to another core costs.
  constexpr int64_t kTaskElements = 16384;
  const int64_t per_task = std::max<int64_t>(1, kTaskElements / std::max<int64_t>(1, row_elements));
  pool_.for_each((rows + per_task - 1) / per_task, [&](int, int64_t task) {
    const int64_t end = std::min(rows, (task + 1) * per_task);
    for (int64_t r = task * per_task; r < end; ++r) body(r);
  });
}

}  // namespace serval::cpu
