#include "engine/scheduler/scheduler.h"

#include <algorithm>

#include "engine/scheduler/block_math.h"
#include "engine/scheduler/queue_policy.h"

namespace serval {
namespace {

std::vector<BlockPool*> borrow(const std::vector<std::unique_ptr<BlockPool>>& pools) {
  std::vector<BlockPool*> result;
  for (const auto& pool : pools) result.push_back(pool.get());
  return result;
}

std::vector<std::unique_ptr<BlockPool>> make_pools(const BlockGeometry& geometry) {
  std::vector<std::unique_ptr<BlockPool>> pools;
  for (int g = 0; g < geometry.num_groups; ++g)
    pools.push_back(std::make_unique<BlockPool>(geometry.groups[g].num_blocks));
  return pools;
}

}  // namespace

bool fits(const BlockGeometry& geometry, const SchedulerConfig& config, int prompt_tokens, int max_tokens,
          int n) {
  const int32_t length = std::min(prompt_tokens + max_tokens, config.max_model_len);
  for (int g = 0; g < geometry.num_groups; ++g) {
    const KvGroupGeometry& group = geometry.groups[g];
    int64_t blocks = blocks_for(length, geometry.block_size);
    // A window never spans more than window + chunk positions, at most one block askew at each end.
    if (group.window > 0) {
      blocks = std::min<int64_t>(
          blocks, blocks_for(group.window + config.max_prefill_chunk, geometry.block_size) + 2);
    }
    if (blocks * n > group.num_blocks) return false;
  }
  return true;
}

Scheduler::Scheduler(const SchedulerConfig& config, const BlockGeometry& geometry)
    : config_(config), geometry_(geometry), pools_(make_pools(geometry)), cache_(geometry, borrow(pools_)) {
  SERVAL_CHECK(config.max_num_batched_tokens >= config.max_num_seqs, config.max_num_batched_tokens,
               config.max_num_seqs);
  for (SlotId slot = config.max_num_seqs - 1; slot >= 0; --slot) free_slots_.push_back(slot);
  const size_t most = static_cast<size_t>(config.max_num_seqs) + config.max_waiting;
  running_.reserve(config.max_num_seqs);
  order_.reserve(config.max_num_seqs);
  in_flight_.reserve(config.max_num_seqs);
  freed_slots_.reserve(config.max_num_seqs);
  waiting_.reserve(most);
  finished_.reserve(most);
  pending_.events.reserve(most);
}

Scheduler::~Scheduler() = default;

Result<void> Scheduler::add(Request request, Time) {
  if (running_.size() + waiting_.size() + request.n >
      static_cast<size_t>(config_.max_num_seqs) + config_.max_waiting) {
    return Error{ErrorKind::kOverloaded, "queue_full", "The queue is full; try again later.", "", 1};
  }
  const auto params = std::make_shared<const Request>(std::move(request));
  SERVAL_CHECK(!params->prompt.empty() && params->n > 0, params->id);
  std::vector<Sequence*>& members = requests_[params->id];
  SERVAL_CHECK(members.empty(), params->id);
  if (params->deadline != Time{0}) next_deadline_ = std::min(next_deadline_, params->deadline);
  const size_t most_tokens =
      std::min<size_t>(params->prompt.size() + params->sampling.max_tokens, config_.max_model_len) + 1;
  for (int i = 0; i < params->n; ++i) {
    auto seq = std::make_unique<Sequence>();
    seq->id = next_seq_++;
    seq->request = params->id;
    seq->index = i;
    seq->params = params;
    seq->arrival = next_arrival_++;
    seq->tokens.reserve(most_tokens);
    seq->tokens = params->prompt;
    for (int g = 0; g < geometry_.num_groups; ++g)
      seq->blocks[g].reserve(blocks_for(most_tokens, geometry_.block_size) + 1);
    if (i > 0) seq->parent = members[0];
    members.push_back(seq.get());
    insert_in_order(waiting_, seq.get());
    sequences_.emplace(seq->id, std::move(seq));
  }
  stats_.prompt_tokens += params->prompt.size();
  return {};
}

void Scheduler::insert_in_order(std::vector<Sequence*>& line, Sequence* seq) const {
  const auto before = [&](const Sequence* a, const Sequence* b) {
    return goes_before(config_.policy, *a, *b);
  };
  line.insert(std::lower_bound(line.begin(), line.end(), seq, before), seq);
}

Sequence* Scheduler::find(RequestId id, int index) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return nullptr;
  for (Sequence* seq : it->second) {
    if (seq->index == index) return seq;
  }
  return nullptr;
}

void Scheduler::abort(RequestId id) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  for (Sequence* seq : it->second) {
    if (seq->state != SeqState::kFinished) finish(*seq, FinishReason::kAborted, pending_);
  }
}

void Scheduler::abort_all() {
  while (!running_.empty()) finish(*running_.back(), FinishReason::kAborted, pending_);
  while (!waiting_.empty()) finish(*waiting_.back(), FinishReason::kAborted, pending_);
}

void Scheduler::stop_string_matched(RequestId id, int index, int) {
  Sequence* seq = find(id, index);
  if (seq && seq->state != SeqState::kFinished) finish(*seq, FinishReason::kStopString, pending_);
}

void Scheduler::expire(Time now) {
  if (now < next_deadline_) return;
  next_deadline_ = Time::max();
  for (std::vector<Sequence*>* line : {&running_, &waiting_}) {
    for (size_t i = 0; i < line->size();) {
      Sequence* seq = (*line)[i];
      const Time deadline = seq->params->deadline;
      if (deadline != Time{0} && now >= deadline) {
        finish(*seq, FinishReason::kDeadline, pending_);  // leaves the line
        continue;
      }
      if (deadline != Time{0}) next_deadline_ = std::min(next_deadline_, deadline);
      ++i;
    }
  }
}

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats = stats_;
  stats.num_running = static_cast<int32_t>(running_.size());
  stats.num_waiting = static_cast<int32_t>(waiting_.size());
  stats.num_blocks = pools_[0]->num_blocks();
  stats.num_free_blocks = pools_[0]->num_free();
  stats.num_cached_blocks = pools_[0]->num_cached_only();
  stats.num_evicted_blocks = cache_.num_evicted_blocks();
  return stats;
}

void Scheduler::check_invariants() const {
  cache_.check_invariants();
  for (int g = 0; g < geometry_.num_groups; ++g) {
    std::vector<int> refs(pools_[g]->num_blocks(), 0);
    cache_.for_each_block([&](BlockId id, int group) {
      if (group == g) ++refs[id];  // ids of another group may lie beyond this one's
    });
    std::vector<int> cached = refs;
    for (const auto& [id, seq] : sequences_) {
      for (const BlockRef& block : seq->blocks[g]) {
        if (block) ++refs[block.id()];
      }
    }
    int free = 0, cached_only = 0;
    for (BlockId b = 0; b < pools_[g]->num_blocks(); ++b) {
      SERVAL_CHECK(refs[b] == pools_[g]->refs(b), g, b, refs[b], pools_[g]->refs(b));
      SERVAL_CHECK((cached[b] > 0) == pools_[g]->cached(b), g, b);
      free += refs[b] == 0;
      cached_only += refs[b] == 1 && cached[b] == 1;
    }
    SERVAL_CHECK(free == pools_[g]->num_free(), g, free, pools_[g]->num_free());
    SERVAL_CHECK(cached_only == pools_[g]->num_cached_only(), g, cached_only, pools_[g]->num_cached_only());
  }
  size_t slots = free_slots_.size();
  for (const auto& [id, seq] : sequences_) {
    slots += seq->slot >= 0;
    SERVAL_CHECK(seq->num_computed <= seq->num_known(), id, seq->num_computed, seq->num_known());
    if (seq->state == SeqState::kWaiting) {
      SERVAL_CHECK(seq->slot < 0 && seq->num_computed == 0 && seq->blocks[0].empty(), id, seq->slot,
                   seq->num_computed);
    }
    if (seq->state != SeqState::kRunning) continue;
    SERVAL_CHECK(seq->slot >= 0, id);
    const int32_t held = blocks_for(seq->num_computed + std::max(seq->num_in_step, 0), geometry_.block_size);
    for (int g = 0; g < geometry_.num_groups; ++g) {
      SERVAL_CHECK(static_cast<int32_t>(seq->blocks[g].size()) >= held, id, g, seq->blocks[g].size(), held);
    }
  }
  SERVAL_CHECK(slots == static_cast<size_t>(config_.max_num_seqs), slots, config_.max_num_seqs);
  for (size_t i = 1; i < running_.size(); ++i)
    SERVAL_CHECK(goes_before(config_.policy, *running_[i - 1], *running_[i]), i);
  for (size_t i = 1; i < waiting_.size(); ++i)
    SERVAL_CHECK(goes_before(config_.policy, *waiting_[i - 1], *waiting_[i]), i);
}

}  // namespace serval
