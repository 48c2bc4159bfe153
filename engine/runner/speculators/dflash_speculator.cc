#include "engine/runner/speculators/dflash_speculator.h"

#include <algorithm>
#include <utility>

#include "engine/runner/speculators/draft_host.h"
#include "engine/runner/speculators/model_guess.h"

namespace serval {

DflashSpeculator::DflashSpeculator(const DraftPlan& plan, DflashSpec spec, DflashWeights weights)
    : plan_(plan), loaded_(std::make_unique<Loaded>(Loaded{std::move(spec), std::move(weights)})) {}

// To attention each row of a block is a sequence. As many logits at once as there may be sequences, or one block has.
StepLimits DflashSpeculator::limits_of(const DflashSpec& spec, const StepLimits& steps) {
  const int block = spec.block_size;
  StepLimits limits = Transformer::step_limits(spec.model, {.max_rows = std::max(steps.max_rows, steps.max_seqs * block),
                                                            .max_logit_rows = std::max(steps.max_seqs, block - 1),
                                                            .max_seqs = steps.max_seqs,
                                                            .max_branches = steps.max_seqs * (block - 1),
                                                            .max_model_len = steps.max_model_len,
                                                            .table_stride = steps.table_stride});
  limits.max_k = std::max<int64_t>(limits.max_k, std::ssize(spec.read_layers) * spec.model.hidden_size);
  return limits;
}

StepLimits DflashSpeculator::context_limits(const DflashSpec& spec, const StepLimits& limits) {
  StepLimits with_lists = limits;
  with_lists.max_rows *= DflashModel::lists_of_rows(spec);
  return with_lists;
}

size_t DflashSpeculator::planned_bytes(const DflashSpec& spec, const StepLimits& limits, const StepLimits& steps,
                                       const BlockGeometry& geometry, const Backend& backend) {
  const size_t seqs = limits.max_seqs, rows = limits.max_logit_rows;
  return DflashModel::planned_bytes(spec, limits, backend) +
         FollowedSteps::planned_bytes(spec.read_layers.size(), spec.model, steps, backend) +
         ModelInput::planned_bytes(limits.max_rows, limits.max_seqs, limits.max_branches, limits.table_stride, geometry, {}) +
         DraftKv::planned_table_bytes(limits.max_seqs) +
         seqs * (sizeof(Drawing) + spec.block_size * (sizeof(Place) + sizeof(ModelInput::Guess))) +
         rows * (sizeof(int32_t) + sizeof(SampleRow) + sizeof(SampleResult) + kMaxDrafts * sizeof(TopLogprob));
}

void DflashSpeculator::start(const DraftHost& host) {
  slots_ = &host.slots;
  max_model_len_ = host.steps.max_model_len;
  vocab_ = host.transformer.spec().vocab_size;
  const DflashSpec& spec = loaded_->spec;
  const StepLimits& limits = plan_.steps;
  kv_.emplace(spec.model, plan_, host.backend, host.steps.max_seqs);
  steps_.start(host, spec.read_layers);
  context_ = host.backend.make_step_context(context_limits(spec, limits));
  SERVAL_CHECK(context_->bytes() == plan_.scratch_bytes, context_->bytes(), plan_.scratch_bytes);
  input_.emplace(limits.max_rows, limits.max_seqs, limits.max_branches, limits.table_stride, host.geometry,
                 host.transformer.spec().long_attention);
  const size_t seqs = limits.max_seqs, rows = limits.max_logit_rows, in_blocks = seqs * spec.block_size;
  model_.emplace(std::move(loaded_->spec), std::move(loaded_->weights), limits, host.transformer, host.backend);
  loaded_.reset();
  drawing_.reserve(seqs);
  places_.reserve(in_blocks);
  block_.reserve(in_blocks);
  rows_.reserve(rows);
  params_.reserve(rows);
  results_.resize(rows);
  top_.resize(kMaxDrafts * rows);
}

void DflashSpeculator::propose(std::span<DraftTask> tasks) {
  steps_.begin();
  lay_out(tasks);
  if (steps_.batch().seqs.empty()) return;
  begin(input_->build(steps_.batch(), *slots_, [](int rows) { return rows; }));
  model_->read(steps_.kept(), steps_.places(), steps_.rows(), step_, kv_->layers());
  if (drawing_.empty()) return;
  begin(input_->build(block_));
  model_->forward(step_, kv_->layers());
  const std::span<const Place> all = places_;
  const auto at_once = static_cast<size_t>(plan_.steps.max_logit_rows);
  for (size_t first = 0; first < all.size(); first += at_once) draw(all.subspan(first, std::min(at_once, all.size() - first)));
  for (const Drawing& drawing : drawing_) slots_->take_back(drawing.task->slot);
}

void DflashSpeculator::begin(const ForwardInput& input) {
  step_ = kv_->input_of(input);
  context_->begin_step(step_);
}

void DflashSpeculator::lay_out(std::span<DraftTask> tasks) {
  drawing_.clear();
  places_.clear();
  block_.clear();
  for (DraftTask& task : tasks)
    if (steps_.follow(task)) add_block(task);
}

// It is as long as the drafter was made for, whatever is wanted of it, but where the sequence must end.
void DflashSpeculator::add_block(DraftTask& task) {
  const int start = static_cast<int>(task.known.size()) - 1;
  const int size = std::min(model_->spec().block_size, max_model_len_ - start);
  if (size < 2) return;
  const Slot* const slot = slots_->find(task.seq, task.slot);
  lend_own_blocks(plan_, input_->num_groups(), task.slot, start + size, *slots_);
  for (int i = 0; i < size; ++i)
    block_.push_back({.slot = slot,
                      .token = i == 0 ? task.known.back() : model_->spec().mask,
                      .position = start + i,
                      .tree_start = start,
                      .place = i,
                      .last_read = start + size - 1});
  const int first_row = static_cast<int>(block_.size()) - size, number = static_cast<int>(drawing_.size());
  const int num_masks = std::min(size - 1, task.depth);
  drawing_.push_back({&task, slot, first_row, num_masks});
  for (int i = 0; i < num_masks; ++i) places_.push_back({number, i});
}

// Guesses of these places: those of one sequence stand behind each other.
void DflashSpeculator::draw(std::span<const Place> places) {
  rows_.clear();
  params_.clear();
  int stride = 0;
  for (const Place& place : places) {
    const Drawing& drawing = drawing_[place.drawing];
    rows_.push_back(drawing.first_row + 1 + place.num_before);
    params_.push_back(guess_row(*drawing.task, *drawing.slot, place.num_before, vocab_, vocab_));
    stride = std::max(stride, params_.back().num_top);
  }
  const Tensor logits = model_->logits(rows_);
  const int ticket = context_->sample(
      {.logits = logits, .rows = params_.data(), .results = results_.data(), .top = top_.data(), .top_stride = stride});
  context_->wait_sampled(ticket);
  for (size_t i = 0; i < places.size(); ++i) {
    Drawing& drawing = drawing_[places[i].drawing];
    DraftTask& task = *drawing.task;
    if (drawing.is_over || !task.wants_more()) continue;
    drawing.last = add_drawn(task, *drawing.slot, drawing.last, results_[i], top_.data() + i * stride, vocab_, kind());
    drawing.is_over = drawing.last < 0;
  }
}

}  // namespace serval
