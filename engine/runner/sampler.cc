#include "engine/runner/sampler.h"

#include <algorithm>
#include <span>

#include "kernels/base/check.h"

namespace serval {
namespace {

constexpr int kUsualTopLogprobs = 20;  // room for so many is there from the start

// The step's rows whose following token is a prompt token.
int num_prompt_rows(const SeqStep& step, const Slot& slot) {
  if (!step.prompt_logprobs) return 0;
  return std::clamp(slot.num_prompt - 1 - step.first_pos, 0, step.num_tokens);
}

int num_sampled_rows(const SeqStep& step, const Slot& slot) {
  return step.sample && slot.pooling == Pooling::kNone ? 1 + step.num_drafts : 0;
}

SampleRow prompt_row(const Slot& slot, int pos) {
  SampleRow row;
  row.forced = slot.tokens[pos + 1];
  row.num_top = std::max(slot.sampling.num_prompt_logprobs, 0);
  return row;
}

}  // namespace

SampleRow sampled_row(const Slot& slot, int pos, int vocab, const uint32_t* mask) {
  const SamplingParams& p = slot.sampling;
  SampleRow row;
  row.temperature = p.temperature;
  row.top_k = p.top_k;
  row.top_p = p.top_p;
  row.min_p = p.min_p;
  row.repetition_penalty = p.repetition_penalty;
  row.presence_penalty = p.presence_penalty;
  row.frequency_penalty = p.frequency_penalty;
  row.seed = p.seed;
  row.position = pos + 1;
  row.logit_bias = p.logit_bias.data();
  row.num_logit_bias = static_cast<int>(p.logit_bias.size());
  if (pos + 1 - slot.num_prompt < p.min_tokens) {
    row.banned = slot.end_ids.data();
    // In ascending order; what the model cannot draw needs no ban.
    row.num_banned = static_cast<int>(std::lower_bound(slot.end_ids.begin(), slot.end_ids.end(), vocab) -
                                      slot.end_ids.begin());
  }
  row.mask = mask;
  row.num_top = p.num_logprobs;
  return row;
}

Sampler::Sampler(int max_rows, int max_seqs, int max_branches, const GuessProbabilities& guessed_by) : guessed_by_(guessed_by) {
  drawn_.reserve(max_seqs);
  accepted_.reserve(max_rows);
  for (Step& step : steps_) {
    step.seqs.reserve(max_seqs);
    step.drafts.reserve(max_rows);
    step.branch_tokens.reserve(size_t{kMaxDrafts} * max_branches);
    step.rules.reserve(max_rows);
    step.guesses.reserve(max_rows);
    step.rows.reserve(max_rows);
    step.params.reserve(max_rows);
    step.counted.reserve(max_seqs);
    step.results.reserve(max_rows);
    step.top.reserve(static_cast<size_t>(max_rows) * kUsualTopLogprobs);
  }
}

size_t Sampler::planned_bytes(int max_rows, int max_seqs, int max_branches) {
  return 2 * (sizeof(TokenId) * kMaxDrafts * max_branches +
              max_rows * (sizeof(Draft) + 2 * sizeof(int32_t) + sizeof(GuessRule) + sizeof(SampleRow) + sizeof(SampleResult) +
                          kUsualTopLogprobs * sizeof(TopLogprob)) +
              max_seqs * (sizeof(Wanted) + sizeof(CountedTokens))) +
         max_seqs * sizeof(Drawn) + max_rows * sizeof(int32_t);
}

void Sampler::begin(const Batch& batch, SlotTable& slots, const Tensor* all_logits, Transformer& transformer,
                    Workspace& ws, StepContext& context) {
  SERVAL_CHECK(num_begun_ - num_collected_ < 2, num_begun_, num_collected_);
  Step& step = steps_[num_begun_++ % 2];
  step.number = batch.step;
  want_rows(batch, slots, transformer.spec().vocab_size, step);
  draw(all_logits, transformer, ws, context, step);
}

// Noise of its own: that of the request's seed is what guesses are drawn with, and what was guessed would tell of it.
constexpr uint64_t kSeedOfTarget = 0xa54ff53a5f1d36f1ull;

// What was guessed to follow a guess (-1: the last token) takes part in the draw of it. Where a grammar has cut guesses it
// is not known by which probabilities those that are left were chosen: they are taken as certain ones.
void Sampler::let_guesses_decide(const Slot& slot, const Wanted& wanted, int draft, std::span<const TokenId> branch,
                                 bool is_constrained, Step& step) const {
  SampleRow& row = step.params.back();
  row.seed ^= kSeedOfTarget;
  GuessRule rule{.is_typical = slot.speculation.acceptance == Acceptance::kTypical};
  const size_t begin = step.guesses.size();
  for (int i = draft + 1; i < wanted.num_drafts; ++i) {
    const Draft& guess = step.drafts[wanted.first_draft + i];
    if (guess.parent == draft) step.guesses.push_back(guess.token);
  }
  rule.guesses = step.guesses.data() + begin;
  rule.num_guesses = static_cast<int>(step.guesses.size() - begin);
  if (rule.num_guesses > 0 && !rule.is_typical && !is_constrained)
    rule.drawn_by = guessed_by_.find(slot, wanted.slot, wanted.next_pos, branch, rule.guesses[0]);
  row.guess = &step.rules.emplace_back(rule);
}

void Sampler::want_rows(const Batch& batch, SlotTable& slots, int vocab, Step& out) const {
  out.seqs.clear();
  out.rules.clear();
  out.guesses.clear();
  out.drafts.clear();
  out.branch_tokens.clear();
  out.rows.clear();
  out.params.clear();
  out.counted.clear();
  const size_t mask_words = (static_cast<size_t>(vocab) + 31) / 32;
  int first_row = 0;
  for (const SeqStep& step : batch.seqs) {
    const Slot& slot = slots.of(step);
    SERVAL_CHECK(step.num_drafts >= 0 && step.num_drafts < step.num_tokens && step.num_drafts <= kMaxDrafts,
                 step.num_drafts, step.num_tokens);
    const int known = step.num_tokens - step.num_drafts;
    const Wanted wanted{.seq = step.seq,
                        .slot = step.slot,
                        .first_pos = step.first_pos,
                        .next_pos = step.first_pos + known,
                        .num_prompt = num_prompt_rows(step, slot),
                        .num_sampled = num_sampled_rows(step, slot),
                        .first_sampled = first_row + known - 1,
                        .first_draft = static_cast<int32_t>(out.drafts.size()),
                        .num_drafts = step.num_drafts,
                        .is_pooled_whole = step.sample && slot.pooling != Pooling::kNone};
    out.seqs.push_back(wanted);
    for (int i = 0; i < step.num_drafts; ++i) {
      const int32_t parent = batch.parents[step.parents_begin + i];
      SERVAL_CHECK(parent >= -1 && parent < i, i, parent);
      out.drafts.push_back({batch.tokens[step.tokens_begin + known + i], parent});
    }
    for (int i = 0; i < wanted.num_prompt; ++i) {
      out.rows.push_back(first_row + i);
      out.params.push_back(prompt_row(slot, step.first_pos + i));
    }
    for (int i = 0; i < wanted.num_sampled; ++i) {
      const uint32_t* mask = nullptr;
      if (step.mask >= 0) {
        SERVAL_CHECK((step.mask + i + 1) * mask_words <= batch.masks.size(), step.mask, i,
                     batch.masks.size());
        mask = batch.masks.data() + (step.mask + i) * mask_words;
      }
      out.rows.push_back(first_row + known - 1 + i);
      const std::span<const TokenId> branch = branch_of(slot, wanted, i - 1, out);
      const int pos = step.first_pos + known - 1 + static_cast<int>(branch.size());
      SampleRow& row = out.params.emplace_back(sampled_row(slot, pos, vocab, mask));
      if (slot.speculation.acceptance == Acceptance::kExit) {
        // What was guessed is the token: the row tells how probable it was.
        if (i < step.num_drafts) row.forced = out.drafts[wanted.first_draft + i].token;
      } else if (slot.speculation.acceptance != Acceptance::kExact) {
        let_guesses_decide(slot, wanted, i - 1, branch, mask != nullptr, out);
      }
      if (row.has_penalty()) {
        if (i == 0) {
          const CountedTokens counted = slots.count_known(step.slot, step.first_pos + known);
          if (counted.num_tokens > 0) out.counted.push_back(counted);
        }
        row.counts_slot = step.slot;
        // What is not counted yet. With drafts all known tokens are.
        SERVAL_CHECK(branch.empty() || slot.num_counted == wanted.next_pos, slot.num_counted, wanted.next_pos);
        row.recent = branch.empty() ? slot.tokens + slot.num_counted : branch.data();
        row.num_recent = pos + 1 - slot.num_counted;
      }
      // With drafts only the host can tell which of the draws is the last.
      if (step.num_drafts == 0) row.slot = step.slot;
    }
    first_row += step.num_tokens;
  }
  out.top_stride = 0;
  for (SampleRow& row : out.params) {
    row.num_top = std::min(row.num_top, vocab);
    out.top_stride = std::max(out.top_stride, row.num_top);
  }
}

// The drafts from the last known token to this one (-1: none). A chain's stand in the slot as the text would.
std::span<const TokenId> Sampler::branch_of(const Slot& slot, const Wanted& wanted, int draft, Step& step) {
  const Draft* const drafts = step.drafts.data() + wanted.first_draft;
  int depth = 0;
  bool is_chain = true;
  for (int i = draft; i >= 0; i = drafts[i].parent, ++depth) is_chain &= drafts[i].parent == i - 1;
  const auto count = static_cast<size_t>(depth);
  if (is_chain) return {slot.tokens + wanted.next_pos, count};
  const size_t begin = step.branch_tokens.size();
  SERVAL_CHECK(begin + count <= step.branch_tokens.capacity(), begin, count);  // rows point into it
  step.branch_tokens.resize(begin + count);
  for (int i = draft; i >= 0; i = drafts[i].parent) step.branch_tokens[begin + --depth] = drafts[i].token;
  return {step.branch_tokens.data() + begin, count};
}

void Sampler::draw(const Tensor* all_logits, Transformer& transformer, Workspace& ws, StepContext& context,
                   Step& step) {
  step.results.resize(step.rows.size());
  step.top.resize(step.rows.size() * step.top_stride);
  step.ticket = -1;
  const std::span<const int32_t> rows(step.rows);
  for (size_t begin = 0; begin < rows.size();) {
    const size_t count = std::min(rows.size() - begin, static_cast<size_t>(ws.max_logit_rows()));
    Tensor logits;
    if (all_logits != nullptr) {
      SERVAL_CHECK(count == rows.size(), count, rows.size());
      logits = *all_logits;
      logits.dims[0] = static_cast<int64_t>(count);
    } else {
      logits = transformer.logits(rows.subspan(begin, count), ws);
    }
    if (step.ticket >= 0) context.wait_sampled(step.ticket);
    step.ticket = context.sample({.logits = logits,
                                  .rows = step.params.data() + begin,
                                  .results = step.results.data() + begin,
                                  .top = step.top.data() + begin * step.top_stride,
                                  .top_stride = step.top_stride,
                                  .counted = step.counted.data(),
                                  .num_counted = begin == 0 ? static_cast<int>(step.counted.size()) : 0});
    begin += count;
  }
}

TokenOutput Sampler::emit(const Step& step, int index, ModelOutput& output) {
  const SampleResult& result = step.results[index];
  const int num_top = std::max(step.params[index].num_top, 0);
  const auto top_begin = static_cast<int32_t>(output.top.size());
  const auto best = step.top.begin() + static_cast<int64_t>(index) * step.top_stride;
  output.top.insert(output.top.end(), best, best + num_top);
  return {.token = result.token,
          .logprob = result.logprob,
          .rank = result.rank,
          .top_begin = top_begin,
          .num_top = num_top};
}

std::span<const Sampler::Drawn> Sampler::collect(SlotTable& slots, StepContext& context, ModelOutput& output) {
  SERVAL_CHECK(num_collected_ < num_begun_, num_collected_, num_begun_);
  const Step& step = steps_[num_collected_++ % 2];
  if (step.ticket >= 0) context.wait_sampled(step.ticket);
  output.step = step.number;
  drawn_.clear();
  accepted_.clear();
  int next = 0;  // into results
  for (const Wanted& wanted : step.seqs) {
    const int first_sampled = next + wanted.num_prompt;
    SeqOutput out;
    out.seq = wanted.seq;
    out.tokens_begin = static_cast<int32_t>(output.tokens.size());
    out.prompt_begin = static_cast<int32_t>(output.prompt_tokens.size());
    const int real_without_doubt = wanted.num_prompt + std::min(wanted.num_sampled, 1);
    for (int i = next; i < next + real_without_doubt; ++i) out.failed |= !step.results[i].finite;
    if (!out.failed) {
      for (int i = next; i < first_sampled; ++i) output.prompt_tokens.push_back(emit(step, i, output));
      out.num_prompt = wanted.num_prompt;
      if (wanted.is_pooled_whole) {  // whose end is told by a token, whichever
        output.tokens.push_back({.token = 0});
        out.num_tokens = 1;
      }
      const Draft* const drafts = step.drafts.data() + wanted.first_draft;
      // A draft's draw is real when the draft is what was drawn before it. One that is not finite is left to the
      // next step, where it is the first and fails the sequence.
      for (int draft = -1; wanted.num_sampled > 0;) {
        const int result = first_sampled + 1 + draft;
        if (!step.results[result].finite) break;
        const TokenId token = output.tokens.emplace_back(emit(step, result, output)).token;
        slots.learn(wanted.seq, wanted.slot, wanted.next_pos + out.num_tokens++, token);
        if (draft >= 0) accepted_.push_back(draft);
        int next = draft + 1;
        while (next < wanted.num_drafts && (drafts[next].parent != draft || drafts[next].token != token)) ++next;
        if (next == wanted.num_drafts) break;
        draft = next;
      }
    }
    output.seqs.push_back(out);
    const auto num_accepted = std::max(0, out.num_tokens - 1);
    drawn_.push_back({.slot = wanted.slot,
                      .num_known = out.num_tokens > 0 ? wanted.next_pos + out.num_tokens : 0,
                      .first_pos = wanted.first_pos,
                      .end_computed = wanted.next_pos,
                      .first_draft_pos = wanted.next_pos,
                      .num_drafts = wanted.num_drafts,
                      .accepted_begin = static_cast<int32_t>(accepted_.size()) - num_accepted,
                      .num_accepted = num_accepted,
                      .drafts_begin = wanted.first_draft,
                      .draws_begin = first_sampled,
                      .first_row = wanted.first_sampled + 1 - (wanted.next_pos - wanted.first_pos)});
    next = first_sampled + wanted.num_sampled;
  }
  return drawn_;
}

std::span<const Draft> Sampler::tried(const Drawn& drawn) const {
  const Step& step = steps_[(num_collected_ - 1) % 2];
  return {step.drafts.data() + drawn.drafts_begin, static_cast<size_t>(drawn.num_drafts)};
}

std::span<const SampleResult> Sampler::draws(const Drawn& drawn) const {
  const Step& step = steps_[(num_collected_ - 1) % 2];
  return {step.results.data() + drawn.draws_begin, static_cast<size_t>(drawn.num_drafts + 1)};
}

}  // namespace serval
