// Whose turn it is: the prompts that wait or run, by flow. The prompts of one request to the server are one
// flow (Request::flow); flows share what a step has for prompts by deficit round robin over their tokens, so
// that a flow's own length delays itself only. Within a flow the oldest goes first. Pure; single-threaded;
// allocates in its constructor only.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/config.h"
#include "engine/scheduler/indexed_heap.h"
#include "engine/scheduler/queue_policy.h"
#include "engine/scheduler/sequence.h"

namespace serval {

struct Flow {
  uint64_t id = 0;
  int32_t priority = 0;
  bool is_late = false;     // it came when it was to wait too long, or has had a turn: lets the others go first
  int32_t num_members = 0;  // sequences that have not ended
  // Turns: the flow with the lowest round goes first, then the lowest order; a turn is `credit` tokens long.
  uint64_t round = 0, order = 0;
  int32_t credit = 0;
  Sequence *first_waiting = nullptr, *last_waiting = nullptr;  // by age
  Sequence *first_prompt = nullptr, *last_prompt = nullptr;    // in the step being planned, by age
  int32_t waiting_place = -1, prompt_place = -1;               // in the heaps
  Flow* next_in_bucket = nullptr;
};

class Flows {
  struct EarlierTurn {
    QueuePolicy policy;
    bool operator()(const Flow& a, const Flow& b) const {
      if (policy == QueuePolicy::kPriority && a.priority != b.priority) return a.priority < b.priority;
      return a.round != b.round ? a.round < b.round : a.order < b.order;
    }
  };
  using Heap = IndexedHeap<Flow, &Flow::waiting_place, EarlierTurn>;
  static constexpr int kLateShare = 32;

 public:
  // At most `most` sequences are in flows at once. `quantum`: tokens of a turn. Waiting sequences with at
  // most `short_tokens` to compute are offered by shortest(). `knows_late`: whether there are flows that are late.
  Flows(QueuePolicy policy, int most, int32_t quantum, int32_t short_tokens, bool knows_late);
  static size_t planned_bytes(int most);

  // A sequence belongs to its request's flow from when it is added to its end. `is_late`: of a flow that is
  // new.
  void join(Sequence& seq, bool is_late);
  void leave(Sequence& seq);

  // Sequences that could be admitted, and are not.
  void wait(Sequence& seq);
  void stop_waiting(Sequence& seq);
  // The flow whose oldest waiting sequence is next; nullptr when nobody waits.
  Flow* next_waiting() const {
    const bool is_turn_of_late = waiting_.empty() || since_late_ >= kLateShare - 1;
    const Heap& line = !late_.empty() && is_turn_of_late ? late_ : waiting_;
    return line.empty() ? nullptr : &line.top();
  }
  // One of its sequences was admitted: of so many one is of those that are late, while there are any.
  void count_admitted(const Flow& flow) { since_late_ = flow.is_late || late_.empty() ? 0 : since_late_ + 1; }
  // Flows that a new one waits for.
  size_t num_on_time() const { return waiting_.size(); }
  // Of those that wait and are short the one with least to compute.
  Sequence* shortest() const { return short_.empty() ? nullptr : &short_.top(); }

  // Running prompts of the step being planned, added by age.
  void forget_prompts();
  void add_prompt(Sequence& seq);
  void drop_first_prompt(Flow& flow);
  Flow* next_prompt() const { return prompts_.empty() ? nullptr : &prompts_.top(); }

  // It is this flow's turn: nobody who comes from now on gets an earlier one.
  void take_turn(const Flow& flow) { current_round_ = std::max(current_round_, flow.round); }
  // The flow was given so many tokens, in its turn or not.
  void charge(Flow& flow, int32_t tokens);

  bool goes_before(const Flow& a, const Flow& b) const { return EarlierTurn{policy_}(a, b); }
  size_t check_invariants() const;  // how many wait

 private:
  struct Shorter {
    QueuePolicy policy;
    bool operator()(const Sequence& a, const Sequence& b) const {
      if (policy == QueuePolicy::kPriority && a.request().priority != b.request().priority)
        return a.request().priority < b.request().priority;
      return a.num_to_compute() != b.num_to_compute() ? a.num_to_compute() < b.num_to_compute()
                                                      : a.arrival < b.arrival;
    }
  };
  Heap& line_of(const Flow& flow) { return flow.is_late ? late_ : waiting_; }
  Flow*& bucket(uint64_t id, int32_t priority);
  void begin_turn(Flow& flow);
  void make_late(Flow& flow);

  const QueuePolicy policy_;
  const int32_t quantum_, short_tokens_;
  const bool knows_late_;
  std::vector<Flow> flows_;
  std::vector<Flow*> free_, buckets_;
  Heap waiting_, late_;
  int since_late_ = 0;
  IndexedHeap<Flow, &Flow::prompt_place, EarlierTurn> prompts_;
  IndexedHeap<Sequence, &Sequence::short_place, Shorter> short_;
  uint64_t current_round_ = 0, next_order_ = 0;
};

}  // namespace serval
