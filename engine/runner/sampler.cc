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

int num_sampled_rows(const SeqStep& step) {
  return step.sample ? 1 + step.num_drafts : 0;
}

// The draw of the token that follows position `pos`.
SampleRow sampled_row(const Slot& slot, int pos, const uint32_t* mask) {
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
  row.history = slot.tokens;
  row.num_history = pos + 1;
  row.num_prompt = slot.num_prompt;
  row.logit_bias = p.logit_bias.data();
  row.num_logit_bias = static_cast<int>(p.logit_bias.size());
  if (pos + 1 - slot.num_prompt < p.min_tokens) {
    row.banned = slot.end_ids.data();
    row.num_banned = static_cast<int>(slot.end_ids.size());
  }
  row.mask = mask;
  row.num_top = p.num_logprobs;
  return row;
}

SampleRow prompt_row(const Slot& slot, int pos) {
  SampleRow row;
  row.forced = slot.tokens[pos + 1];
  row.num_top = std::max(slot.sampling.num_prompt_logprobs, 0);
  return row;
}

// Drafts must be a chain so far: each token's parent is the one before it.
void check_chain(const Batch& batch, const SeqStep& step) {
  SERVAL_CHECK(step.num_drafts >= 0 && step.num_drafts < step.num_tokens, step.num_drafts, step.num_tokens);
  if (batch.parents.empty()) return;
  for (int i = step.num_tokens - step.num_drafts; i < step.num_tokens; ++i) {
    SERVAL_CHECK(batch.parents[step.tokens_begin + i] == i - 1, "drafts that branch are not verified yet", i,
                 batch.parents[step.tokens_begin + i]);
  }
}

}  // namespace

Sampler::Sampler(int max_rows) {
  rows_.reserve(max_rows);
  params_.reserve(max_rows);
  results_.reserve(max_rows);
  top_.reserve(static_cast<size_t>(max_rows) * kUsualTopLogprobs);
}

size_t Sampler::planned_bytes(int max_rows) {
  return max_rows * (sizeof(int32_t) + sizeof(SampleRow) + sizeof(SampleResult) +
                     kUsualTopLogprobs * sizeof(TopLogprob));
}

void Sampler::run(const Batch& batch, const SlotTable& slots, Transformer& transformer, Workspace& ws,
                  Backend& backend, ModelOutput& output) {
  want_rows(batch, slots, transformer.spec().vocab_size);
  sample_rows(transformer, ws, backend);
  collect(batch, slots, output);
}

void Sampler::want_rows(const Batch& batch, const SlotTable& slots, int vocab) {
  rows_.clear();
  params_.clear();
  const size_t mask_words = (static_cast<size_t>(vocab) + 31) / 32;
  int first_row = 0;
  for (const SeqStep& step : batch.seqs) {
    const Slot& slot = slots.of(step);
    check_chain(batch, step);
    for (int i = 0; i < num_prompt_rows(step, slot); ++i) {
      rows_.push_back(first_row + i);
      params_.push_back(prompt_row(slot, step.first_pos + i));
    }
    const int known = step.num_tokens - step.num_drafts;
    for (int i = 0; i < num_sampled_rows(step); ++i) {
      const uint32_t* mask = nullptr;
      if (step.mask >= 0) {
        SERVAL_CHECK((step.mask + i + 1) * mask_words <= batch.masks.size(), step.mask, i,
                     batch.masks.size());
        mask = batch.masks.data() + (step.mask + i) * mask_words;
      }
      rows_.push_back(first_row + known - 1 + i);
      params_.push_back(sampled_row(slot, step.first_pos + known - 1 + i, mask));
    }
    first_row += step.num_tokens;
  }
  top_stride_ = 0;
  for (SampleRow& row : params_) {
    row.num_top = std::min(row.num_top, vocab);
    top_stride_ = std::max(top_stride_, row.num_top);
  }
}

void Sampler::sample_rows(Transformer& transformer, Workspace& ws, Backend& backend) {
  results_.resize(rows_.size());
  top_.resize(rows_.size() * top_stride_);
  const std::span<const int32_t> rows(rows_);
  for (size_t begin = 0; begin < rows.size();) {
    const size_t count = std::min(rows.size() - begin, static_cast<size_t>(ws.max_logit_rows()));
    backend.sample({.logits = transformer.logits(rows.subspan(begin, count), ws),
                    .rows = params_.data() + begin,
                    .results = results_.data() + begin,
                    .top = top_.data() + begin * top_stride_,
                    .top_stride = top_stride_});
    begin += count;
  }
}

TokenOutput Sampler::emit(int index, ModelOutput& output) const {
  const SampleResult& result = results_[index];
  const int num_top = std::max(params_[index].num_top, 0);
  const auto top_begin = static_cast<int32_t>(output.top.size());
  const auto best = top_.begin() + static_cast<int64_t>(index) * top_stride_;
  output.top.insert(output.top.end(), best, best + num_top);
  return {.token = result.token,
          .logprob = result.logprob,
          .rank = result.rank,
          .top_begin = top_begin,
          .num_top = num_top};
}

void Sampler::collect(const Batch& batch, const SlotTable& slots, ModelOutput& output) {
  int next = 0;  // into results_
  for (const SeqStep& step : batch.seqs) {
    const int num_prompt = num_prompt_rows(step, slots.of(step));
    const int num_sampled = num_sampled_rows(step);
    const int first_sampled = next + num_prompt;
    SeqOutput out;
    out.seq = step.seq;
    out.tokens_begin = static_cast<int32_t>(output.tokens.size());
    out.prompt_begin = static_cast<int32_t>(output.prompt_tokens.size());
    const int real_without_doubt = num_prompt + std::min(num_sampled, 1);
    for (int i = next; i < next + real_without_doubt; ++i) out.failed |= !results_[i].finite;
    if (!out.failed) {
      for (int i = next; i < first_sampled; ++i) output.prompt_tokens.push_back(emit(i, output));
      out.num_prompt = num_prompt;
      const int first_draft = step.tokens_begin + step.num_tokens - step.num_drafts;
      for (int i = 0; i < num_sampled; ++i) {
        // Draw i > 0 is real when draw i - 1 equals its draft. One that is not finite is left to the next
        // step, where it is the first and fails the sequence.
        if (i > 0 && output.tokens.back().token != batch.tokens[first_draft + i - 1]) break;
        if (!results_[first_sampled + i].finite) break;
        output.tokens.push_back(emit(first_sampled + i, output));
        ++out.num_tokens;
      }
    }
    output.seqs.push_back(out);
    next = first_sampled + num_sampled;
  }
}

}  // namespace serval
