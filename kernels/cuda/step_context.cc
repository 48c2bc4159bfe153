#include "kernels/cuda/step_context.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/cuda/attention.h"

namespace serval::cuda {
namespace {

// Sizes of captured steps: small ones exactly, large ones in steps that waste little.
constexpr int kLadder[] = {1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256};
constexpr int kLadderStep = 64;  // beyond

// Arrays begin on a cache line.
constexpr int64_t padded(int64_t ints) {
  return (ints + 15) / 16 * 16;
}

// Sequences of a step's attention.
int64_t seqs_of(const StepLimits& limits) {
  return int64_t{limits.max_seqs} + limits.max_branches;
}

int64_t ints_of(const StepLimits& limits) {
  const int64_t seqs = seqs_of(limits);
  const int64_t rows = padded(limits.max_rows), starts = padded(seqs + 1), table = padded(seqs * limits.table_stride);
  const int64_t lists = rows, trees = limits.max_branches > 0 ? padded(2 * seqs) + padded(seqs) : 0;
  const int64_t group = rows + table + padded(2) + 2 * starts;
  return 2 * rows + starts + padded(seqs) + trees + limits.num_kv_groups * group + lists;
}

// Of the largest kernel there is.
constexpr int kMaxHeadDim = 256;

// Items of a step that decodes every sequence at its full length, but no more than fill the device many
// times over: sequences beyond take the kernel that needs no scratch.
int max_items_of(const StepLimits& limits, const DeviceProperties& device) {
  constexpr int64_t kItemsPerSm = 64;
  const int64_t chunks = tiles_of(limits.max_model_len, kChunkKeys);
  return static_cast<int>(
      std::min(seqs_of(limits) * chunks, std::max<int64_t>(chunks, device.num_sms * kItemsPerSm)));
}

size_t item_bytes_of(const StepLimits& limits, const DeviceProperties& device) {
  return sizeof(float) * max_items_of(limits, device) * item_floats(limits.num_kv_heads, limits.head_dim);
}

// Room for any one row (its biases and bans name each token once) or the tokens of one sequence to count,
// and for as many usual rows as may come.
size_t max_list_ints_of(const StepLimits& limits) {
  const auto usual = static_cast<size_t>(limits.vocab / 32 + 256);
  const auto most = static_cast<size_t>(limits.max_model_len + limits.vocab / 32 + 1 + 3 * limits.vocab);
  return std::max(limits.max_logit_rows * usual, most);
}

}  // namespace

size_t CudaStepContext::planned_bytes(const StepLimits& limits, const DeviceProperties& device) {
  if (limits.head_dim % 8 != 0)
    throw std::runtime_error("heads of " + std::to_string(limits.head_dim) +
                             " dimensions run on the CPU only (device: cpu): those of a CUDA device are multiples of 8");
  if (limits.head_dim > kMaxHeadDim)
    throw std::runtime_error("heads of " + std::to_string(limits.head_dim) +
                             " dimensions run on the CPU only: attention on CUDA takes at most " +
                             std::to_string(kMaxHeadDim));
  return sizeof(int32_t) * ints_of(limits) + item_bytes_of(limits, device) +
         DeviceSampler::planned_bytes(limits.max_logit_rows, limits.vocab, limits.max_seqs,
                                      max_list_ints_of(limits), device.num_sms);
}

CudaStepContext::CudaStepContext(const StepLimits& limits, Backend& backend, Stream stream,
                                 const DeviceProperties& device, CudaStepContext*& current)
    : limits_(limits),
      stream_(stream),
      current_(current),
      max_items_(max_items_of(limits, device)),
      max_list_ints_(max_list_ints_of(limits)),
      staging_(stream),
      sampler_(stream) {
  const bool has_attention = limits.num_heads > 0;
  SERVAL_CHECK(!has_attention || (limits.num_kv_heads > 0 && limits.head_dim > 0 && limits.head_dim <= kMaxHeadDim),
               limits.num_heads, limits.num_kv_heads, limits.head_dim);
  const int64_t rows = limits.max_rows, seqs = seqs_of(limits), starts = seqs + 1;
  int_memory_ = backend.allocate(sizeof(int32_t) * ints_of(limits));
  auto* next = int_memory_.as<int32_t>();
  const auto take = [&next](int64_t count) { return std::exchange(next, next + padded(count)); };
  token_ids_ = take(rows);
  positions_ = take(rows);
  row_start_ = take(starts);
  first_pos_ = take(seqs);
  if (limits.max_branches > 0) {
    tree_masks_ = reinterpret_cast<uint64_t*>(take(2 * seqs));
    tree_start_ = take(seqs);
  }
  for (int g = 0; g < limits.num_kv_groups; ++g) {
    groups_[g] = {.slots = take(rows),
                  .block_table = take(seqs * limits.table_stride),
                  .counts = take(2),
                  .item_start = take(starts),
                  .tile_start = take(starts)};
  }
  list_ = take(rows);
  SERVAL_CHECK(next == int_memory_.as<int32_t>() + ints_of(limits), ints_of(limits));
  mirrors_.reserve(4 + 2 * kMaxKvGroups);
  host_starts_.resize(2 * starts);
  // A list may be of one row, and still takes what copies are rounded to.
  staging_.reserve(sizeof(int32_t) * ints_of(limits) + Staging::kAlignment * rows);
  item_memory_ = backend.allocate(item_bytes_of(limits, device));
  sampler_bytes_ = sampler_.reserve(limits.max_logit_rows, limits.vocab, limits.max_seqs, max_list_ints_);
  for (const int rung : kLadder)
    if (rung < limits.max_logit_rows) ladder_.push_back(rung);
  for (int rung = 256 + kLadderStep; rung < limits.max_logit_rows; rung += kLadderStep)
    ladder_.push_back(rung);
  ladder_.push_back(limits.max_logit_rows);
  graphs_.resize(ladder_.size());
  counted_.reserve(limits.max_seqs);
  SERVAL_CHECK(bytes() == planned_bytes(limits, device), bytes(), planned_bytes(limits, device));
}

CudaStepContext::~CudaStepContext() {
  if (current_ == this) current_ = nullptr;
  synchronize(stream_);  // nothing may use what is freed now
  for (const Graph graph : graphs_)
    if (graph != nullptr) destroy_graph(graph);
}

size_t CudaStepContext::bytes() const {
  return int_memory_.bytes + item_memory_.bytes + sampler_bytes_;
}

// --- the arrays of a step ---

void CudaStepContext::mirror(const int32_t* host, int32_t* device, int64_t count) {
  staging_.copy(device, host, sizeof(int32_t) * count);
  mirrors_.push_back({host, device});
}

const int32_t* CudaStepContext::device_array(const int32_t* host) const {
  for (const Mirror& m : mirrors_)
    if (m.host == host) return m.device;
  SERVAL_CHECK(false, "an op was given an array that is not the step's");
  return nullptr;
}

const CudaStepContext::Group& CudaStepContext::group_of(const AttentionBatch& batch) const {
  for (const Group& group : groups_)
    if (group.host_table == batch.block_table) return group;
  SERVAL_CHECK(false, "an op was given block tables that are not the step's");
  return groups_[0];
}

void CudaStepContext::begin_step(const ForwardInput& input) {
  current_ = this;
  staging_.begin_step();
  mirrors_.clear();
  list_used_ = 0;
  const int rows = input.num_rows();
  if (rows == 0) return;
  mirror(input.token_ids.data(), token_ids_, rows);
  mirror(input.positions.data(), positions_, rows);
  const AttentionBatch& first = input.groups[0].attention;
  SERVAL_CHECK(rows <= limits_.max_rows && first.num_seqs <= seqs_of(limits_), rows, limits_.max_rows,
               first.num_seqs, limits_.max_seqs, limits_.max_branches);
  mirror(first.row_start, row_start_, first.num_seqs + 1);
  mirror(first.first_pos, first_pos_, first.num_seqs);
  SERVAL_CHECK(first.tree_masks == nullptr || limits_.max_branches > 0, limits_.max_branches);
  // A captured step reads them whether there is a branch or not.
  if (first.tree_masks != nullptr) {
    staging_.copy(tree_masks_, first.tree_masks, sizeof(uint64_t) * first.num_seqs);
    staging_.copy(tree_start_, first.tree_start, sizeof(int32_t) * first.num_seqs);
  } else if (limits_.max_branches > 0) {
    clear(stream_, tree_masks_, sizeof(uint64_t) * first.num_seqs);
  }
  is_split_only_ = true;
  const int starts = first.num_seqs + 1;
  for (int g = 0; g < limits_.num_kv_groups; ++g) {
    const KvGroupInput& in = input.groups[g];
    Group& group = groups_[g];
    SERVAL_CHECK(in.attention.table_stride <= limits_.table_stride, in.attention.table_stride,
                 limits_.table_stride);
    mirror(in.slots, group.slots, rows);
    staging_.copy(group.block_table, in.attention.block_table,
                  sizeof(int32_t) * in.attention.num_seqs * in.attention.table_stride);
    group.host_table = in.attention.block_table;
    const std::span<int32_t> items(host_starts_.data(), starts), tiles(host_starts_.data() + starts, starts);
    const int32_t counts[2] = {in.attention.num_seqs, in.attention.table_stride};
    staging_.copy(group.counts, counts, sizeof counts);
    if (limits_.num_heads == 0) continue;
    group.plan = plan_attention(in.attention, limits_.num_heads / limits_.num_kv_heads, limits_.windows[g],
                                max_items_, items, tiles);
    is_split_only_ &= group.plan.num_tiles == 0;
    staging_.copy(group.item_start, items.data(), sizeof(int32_t) * starts);
    staging_.copy(group.tile_start, tiles.data(), sizeof(int32_t) * starts);
  }
}

int CudaStepContext::padded_rows(int num_rows) const {
  const auto rung = std::lower_bound(ladder_.begin(), ladder_.end(), num_rows);
  return rung == ladder_.end() ? num_rows : *rung;
}

void CudaStepContext::run_captured(int num_rows, const std::function<void()>& body) {
  const int rung = captured_rung(num_rows);
  // What was captured knows only the kernel of split sequences.
  if (rung < 0 || !is_split_only_) return body();
  launch_graph(graphs_[rung], stream_);
}

int CudaStepContext::captured_rung(int num_rows) const {
  const auto rung = std::lower_bound(ladder_.begin(), ladder_.end(), num_rows) - ladder_.begin();
  const bool is_captured =
      rung < std::ssize(ladder_) && ladder_[rung] == num_rows && graphs_[rung] != nullptr;
  return is_captured ? static_cast<int>(rung) : -1;
}

void CudaStepContext::capture(int num_rows, const std::function<void()>& body) {
  const auto rung = std::lower_bound(ladder_.begin(), ladder_.end(), num_rows) - ladder_.begin();
  SERVAL_CHECK(rung < std::ssize(ladder_) && ladder_[rung] == num_rows && graphs_[rung] == nullptr, num_rows);
  SERVAL_CHECK(is_split_only_, "a captured step has no tiles");
  begin_capture(stream_);
  body();
  graphs_[rung] = end_capture(stream_);
}

const int32_t* CudaStepContext::stage_list(const int32_t* values, int64_t count) {
  SERVAL_CHECK(list_used_ + count <= limits_.max_rows, list_used_, count, limits_.max_rows);
  int32_t* const list = list_ + list_used_;
  list_used_ += count;
  staging_.copy(list, values, sizeof(int32_t) * count);
  return list;
}

CudaStepContext::Sequences CudaStepContext::sequences(const AttentionBatch& batch) const {
  const Group& group = group_of(batch);
  return {.counts = group.counts,
          .row_start = row_start_,
          .first_pos = first_pos_,
          .block_table = group.block_table,
          .slots = batch.state_slots == nullptr ? nullptr : device_array(batch.state_slots),
          .max_seqs = std::min(batch.num_rows, limits_.max_seqs)};
}

CudaStepContext::Attention CudaStepContext::attention(const AttentionBatch& batch, int num_heads,
                                                      int num_kv_heads) const {
  SERVAL_CHECK(num_heads * limits_.num_kv_heads == limits_.num_heads * num_kv_heads, num_heads, num_kv_heads,
               "every layer packs as many heads to a KV head");
  const Group& group = group_of(batch);
  auto* const states = item_memory_.as<float>();
  return {.counts = group.counts,
          .row_start = row_start_,
          .first_pos = first_pos_,
          .block_table = group.block_table,
          .item_start = group.item_start,
          .tile_start = group.tile_start,
          .tree_masks = tree_masks_,
          .tree_start = tree_start_,
          .item_state = states,
          .item_out = states + int64_t{max_items_} * limits_.num_kv_heads * kItemRows * 2,
          .has_items = is_split_only_ || group.plan.num_items > 0,
          .has_tiles = !is_split_only_};
}

// --- draws ---

int CudaStepContext::sample(const SampleArgs& args) {
  // As many tokens to count and rows at once as their lists have room; nearly always all of them.
  const auto list_ints = [&](const SampleRow& row) {
    return static_cast<size_t>((row.has_penalty() ? row.num_recent : 0) + 2 * row.num_logit_bias +
                               row.num_banned + (row.mask != nullptr ? (limits_.vocab + 31) / 32 : 0));
  };
  const int64_t num_rows = args.logits.dim(0), vocab = args.logits.dim(1);
  int next_counted = 0, tokens_of_next = 0;  // the list to count next, and how much of it is counted
  for (int64_t begin = 0;;) {
    size_t room = max_list_ints_;
    counted_.clear();
    while (next_counted < args.num_counted && room > 0) {
      CountedTokens piece = args.counted[next_counted];
      const int left = piece.num_tokens - tokens_of_next;
      piece.restart &= tokens_of_next == 0;
      piece.tokens += tokens_of_next;
      piece.num_tokens = static_cast<int>(std::min<size_t>(room, left));
      piece.num_prompt = std::clamp(piece.num_prompt - tokens_of_next, 0, piece.num_tokens);
      counted_.push_back(piece);
      room -= piece.num_tokens;
      tokens_of_next = piece.num_tokens == left ? 0 : tokens_of_next + piece.num_tokens;
      if (tokens_of_next == 0) ++next_counted;
    }
    int64_t end = begin;
    while (next_counted == args.num_counted && end < num_rows) {
      const size_t ints = list_ints(args.rows[end]);
      if (ints > room && (end > begin || !counted_.empty())) break;
      room -= std::min(room, ints);
      ++end;
    }
    SampleArgs some = args;
    some.counted = counted_.data();
    some.num_counted = static_cast<int>(counted_.size());
    some.logits = Tensor(args.logits.at(begin * vocab), DType::kF32, {end - begin, vocab});
    some.rows += begin;
    some.results += begin;
    if (some.top != nullptr) some.top += begin * args.top_stride;
    const int ticket = sampler_.launch(some);
    tickets_[ticket] = some;
    if (end == num_rows) return ticket;
    wait_sampled(ticket);
    begin = end;
  }
}

void CudaStepContext::wait_sampled(int ticket) {
  sampler_.wait_sampled(ticket, tickets_[ticket].results, tickets_[ticket].top);
}

}  // namespace serval::cuda
