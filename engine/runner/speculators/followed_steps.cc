#include "engine/runner/speculators/followed_steps.h"

#include <algorithm>
#include <limits>

namespace serval {

size_t FollowedSteps::planned_bytes(size_t num_layers, const ModelSpec& model, const StepLimits& steps, const Backend& backend) {
  const DType type = backend.activation_dtype(model.weight_dtype);
  const int parts = std::max(1, static_cast<int>(num_layers));
  return KeptRows::planned_bytes(parts, steps.max_rows, model.hidden_size, type) +
         num_layers * steps.max_rows * model.hidden_size * dtype_bytes(type) + steps.max_rows * sizeof(int32_t) +
         steps.max_seqs * (sizeof(int) + sizeof(SeqStep));
}

void FollowedSteps::start(const DraftHost& host, const std::vector<int>& read_layers) {
  const ModelSpec& target = host.transformer.spec();
  const DType type = host.backend.activation_dtype(target.weight_dtype);
  const int64_t hidden = target.hidden_size, rows = host.steps.max_rows, num_taps = std::ssize(read_layers);
  kept_.start(std::max(1, static_cast<int>(num_taps)), host.steps.max_rows, hidden, type, host.backend);
  taps_.resize(1);
  if (num_taps > 0) {
    tap_memory_ = host.backend.allocate(num_taps * rows * hidden * dtype_bytes(type));
    const Tensor all(tap_memory_.data(), type, {num_taps * rows, hidden});
    host.transformer.tap(read_layers, all);
    taps_.clear();
    for (int64_t t = 0; t < num_taps; ++t)
      taps_.emplace_back(all.at(t * rows * hidden), type, std::initializer_list<int64_t>{rows, hidden});
  }
  next_pos_.assign(host.steps.max_seqs, kFromTheStart);
  batch_.seqs.reserve(host.steps.max_seqs);
  rows_.reserve(rows);
}

void FollowedSteps::keep(const Tensor& hidden) {
  if (tap_memory_.bytes == 0) taps_[0] = hidden;
  for (Tensor& tap : taps_) tap.dims[0] = hidden.dim(0);
  if (hidden.data == nullptr) return kept_.keep({});
  kept_.keep(taps_);
}

int FollowedSteps::lag(const DraftTask& task) const {
  const int next_pos = next_pos_[task.slot];
  return next_pos == kFromTheStart || next_pos == task.first_computed ? 0 : std::numeric_limits<int>::max();
}

void FollowedSteps::begin() {
  kept_now_ = kept_.next();
  batch_.seqs.clear();
  rows_.clear();
}

bool FollowedSteps::follow(const DraftTask& task) {
  if (lag(task) > 0 || !task.is_followed || task.num_computed == 0) return false;
  next_pos_[task.slot] = task.first_computed + task.num_computed;
  batch_.seqs.push_back({.seq = task.seq, .slot = task.slot, .first_pos = task.first_computed, .num_tokens = task.num_computed});
  for (int i = 0; i < task.num_computed; ++i) rows_.push_back(task.row_of(i));
  return task.wants_more() && next_pos_[task.slot] == static_cast<int>(task.known.size()) - 1;
}

}  // namespace serval
