#include "tests/kernels/op_table.h"

#include "tests/kernels/op_bench.h"

namespace serval::testing {

OpPrecision precision_of(DType activation) {
  if (activation == DType::kF32) return {1e-5};
  return {activation == DType::kBF16 ? 1.01 * 0x1p-8 : 1.01 * 0x1p-11};
}

StepLimits op_table_limits() {
  return {.max_rows = 700,
          .max_logit_rows = kMaxRows,
          .max_seqs = 16,
          .max_branches = 1,
          .max_model_len = kMaxLen,
          .table_stride = kMaxLen / kBlockSize,
          .num_heads = 4,
          .num_kv_heads = 2,
          .head_dim = 128,
          .max_k = 1100,
          .vocab = kVocab,
          .num_kv_groups = 1};
}

const std::vector<OpCase>& op_table() {
  static const std::vector<OpCase> table = [] {
    std::vector<OpCase> cases;
    add_row_cases(cases);
    add_expert_cases(cases);
    add_attention_cases(cases);
    add_kept_row_cases(cases);
    add_recurrence_cases(cases);
    add_sample_cases(cases);
    return cases;
  }();
  return table;
}

}  // namespace serval::testing
