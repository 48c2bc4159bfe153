#include "engine/scheduler/flows.h"

#include <bit>

namespace serval {

Flows::Flows(QueuePolicy policy, int most, int32_t quantum, int32_t short_tokens, bool knows_late)
    : policy_(policy),
      quantum_(quantum),
      short_tokens_(short_tokens),
      knows_late_(knows_late),
      flows_(most),
      buckets_(std::bit_ceil(static_cast<size_t>(2 * most)), nullptr),
      waiting_(most, EarlierTurn{policy}),
      late_(most, EarlierTurn{policy}),
      prompts_(most, EarlierTurn{policy}),
      short_(most, Shorter{policy}) {
  SERVAL_CHECK(quantum > 0, quantum);
  free_.reserve(most);
  for (size_t i = flows_.size(); i-- > 0;) free_.push_back(&flows_[i]);
}

size_t Flows::planned_bytes(int most) {
  const size_t of_one = sizeof(Flow) + sizeof(Flow*) + 3 * Heap::planned_bytes(1) + sizeof(Sequence*);
  return most * of_one + std::bit_ceil(static_cast<size_t>(2 * most)) * sizeof(Flow*);
}

Flow*& Flows::bucket(uint64_t id, int32_t priority) {
  const uint64_t hash = (id * 31 + static_cast<uint32_t>(priority)) * 0x9e3779b97f4a7c15ull;
  return buckets_[(hash >> 32) & (buckets_.size() - 1)];
}

void Flows::join(Sequence& seq, bool is_late) {
  const Request& request = seq.request();
  const uint64_t id = request.flow == 0 ? request.id : request.flow;
  Flow*& head = bucket(id, request.priority);
  Flow* flow = head;
  while (flow && (flow->id != id || flow->priority != request.priority)) flow = flow->next_in_bucket;
  if (!flow) {
    SERVAL_CHECK(!free_.empty());
    flow = free_.back();
    free_.pop_back();
    *flow = Flow{.id = id, .priority = request.priority, .is_late = is_late, .next_in_bucket = head};
    head = flow;
    begin_turn(*flow);
  }
  ++flow->num_members;
  seq.flow = flow;
}

void Flows::leave(Sequence& seq) {
  Flow* const flow = seq.flow;
  seq.flow = nullptr;
  if (--flow->num_members > 0) return;
  SERVAL_CHECK(!waiting_.contains(*flow) && !prompts_.contains(*flow), flow->id);
  Flow** link = &bucket(flow->id, flow->priority);
  while (*link != flow) link = &(*link)->next_in_bucket;
  *link = flow->next_in_bucket;
  free_.push_back(flow);
}

// The last of those whose turn is now.
void Flows::begin_turn(Flow& flow) {
  flow.round = current_round_;
  flow.order = ++next_order_;
  flow.credit = quantum_;
}

void Flows::wait(Sequence& seq) {
  Flow& flow = *seq.flow;
  // Whoever comes back to the line is near its beginning, whoever is new at its end.
  Sequence* after = flow.last_waiting;
  if (after && seq.arrival < flow.first_waiting->arrival) after = nullptr;
  while (after && after->arrival > seq.arrival) after = after->before_in_line;
  seq.before_in_line = after;
  seq.behind_in_line = after ? after->behind_in_line : flow.first_waiting;
  (after ? after->behind_in_line : flow.first_waiting) = &seq;
  (seq.behind_in_line ? seq.behind_in_line->before_in_line : flow.last_waiting) = &seq;
  seq.is_in_line = true;
  if (!waiting_.contains(flow)) {
    if (flow.round < current_round_) begin_turn(flow);
    line_of(flow).push(flow);
    if (prompts_.contains(flow)) prompts_.update(flow);
  }
  if (!flow.is_late && seq.num_to_compute() <= short_tokens_) short_.push(seq);
}

void Flows::stop_waiting(Sequence& seq) {
  Flow& flow = *seq.flow;
  (seq.before_in_line ? seq.before_in_line->behind_in_line : flow.first_waiting) = seq.behind_in_line;
  (seq.behind_in_line ? seq.behind_in_line->before_in_line : flow.last_waiting) = seq.before_in_line;
  seq.before_in_line = seq.behind_in_line = nullptr;
  seq.is_in_line = false;
  if (!flow.first_waiting) line_of(flow).erase(flow);
  if (short_.contains(seq)) short_.erase(seq);
}

void Flows::forget_prompts() {
  while (!prompts_.empty()) {
    Flow& flow = prompts_.top();
    flow.first_prompt = flow.last_prompt = nullptr;
    prompts_.erase(flow);
  }
}

void Flows::add_prompt(Sequence& seq) {
  Flow& flow = *seq.flow;
  seq.next_prompt = nullptr;
  (flow.first_prompt ? flow.last_prompt->next_prompt : flow.first_prompt) = &seq;
  flow.last_prompt = &seq;
  if (prompts_.contains(flow)) return;
  if (flow.round < current_round_ && !waiting_.contains(flow)) begin_turn(flow);
  prompts_.push(flow);
}

void Flows::drop_first_prompt(Flow& flow) {
  flow.first_prompt = flow.first_prompt->next_prompt;
  if (!flow.first_prompt) prompts_.erase(flow);
}

// What it still has waits for more than its turn, and so would be late if it came now.
void Flows::make_late(Flow& flow) {
  const bool waits = waiting_.contains(flow);
  if (waits) waiting_.erase(flow);
  flow.is_late = true;
  if (!waits) return;
  late_.push(flow);
  for (Sequence* seq = flow.first_waiting; seq; seq = seq->behind_in_line) {
    if (short_.contains(*seq)) short_.erase(*seq);
  }
}

void Flows::charge(Flow& flow, int32_t tokens) {
  flow.credit -= tokens;
  if (flow.credit > 0) return;
  ++flow.round;
  flow.credit += quantum_;
  SERVAL_CHECK(flow.credit > 0, tokens, quantum_);
  flow.order = ++next_order_;
  if (knows_late_ && !flow.is_late) {
    make_late(flow);
  } else if (waiting_.contains(flow)) {
    line_of(flow).update(flow);
  }
  if (prompts_.contains(flow)) prompts_.update(flow);
}

size_t Flows::check_invariants() const {
  SERVAL_CHECK(prompts_.empty());
  size_t waiting = 0;
  for (const Flow& flow : flows_) {
    SERVAL_CHECK(waiting_.contains(flow) == (flow.first_waiting != nullptr), flow.id);
    SERVAL_CHECK(flow.credit <= quantum_ && (flow.credit > 0 || flow.order == 0), flow.id, flow.credit);
    for (const Sequence* seq = flow.first_waiting; seq; seq = seq->behind_in_line, ++waiting) {
      SERVAL_CHECK(seq->flow == &flow && seq->is_in_line, flow.id, seq->id);
      SERVAL_CHECK(short_.contains(*seq) == (!flow.is_late && seq->num_to_compute() <= short_tokens_),
                   seq->id);
      const Sequence* const behind = seq->behind_in_line;
      SERVAL_CHECK(behind ? seq->arrival < behind->arrival : flow.last_waiting == seq, flow.id, seq->id);
    }
  }
  return waiting;
}

}  // namespace serval
