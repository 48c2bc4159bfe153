// One decode stream of a request, and a request with all the memory its streams will ever need, as the
// scheduler sees them. Private to engine/scheduler, but for the RequestState that a submitting thread prepares.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/batch.h"
#include "engine/request.h"
#include "engine/scheduler/kv_manager.h"

namespace serval {

enum class SeqState : uint8_t {
  kWaiting,   // in the queue; holds no block
  kRunning,   // in a slot
  kFinished,  // its finish was published; gone as soon as no step holds it
};

// Leaves of a tree of guesses what goes on from `token`.
inline void follow(std::vector<Draft>& drafts, TokenId token) {
  std::array<int32_t, kMaxDrafts> place;  // of those that stay; -1: the token itself, -2: gone
  size_t num_left = 0;
  bool is_found = false;
  for (size_t i = 0; i < drafts.size(); ++i) {
    const Draft draft = drafts[i];
    place[i] = -2;
    if (draft.parent < 0) {
      if (is_found || draft.token != token) continue;
      is_found = true;
      place[i] = -1;
    } else if (place[draft.parent] > -2) {
      place[i] = static_cast<int32_t>(num_left);
      drafts[num_left++] = {draft.token, place[draft.parent], draft.by};
    }
  }
  drafts.resize(num_left);
}

// Leaves of a tree of guesses those in the set; what stands behind one that goes, goes too.
inline void keep(std::vector<Draft>& drafts, uint64_t set) {
  std::array<int32_t, kMaxDrafts> place;  // of those that stay; -1: gone
  int32_t num_left = 0;
  for (size_t i = 0; i < drafts.size(); ++i) {
    const Draft draft = drafts[i];
    const bool stays = (set >> i & 1) != 0 && (draft.parent < 0 || place[draft.parent] >= 0);
    place[i] = stays ? num_left : -1;
    if (stays) drafts[num_left++] = {draft.token, draft.parent < 0 ? -1 : place[draft.parent], draft.by};
  }
  drafts.resize(num_left);
}

// Leaves of a tree of guesses a chain: of those behind each other the first.
inline void keep_first_branch(std::vector<Draft>& drafts) {
  int32_t last = -1, num_left = 0;  // of all, of those that stay
  for (int32_t i = 0; i < static_cast<int32_t>(drafts.size()); ++i) {
    if (drafts[i].parent != last) continue;
    last = i;
    drafts[num_left] = {drafts[i].token, num_left - 1, drafts[i].by};
    ++num_left;
  }
  drafts.resize(num_left);
}

struct Flow;
struct RequestState;

struct Sequence {
  RequestState* of = nullptr;  // whose n sequences are siblings
  SeqId id = 0;
  int32_t index = 0;           // which of the request's n
  uint64_t arrival = 0;        // order of age; a preempted sequence keeps its own
  Sequence* parent = nullptr;  // choice 0, while this one waits to fork from it; nullptr otherwise
  SeqState state = SeqState::kWaiting;

  // Known tokens: the prompt, then output; then one kTokenOnDevice for each token that a step in flight
  // draws.
  std::vector<TokenId> tokens;
  int32_t max_len = 0;   // prompt and output, when it ends by length; the last one's KV is not needed
  int32_t num_unknown = 0;   // tokens at the end that are not known yet
  int32_t num_computed = 0;  // positions whose KV is there: the rule is that this catches up with the tokens
  int32_t num_rows_ahead = 0;  // positions behind them that steps in flight compute
  // Guesses that came true and are computed a second time, as known tokens, where layers keep a state: it took none in. They
  // are planned with the token behind them.
  int32_t num_to_replay = 0;
  int32_t num_in_flight = 0;   // steps that hold it: until they are over it keeps slot and blocks

  // Of output tokens, from the first, whose masks are there; where they are constrained. With the last come those
  // behind its guesses.
  int32_t num_masks = 1;

  // Guesses of what follows the known tokens: they wait for a step, or are in the one that holds it.
  std::vector<Draft> drafts;
  DraftCounts draft_counts;

  SlotId slot = -1;
  SequenceKv kv;
  int32_t cached_tokens = 0;  // prompt tokens found in the cache when first admitted
  Time first_scheduled{0};
  bool admitted_before = false;
  // What it lacked when it was refused: until so many blocks are free or only cached, or the cache has more of
  // its tokens, or somebody else was admitted, it would be refused again.
  struct Refusal {
    std::array<int32_t, kMaxKvGroups> wanted{};
    uint64_t num_admitted = 0;
  };
  std::optional<Refusal> refusal;
  int32_t num_prompt_reported = 0;  // prompt positions whose log-probabilities were published

  // Its place among those who want their prompt computed (flows.h).
  Flow* flow = nullptr;
  int32_t queued_tokens = 0;  // its part of the scheduler's waiting_tokens_
  bool is_in_line = false;  // waiting and admissible: no fork whose prompt is being computed, never admitted
  Sequence *before_in_line = nullptr, *behind_in_line = nullptr;
  int32_t short_place = -1;
  int32_t overtaken = 0;  // tokens of those that were admitted while this one was refused for lack of memory
  // While a step is planned.
  Sequence* next_prompt = nullptr;  // of its flow
  int32_t granted = 0;              // rows of the step, not yet part of it
  uint64_t admitted_in = 0;         // the step that last gave it a slot

  inline const Request& request() const;
  inline int32_t num_prompt() const;
  int32_t num_known() const { return static_cast<int32_t>(tokens.size()) - num_unknown; }
  int32_t num_output() const { return num_known() - num_prompt(); }
  int32_t next_row() const { return num_computed + num_rows_ahead; }
  // A state is gone with the row behind it: the others fork from where this one stands.
  inline bool stops_for_forks() const;
  bool waits_for_mask() const { return request().constrained && num_output() >= num_masks; }
  // Rows that can be planned, guesses aside. A constrained sequence waits for its token: without it there is no
  // mask; until that is there the last row, which draws, waits. One with guesses waits for its step: how many tokens
  // that draws is not known.
  int32_t num_to_plan() const {
    if (num_unknown > 0 && (request().constrained || !drafts.empty())) return 0;
    if (num_to_replay > 0 && waits_for_mask()) return 0;
    const int32_t end = std::min(static_cast<int32_t>(tokens.size()) - waits_for_mask(), max_len - 1);
    return (stops_for_forks() ? std::min(end, num_prompt() - 1) : end) - next_row();
  }
  bool is_decoding() const { return num_to_plan() == 1 + num_to_replay; }
  bool is_prompt() const { return num_to_plan() > 1 + num_to_replay; }
  // While it waits: rows that it would take if nothing of it were cached.
  int32_t num_to_compute() const { return parent ? 1 : num_known(); }
  // Whether log-probabilities of its prompt are wanted and not told yet. The prompt is one: choice 0 tells
  // them.
  bool reports_prompt() const {
    return index == 0 && request().sampling.num_prompt_logprobs >= 0 &&
           num_prompt_reported < num_prompt() - 1;
  }
  // Tokens that the cache may serve, all but the last: rows whose log-probabilities are not told are
  // computed.
  std::span<const TokenId> to_look_up() const {
    if (request().pooling > Pooling::kLast) return {};  // every row is read
    return {tokens.data(), reports_prompt() ? static_cast<size_t>(num_prompt_reported) : tokens.size() - 1};
  }
  // A token that a step has drawn: the oldest that was not known, or one more.
  void take(TokenId token) {
    follow(drafts, token);
    if (num_unknown == 0) return tokens.push_back(token);
    tokens[num_known()] = token;
    --num_unknown;
  }
};

// Scheduler::prepare makes it on the thread that submits: token histories with room for all output, block
// tables of the full length. The scheduler fills them without allocating, and gives the whole back when the
// last sequence is gone.
struct RequestState {
  Request request;  // its prompt has moved into the first sequence
  int32_t num_prompt = 0;
  int32_t length_class = 0;                     // of BlockGeometry::lengths, by the longest it may become
  bool stops_for_forks = false;                 // choice 0 is not planned past the last position that they share
  std::vector<Sequence> sequences;              // the request's n; they never move
  int32_t num_gone = 0;                         // of them: finished, and held by no step
  int32_t deadline_place = -1;                  // among those with a deadline
  RequestState* next_in_bucket = nullptr;         // of OpenRequests
  RadixCache::NodeId root = RadixCache::kNone;  // of its salt in the prefix cache, pinned; kNone: not yet
};

const Request& Sequence::request() const {
  return of->request;
}
int32_t Sequence::num_prompt() const {
  return of->num_prompt;
}
bool Sequence::stops_for_forks() const {
  return of->stops_for_forks && index == 0 && num_computed < num_prompt() - 1;
}

}  // namespace serval
