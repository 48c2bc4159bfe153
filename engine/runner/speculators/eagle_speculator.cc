#include "engine/runner/speculators/eagle_speculator.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "engine/runner/speculators/draft_host.h"
#include "kernels/gumbel.h"

namespace serval {
namespace {

// Levels of a tree of so many guesses that is so wide: for chains as many, for trees as many as fill it, and one.
int levels_of(int most, int width) {
  return width == 1 ? most : most / width + 1;
}
// Of one tree: every node that is gone on from has `width` behind it.
int max_candidates(int most, int width) {
  return width + (levels_of(most, width) - 1) * width * width;
}

}  // namespace

EagleSpeculator::EagleSpeculator(const DraftPlan& plan, EagleSpec spec, EagleWeights weights, int most, int width)
    : plan_(plan),
      most_(most),
      width_(std::min(width, most)),
      num_layers_(spec.num_layers()),
      loaded_(std::make_unique<Loaded>(Loaded{std::move(spec), std::move(weights)})) {}

StepLimits EagleSpeculator::limits_of(const EagleSpec& spec, const StepLimits& steps, int width) {
  const int rows = steps.max_rows + (spec.num_layers() - 1) * steps.max_seqs;  // of the last layer, with those of guesses
  StepLimits limits = Transformer::step_limits(spec.model, {.max_rows = std::max(rows, steps.max_seqs * width),
                                                            .max_logit_rows = steps.max_seqs * width,
                                                            .max_seqs = steps.max_seqs,
                                                            .max_branches = width > 1 ? steps.max_seqs * (width - 1) : 0,
                                                            .max_model_len = steps.max_model_len,
                                                            .table_stride = steps.table_stride});
  limits.max_k = std::max<int64_t>(limits.max_k, int64_t{std::max(2, spec.num_read())} * spec.model.hidden_size);
  return limits;
}

size_t EagleSpeculator::planned_bytes(const EagleSpec& spec, const StepLimits& limits, const StepLimits& steps, int most,
                                      int width, const BlockGeometry& geometry, const Backend& backend) {
  const size_t rows = limits.max_logit_rows, seqs = limits.max_seqs;
  return EagleHead::planned_bytes(spec, limits, backend) +
         FollowedSteps::planned_bytes(spec.read_layers.size(), spec.model, steps, backend) +
         ModelInput::planned_bytes(limits.max_rows, limits.max_seqs, limits.max_branches, limits.table_stride, geometry, {}) +
         DraftKv::planned_table_bytes(limits.max_seqs) + limits.max_rows * sizeof(int32_t) +
         seqs * (sizeof(int) + sizeof(Followed) + sizeof(SeqStep) + sizeof(int32_t) + sizeof(SlotId) + sizeof(Growing) + max_candidates(most, width) * (sizeof(Candidate) + sizeof(int32_t))) +
         rows * (2 * sizeof(Node) + sizeof(ModelInput::Guess) + sizeof(SampleRow) + sizeof(SampleResult) +
                 (width + kMoreReported) * sizeof(TopLogprob));
}

void EagleSpeculator::start(const DraftHost& host) {
  slots_ = &host.slots;
  max_model_len_ = host.steps.max_model_len;
  const EagleSpec& spec = loaded_->spec;
  kv_.emplace(spec.model, plan_, host.backend, host.steps.max_seqs);
  steps_.start(host, spec.read_layers);
  const StepLimits& limits = plan_.steps;
  StepLimits with_lists = limits;
  with_lists.max_rows *= EagleHead::kListsOfRows;
  context_ = host.backend.make_step_context(with_lists);
  SERVAL_CHECK(context_->bytes() == plan_.scratch_bytes, context_->bytes(), plan_.scratch_bytes);
  input_.emplace(limits.max_rows, limits.max_seqs, limits.max_branches, limits.table_stride, host.geometry,
                 host.transformer.spec().long_attention);
  head_.emplace(std::move(loaded_->spec), std::move(loaded_->weights), limits, host.transformer, host.backend);
  loaded_.reset();
  vocab_ = head_->num_logits();
  const int seqs = limits.max_seqs, rows = limits.max_logit_rows;
  num_before_.assign(seqs, 0);
  followed_.reserve(seqs);
  layer_batch_.seqs.reserve(seqs);
  rows_.reserve(limits.max_rows);
  aside_rows_.reserve(seqs);
  aside_slots_.reserve(seqs);
  growing_.reserve(seqs);
  candidates_.resize(size_t{1} * seqs * max_candidates(most_, width_));
  order_.reserve(max_candidates(most_, width_));
  nodes_.reserve(rows);
  next_nodes_.reserve(rows);
  guesses_.reserve(rows);
  params_.reserve(rows);
  results_.resize(rows);
  top_.resize(size_t{1} * rows * (width_ + kMoreReported));
}

void EagleSpeculator::propose(std::span<DraftTask> tasks) {
  steps_.begin();
  lay_out(tasks);
  if (followed_.empty()) return;
  const auto rows_of_batch = [](int rows) { return rows; };
  begin(input_->build(steps_.batch(), *slots_, rows_of_batch, 1));
  head_->read(steps_.kept(), steps_.places(), steps_.rows());
  forward(0);
  for (int level = 0;; ++level) {
    if (!nodes_.empty()) {
      add_candidates(level);
      choose_nodes(level);
    }
    const int layer = std::min(level + 1, num_further());
    if (level < num_further()) {
      lay_out_layer(layer);
      if (!rows_.empty()) {
        begin(input_->build(layer_batch_, *slots_, rows_of_batch, layer + 1));
        head_->read_own(rows_);
      }
      head_->set_aside(aside_rows_, aside_slots_);  // now that those of the step before are read
      if (rows_.empty()) break;
    } else {
      if (nodes_.empty()) break;
      begin(input_->build(guesses_));
      head_->read_own(rows_);
    }
    forward(layer);
  }
  for (const Followed& followed : followed_) {
    int& num_before = num_before_[followed.slot];
    num_before = std::min(num_further(), num_before + followed.end - followed.first);
  }
  for (Growing& growing : growing_) {
    take_best(growing);
    slots_->take_back(growing.task->slot);
  }
}

void EagleSpeculator::begin(const ForwardInput& input) {
  step_ = kv_->input_of(input);
  context_->begin_step(step_);
}

// And says which rows the next layer will read first in the next step: those of the last positions whose tokens are known.
void EagleSpeculator::forward(int layer) {
  head_->forward(layer, step_, kv_->layers());
  if (layer == num_further()) return;
  aside_rows_.clear();
  aside_slots_.clear();
  for (const Followed& followed : followed_) {
    const int last = followed.end - layer - 1;
    if (last < followed.begin) continue;
    aside_rows_.push_back(followed.first_row + last - followed.begin);
    aside_slots_.push_back(followed.slot);
  }
}

// The rows of the first forward: what the step has computed, each with the token behind it.
void EagleSpeculator::lay_out(std::span<DraftTask> tasks) {
  followed_.clear();
  growing_.clear();
  nodes_.clear();
  for (DraftTask& task : tasks) {
    const auto first_row = static_cast<int>(steps_.rows().size());
    const bool grows = steps_.follow(task);
    if (const auto num_rows = static_cast<int>(steps_.rows().size()) - first_row; num_rows > 0)
      followed_.push_back({task.seq, task.slot, task.first_computed, task.first_computed + num_rows, task.first_computed, num_rows, first_row});
    if (!grows) continue;
    const auto num_known = static_cast<int>(task.known.size());
    Growing growing{.task = &task, .slot = slots_->find(task.seq, task.slot), .followed = static_cast<int>(followed_.size()) - 1};
    growing.first = static_cast<int>(growing_.size()) * max_candidates(most_, width_);
    growing.width = std::min(task.width, width_);
    growing.most_places = std::min(task.most, max_model_len_ - (num_known - 1));
    growing.levels = std::min(task.depth, levels_of(task.most, growing.width));
    lend_own_blocks(plan_, input_->num_groups(), task.slot, num_known - 1 + growing.most_places, *slots_);
    nodes_.push_back({static_cast<int>(growing_.size()), -1, static_cast<int32_t>(steps_.rows().size()) - 1, 0});
    growing_.push_back(growing);
  }
}

// The rows of one of the further layers: of each sequence those of the layer before, but for the last that is known, and before
// them the one that was set aside; where its tree still grows, all to the last position, with guesses for tokens.
void EagleSpeculator::lay_out_layer(int layer) {
  layer_batch_.seqs.clear();
  rows_.clear();
  auto node = nodes_.begin();
  for (int f = 0; f < std::ssize(followed_); ++f) {
    Followed& followed = followed_[f];
    const bool grows = node != nodes_.end() && growing_[node->growing].followed == f;
    const Followed before = followed;
    followed.begin = followed.first - std::min(layer, num_before_[followed.slot]);
    followed.num_rows = std::max(0, followed.end - (grows ? 0 : layer) - followed.begin);
    followed.first_row = static_cast<int>(rows_.size());
    for (int position = followed.begin; position < followed.begin + followed.num_rows; ++position)
      rows_.push_back(position < before.begin ? EagleHead::kSetAside - followed.slot : before.first_row + position - before.begin);
    if (followed.num_rows > 0)
      layer_batch_.seqs.push_back({.seq = followed.seq, .slot = followed.slot, .first_pos = followed.begin, .num_tokens = followed.num_rows});
    if (grows) (node++)->row = static_cast<int32_t>(rows_.size()) - 1;
  }
}

void EagleSpeculator::add_candidates(int level) {
  rows_.clear();
  params_.clear();
  int stride = 0;
  for (const Node& node : nodes_) {
    const int reported = std::min(growing_[node.growing].width + kMoreReported, vocab_);
    rows_.push_back(node.row);
    params_.push_back({.temperature = 0, .num_top = reported});
    stride = std::max(stride, reported);
  }
  const Tensor logits = head_->logits(rows_);
  const int ticket = context_->sample(
      {.logits = logits, .rows = params_.data(), .results = results_.data(), .top = top_.data(), .top_stride = stride});
  context_->wait_sampled(ticket);
  for (Growing& growing : growing_) growing.level_begin = growing.count;
  for (size_t n = 0; n < nodes_.size(); ++n) {
    if (!results_[n].finite) continue;
    const Node& node = nodes_[n];
    Growing& growing = growing_[node.growing];
    const std::span<TopLogprob> top(top_.data() + n * stride, static_cast<size_t>(params_[n].num_top));
    const size_t count = rank(growing, level, top);
    Candidate* const all = candidates_.data() + growing.first;
    const float before = node.candidate < 0 ? 0 : all[node.candidate].score;
    for (size_t i = 0; i < count; ++i)
      all[growing.count++] = {top[i].token, node.candidate, static_cast<int32_t>(n), before + top[i].logprob};
  }
}

// Puts first the tokens that the target would draw first if these were its own log-probabilities, each with the logarithm of
// its confidence; returns how many there are, at most the tree's width. Penalties are the target's alone.
size_t EagleSpeculator::rank(const Growing& growing, int num_before, std::span<TopLogprob> top) const {
  const SamplingParams& p = growing.slot->sampling;
  const auto position = static_cast<int64_t>(growing.task->known.size()) + num_before;
  const bool draws = p.temperature >= kGreedyTemperature;
  size_t count = draws && p.top_k > 0 ? std::min<size_t>(top.size(), p.top_k) : top.size();
  if (draws && p.top_p < 1) {
    float sum = 0;
    for (size_t i = 0; i < count; ++i)
      if (sum += std::exp(top[i].logprob); sum >= p.top_p) count = i + 1;
  }
  const bool may_end = position - growing.slot->num_prompt >= p.min_tokens;
  for (size_t i = 0; i < count; ++i) {
    TopLogprob& t = top[i];
    t.token = head_->token_of(t.token);
    for (const LogitBias& bias : p.logit_bias)
      if (bias.token == t.token) t.logprob += bias.bias;
    if (draws) t.logprob = t.logprob / p.temperature + static_cast<float>(gumbel_noise(p.seed, position, t.token));
    if (!may_end && std::ranges::binary_search(growing.slot->end_ids, t.token)) t.logprob = -1e30f;
  }
  std::sort(top.begin(), top.begin() + static_cast<int64_t>(count),
            [](const TopLogprob& a, const TopLogprob& b) { return a.logprob > b.logprob; });
  float sum = 0;
  for (size_t i = 0; i < count; ++i) sum += std::exp(top[i].logprob - top[0].logprob);
  const float whole = top[0].logprob + std::log(sum);
  count = std::min<size_t>(count, growing.width);
  for (size_t i = 0; i < count; ++i) top[i].logprob -= whole;
  return count;
}

// The best candidates of the level are gone on from: by the next layer, where there is one, which finds them behind the known
// tokens.
void EagleSpeculator::choose_nodes(int level) {
  next_nodes_.clear();
  guesses_.clear();
  rows_.clear();
  for (int g = 0; g < std::ssize(growing_); ++g) {
    Growing& growing = growing_[g];
    if (level + 1 >= growing.levels) continue;
    Candidate* const all = candidates_.data() + growing.first;
    order_.clear();
    for (int i = growing.level_begin; i < growing.count; ++i)
      if (!std::ranges::binary_search(growing.slot->end_ids, all[i].token)) order_.push_back(i);
    const auto num_chosen = std::min<size_t>({order_.size(), static_cast<size_t>(num_gone_on(growing)),
                                              static_cast<size_t>(growing.most_places - growing.num_places)});
    std::partial_sort(order_.begin(), order_.begin() + static_cast<int64_t>(num_chosen), order_.end(), [&](int32_t a, int32_t b) {
      return all[a].score != all[b].score ? all[a].score > all[b].score : a < b;
    });
    const auto tree_start = static_cast<int32_t>(growing.task->known.size()) - 1;
    for (size_t i = 0; i < num_chosen; ++i) {
      const Candidate& candidate = all[order_[i]];
      const Node& parent = nodes_[candidate.made_by];
      next_nodes_.push_back({g, order_[i], static_cast<int32_t>(next_nodes_.size()), 0});
      if (level < num_further()) {
        slots_->guess(growing.task->slot, tree_start + 1 + level, candidate.token);
        continue;
      }
      const int place = growing.num_places++;
      if (num_gone_on(growing) > 1) next_nodes_.back().mask = parent.mask | uint64_t{1} << place;
      rows_.push_back(parent.row);
      guesses_.push_back({growing.slot, candidate.token, tree_start + level - num_further(), tree_start, place, next_nodes_.back().mask});
    }
  }
  std::swap(nodes_, next_nodes_);
}

// Parents come first: none has less confidence than what follows it.
void EagleSpeculator::take_best(Growing& growing) {
  const Candidate* const all = candidates_.data() + growing.first;
  order_.resize(growing.count);
  for (int i = 0; i < growing.count; ++i) order_[i] = i;
  std::sort(order_.begin(), order_.end(), [&](int32_t a, int32_t b) {
    return all[a].score != all[b].score ? all[a].score > all[b].score : a < b;
  });
  for (size_t i = 0; i < order_.size() && growing.task->wants_more(); ++i) {
    const Candidate& candidate = all[order_[i]];
    const auto parent = std::find(order_.begin(), order_.begin() + static_cast<int64_t>(i), candidate.parent);
    growing.task->add(candidate.token, candidate.parent < 0 ? -1 : static_cast<int>(parent - order_.begin()), kind());
  }
}

}  // namespace serval
