// The decision: which tokens of which sequences run next. Pure: no device, clock, lock or I/O; the same
// inputs and times give the same batches, so a recorded day replays. Single-threaded by contract. Rules and
// invariants: docs/scheduler.md.
//
// One rule covers prompts, decoding, cache hits, resumed sequences and drafts: computed tokens catch up with
// known tokens, within the step's token budget. A step may be planned while the one before it runs: a token
// that only the device knows counts as known, and only its value is missing (kTokenOnDevice).
//
// A request comes with its memory (prepare) and goes with it (take_retired): between the two nothing here
// allocates or frees.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "engine/batch.h"
#include "engine/config.h"
#include "engine/kv_geometry.h"
#include "engine/request.h"
#include "engine/scheduler/flows.h"
#include "engine/scheduler/input.h"
#include "engine/scheduler/kv_manager.h"
#include "engine/scheduler/open_requests.h"
#include "engine/scheduler/sequence.h"
#include "engine/step_cost.h"
#include "engine/stats.h"

namespace serval {

// Whether a sequence at its full length fits the KV memory when it is alone, so that a request can ever end:
// the n sequences of one make way for each other like those of different requests. Exact: with one block less
// it would wait for ever. The validator asks before a request is queued.
bool fits(const BlockGeometry& geometry, const SchedulerConfig& config, int prompt_tokens, int max_tokens);

class Scheduler {
 public:
  Scheduler(const SchedulerConfig& config, const BlockGeometry& geometry);
  // What the constructor and reserve() for the batches of the steps in flight allocate, to a hundredth. A
  // request's own memory comes and goes with it.
  static size_t planned_bytes(const SchedulerConfig& config, const BlockGeometry& geometry);
  ~Scheduler();

  // A valid request (see Engine::submit) with all the memory it will need. Any thread; allocates.
  std::unique_ptr<RequestState> prepare(Request request) const;
  // Whether so many more sequences may be added: max_num_seqs + max_waiting run or wait at most.
  bool has_place(int num_sequences) const;
  // What another thread has to say. Ends that it brings are told with the next events.
  void take(SchedulerInput input, Time now);
  // Appends the requests that are over, for another thread to free. Taken or not, there are never more of
  // them than were added since the last call.
  void take_retired(std::vector<std::unique_ptr<RequestState>>& retired);

  // Ends every sequence of every request.
  void abort_all();

  // Gives a batch room for every step there can be.
  void reserve(Batch& batch) const;
  // Fills `batch` with the next step's work; empty when there is nothing to run, or nothing before a step in
  // flight is over. A batch that is not empty is in flight from here on, as the last of at most
  // kMaxStepsInFlight.
  void next_batch(Time now, Batch& batch);
  // Takes the result of the oldest step in flight in and appends what happened to `events`, ends decided
  // since the last call included.
  void apply(const ModelOutput& output, Time now, EventBatch& events);
  // The same result with what is guessed behind its tokens, before anything else is taken or planned: two calls, because
  // nobody who waits for the tokens need wait for the guesses.
  void take_guesses(const ModelOutput& output);
  // Events that wait for no step (aborts, deadlines); also part of apply().
  void take_events(EventBatch& events);

  // What runs waits for masks, all of it or some.
  bool waits_for_masks() const;
  bool has_work() const { return !running_.empty() || num_waiting_ > 0; }
  SchedulerStats stats() const;
  // Every block accounted for, every count consistent; aborts with values otherwise. Slow: for tests.
  void check_invariants() const;

 private:
  friend struct SchedulerPeer;  // a test spoils a count to show that check_invariants sees it
  struct Rows {
    Sequence* seq;
    int32_t count, num_drafts;  // the guesses are the last of the rows
    bool sample;
  };
  struct Step {
    uint64_t number = 0;
    Time planned_at{0};
    std::vector<Rows> rows;  // in the order of Batch::seqs
  };
  // What a sequence will do to a pool: blocks that its known tokens lack, tokens it is expected to draw,
  // blocks of its own that its end will free.
  struct Growth {
    int32_t tokens, lacking, own;
  };
  struct EarlierDeadline {
    bool operator()(const RequestState& a, const RequestState& b) const {
      return a.request.deadline < b.request.deadline;
    }
  };

  // A quarter of a step is for prompts that fit it whole; a flow's turn is four steps' rows long (tried in
  // docs/scheduler.md).
  static constexpr int32_t kShortShare = 4, kTurnSteps = 4;
  static constexpr int32_t kLeastPromptRows = 16;  // however long a step takes

  void take_in(Add& add, Time now);
  void take_in(const Abort& abort, Time now);
  void take_in(const StopMatched& stop, Time now);
  void take_in(const MaskReady& ready, Time now);
  void take_forced(Sequence& seq, const MaskReady& ready);
  void expire(Time now);
  bool plan_decodes(int32_t& budget, Batch& batch);
  int32_t reach_drafts(Sequence& seq, int32_t most);
  void plan_prompts(Time now, int32_t budget, Batch& batch);
  int32_t rows_for_prompts(int32_t budget, int32_t num_decoding) const;
  bool plan_short(Time now, int32_t& budget, Batch& batch);
  bool short_go_alone(int rows, int more) const;
  void plan_turns(Time now, int32_t& budget, Batch& batch);
  int32_t rows_of(const Sequence& seq, int32_t budget) const;
  int32_t grant(Sequence& seq, int32_t most);
  int32_t reach(Sequence& seq, int32_t end);
  void resume_preempted(Time now, Batch& batch);
  bool admit_next(Sequence& seq, Time now, Batch& batch);
  bool admit_short(Sequence& seq, Time now, Batch& batch);
  bool admit(Sequence& seq, Time now, Batch& batch);
  int32_t num_lacking(const Sequence& seq, int group) const;
  bool has_room(const Sequence& seq, const std::array<int32_t, kMaxKvGroups>& lacking);
  bool may_have_room(Sequence& seq);
  void look_ahead();
  Growth growth_of(const Sequence& seq) const;
  int32_t expected_output(const Sequence& seq) const;
  void learn_output(int32_t num_output);
  void measure_line(Time now);
  void learn_cost(const Step& step, Time now);
  double ms_per_admission() const;
  double expected_wait_ms() const;
  bool goes_past_the_line(const RequestState& request_state) const;
  void queue(Sequence& seq);
  void leave_line(Sequence& seq);
  int32_t first_planned_row(const Sequence& seq) const;
  void enter_slot(Sequence& seq, Batch& batch);
  bool preempt_one(const Sequence& below);
  void preempt(Sequence& seq);
  void emit_step(Sequence& seq, int32_t rows, int32_t num_drafts, Batch& batch);
  void count_drafts(Sequence& seq, int32_t num_drafts, const SeqOutput& out, const ModelOutput& output);
  void take_drafts(Sequence& seq, const SeqOutput& out, const ModelOutput& output);
  static void tell_constraint(const Sequence& seq, int32_t num_drawn);
  void apply_tokens(Sequence& seq, const SeqOutput& out, const ModelOutput& output, EventBatch& events);
  void apply_prompt_logprobs(Sequence& seq, const SeqOutput& out, const ModelOutput& output,
                             EventBatch& events);
  void start_forks(Sequence& seq);
  void release(Sequence& seq);
  void finish(Sequence& seq, FinishReason reason, EventBatch& events);
  void finish_all(RequestState& request_state, FinishReason reason);
  void end(Sequence& seq, FinishReason reason);
  void sweep_finished();
  void insert_in_order(std::vector<Sequence*>& line, Sequence* seq) const;
  void check_sequence(const Sequence& seq) const;

  bool keeps_state() const { return !kv_.geometry().may_copy_part(); }

  const SchedulerConfig config_;
  KvManager kv_;  // outlives the sequences
  OpenRequests requests_;
  std::vector<std::unique_ptr<RequestState>> retired_;
  // A sequence runs, or waits: in its flow, or as a fork for its prompt, or because it gave its memory to
  // another.
  Flows flows_;
  std::vector<Sequence*> running_;    // in policy order
  std::vector<Sequence*> preempted_;  // in policy order
  int32_t num_waiting_ = 0;
  Sequence* refused_ = nullptr;  // the last in turn that there was no memory for, while it waits
  std::vector<SlotId> free_slots_;
  std::vector<SlotId> freed_slots_;            // for the next batch to tell
  std::array<Step, kMaxStepsInFlight> steps_;  // in flight, oldest first; then the one being planned
  int num_in_flight_ = 0;
  // Of the step being planned.
  std::vector<Sequence*> order_;               // scratch
  std::vector<Sequence*> granted_;             // prompts with rows, in the order they got the first
  bool may_admit_ = false, gave_way_ = false;  // nobody was refused or gave way; somebody gave way
  std::vector<Growth> growths_;  // of those that run, by tokens; valid when growths_of_ is the step's number
  std::array<int32_t, kMaxKvGroups> window_lacking_{};
  uint64_t growths_of_ = 0;
  std::vector<Sequence*> finished_;  // to be swept once no step holds them
  EventBatch pending_;
  SeqId next_seq_ = 1;
  uint64_t next_arrival_ = 1;
  IndexedHeap<RequestState, &RequestState::deadline_place, EarlierDeadline> deadlines_;
  double mean_output_ = 0;  // tokens of the sequences that ended of themselves, the newest counting most
  int32_t num_ended_ = 0;   // of them, up to kMaxEnded
  // How fast the line moves: how long somebody waited, and how many were admitted, the last moments counting
  // most.
  Time line_seen_{0};
  double line_ms_ = 0, line_admitted_ = 0;
  int64_t waiting_tokens_ = 0;  // of prompts that wait and have never run, each once
  StepCost cost_;
  bool short_alone_ = false;  // the last step with prompts had short ones alone
  Time last_over_{0};  // when the last step was over
  uint64_t step_ = 0;
  uint64_t num_admitted_ = 0;
  SchedulerStats stats_;
};

}  // namespace serval
