// A model without a model: a function Batch -> ModelOutput whose tokens depend on the sequence's own history
// alone, so that any two schedules of the same request must give the same tokens. What it writes at a
// position is, as a real model's KV, a function of all tokens up to there (and of the cache's salt, where a
// test tells it), so that a wrong block table, copy or reuse shows, also that of equal tokens behind other
// ones. A token that only the device knows it takes from the slot, if the batch before drew it. Guesses it
// verifies along the branch that comes true, whose cells end up in their places; the others' keep what they have.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "engine/batch.h"
#include "engine/kv_geometry.h"
#include "kernels/base/check.h"

namespace serval {

class FakeRunner {
 public:
  explicit FakeRunner(const BlockGeometry& geometry, int vocab = 50) : geometry_(geometry), vocab_(vocab) {
    for (int g = 0; g < geometry.num_groups; ++g) {
      memory_[g].assign(static_cast<size_t>(geometry.groups[g].num_blocks) * geometry.block_size, 0);
    }
  }

  std::function<bool(SeqId, int position)> fails;  // optional: which rows have no finite logits
  std::function<uint64_t(SeqId)> salt_of;          // optional: sequences of different ones share no block
  // optional: adds guesses of what follows the tokens of a sequence with that seed
  std::function<void(const std::vector<TokenId>& known, uint64_t seed, std::vector<Draft>& guesses)> propose;

  void operator()(const Batch& batch, ModelOutput& output) {
    output.clear();
    output.step = batch.step;
    ++num_batches_;
    for (const SlotId slot : batch.freed) slots_.erase(slot);
    for (int32_t i = 0; i < batch.num_admitted; ++i) {
      const Admission& a = batch.admitted[i];
      SERVAL_CHECK(!slots_.count(a.slot), a.slot);
      Slot& slot = slots_[a.slot];
      slot.seq = a.seq;
      slot.sampling = a.sampling;
      slot.tokens = a.tokens;
      slot.num_prompt = a.num_prompt;
      slot.kv.assign(1, salt_of ? ~salt_of(a.seq) : ~uint64_t{0});
      for (int g = 0; g < geometry_.num_groups; ++g) slot.table[g].assign(a.first_block[g], -1);
    }
    for (const GroupBlockCopy& c : batch.copies) {
      const int cells = is_state(c.group) ? 1 : c.copy.num_tokens;
      for (int i = 0; i < cells; ++i) cell(c.group, c.copy.to, i) = cell(c.group, c.copy.from, i);
    }
    for (const SeqStep& step : batch.seqs) write(batch, step);
    for (const SeqStep& step : batch.seqs) output.seqs.push_back(read(batch, step, output));
  }

  // The token a history leads to.
  TokenId next_token(const std::vector<TokenId>& history, uint64_t seed) const {
    uint64_t h = 0xcbf29ce484222325ull ^ seed;
    for (const TokenId t : history) h = (h ^ static_cast<uint64_t>(t)) * 0x100000001b3ull;
    h ^= h >> 31;
    return static_cast<TokenId>(h % vocab_);
  }

 private:
  struct Slot {
    SeqId seq = 0;
    SamplingParams sampling;
    std::vector<TokenId> tokens;
    std::vector<uint64_t> kv;  // [positions + 1]: at p + 1 what belongs into the cells of position p
    int num_prompt = 0;
    uint64_t last_draw = 0;  // the batch that drew the last of the tokens
    std::vector<BlockId> table[kMaxKvGroups];
  };
  static uint64_t mix(uint64_t h, TokenId token) {
    h = (h ^ static_cast<uint32_t>(token)) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
  }
  static uint64_t kv_of(Slot& slot, int position) {
    while (static_cast<int>(slot.kv.size()) <= position + 1)
      slot.kv.push_back(mix(slot.kv.back(), slot.tokens.at(slot.kv.size() - 1)));
    return slot.kv[position + 1];
  }
  bool is_state(int group) const { return geometry_.groups[group].state_span > 0; }
  // Of a state the cell is the whole block.
  uint64_t& cell_at(Slot& slot, int group, int position) {
    const int span = geometry_.rule(group).span();
    return cell(group, slot.table[group].at(position / span), is_state(group) ? 0 : position % span);
  }
  uint64_t& cell(int group, BlockId block, int offset) {
    SERVAL_CHECK(block >= 0, group, offset);
    return memory_[group][static_cast<size_t>(block) * geometry_.block_size + offset];
  }

  // What belongs into the cells of a guess: a function of all tokens up to it along its branch.
  uint64_t kv_of_draft(Slot& slot, const Batch& batch, const SeqStep& step, int draft) {
    if (draft < 0) return kv_of(slot, step.first_pos + step.num_tokens - step.num_drafts - 1);
    return mix(kv_of_draft(slot, batch, step, parent_of(batch, step, draft)), draft_token(batch, step, draft));
  }
  static int parent_of(const Batch& batch, const SeqStep& step, int draft) {
    return batch.parents.at(step.parents_begin + draft);
  }
  static TokenId draft_token(const Batch& batch, const SeqStep& step, int draft) {
    return batch.tokens.at(step.tokens_begin + step.num_tokens - step.num_drafts + draft);
  }

  void write(const Batch& batch, const SeqStep& step) {
    Slot& slot = slots_.at(step.slot);
    SERVAL_CHECK(slot.seq == step.seq, slot.seq, step.seq);
    const int num_known = step.num_tokens - step.num_drafts;
    for (int g = 0; g < geometry_.num_groups; ++g) {
      SERVAL_CHECK(step.first_block[g] <= static_cast<int>(slot.table[g].size()), step.seq, step.first_block[g]);
      slot.table[g].resize(step.first_block[g]);
      for (int i = 0; i < step.num_blocks[g]; ++i)
        slot.table[g].push_back(batch.blocks[step.blocks_begin[g] + i]);
      if (is_state(g) && step.first_pos > 0) {
        const uint64_t seen = cell_at(slot, g, step.first_pos - 1);
        SERVAL_CHECK(seen == kv_of(slot, step.first_pos - 1), step.seq, g, step.first_pos);
      }
      for (int i = 0; i < num_known; ++i) {
        const int pos = step.first_pos + i;
        TokenId token = batch.tokens[step.tokens_begin + i];
        if (token == kTokenOnDevice) {
          SERVAL_CHECK(slot.last_draw + 1 == num_batches_ && i + 1 == step.num_tokens, step.seq, pos,
                       slot.last_draw, num_batches_);
          token = slot.tokens.back();
        }
        SERVAL_CHECK(pos < static_cast<int>(slot.tokens.size()) && slot.tokens[pos] == token, pos, token);
        cell_at(slot, g, pos) = kv_of(slot, pos);
      }
      for (int i = 0; i < step.num_drafts && !is_state(g); ++i)  // a state takes no guess in
        cell_at(slot, g, step.first_pos + num_known + i) = kv_of_draft(slot, batch, step, i);
    }
  }

  SeqOutput read(const Batch& batch, const SeqStep& step, ModelOutput& output) {
    Slot& slot = slots_.at(step.slot);
    SeqOutput out;
    out.seq = step.seq;
    const int last = step.first_pos + step.num_tokens - step.num_drafts - 1;
    SERVAL_CHECK(step.num_drafts == 0 || last + 1 == static_cast<int>(slot.tokens.size()), step.seq, last);
    check_window(slot, last, last);
    out.prompt_begin = static_cast<int32_t>(output.prompt_tokens.size());
    for (int pos = step.first_pos + 1; step.prompt_logprobs && pos <= last + 1 && pos < slot.num_prompt;
         ++pos) {
      output.prompt_tokens.push_back({slot.tokens[pos], -2.0f, 1, 0, 0});
      ++out.num_prompt;
    }
    out.failed = fails && fails(step.seq, last);
    if (!step.sample) return out;
    out.tokens_begin = static_cast<int32_t>(output.tokens.size());
    // Only without guesses does the device know which draw is the last.
    slot.last_draw = step.num_drafts == 0 ? num_batches_ : 0;
    if (out.failed) {  // leaves some token, too, for the step that may already wait behind
      slot.tokens.push_back(0);
      return out;
    }
    int draft = -1;
    for (int pos = last;; ++pos) {
      const TokenId token = next_token(slot.tokens, slot.sampling.seed);
      slot.tokens.push_back(token);
      ++out.num_tokens;
      output.tokens.push_back({token, -1.0f, 1, 0, 0});
      int next = draft + 1;
      while (next < step.num_drafts &&
             (parent_of(batch, step, next) != draft || draft_token(batch, step, next) != token))
        ++next;
      if (next >= step.num_drafts || (fails && fails(step.seq, pos + 1))) break;
      for (int g = 0; g < geometry_.num_groups; ++g) {
        SERVAL_CHECK(!is_state(g) || parent_of(batch, step, next) == next - 1, step.seq, next);  // a chain
        if (!is_state(g)) cell_at(slot, g, pos + 1) = cell_at(slot, g, last + 1 + next);  // a branch moves together
      }
      check_window(slot, pos + 1, last);
      draft = next;
    }
    if (propose) {
      out.drafts_begin = static_cast<int32_t>(output.drafts.size());
      propose(slot.tokens, slot.sampling.seed, output.drafts);
      out.num_drafts = static_cast<int32_t>(output.drafts.size()) - out.drafts_begin;
    }
    return out;
  }

  // What a row at the position reads is what belongs there. Positions behind `known` are guesses that came true.
  void check_window(Slot& slot, int position, int known) {
    for (int g = 0; g < geometry_.num_groups; ++g) {
      if (is_state(g)) continue;  // it was read before it was written
      const int window = geometry_.groups[g].window, sinks = geometry_.groups[g].sinks;
      for (int pos = 0; pos <= position; ++pos) {
        if (window > 0 && pos >= sinks && pos <= position - window) continue;
        const uint64_t seen = cell_at(slot, g, pos);
        SERVAL_CHECK(seen == kv_of(slot, pos), slot.seq, g, pos, known, slot.tokens[pos]);
      }
    }
  }

  BlockGeometry geometry_;
  int vocab_;
  uint64_t num_batches_ = 0;
  std::vector<uint64_t> memory_[kMaxKvGroups];
  std::map<SlotId, Slot> slots_;
};

}  // namespace serval
