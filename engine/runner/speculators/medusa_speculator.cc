#include "engine/runner/speculators/medusa_speculator.h"

#include <algorithm>
#include <utility>

#include "engine/runner/speculators/draft_host.h"
#include "engine/runner/speculators/model_guess.h"

namespace serval {
namespace {

// Each part begins on a cache line.
size_t rounded(size_t bytes) {
  return (bytes + 63) / 64 * 64;
}
size_t hidden_bytes(const ModelSpec& target, int rows, const Backend& backend) {
  return rounded(size_t{1} * rows * target.hidden_size * dtype_bytes(backend.activation_dtype(target.weight_dtype)));
}
size_t memory_bytes(const ModelSpec& target, const StepLimits& steps, const Backend& backend) {
  return 2 * hidden_bytes(target, steps.max_seqs, backend) +
         rounded(sizeof(float) * steps.max_seqs * target.vocab_size);
}

}  // namespace

MedusaSpeculator::MedusaSpeculator(std::vector<MedusaHead> heads) : heads_(std::move(heads)) {}

// A step has a row for each sequence, and no sequence.
StepLimits MedusaSpeculator::limits_of(const ModelSpec& target, const StepLimits& steps) {
  return Transformer::step_limits(target, {.max_rows = steps.max_seqs,
                                           .max_logit_rows = steps.max_seqs,
                                           .max_seqs = steps.max_seqs,
                                           .max_model_len = steps.max_model_len,
                                           .table_stride = steps.table_stride});
}

size_t MedusaSpeculator::planned_bytes(const ModelSpec& target, const StepLimits& steps, const Backend& backend) {
  BlockGeometry geometry;
  geometry.num_groups = steps.num_kv_groups;
  return memory_bytes(target, steps, backend) +
         KeptRows::planned_bytes(1, steps.max_rows, target.hidden_size, backend.activation_dtype(target.weight_dtype)) +
         backend.step_context_bytes(limits_of(target, steps)) +
         ModelInput::planned_bytes(steps.max_seqs, steps.max_seqs, 0, steps.table_stride, geometry, {}) +
         steps.max_seqs * (sizeof(Drawing) + sizeof(int32_t) + sizeof(SampleRow) + sizeof(SampleResult) +
                           kMaxDrafts * sizeof(TopLogprob));
}

void MedusaSpeculator::start(const DraftHost& host) {
  backend_ = &host.backend;
  slots_ = &host.slots;
  const ModelSpec& target = host.transformer.spec();
  vocab_ = target.vocab_size;
  memory_ = host.backend.allocate(memory_bytes(target, host.steps, host.backend));
  const DType type = host.backend.activation_dtype(target.weight_dtype);
  auto* next = memory_.as<std::byte>();
  const auto rows_of = [&](int rows) {
    std::byte* const at = std::exchange(next, next + hidden_bytes(target, rows, host.backend));
    return Tensor(at, type, {rows, target.hidden_size});
  };
  kept_.start(1, host.steps.max_rows, target.hidden_size, type, host.backend);
  x_ = rows_of(host.steps.max_seqs);
  h_ = rows_of(host.steps.max_seqs);
  logits_ = Tensor(next, DType::kF32, {host.steps.max_seqs, target.vocab_size});
  context_ = host.backend.make_step_context(limits_of(target, host.steps));
  input_.emplace(host.steps.max_seqs, host.steps.max_seqs, 0, host.steps.table_stride, host.geometry,
                 host.transformer.spec().long_attention);
  const int most = host.steps.max_seqs;
  drawing_.reserve(most);
  rows_.reserve(most);
  params_.reserve(most);
  results_.resize(most);
  top_.resize(size_t{kMaxDrafts} * most);
}

void MedusaSpeculator::propose(std::span<DraftTask> tasks) {
  gather(tasks, kept_.next());
  for (size_t h = 0; h < heads_.size() && !drawing_.empty(); ++h) run(heads_[h], static_cast<int>(h));
}

void MedusaSpeculator::gather(std::span<DraftTask> tasks, const Tensor& kept) {
  drawing_.clear();
  rows_.clear();
  for (DraftTask& task : tasks) {
    if (!task.wants_more()) continue;
    drawing_.push_back({&task, -1});
    rows_.push_back(task.last_row());
  }
  if (drawing_.empty()) return;
  const auto count = static_cast<int>(rows_.size());
  context_->begin_step(input_->build({}, *slots_, [count](int) { return count; }));
  x_.dims[0] = h_.dims[0] = logits_.dims[0] = count;
  backend_->gather_rows(kept, rows_, x_);
}

// A guess for each that draws. Those that are done keep their row, and nobody draws from it.
void MedusaSpeculator::run(const MedusaHead& head, int num_before) {
  backend_->linear(x_, head.layer, h_);
  backend_->activation(Activation::kSilu, h_, h_);
  backend_->scaled_add(h_, 1, x_, h_);
  backend_->linear(h_, head.logits, logits_);
  params_.clear();
  int stride = 0;
  for (const Drawing& drawing : drawing_) {
    const DraftTask& task = *drawing.task;
    params_.push_back(guess_row(task, *slots_->find(task.seq, task.slot), num_before, vocab_, vocab_));
    stride = std::max(stride, params_.back().num_top);
  }
  const int ticket = context_->sample({.logits = logits_,
                                       .rows = params_.data(),
                                       .results = results_.data(),
                                       .top = top_.data(),
                                       .top_stride = stride});
  context_->wait_sampled(ticket);
  bool goes_on = false;
  for (size_t i = 0; i < drawing_.size(); ++i) {
    DraftTask& task = *drawing_[i].task;
    int& last = drawing_[i].last;
    if (!task.wants_more() || num_before >= task.depth || (num_before > 0 && last < 0)) continue;
    last = add_drawn(task, *slots_->find(task.seq, task.slot), last, results_[i], top_.data() + i * stride, vocab_, kind());
    goes_on |= last >= 0 && num_before + 1 < task.depth && task.wants_more();
  }
  if (!goes_on) drawing_.clear();
}

}  // namespace serval
