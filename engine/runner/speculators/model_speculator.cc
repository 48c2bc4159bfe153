#include "engine/runner/speculators/model_speculator.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "engine/runner/speculators/draft_host.h"
#include "engine/runner/speculators/model_guess.h"

namespace serval {
namespace {

constexpr int kWaiting = 16;  // positions

// Of a request that takes tokens of the first layers as they are: it takes this one where it is their most probable token, by so much
// more probable than the next (softmax response, CALM: Schuster et al. 2022, section 3). Never by 1. `top`: the two best.
bool is_sure(const SpeculationParams& asked, TokenId token, const TopLogprob* top) {
  return token == top[0].token && std::exp(top[0].logprob) - std::exp(top[1].logprob) > asked.exit_threshold;
}

}  // namespace

ModelSpeculator::ModelSpeculator(const DraftPlan& plan, ModelSpec spec, ModelWeights weights)
    : plan_(plan), model_(std::make_unique<Model>(Model{std::move(spec), std::move(weights)})) {}

ModelSpeculator::ModelSpeculator(const DraftPlan& plan) : plan_(plan) {}

size_t ModelSpeculator::planned_table_bytes(int max_seqs, int rows_ahead, int max_model_len) {
  return max_seqs * (sizeof(int) + sizeof(SeqStep) + sizeof(Drawing)) +
         (max_seqs + rows_ahead) * (sizeof(int32_t) + sizeof(SampleRow) + sizeof(SampleResult) + kMaxDrafts * sizeof(TopLogprob)) +
         (rows_ahead > 0 ? NgramIndex::planned_bytes(max_seqs, max_model_len) : 0) + DraftKv::planned_table_bytes(max_seqs);
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
  const int most = steps.max_seqs, most_draws = most + plan_.rows_ahead;
  next_pos_.assign(most, kFromTheStart);
  if (plan_.rows_ahead > 0) ahead_.emplace().start(most, steps.max_model_len);
  batch_.seqs.reserve(most);
  drawing_.reserve(most);
  rows_.reserve(most_draws);
  params_.reserve(most_draws);
  results_.resize(most_draws);
  top_.resize(size_t{kMaxDrafts} * most_draws);
}

void ModelSpeculator::admit(const Admission& newcomer) {
  next_pos_[newcomer.slot] = kFromTheStart;
  if (ahead_) ahead_->clear(newcomer.slot);
}

void ModelSpeculator::copy_kv(std::span<const GroupBlockCopy> copies) {
  if (own_kv_) own_kv_->copy(copies);
}

int ModelSpeculator::lag(const DraftTask& task) const {
  const int next_pos = next_pos_[task.slot];
  return own_kv_ && next_pos != kFromTheStart ? std::max(0, task.first_computed - next_pos) : 0;
}

void ModelSpeculator::propose(std::span<DraftTask> tasks) {
  work_ = {};
  lay_out(tasks);
  if (batch_.seqs.empty()) return;
  forward();
  while (!drawing_.empty()) {
    draw();
    lay_out_next();
    if (!drawing_.empty()) forward();
  }
  for (DraftTask& task : tasks) slots_->take_back(task.slot);
}

// The rows of the first forward: what this model has not computed, and the token behind it.
void ModelSpeculator::lay_out(std::span<DraftTask> tasks) {
  batch_.seqs.clear();
  drawing_.clear();
  int row = 0, left = plan_.steps.max_rows - plan_.rows_ahead, left_ahead = plan_.rows_ahead;
  for (DraftTask& task : tasks) {
    const int num_known = static_cast<int>(task.known.size()), num_computed = task.first_computed + task.num_computed;
    if (guessed_by_) guessed_by_->begin(task.seq, task.slot, num_known);  // whoever guesses now, what was before is over
    int& next_pos = next_pos_[task.slot];
    if (next_pos == kFromTheStart) next_pos = task.first_computed;
    if (ahead_) ahead_->read(task.slot, task.known);
    const int begin = own_kv_ ? std::min(next_pos, num_computed) : num_computed;
    const bool draws = task.wants_more() && num_known - begin <= left;
    // While it decodes and others guess, what is there waits until it is worth a forward.
    const bool waits = num_known > num_computed && num_computed - begin < kWaiting;
    const int end = draws ? num_known : own_kv_ && task.is_followed && !waits ? std::min(num_computed, begin + left) : begin;
    if (begin == end) continue;
    next_pos = std::min(end, num_computed);
    batch_.seqs.push_back({.seq = task.seq, .slot = task.slot, .first_pos = begin, .num_tokens = end - begin});
    row += end - begin;
    left -= end - begin;
    if (!draws) continue;
    Drawing& drawing = drawing_.emplace_back(Drawing{.task = &task, .row = row - 1});
    lend_own_blocks(plan_, input_->num_groups(), task.slot, num_known + task.depth - 1, *slots_);
    drawing.num_ahead = guess_ahead(drawing, left_ahead);
    batch_.seqs.back().num_tokens += drawing.num_ahead;
    row += drawing.num_ahead;
  }
}

// The rows of a later one: the chain's last token.
void ModelSpeculator::lay_out_next() {
  batch_.seqs.clear();
  int row = 0, left_ahead = plan_.rows_ahead;
  std::erase_if(drawing_, [&](Drawing& drawing) {
    DraftTask& task = *drawing.task;
    if (drawing.num_chained == task.depth || !task.wants_more()) return true;
    const int position = static_cast<int>(task.known.size()) - 1 + drawing.num_chained;
    slots_->guess(task.slot, position, task.drafts[drawing.last].token);
    drawing.row = row;
    drawing.num_ahead = guess_ahead(drawing, left_ahead);
    batch_.seqs.push_back({.seq = task.seq, .slot = task.slot, .first_pos = position, .num_tokens = 1 + drawing.num_ahead});
    row += 1 + drawing.num_ahead;
    return false;
  });
}

// Puts guesses of what will be drawn behind the chain, which stands behind the known tokens, behind it; returns how many.
int ModelSpeculator::guess_ahead(const Drawing& drawing, int& left) {
  const DraftTask& task = *drawing.task;
  const int most = std::min({left, task.depth - drawing.num_chained - 1, task.most - task.num_drafts - 1});
  if (!ahead_ || most <= 0) return 0;
  const int end = static_cast<int>(task.known.size()) + drawing.num_chained;
  const std::span<const TokenId> text(slots_->find(task.seq, task.slot)->tokens, end);
  std::array<TokenId, kMaxDrafts> guesses;
  const int count = ahead_->guess(task.slot, text, std::span(guesses).first(most));
  for (int i = 0; i < count; ++i) slots_->guess(task.slot, end + i, guesses[i]);
  left -= count;
  return count;
}

void ModelSpeculator::forward() {
  ForwardInput input = input_->build(batch_, *slots_, [](int rows) { return rows; });
  if (own_kv_) input = own_kv_->input_of(input);
  context_->begin_step(input);
  transformer_->forward(input, kv_, *workspace_, plan_.num_layers);
  ++work_.forwards;
}

// A guess for each that draws, and those behind what was guessed ahead and came true.
void ModelSpeculator::draw() {
  rows_.clear();
  params_.clear();
  int stride = 0;
  for (const Drawing& drawing : drawing_) {
    const DraftTask& task = *drawing.task;
    const Slot& slot = *slots_->find(task.seq, task.slot);
    for (int i = 0; i <= drawing.num_ahead; ++i) {
      SampleRow row = guess_row(task, slot, drawing.num_chained + i, transformer_->spec().vocab_size, vocab_);
      if (guessed_by_ && slot.speculation.acceptance == Acceptance::kRejection) row.drawn_by = guessed_by_->next(task.slot, i);
      if (slot.speculation.acceptance == Acceptance::kExit) row.num_top = 2;
      stride = std::max(stride, row.num_top);
      rows_.push_back(drawing.row + i);
      params_.push_back(row);
    }
  }
  for (size_t begin = 0; begin < rows_.size();) {
    const size_t count = std::min(rows_.size() - begin, static_cast<size_t>(workspace_->max_logit_rows()));
    const Tensor logits = transformer_->logits(std::span(rows_).subspan(begin, count), *workspace_);
    const int ticket = context_->sample({.logits = logits,
                                         .rows = params_.data() + begin,
                                         .results = results_.data() + begin,
                                         .top = top_.data() + begin * stride,
                                         .top_stride = stride});
    context_->wait_sampled(ticket);
    begin += count;
  }
  size_t first = 0;
  for (Drawing& drawing : drawing_) {
    const size_t next = first + 1 + drawing.num_ahead;
    take(drawing, first, stride);
    first = next;
  }
}

// The draws from `first` on, as far as each stands behind the one before it, and as it must be sure of them.
void ModelSpeculator::take(Drawing& drawing, size_t first, int stride) {
  DraftTask& task = *drawing.task;
  const Slot& slot = *slots_->find(task.seq, task.slot);
  const TokenId* const guesses = slot.tokens + task.known.size() + drawing.num_chained;
  work_.ahead += drawing.num_ahead;
  for (int i = 0;; ++i) {
    const SampleResult& result = results_[first + i];
    if (params_[first + i].drawn_by) guessed_by_->drew(task.slot, result.token);
    const TopLogprob* const top = top_.data() + (first + i) * stride;
    const bool is_taken = slot.speculation.acceptance != Acceptance::kExit || is_sure(slot.speculation, result.token, top);
    drawing.last = is_taken ? add_drawn(task, slot, drawing.last, result, top, vocab_, kind()) : -1;
    drawing.num_chained = drawing.last < 0 ? task.depth : drawing.num_chained + 1;
    if (i == drawing.num_ahead || result.token != guesses[i]) return;
    ++work_.ahead_accepted;
    if (drawing.num_chained == task.depth || !task.wants_more()) return;
  }
}

}  // namespace serval
