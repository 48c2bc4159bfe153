#include "engine/runner/speculators/model_speculator.h"

#include <algorithm>
#include <utility>

#include "engine/runner/speculators/draft_host.h"
#include "engine/runner/speculators/model_guess.h"

namespace serval {

ModelSpeculator::ModelSpeculator(const DraftPlan& plan, ModelSpec spec, ModelWeights weights)
    : plan_(plan), model_(std::make_unique<Model>(Model{std::move(spec), std::move(weights)})) {}

ModelSpeculator::ModelSpeculator(const DraftPlan& plan) : plan_(plan) {}

size_t ModelSpeculator::planned_table_bytes(int max_seqs) {
  return max_seqs * (sizeof(int) + sizeof(SeqStep) + sizeof(Drawing) + sizeof(int32_t) + sizeof(SampleRow) + sizeof(SampleResult) +
                     kMaxDrafts * sizeof(TopLogprob)) +
         DraftKv::planned_table_bytes(max_seqs);
}

void ModelSpeculator::start(const DraftHost& host) {
  backend_ = &host.backend;
  slots_ = &host.slots;
  transformer_ = &host.transformer;
  kv_ = host.kv;
  vocab_ = host.transformer.spec().vocab_size;
  // Of ids that the target lacks nothing can be kept.
  if (!model_ || model_->spec.vocab_size <= vocab_) guessed_by_ = &host.guessed_by;
  if (model_) {
    vocab_ = std::min(vocab_, model_->spec.vocab_size);
    own_kv_.emplace(model_->spec, plan_, host.backend, host.steps.max_seqs);
    own_transformer_.emplace(std::move(model_->spec), std::move(model_->weights), plan_.steps.max_model_len, host.backend);
    transformer_ = &*own_transformer_;
    kv_ = own_kv_->layers();
  }
  const StepLimits& steps = plan_.steps;
  workspace_.emplace(transformer_->spec(), steps.max_rows, steps.max_logit_rows, host.backend);
  input_.emplace(steps.max_rows, steps.max_seqs, 0, steps.table_stride, host.geometry,
                 transformer_->spec().long_attention);
  context_ = host.backend.make_step_context(steps);
  SERVAL_CHECK(context_->bytes() == plan_.scratch_bytes, context_->bytes(), plan_.scratch_bytes);
  const int most = steps.max_seqs;
  next_pos_.assign(most, kFromTheStart);
  batch_.seqs.reserve(most);
  drawing_.reserve(most);
  rows_.reserve(most);
  params_.reserve(most);
  results_.resize(most);
  top_.resize(size_t{kMaxDrafts} * most);
}

void ModelSpeculator::copy_kv(std::span<const GroupBlockCopy> copies) {
  if (own_kv_) own_kv_->copy(copies);
}

int ModelSpeculator::lag(const DraftTask& task) const {
  const int next_pos = next_pos_[task.slot];
  return own_kv_ && next_pos != kFromTheStart ? std::max(0, task.first_computed - next_pos) : 0;
}

void ModelSpeculator::propose(std::span<DraftTask> tasks) {
  lay_out(tasks);
  if (batch_.seqs.empty()) return;
  forward();
  while (!drawing_.empty()) {
    draw();
    batch_.seqs.clear();
    int row = 0;
    std::erase_if(drawing_, [&](Drawing& drawing) {
      DraftTask& task = *drawing.task;
      if (drawing.num_chained == task.depth || !task.wants_more()) return true;
      const int position = static_cast<int>(task.known.size()) - 1 + drawing.num_chained;
      slots_->guess(task.slot, position, task.drafts[drawing.last].token);
      batch_.seqs.push_back({.seq = task.seq, .slot = task.slot, .first_pos = position, .num_tokens = 1});
      drawing.row = row++;
      return false;
    });
    if (!drawing_.empty()) forward();
  }
  for (DraftTask& task : tasks) slots_->take_back(task.slot);
}

// The rows of the first forward: what this model has not computed, and the token behind it.
void ModelSpeculator::lay_out(std::span<DraftTask> tasks) {
  batch_.seqs.clear();
  drawing_.clear();
  int row = 0, left = plan_.steps.max_rows;
  for (DraftTask& task : tasks) {
    const int num_known = static_cast<int>(task.known.size()), num_computed = task.first_computed + task.num_computed;
    if (guessed_by_) guessed_by_->begin(task.seq, task.slot, num_known);  // whoever guesses now, what was before is over
    int& next_pos = next_pos_[task.slot];
    if (next_pos == kFromTheStart) next_pos = task.first_computed;
    const int begin = own_kv_ ? std::min(next_pos, num_computed) : num_computed;
    const bool draws = task.wants_more() && num_known - begin <= left;
    const int end = draws ? num_known : own_kv_ && task.is_followed ? std::min(num_computed, begin + left) : begin;
    if (begin == end) continue;
    next_pos = std::min(end, num_computed);
    batch_.seqs.push_back({.seq = task.seq, .slot = task.slot, .first_pos = begin, .num_tokens = end - begin});
    row += end - begin;
    left -= end - begin;
    if (!draws) continue;
    drawing_.push_back({.task = &task, .row = row - 1});
    lend_own_blocks(plan_, input_->num_groups(), task.slot, num_known + task.depth - 1, *slots_);
  }
}

void ModelSpeculator::forward() {
  ForwardInput input = input_->build(batch_, *slots_, [](int rows) { return rows; });
  if (own_kv_) input = own_kv_->input_of(input);
  context_->begin_step(input);
  transformer_->forward(input, kv_, *workspace_, plan_.num_layers);
}

// A guess for each that draws.
void ModelSpeculator::draw() {
  rows_.clear();
  params_.clear();
  int stride = 0;
  for (const Drawing& drawing : drawing_) {
    const DraftTask& task = *drawing.task;
    const Slot& slot = *slots_->find(task.seq, task.slot);
    SampleRow row = guess_row(task, slot, drawing.num_chained, transformer_->spec().vocab_size, vocab_);
    if (guessed_by_ && slot.speculation.acceptance == Acceptance::kRejection) row.drawn_by = guessed_by_->next(task.slot);
    stride = std::max(stride, row.num_top);
    rows_.push_back(drawing.row);
    params_.push_back(row);
  }
  const Tensor logits = transformer_->logits(rows_, *workspace_);
  const int ticket = context_->sample({.logits = logits,
                                       .rows = params_.data(),
                                       .results = results_.data(),
                                       .top = top_.data(),
                                       .top_stride = stride});
  context_->wait_sampled(ticket);
  for (size_t i = 0; i < drawing_.size(); ++i) {
    if (params_[i].drawn_by) guessed_by_->drew(drawing_[i].task->slot, results_[i].token);
    take(drawing_[i], results_[i], top_.data() + i * stride);
  }
}

void ModelSpeculator::take(Drawing& drawing, const SampleResult& result, const TopLogprob* top) {
  DraftTask& task = *drawing.task;
  drawing.last = add_drawn(task, *slots_->find(task.seq, task.slot), drawing.last, result, top, vocab_, kind());
  drawing.num_chained = drawing.last < 0 ? task.depth : drawing.num_chained + 1;
}

}  // namespace serval
