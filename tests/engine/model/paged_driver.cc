#include "tests/engine/model/paged_driver.h"

#include <algorithm>
#include <numeric>

#include "kernels/base/check.h"

namespace serval::testing {

int PagedDriver::first_row_of(const ModelSpec& spec, int length) {
  const LengthClasses classes = spec.length_classes();
  return classes.first_row(classes.class_of(length));
}

PagedDriver::PagedDriver(Transformer& transformer, Backend& backend, DType kv_dtype, int num_seqs,
                         int max_len, int max_rows)
    : transformer_(transformer),
      backend_(backend),
      num_seqs_(num_seqs),
      blocks_per_seq_((max_len + kBlockSize - 1) / kBlockSize),
      first_row_(first_row_of(transformer.spec(), max_len)),
      workspace_(transformer.spec(), max_rows, max_rows, backend),
      context_(backend.make_step_context(Transformer::step_limits(transformer.spec(),
                                                                  {.max_rows = max_rows,
                                                                   .max_logit_rows = max_rows,
                                                                   .max_seqs = num_seqs,
                                                                   .max_model_len = max_len,
                                                                   .table_stride = blocks_per_seq_}))),
      length_(num_seqs, 0) {
  for (const LayerSpec& layer : transformer.spec().layers) {
    KvLayer kv{.dtype = kv_dtype,
               .num_blocks = blocks_per_seq_ * num_seqs,
               .block_size = rule_of(transformer.spec().kv_groups[layer.kv_group]).span()};
    std::visit([&](const auto& mixer) { mixer.shape_kv(kv); }, layer.mixer);
    for (const auto& [side, bytes] : {std::pair{&kv.keys, kv.key_bytes()}, {&kv.values, kv.value_bytes()}}) {
      memory_.push_back(backend.allocate(bytes * kv.num_blocks));
      *side = memory_.back().data();
    }
    kv_.push_back(kv);
  }
}

std::vector<float> PagedDriver::step(std::span<const Work> work) {
  const std::vector<KvGroupSpec>& groups = transformer_.spec().kv_groups;
  const LongAttention& far = transformer_.spec().long_attention;
  for (std::vector<int32_t>* array : {&ids_, &positions_, &token_types_, &far_queries_, &far_keys_, &slots_, &row_start_, &first_pos_}) array->clear();
  for (std::vector<int32_t>& table : tables_) table.assign(work.size() * blocks_per_seq_, -1);
  row_start_.push_back(0);
  for (size_t i = 0; i < work.size(); ++i) {
    const auto& [seq, tokens, second_text] = work[i];
    const int first = length_[seq];
    first_pos_.push_back(first);
    for (const int32_t id : tokens) {
      const int position = length_[seq]++;
      ids_.push_back(id);
      positions_.push_back(first_row_ + position);
      token_types_.push_back(second_text > 0 && position >= second_text ? 1 : 0);
      if (far.is_there()) {
        far_queries_.push_back(far.far_query_row(position));
        far_keys_.push_back(far.far_key_row(position));
      }
      slots_.push_back(block_of(seq, position / kBlockSize) * kBlockSize + position % kBlockSize);
    }
    row_start_.push_back(static_cast<int32_t>(ids_.size()));
    SERVAL_CHECK(length_[seq] <= blocks_per_seq_ * kBlockSize, length_[seq]);
    for (size_t g = 0; g < groups.size(); ++g) {
      // A group may already have given up the blocks that the first row does not read.
      const KvRule rule = rule_of(groups[g]);
      for (int b = 0; b < rule.blocks_for(length_[seq]); ++b) {
        if (b >= rule.num_kept() && b < rule.first_needed(first)) continue;
        tables_[g][i * blocks_per_seq_ + b] = block_of(seq, b);
      }
    }
  }

  ForwardInput input{.token_ids = ids_, .positions = positions_,
                     .token_types = token_types_,
                     .far_queries = far_queries_,
                     .far_keys = far_keys_,
                     .groups = {}};
  for (size_t g = 0; g < groups.size(); ++g) {
    input.groups[g] = {.slots = slots_.data(),
                       .attention = {.num_seqs = static_cast<int>(work.size()),
                                     .num_rows = static_cast<int>(ids_.size()),
                                     .row_start = row_start_.data(),
                                     .first_pos = first_pos_.data(),
                                     .block_table = tables_[g].data(),
                                     .table_stride = blocks_per_seq_}};
  }
  context_->begin_step(input);
  transformer_.forward(input, kv_, workspace_);
  rows_.resize(ids_.size());
  std::iota(rows_.begin(), rows_.end(), 0);
  const Tensor logits = transformer_.logits(rows_, workspace_);
  std::vector<float> values(logits.num_elements());
  backend_.download(values.data(), logits.data, logits.num_bytes());
  return values;
}

std::vector<float> PagedDriver::run(int seq, std::span<const int32_t> tokens, int chunk, int second_text) {
  std::vector<float> all;
  for (size_t begin = 0; begin < tokens.size(); begin += chunk) {
    const Work work{seq, tokens.subspan(begin, std::min<size_t>(chunk, tokens.size() - begin)), second_text};
    const std::vector<float> rows = step({&work, 1});
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return all;
}

}  // namespace serval::testing
