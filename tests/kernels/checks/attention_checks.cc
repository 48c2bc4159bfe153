// Paged attention: both kernels against the definition over head sizes, ragged batches, windows, soft caps,
// sinks, slopes, trees of drafts and fp8, and the same bits however a sequence is cut.
#include "kernels/attention_split.h"
#include "tests/kernels/checks/attention_case.h"
#include "tests/kernels/checks/check.h"
#include "tests/kernels/checks/invariance.h"

namespace serval::gpu {
namespace {

std::string name_of(const AttentionShape& s) {
  std::string name = std::to_string(s.num_heads) + "/" + std::to_string(s.num_kv_heads) + " heads of " +
                     std::to_string(s.head_dim) + ", block " + std::to_string(s.block_size);
  if (s.window > 0) name += ", window " + std::to_string(s.window);
  if (s.window < 0) name += ", in chunks of " + std::to_string(-s.window);
  if (s.soft_cap > 0) name += ", soft cap";
  if (s.has_sinks) name += ", sinks";
  if (s.has_slopes) name += ", slopes";
  if (s.has_trees) name += ", trees";
  if (s.is_fp8) name += ", fp8";
  for (const SeqShape& seq : s.seqs)
    name += " " + std::to_string(seq.num_rows) + "@" + std::to_string(seq.first_pos);
  return name;
}

// FlashAttention's own criterion: weights rounded to T, then a result rounded to T.
template <class T>
void check(const AttentionShape& shape, Finding& finding) {
  const AttentionCase<T> own(shape, 17);
  const std::vector<float> split = own.run(), want = own.expected();
  for (size_t i = 0; i < want.size(); ++i) {
    finding.expect_near(split[i], want[i], 3 * kEpsilon<T> * (1 + std::abs(want[i])),
                        "element " + std::to_string(i));
  }
  AttentionShape whole = shape;
  whole.splits = false;
  finding.expect_same(AttentionCase<T>(whole, 17).run(), split,
                      "a row's bits depend on how its sequence is cut");
}

template <class T>
void add(std::vector<Check>& checks, const AttentionShape& shape) {
  const char* type = std::is_same_v<T, Half> ? "f16 " : "bf16 ";
  checks.push_back({"attention", type + name_of(shape), [shape](Finding& f) { check<T>(shape, f); }});
}

const std::vector<SeqShape> kMixed = {{0, 1},   {31, 1},  {32, 2}, {255, 1},
                                      {256, 1}, {300, 5}, {0, 33}, {520, 1}};

// The rows of the first sequence of `seqs`.
std::vector<float> rows_of(const std::vector<SeqShape>& seqs, int window, bool splits) {
  const AttentionShape shape{
      .seqs = seqs, .num_heads = 2, .num_kv_heads = 1, .window = window, .splits = splits};
  std::vector<float> all = AttentionCase<Bf16>(shape, 5).run();
  all.resize(static_cast<size_t>(seqs[0].num_rows) * shape.num_heads * shape.head_dim);
  return all;
}

// The row at a position, however its prompt is cut into steps and whoever shares the step.
void check_chunks(int length, int window, Finding& finding) {
  const std::vector<float> whole = rows_of({{0, length}}, window, false);
  const size_t row = whole.size() / length;
  for (const auto& [begin, count] :
       {std::pair{0, 1}, {0, 100}, {100, 155}, {255, 2}, {length - 1, 1}, {length - 33, 33}}) {
    const std::vector<float> want(whole.begin() + begin * row, whole.begin() + (begin + count) * row);
    const std::string chunk = std::to_string(count) + " rows at " + std::to_string(begin);
    for (const bool splits : {false, true}) {
      finding.expect_same(rows_of({{begin, count}}, window, splits), want, chunk + " alone differ");
      finding.expect_same(rows_of({{begin, count}, {512, 1}, {3, 70}}, window, splits), want,
                          chunk + " in company differ");
    }
  }
}

void check_partial_splits(Finding& finding) {
  const AttentionCase<Bf16> own({.seqs = kMixed}, 3);
  const std::vector<float> all = own.run();
  for (const int max_items : {0, 1, 3, 7})
    finding.expect_same(own.run(max_items), all, "with " + std::to_string(max_items) + " items bits differ");
}

}  // namespace

std::vector<Check> attention_checks(Sizes sizes) {
  std::vector<Check> checks;
  for (const int head_dim : {8, 40, 64, 80, 96, 128})
    add<Bf16>(checks, {.seqs = {{0, 3}, {70, 1}, {257, 2}}, .head_dim = head_dim});
  add<Bf16>(checks, {.seqs = {{0, 3}, {257, 2}}, .num_heads = 2, .num_kv_heads = 1, .head_dim = 256});
  add<Bf16>(checks, {.seqs = kMixed});
  add<Half>(checks, {.seqs = kMixed});
  for (const auto& [heads, kv_heads] : {std::pair{1, 1}, {6, 2}, {7, 1}, {16, 1}, {20, 1}})
    add<Bf16>(checks, {.seqs = {{40, 1}, {0, 19}, {256, 3}}, .num_heads = heads, .num_kv_heads = kv_heads});
  for (const int block_size : {1, 8, 64})
    add<Bf16>(checks, {.seqs = {{40, 1}, {0, 70}}, .block_size = block_size});
  for (const int window : {1, 16, 33, 300, -40, -300})
    add<Bf16>(checks, {.seqs = {{0, 5}, {40, 1}, {600, 1}, {290, 20}}, .window = window});
  add<Bf16>(checks, {.seqs = {{40, 3}, {300, 1}}, .soft_cap = 5});
  add<Bf16>(checks, {.seqs = {{40, 3}, {300, 1}}, .has_sinks = true});
  add<Half>(checks, {.seqs = {{0, 40}, {300, 1}}, .soft_cap = 20, .window = 50, .has_sinks = true});
  add<Bf16>(checks, {.seqs = {{0, 40}, {40, 3}, {300, 1}}, .has_slopes = true});
  add<Half>(checks, {.seqs = {{0, 40}, {300, 3}}, .num_heads = 6, .soft_cap = 20, .window = 50, .has_slopes = true});
  add<Bf16>(checks, {.seqs = {{40, 8}, {250, 16}, {0, 5}}, .has_trees = true});
  add<Bf16>(checks, {.seqs = {{40, 8}, {0, 5}}, .has_slopes = true, .has_trees = true});
  add<Bf16>(checks, {.seqs = {{100, 64}}, .num_heads = 2, .has_trees = true});
  for (const int head_dim : {64, 128})
    add<Bf16>(checks, {.seqs = {{0, 3}, {70, 1}, {300, 2}}, .head_dim = head_dim, .is_fp8 = true});
  add<Half>(checks, {.seqs = {{0, 40}, {70, 1}, {300, 2}}, .head_dim = 96, .is_fp8 = true});
  add<Bf16>(checks, {.seqs = {{33, 2}}, .num_heads = 2, .num_kv_heads = 1, .head_dim = 256, .is_fp8 = true});
  if (sizes == Sizes::kAll) {
    const AttentionShape llama{.seqs = {{8191, 1}, {1023, 1}, {0, 129}, {4000, 7}, {2047, 65}, {0, 1}},
                               .num_heads = 32,
                               .num_kv_heads = 8,
                               .head_dim = 128,
                               .scale = 0.08838835f};
    AttentionShape small_cache = llama;
    small_cache.is_fp8 = true;
    add<Bf16>(checks, llama);
    add<Half>(checks, llama);
    add<Bf16>(checks, small_cache);
  }
  return checks;
}

std::vector<Check> attention_invariance(Sizes sizes) {
  std::vector<Check> checks = {
      {"attention", "sequences that cannot all be split", check_partial_splits},
      {"attention", "chunks of a prompt of 290", [](Finding& f) { check_chunks(290, 0, f); }},
      {"attention", "chunks of a prompt of 290, window 100", [](Finding& f) { check_chunks(290, 100, f); }}};
  if (sizes == Sizes::kAll)
    checks.push_back(
        {"attention", "chunks of a prompt of 4000", [](Finding& f) { check_chunks(4000, 0, f); }});
  return checks;
}

}  // namespace serval::gpu
