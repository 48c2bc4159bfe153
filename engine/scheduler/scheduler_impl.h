// The state of the Scheduler and the steps its calls are made of: who is here (scheduler.cc), what runs next
// (scheduler_plan.cc), what came back (scheduler_apply.cc), does it add up (scheduler_check.cc).
#pragma once

#include <vector>

#include "engine/scheduler/kv_memory.h"
#include "engine/scheduler/scheduler.h"
#include "engine/scheduler/sequence.h"

namespace serval {

struct Scheduler::Impl {
  Impl(const SchedulerConfig& scheduler_config, const BlockGeometry& geometry);

  // scheduler.cc: requests come and sequences go.
  Result<void> add(Request request);
  RequestState* find(RequestId id);
  void end_request(RequestState& request, FinishReason reason, EventBatch& events);
  void publish_finish(Sequence& seq, FinishReason reason, int num_output, EventBatch& events);
  void end(Sequence& seq, FinishReason reason, bool trusted);
  void leave_slot(Sequence& seq, bool trusted);
  void give_back(Sequence& seq);
  void unpark(RequestState& request, int most);
  bool goes_before(const Sequence* a, const Sequence* b) const {
    return serval::goes_before(config.policy, a->key, b->key);
  }
  void insert_ordered(std::vector<Sequence*>& line, Sequence* seq);
  static void erase(std::vector<Sequence*>& line, const Sequence* seq);

  // scheduler_plan.cc: the next batch.
  void next_batch(Time now, Batch& batch, EventBatch& events);
  void reserve(Batch& batch) const;
  void end_overdue(Time now, EventBatch& events);
  void plan_running(Batch& batch);
  void plan_waiting(Time now, Batch& batch);
  int grant(size_t rank, int want);
  bool preempt_for(size_t rank);
  void preempt(size_t rank);
  bool try_admit(Sequence& seq, Time now, Batch& batch);
  int start(const Sequence& seq, SequenceKv& kv, int limit);
  int readable_tokens(const Sequence& seq) const;
  bool has_room(const Sequence& seq, const SequenceKv& kv, int computed) const;
  void send_admission(Sequence& seq, Batch& batch);
  void schedule(Sequence& seq, int num_rows, Batch& batch);
  bool is_decode(const Sequence& seq) const { return seq.num_known() - seq.num_computed == 1; }

  // scheduler_apply.cc: what the step gave.
  struct InFlight {
    Sequence* seq = nullptr;
    int32_t first_pos = 0;
    int32_t num_rows = 0;
    int32_t num_drafts = 0;
    bool prompt_logprobs = false;
  };
  void apply(const ModelOutput& output, EventBatch& events);
  void apply_rows(const InFlight& item, const SeqOutput& out, const ModelOutput& output, EventBatch& events);
  FinishReason take_tokens(Sequence& seq, const SeqOutput& out, const ModelOutput& output,
                           EventBatch& events);
  FinishReason stop_reason(const Sequence& seq) const;
  void publish_prompt_logprobs(const InFlight& item, const SeqOutput& out, const ModelOutput& output,
                               EventBatch& events);

  SchedulerStats count() const;
  void check_invariants() const;

  const SchedulerConfig config;
  KvMemory memory;
  std::vector<Sequence> sequences;     // all there can be at once; they never move
  std::vector<RequestState> requests;  // likewise
  std::vector<Sequence*> unused_sequences;
  std::vector<RequestState*> unused_requests;
  std::vector<RequestState*> by_id;  // in use, by request id
  std::vector<Sequence*> waiting;    // first to run first
  std::vector<Sequence*> running;    // first to run first: the last gives way first
  std::vector<SequenceKv> slots;     // what the sequence in each slot holds
  std::vector<SlotId> free_slots;
  std::vector<SlotId> left_slots;   // since the last batch: the runner must learn of them
  std::vector<InFlight> in_flight;  // in the order of Batch::seqs
  uint64_t step = 0;
  uint64_t num_arrivals = 0;
  SeqId last_seq = 0;
  int num_live = 0;            // sequences that have not ended
  int budget = 0;              // tokens still free in the batch being planned
  bool has_preempted = false;  // in the batch being planned
  SchedulerStats totals;       // only the counters
};

}  // namespace serval
