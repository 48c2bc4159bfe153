#include "engine/runner/speculators/heads_speculator.h"

#include <algorithm>
#include <utility>

#include "engine/runner/speculators/draft_host.h"
#include "engine/runner/speculators/model_guess.h"

namespace serval {
namespace {

// Rows that are read beside each other by the head that reads most.
int most_read(const HeadsSpec& spec) {
  return spec.num_read(spec.num_heads - 1);
}
size_t row_bytes(const ModelSpec& target, const Backend& backend) {
  return target.hidden_size * dtype_bytes(backend.activation_dtype(target.weight_dtype));
}
// Rows of the hidden size for each sequence: what is read, that once more where it is put beside each other, and a head's.
int rows_of_sequence(const HeadsSpec& spec) {
  return most_read(spec) * (spec.reads_tokens ? 2 : 1) + 3;
}
// Each part begins on a cache line.
size_t rounded(size_t bytes) {
  return (bytes + 63) / 64 * 64;
}
size_t memory_bytes(const HeadsSpec& spec, const ModelSpec& target, const StepLimits& steps, const Backend& backend) {
  return rounded(rows_of_sequence(spec) * steps.max_seqs * row_bytes(target, backend)) +
         rounded(sizeof(float) * steps.max_seqs * target.vocab_size);
}

// A step has a row for each sequence, and no sequence.
StepLimits limits_of(const ModelSpec& target, const StepLimits& steps) {
  return Transformer::step_limits(target, {.max_rows = steps.max_seqs,
                                           .max_logit_rows = steps.max_seqs,
                                           .max_seqs = steps.max_seqs,
                                           .max_model_len = steps.max_model_len,
                                           .table_stride = steps.table_stride});
}
// With room for the list of the rows that are put beside each other, and for the widest matrix.
StepLimits context_limits(const HeadsSpec& spec, const ModelSpec& target, const StepLimits& steps) {
  StepLimits limits = limits_of(target, steps);
  if (!spec.reads_tokens) return limits;
  limits.max_rows *= most_read(spec);
  limits.max_k = std::max<int64_t>(limits.max_k, int64_t{most_read(spec)} * target.hidden_size);
  return limits;
}

}  // namespace

HeadsSpeculator::HeadsSpeculator(const HeadsSpec& spec, std::vector<DraftHead> heads, std::unique_ptr<PrefixLayer> prefix)
    : spec_(spec), heads_(std::move(heads)), prefix_(std::move(prefix)) {}

size_t HeadsSpeculator::planned_bytes(const HeadsSpec& spec, const ModelSpec& target, const StepLimits& steps,
                                      const Backend& backend) {
  BlockGeometry geometry;
  geometry.num_groups = steps.num_kv_groups;
  return memory_bytes(spec, target, steps, backend) +
         (spec.prefix ? 0 : KeptRows::planned_bytes(1, steps.max_rows, target.hidden_size, backend.activation_dtype(target.weight_dtype))) +
         backend.step_context_bytes(context_limits(spec, target, steps)) +
         ModelInput::planned_bytes(steps.max_seqs, steps.max_seqs, 0, steps.table_stride, geometry, {}) +
         steps.max_seqs * (sizeof(Drawing) + (1 + most_read(spec)) * sizeof(int32_t) + sizeof(SampleRow) + sizeof(SampleResult) +
                           kMaxDrafts * sizeof(TopLogprob));
}

void HeadsSpeculator::start(const DraftHost& host) {
  backend_ = &host.backend;
  slots_ = &host.slots;
  const ModelSpec& target = host.transformer.spec();
  embedding_ = &host.transformer.weights().embedding;
  embedding_scale_ = target.embedding_scale;
  vocab_ = target.vocab_size;
  memory_ = host.backend.allocate(memory_bytes(spec_, target, host.steps, host.backend));
  const DType type = host.backend.activation_dtype(target.weight_dtype);
  const int most = host.steps.max_seqs;
  auto* const begin = memory_.as<std::byte>();
  std::byte* next = begin;
  const auto rows_of = [&](int rows) {
    std::byte* const at = std::exchange(next, next + rows * row_bytes(target, host.backend));
    return Tensor(at, type, {rows, target.hidden_size});
  };
  read_ = rows_of(most_read(spec_) * most);
  if (spec_.reads_tokens) paired_ = rows_of(most_read(spec_) * most);
  for (Tensor& h : h_) h = rows_of(most);
  logits_ = Tensor(begin + rounded(next - begin), DType::kF32, {most, target.vocab_size});
  if (prefix_) prefix_->start(host);
  else kept_.start(1, host.steps.max_rows, target.hidden_size, type, host.backend);
  context_ = host.backend.make_step_context(context_limits(spec_, target, host.steps));
  input_.emplace(most, most, 0, host.steps.table_stride, host.geometry, target.long_attention);
  drawing_.reserve(most);
  rows_.reserve(size_t{1} * most_read(spec_) * most);
  tokens_.reserve(most);
  params_.reserve(most);
  results_.resize(most);
  top_.resize(size_t{kMaxDrafts} * most);
}

void HeadsSpeculator::propose(std::span<DraftTask> tasks) {
  const Tensor from = choose(tasks);
  if (!drawing_.empty()) gather(from);
  for (int h = 0; h < spec_.num_heads && !drawing_.empty(); ++h) {
    if (spec_.reads_tokens) read_tokens(h + 1);
    run(h);
    draw(h);
  }
}

// Who draws, and from which of the rows that it returns.
Tensor HeadsSpeculator::choose(std::span<DraftTask> tasks) {
  drawing_.clear();
  rows_.clear();
  if (prefix_) prefix_->steps().begin();
  for (DraftTask& task : tasks) {
    if (prefix_ ? !prefix_->steps().follow(task) : !task.wants_more()) continue;
    drawing_.push_back({&task, -1});
    rows_.push_back(prefix_ ? static_cast<int32_t>(prefix_->steps().rows().size()) - 1 : task.last_row());
  }
  return prefix_ ? prefix_->run() : kept_.next();
}

void HeadsSpeculator::gather(const Tensor& from) {
  const auto count = static_cast<int>(rows_.size());
  context_->begin_step(input_->build({}, *slots_, [count](int) { return count; }));
  for (Tensor& h : h_) h.dims[0] = count;
  logits_.dims[0] = count;
  backend_->gather_rows(from, rows_, {read_.data, read_.dtype, {count, read_.dim(1)}});
}

// The embeddings of the last tokens, known or guessed, become that part of what is read. Those that are done have any.
void HeadsSpeculator::read_tokens(int part) {
  tokens_.clear();
  for (const Drawing& drawing : drawing_)
    tokens_.push_back(drawing.last < 0 ? drawing.task->known.back() : drawing.task->drafts[drawing.last].token);
  const auto count = static_cast<int>(tokens_.size());
  ForwardInput step = input_->build({}, *slots_, [count](int) { return count; });
  step.token_ids = tokens_;
  context_->begin_step(step);  // a device reads the tokens of a step alone
  backend_->embed(*embedding_, tokens_, embedding_scale_,
                  {read_.at(int64_t{part} * count * read_.dim(1)), read_.dtype, {count, read_.dim(1)}});
}

// [sequences, hidden * rows that head `number` reads]
Tensor HeadsSpeculator::input_of(int number) {
  const int64_t count = std::ssize(drawing_), hidden = read_.dim(1);
  const int parts = spec_.num_read(number);
  if (parts == 1) return {read_.data, read_.dtype, {count, hidden}};
  rows_.clear();
  for (int32_t i = 0; i < count; ++i)
    for (int32_t p = 0; p < parts; ++p) rows_.push_back(p * static_cast<int32_t>(count) + i);
  backend_->gather_rows({read_.data, read_.dtype, {parts * count, hidden}}, rows_, {paired_.data, paired_.dtype, {parts * count, hidden}});
  return {paired_.data, paired_.dtype, {count, parts * hidden}};
}

void HeadsSpeculator::run(int number) {
  const DraftHead& head = heads_[number];
  Tensor x = input_of(number);
  for (const DraftHead::Layer& layer : head.layers) {
    const Tensor& out = x.data == h_[0].data ? h_[1] : h_[0];
    backend_->linear(x, layer.linear, out);
    backend_->activation(Activation::kSilu, out, out);
    if (layer.around.n > 0) backend_->linear(std::exchange(x, h_[2]), layer.around, h_[2]);
    backend_->scaled_add(out, 1, x, out);
    x = out;
  }
  backend_->linear(x, head.logits, logits_);
}

// A guess for each that draws. Those that are done keep their row, and nobody draws from it.
void HeadsSpeculator::draw(int num_before) {
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
