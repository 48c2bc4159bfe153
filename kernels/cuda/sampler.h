// Sampling on the device: what kernels/sample.h says, without waiting. A launch hands over the parameters of
// its rows and returns at once; the results are fetched later, and the tokens themselves stay on the device
// for the next step's embedding.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/cuda/runtime.h"
#include "kernels/sample.h"

namespace serval::cuda {

struct FreeDevice {
  void operator()(void* memory) const { free_device(memory); }
};
struct FreePinned {
  void operator()(void* memory) const { free_pinned(memory); }
};

// One for the steps of a model; called by the engine thread alone.
class DeviceSampler {
 public:
  static constexpr int kMaxTickets = 4;

  explicit DeviceSampler(Stream stream);
  ~DeviceSampler();
  DeviceSampler(const DeviceSampler&) = delete;
  DeviceSampler& operator=(const DeviceSampler&) = delete;

  // Takes all memory, once: for launches of up to max_rows rows of `vocab` logits whose lists (counted and
  // recent tokens, biases of two ints each, banned ids, masks of (vocab + 31) / 32 ints) hold up to
  // max_list_ints ints together. Returns the bytes on the device; throws
  // std::runtime_error when it has too few.
  size_t reserve(int max_rows, int64_t vocab, int max_slots, size_t max_list_ints);

  // What reserve() takes of a device with so many multiprocessors.
  static size_t planned_bytes(int max_rows, int64_t vocab, int max_slots, size_t max_list_ints, int num_sms);

  // On the device, [max_slots]: the token drawn last for each slot, 0 before the first. A row that is not
  // finite leaves its slot as it was.
  int32_t* last_tokens() const { return static_cast<int32_t*>(last_tokens_.get()); }

  // Gives the rows to the stream. args.logits is device memory and is overwritten; everything that the rows
  // point to is host memory and is copied before the call returns. args.results and args.top are not used.
  // There may be tokens to count and no rows. Parameters must be in range (the validator's work), at most
  // 1024 tokens reported. At most kMaxTickets launches may be undelivered.
  int launch(const SampleArgs& args);
  // Waits for a launch and copies its results out as SampleArgs describes them; ends the ticket.
  void wait_sampled(int ticket, SampleResult* results, TopLogprob* top);

 private:
  using DeviceMemory = std::unique_ptr<void, FreeDevice>;
  using PinnedMemory = std::unique_ptr<void, FreePinned>;

  // One launch's host memory, where copies run from and to.
  struct Ticket {
    PinnedMemory inputs;   // rows, tokens to count, the lists of both
    PinnedMemory results;  // [max_rows]
    PinnedMemory top;      // [max_rows, kMaxTop]
    Event done = nullptr;
    bool is_out = false;
    int num_rows = 0;
    int top_stride = 0;
  };

  DeviceMemory take_device(size_t bytes);
  size_t stage(const SampleArgs& args, int num_rows, Ticket& ticket) const;  // bytes of ticket.inputs used
  const CountedTokens* device_counted(int num_rows) const;  // where staged tokens to count lie
  void draw(const SampleArgs& args, int num_rows, Ticket& ticket);

  Stream stream_;
  int max_rows_ = 0;
  int64_t vocab_ = 0;
  int max_slots_ = 0;
  size_t max_list_ints_ = 0;
  int num_blocks_ = 0;
  size_t device_bytes_ = 0;
  DeviceMemory inputs_, results_, top_, last_tokens_;
  DeviceMemory counts_;               // [max_slots, vocab] as kSeenToken says
  DeviceMemory raw_, recent_, keys_;  // of each block, see RowSpace
  std::array<Ticket, kMaxTickets> tickets_;
};

}  // namespace serval::cuda
