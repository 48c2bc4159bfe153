// Plain counters of the engine, copied out as a value; no exporter, no metric library below server/.
#pragma once

#include <cstdint>

#include "engine/request.h"

namespace serval {

// Guesses of one drafter by how far they stand behind the last token; the last place counts all beyond, too.
struct DrafterStats {
  static constexpr int kPlaces = 16;
  uint64_t drafted[kPlaces] = {};
  uint64_t accepted[kPlaces] = {};
};

// What a model that guesses has done.
struct DraftWork {
  uint64_t forwards = 0;
  uint64_t ahead = 0;           // tokens guessed ahead of it (EngineConfig::draft_speculation)
  uint64_t ahead_accepted = 0;  // of them, those that it drew itself

  DraftWork& operator+=(const DraftWork& more) {
    forwards += more.forwards;
    ahead += more.ahead;
    ahead_accepted += more.ahead_accepted;
    return *this;
  }
};

struct SchedulerStats {
  // Now.
  int32_t num_running = 0;
  int32_t num_waiting = 0;
  int64_t waiting_tokens = 0;     // of prompts that wait and have never run
  double line_ms = 0;             // until all that wait now are let in, at the rate of the last moments
  int32_t num_blocks = 0;         // of group 0
  int32_t num_free_blocks = 0;    // neither in use nor cached
  int32_t num_cached_blocks = 0;  // held by the prefix cache alone: can be evicted
  double kv_usage = 0;            // share of its blocks that sequences hold, of the group that is fullest
  // Since start.
  uint64_t num_preemptions = 0;
  uint64_t num_evicted_blocks = 0;
  uint64_t prompt_tokens = 0;           // of requests queued
  uint64_t prompt_tokens_computed = 0;  // rows really computed for prompts, recomputation included
  uint64_t generation_tokens = 0;
  uint64_t num_drafts = 0;           // times that a sequence's guesses were verified
  uint64_t num_draft_tokens = 0;     // the guesses
  uint64_t num_accepted_tokens = 0;  // of them, those that were the target's own tokens
  DrafterStats drafters[kNumDrafters];  // by DrafterKind
  uint64_t prefix_query_tokens = 0;  // prompt tokens looked up
  uint64_t prefix_hit_tokens = 0;    // of those, found
  uint64_t finished[7] = {};         // by FinishReason
};

struct EngineStats {
  SchedulerStats scheduler;
  uint64_t steps = 0;  // forward steps completed: the heartbeat
  double step_seconds_total = 0;
  DraftWork draft_work;
  int32_t last_step_tokens = 0;
  int32_t last_step_seqs = 0;
  int32_t max_step_seqs = 0;        // most sequences of any step
  int32_t max_mixed_step_seqs = 0;  // ... of any that had prompt rows beside decoding ones
  uint64_t recording_lost = 0;      // inputs that the recording could not take
  bool has_runnable_work = false;
  int64_t last_progress_ns = 0;  // steady clock, of the last completed step or of idleness
};

}  // namespace serval
