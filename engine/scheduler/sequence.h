// The scheduler's private book-keeping of a request and of its sequences: token history, how much of it is
// computed, where each stands. Plain data; the rules are in scheduler*.cc.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/batch.h"
#include "engine/request.h"
#include "engine/scheduler/queue_policy.h"
#include "engine/scheduler/radix_tree.h"

namespace serval {

enum class SequenceState : uint8_t {
  kUnused,
  kParked,    // waits for a sibling to compute the prompt that they share
  kWaiting,   // in the waiting line: new, or preempted
  kRunning,   // has a slot
  kFinished,  // told so, but a step in flight still writes to its blocks
};

struct RequestState;

// known tokens: tokens.size(). Computed ones have their KV: 0 <= num_computed < known, but for the moment
// inside of apply.
struct Sequence {
  SeqId id = 0;
  RequestState* request = nullptr;
  Sequence* next = nullptr;  // of the same request, by index
  int32_t index = 0;
  SequenceState state = SequenceState::kUnused;
  QueueKey key;
  std::vector<TokenId> tokens;  // prompt, then output
  int num_prompt = 0;
  int num_computed = 0;
  SlotId slot = -1;  // only while it has one
  bool in_flight = false;
  int num_sent[kMaxKvGroups] = {};  // table entries the runner knows
  int cached_tokens = 0;            // of the first admission
  int num_prompt_logprobs = 0;      // prompt positions reported so far, from position 1 on
  bool was_admitted = false;        // at least once
  Time first_scheduled{0};

  int num_known() const { return static_cast<int>(tokens.size()); }
  int num_output() const { return num_known() - num_prompt; }
};

struct RequestState {
  Request request;  // its prompt has moved into the sequences
  Sequence* first = nullptr;
  int num_live = 0;       // sequences not yet given back
  NodeId root = kNoNode;  // of the prefix cache, by salt
};

}  // namespace serval
