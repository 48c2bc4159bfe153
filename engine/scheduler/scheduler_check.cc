// Does it add up? Recounts everything from its holders; for tests, and for a doubt in production. Allocates.
#include <algorithm>
#include <set>

#include "engine/scheduler/scheduler_impl.h"
#include "kernels/base/check.h"

namespace serval {

void Scheduler::Impl::check_invariants() const {
  std::vector<NodeId> roots;
  for (const RequestState* request : by_id) {
    if (request->root != kNoNode) roots.push_back(request->root);
  }
  memory.check_invariants(slots, roots);

  // Every sequence in use hangs on one request, and stands in the one place that its state says.
  int num_used = 0, num_unfinished = 0, num_waiting = 0, num_running = 0, num_in_flight = 0;
  std::set<SlotId> taken;
  for (const RequestState* request : by_id) {
    SERVAL_CHECK(request->first && request->num_live > 0, request->request.id, request->num_live);
    int members = 0;
    bool somebody_computes = false, somebody_waits = false;
    for (const Sequence* seq = request->first; seq; seq = seq->next) {
      ++members;
      const bool has_slot = seq->slot >= 0;
      SERVAL_CHECK(seq->request == request && (!seq->next || seq->next->index > seq->index), seq->id,
                   seq->index);
      SERVAL_CHECK(seq->num_prompt > 0 && seq->num_known() >= seq->num_prompt, seq->num_prompt,
                   seq->num_known());
      SERVAL_CHECK(has_slot == (seq->state == SequenceState::kRunning || seq->in_flight), seq->id, has_slot);
      if (has_slot) {
        SERVAL_CHECK(taken.insert(seq->slot).second, "two sequences in a slot", seq->slot);
        memory.check_sequence(slots[seq->slot], seq->tokens, seq->num_computed);
        SERVAL_CHECK(seq->num_computed < seq->num_known(), seq->num_computed, seq->num_known());
      } else {
        SERVAL_CHECK(seq->num_computed == 0, seq->id, seq->num_computed);
      }
      num_in_flight += seq->in_flight;
      num_unfinished += seq->state != SequenceState::kFinished;
      num_waiting += seq->state == SequenceState::kWaiting;
      num_running += seq->state == SequenceState::kRunning;
      somebody_waits = somebody_waits || seq->state == SequenceState::kParked;
      somebody_computes = somebody_computes || seq->state != SequenceState::kParked;
    }
    SERVAL_CHECK(members == request->num_live, request->request.id, members, request->num_live);
    SERVAL_CHECK(!somebody_waits || somebody_computes, "parked for nobody", request->request.id);
    num_used += members;
  }
  SERVAL_CHECK(num_live == num_unfinished, num_live, num_unfinished);
  SERVAL_CHECK(num_waiting == static_cast<int>(waiting.size()), num_waiting, waiting.size());
  SERVAL_CHECK(num_running == static_cast<int>(running.size()), num_running, running.size());
  SERVAL_CHECK(num_in_flight == static_cast<int>(in_flight.size()), num_in_flight, in_flight.size());
  SERVAL_CHECK(num_used + unused_sequences.size() == sequences.size(), num_used, unused_sequences.size());
  SERVAL_CHECK(by_id.size() + unused_requests.size() == requests.size(), by_id.size(),
               unused_requests.size());

  const auto in_order = [this](const std::vector<Sequence*>& line, SequenceState state) {
    for (size_t i = 0; i < line.size(); ++i) {
      SERVAL_CHECK(line[i]->state == state, i, line[i]->id);
      SERVAL_CHECK(i == 0 || goes_before(line[i - 1], line[i]), "out of order", i, line[i]->id);
    }
  };
  in_order(waiting, SequenceState::kWaiting);
  in_order(running, SequenceState::kRunning);

  for (const SlotId slot : free_slots) {
    SERVAL_CHECK(taken.insert(slot).second, "a slot is both free and taken", slot);
    for (const auto& table : slots[slot].tables) SERVAL_CHECK(table.empty(), slot, table.size());
    SERVAL_CHECK(slots[slot].node == kNoNode && slots[slot].shadows.empty(), slot);
  }
  SERVAL_CHECK(taken.size() == slots.size(), taken.size(), slots.size());

  // The oldest can always go on: what nobody but it holds, and what is available, is all there is.
  for (int g = 0; g < memory.geometry().num_groups; ++g) {
    const BlockPool& pool = memory.pool(g);
    int num_held = 0;
    for (BlockId id = 0; id < pool.num_blocks(); ++id) num_held += pool.num_holders(id) > 0;
    SERVAL_CHECK(num_held + pool.num_available() == pool.num_blocks(), g, num_held, pool.num_available());
  }
}

}  // namespace serval
