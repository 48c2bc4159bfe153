// The least that drives a Transformer: paged KV for a few sequences with scattered blocks, and one step at a
// time over any mix of their next tokens. No scheduler, no sampling.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/kv_geometry.h"
#include "engine/model/transformer.h"

namespace serval::testing {

class PagedDriver {
 public:
  // Sequences may become as long as max_len.
  PagedDriver(Transformer& transformer, Backend& backend, DType kv_dtype, int num_seqs, int max_len,
              int max_rows);

  struct Work {
    int seq = 0;
    std::span<const int32_t> tokens;  // the next ones of the sequence
    int second_text = 0;              // Request::second_text
  };
  // One forward over all of `work`. Returns every row's logits, [rows, vocab], rows in order of work.
  std::vector<float> step(std::span<const Work> work);

  // Feeds `tokens` to sequence `seq`, `chunk` at a time: every row's logits, [tokens, vocab].
  std::vector<float> run(int seq, std::span<const int32_t> tokens, int chunk, int second_text = 0);
  void restart(int seq) { length_[seq] = 0; }

 private:
  static int first_row_of(const ModelSpec& spec, int length);
  static constexpr int kBlockSize = 16;
  // A snapshot of a state stands at every second block.
  static KvRule rule_of(const KvGroupSpec& group) {
    return {{.window = group.window, .sinks = group.sinks, .state_span = group.keeps_state ? 2 * kBlockSize : 0}, kBlockSize};
  }
  // Blocks of a sequence lie apart, last ones first, so that a table is really looked up.
  int block_of(int seq, int index) const { return (blocks_per_seq_ - 1 - index) * num_seqs_ + seq; }

  Transformer& transformer_;
  Backend& backend_;
  int num_seqs_;
  int blocks_per_seq_;
  int first_row_;  // in the tables by position
  Workspace workspace_;
  std::unique_ptr<StepContext> context_;
  std::vector<Buffer> memory_;
  std::vector<KvLayer> kv_;
  std::vector<int> length_;
  // Of one step.
  std::vector<int32_t> far_queries_, far_keys_;
  std::vector<int32_t> ids_, positions_, token_types_, slots_, row_start_, first_pos_, rows_;
  std::vector<int32_t> tables_[kMaxKvGroups];
};

}  // namespace serval::testing
