#include "tests/engine/runner/runner_driver.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "kernels/base/check.h"

namespace serval::testing {
namespace {

constexpr int kSlots = 64;

Reported report(const TokenOutput& token, const std::vector<TopLogprob>& top) {
  Reported r{.token = token.token, .logprob = token.logprob, .rank = token.rank};
  for (int i = 0; i < token.num_top; ++i) {
    r.top_tokens.push_back(top[token.top_begin + i].token);
    r.top_logprobs.push_back(top[token.top_begin + i].logprob);
  }
  return r;
}

}  // namespace

RunnerDriver::RunnerDriver(ModelRunner& runner, uint64_t block_seed) : runner_(runner) {
  std::mt19937_64 rng(block_seed);
  free_slots_.resize(kSlots);
  std::iota(free_slots_.rbegin(), free_slots_.rend(), 0);
  const BlockGeometry& geometry = runner.plan().geometry;
  for (int g = 0; g < geometry.num_groups; ++g) {
    free_blocks_[g].resize(geometry.groups[g].num_blocks);
    std::iota(free_blocks_[g].begin(), free_blocks_[g].end(), 0);
    std::shuffle(free_blocks_[g].begin(), free_blocks_[g].end(), rng);
  }
}

SeqId RunnerDriver::add(std::vector<TokenId> prompt, const SamplingParams& sampling) {
  DrivenSeq& seq = seqs_[++next_id_];
  SERVAL_CHECK(!free_slots_.empty());
  seq.slot = free_slots_.back();
  free_slots_.pop_back();
  seq.sampling = sampling;
  seq.num_prompt = static_cast<int>(prompt.size());
  seq.tokens = std::move(prompt);
  return next_id_;
}

void RunnerDriver::finish(SeqId id, bool keep_blocks) {
  DrivenSeq& seq = seqs_.at(id);
  if (seq.admitted) batch_.freed.push_back(seq.slot);
  free_slots_.push_back(seq.slot);
  for (int g = 0; g < kMaxKvGroups && !keep_blocks; ++g)
    free_blocks_[g].insert(free_blocks_[g].end(), seq.blocks[g].begin(), seq.blocks[g].end());
  seqs_.erase(id);
}

BlockId RunnerDriver::take_block(int group) {
  SERVAL_CHECK(!free_blocks_[group].empty(), group);
  const BlockId block = free_blocks_[group].back();
  free_blocks_[group].pop_back();
  return block;
}

int RunnerDriver::step(const std::vector<Work>& work) {
  const BlockGeometry& geometry = runner_.plan().geometry;
  std::vector<std::vector<TokenId>> computed;
  for (const Work& w : work) {
    DrivenSeq& seq = seqs_.at(w.seq);
    if (!seq.admitted) {
      if (static_cast<size_t>(batch_.num_admitted) == batch_.admitted.size()) batch_.admitted.emplace_back();
      Admission& a = batch_.admitted[batch_.num_admitted++];
      a.seq = w.seq;
      a.slot = seq.slot;
      a.sampling = seq.sampling;
      a.tokens = seq.tokens;
      a.num_prompt = seq.num_prompt;
      for (int g = 0; g < geometry.num_groups; ++g) a.first_block[g] = seq.first_block[g];
      seq.admitted = true;
    }
    SeqStep s;
    s.seq = w.seq;
    s.slot = seq.slot;
    s.first_pos = seq.computed;
    s.tokens_begin = static_cast<int>(batch_.tokens.size());
    const int known = static_cast<int>(seq.tokens.size());
    const int count = std::min(w.num_tokens, known - seq.computed);
    s.num_drafts = static_cast<int>(w.drafts.size());
    s.num_tokens = count + s.num_drafts;
    s.sample = seq.computed + count == known;
    s.prompt_logprobs = seq.sampling.num_prompt_logprobs >= 0;
    s.mask = w.mask;
    batch_.tokens.insert(batch_.tokens.end(), seq.tokens.begin() + seq.computed,
                         seq.tokens.begin() + seq.computed + count);
    batch_.tokens.insert(batch_.tokens.end(), w.drafts.begin(), w.drafts.end());
    s.parents_begin = static_cast<int>(batch_.parents.size());
    for (int i = 0; i < s.num_drafts; ++i) batch_.parents.push_back(w.parents.empty() ? i - 1 : w.parents[i]);
    for (int g = 0; g < geometry.num_groups; ++g) {
      const int end = s.first_pos + s.num_tokens;
      while ((seq.first_block[g] + static_cast<int>(seq.blocks[g].size())) * geometry.block_size < end)
        seq.blocks[g].push_back(take_block(g));
      s.first_block[g] = seq.first_block[g] + seq.sent_blocks[g];
      s.blocks_begin[g] = static_cast<int>(batch_.blocks.size());
      s.num_blocks[g] = static_cast<int>(seq.blocks[g].size()) - seq.sent_blocks[g];
      batch_.blocks.insert(batch_.blocks.end(), seq.blocks[g].begin() + seq.sent_blocks[g],
                           seq.blocks[g].end());
      seq.sent_blocks[g] = static_cast<int>(seq.blocks[g].size());
    }
    seq.computed += count;
    batch_.seqs.push_back(s);
  }
  runner_.execute(batch_, output_);
  int produced = 0;
  for (size_t i = 0; i < work.size(); ++i) {
    const SeqOutput& out = output_.seqs[i];
    DrivenSeq& seq = seqs_.at(out.seq);
    seq.failed |= out.failed;
    for (int j = 0; j < out.num_prompt; ++j)
      seq.prompt.push_back(report(output_.prompt_tokens[out.prompt_begin + j], output_.top));
    for (int j = 0; j < out.num_tokens; ++j) {
      const TokenOutput& token = output_.tokens[out.tokens_begin + j];
      seq.tokens.push_back(token.token);
      seq.output.push_back(report(token, output_.top));
      if (j > 0) ++seq.computed;  // an accepted draft's KV is there
      ++produced;
    }
  }
  batch_.clear();
  return produced;
}

void RunnerDriver::run(SeqId id, int num_output, int chunk) {
  while (!seq(id).failed && static_cast<int>(seq(id).output.size()) < num_output)
    step({{.seq = id, .num_tokens = chunk}});
}

}  // namespace serval::testing
