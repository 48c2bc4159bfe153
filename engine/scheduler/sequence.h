// One decode stream of a request, as the scheduler sees it. Private to engine/scheduler.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/batch.h"
#include "engine/request.h"
#include "engine/scheduler/block_pool.h"
#include "engine/scheduler/radix_cache.h"

namespace serval {

enum class SeqState : uint8_t {
  kWaiting,   // in the queue; holds no block
  kRunning,   // in a slot
  kFinished,  // its finish was published; gone as soon as no step holds it
};

struct Sequence {
  SeqId id = 0;
  RequestId request = 0;
  int32_t index = 0;                      // which of the request's n
  std::shared_ptr<const Request> params;  // shared by the n sequences of a request
  uint64_t arrival = 0;                   // order of age; a preempted sequence keeps its own
  Sequence* parent = nullptr;             // choice 0, while this one waits to fork from it; nullptr otherwise
  SeqState state = SeqState::kWaiting;

  std::vector<TokenId> tokens;  // known tokens: the prompt, then output
  int32_t num_computed = 0;  // of them, how many have KV; the rule is that this catches up with tokens.size()
  int32_t num_in_step = 0;   // rows of the step in flight

  SlotId slot = -1;
  // Per KV group: block of table index i at blocks[i]; empty where a window has passed.
  std::array<std::vector<BlockRef>, kMaxKvGroups> blocks;
  std::array<int32_t, kMaxKvGroups> first_block{};  // first index that is held
  std::array<int32_t, kMaxKvGroups> num_told{};     // indexes below this are in the runner's table
  RadixCache::NodeId node =
      RadixCache::kNone;          // where it stands in the prefix cache (pinned), kNone: not in it
  int32_t num_cached_blocks = 0;  // whole blocks of its path that are in the cache
  int32_t cached_tokens = 0;      // prompt tokens found in the cache when first admitted
  Time first_scheduled{0};
  bool admitted_before = false;
  int32_t num_prompt_reported = 0;  // prompt positions whose log-probabilities were published

  int32_t num_known() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_prompt() const { return static_cast<int32_t>(params->prompt.size()); }
  int32_t num_output() const { return num_known() - num_prompt(); }
  int32_t num_to_compute() const { return num_known() - num_computed; }
  bool is_decoding() const { return num_to_compute() == 1; }
};

}  // namespace serval
