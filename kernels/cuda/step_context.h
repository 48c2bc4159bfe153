// The StepContext of a CUDA device: places on the device for the arrays of one model's steps, attention plans,
// graphs of its decode steps and its sampler. The host arrays of a step are copied to fixed places once, at
// begin_step, so that what a graph recorded stays true.
//
// Nothing here waits for the device but wait_sampled() and a begin_step() three steps ahead of it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/attention_plan.h"
#include "kernels/backend.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/sampler.h"
#include "kernels/cuda/staging.h"

namespace serval::cuda {

class CudaStepContext final : public StepContext {
 public:
  // `current`: the step whose arrays the backend's ops use; begin_step() makes it this one.
  CudaStepContext(const StepLimits& limits, Backend& backend, Stream stream, const DeviceProperties& device,
                  CudaStepContext*& current);
  ~CudaStepContext() override;

  static size_t planned_bytes(const StepLimits& limits, const DeviceProperties& device);

  size_t bytes() const override;
  void begin_step(const ForwardInput& input) override;
  int padded_rows(int num_rows) const override;
  std::span<const int> captured_rows() const override { return ladder_; }
  void capture(int num_rows, const std::function<void()>& body) override;
  void run_captured(int num_rows, const std::function<void()>& body) override;
  int sample(const SampleArgs& args) override;
  void wait_sampled(int ticket) override;

  // --- for the ops of the step that has begun ---

  // Where an array of the step lies on the device. Another array is our own mistake.
  const int32_t* device_array(const int32_t* host) const;
  // One op's own list, on its way to the device.
  const int32_t* stage_list(const int32_t* values, int64_t count);
  int32_t* last_tokens() const { return sampler_.last_tokens(); }  // by slot
  // One of the step's batches: device memory.
  struct Sequences {
    const int32_t *counts, *row_start, *first_pos, *block_table;
    const int32_t* slots;  // of a group of states; null: all rows are kept
    int max_seqs;  // at most
  };
  Sequences sequences(const AttentionBatch& batch) const;
  // What attention over one of the step's batches reads of it: device memory.
  struct Attention {
    const int32_t *counts, *row_start, *first_pos, *block_table, *item_start, *tile_start;
    const uint64_t* tree_masks;  // null: no step has branches
    const int32_t* tree_start;
    float *item_state, *item_out;
    bool has_items, has_tiles;  // of the plan: sequences that are split, and others
  };
  Attention attention(const AttentionBatch& batch, int num_heads, int num_kv_heads) const;

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
  const Group& group_of(const AttentionBatch& batch) const;
  int captured_rung(int num_rows) const;  // of graphs_; -1: none is kept for so many rows

  const StepLimits limits_;
  const Stream stream_;
  CudaStepContext*& current_;
  const int max_items_;
  const size_t max_list_ints_;  // of one launch of the sampler
  Staging staging_;
  DeviceSampler sampler_;
  size_t sampler_bytes_ = 0;

  Buffer int_memory_;  // of all the arrays below
  int32_t* token_ids_ = nullptr;
  int32_t* positions_ = nullptr;
  int32_t* row_start_ = nullptr;
  int32_t* first_pos_ = nullptr;
  uint64_t* tree_masks_ = nullptr;
  int32_t* tree_start_ = nullptr;
  std::array<Group, kMaxKvGroups> groups_;
  int32_t* list_ = nullptr;  // of the step's ops
  int64_t list_used_ = 0;
  std::vector<Mirror> mirrors_;
  std::vector<int32_t> host_starts_;  // scratch of begin_step
  Buffer item_memory_;                // states of all items, then their values
  // Every sequence of the step is split: attention needs only one of its kernels.
  bool is_split_only_ = false;

  std::vector<int> ladder_;
  std::vector<Graph> graphs_;           // of the ladder's sizes; null until captured
  std::vector<CountedTokens> counted_;  // of one launch
  std::array<SampleArgs, kMaxTickets> tickets_;
};

}  // namespace serval::cuda
