#include "engine/model/mixers/rwkv.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

#include "engine/model/mixers/state_parts.h"
#include "engine/model/mixers/time_mix.h"

namespace serval {
namespace {

// Shares of the own position, of several uses: as taps of a convolution, whose first is of the position before.
void list_mix(SlotList& slots, Buffer& mix, std::string_view module, const std::vector<std::string_view>& uses, int64_t hidden) {
  std::vector<SlotList::NamedShape> tensors;
  for (int tap = 0; tap < 2; ++tap)
    for (const std::string_view use : uses)
      tensors.push_back({std::string(module) + ".time_mix_" + std::string(use), {1, 1, hidden}});
  slots.vectors(mix, tensors, [](std::vector<float>& values, const std::vector<int64_t>&) {
    for (size_t i = 0; i < values.size() / 2; ++i) values[i] = 1 - values[i];
  });
}

}  // namespace

void RwkvTimeSpec::list_slots(int64_t hidden_size, RwkvTimeWeights& w, SlotList& slots) const {
  list_mix(slots, w.mix, "attention", {"key", "value", "receptance"}, hidden_size);
  w.inner.resize(3);
  constexpr std::string_view kInner[] = {"attention.key", "attention.value", "attention.receptance"};
  for (int i = 0; i < 3; ++i) slots.linear(w.inner[i], {{kInner[i], width}}, hidden_size, false);
  slots.vector(w.decay, "attention.time_decay", {width}, [](std::vector<float>& values, const std::vector<int64_t>&) {
    for (float& value : values) value = -std::exp(value);
  });
  slots.vector(w.first, "attention.time_first", {width});
  slots.linear(w.output, {{"attention.output", hidden_size}}, width, false);
}

// Copies, mixtures; keys, values and gates; what the scan gives.
int64_t RwkvTimeSpec::scratch_width() const {
  return ScratchCutter::width({3 * hidden, 3 * hidden, width, width, width, width});
}

void RwkvTimeSpec::shape_kv(KvLayer& kv) const {
  kv.dtype = DType::kF32;
  kv.conv_floats = 3 * int64_t{hidden};
  kv.scan_floats = 3 * int64_t{width};
}

void RwkvTimeSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max<int64_t>({limits.max_k, hidden, width});
  limits.need(RareOp::kMeanScan);
  limits.need(RareOp::kHeadLinear);
}

void RwkvTimeSpec::run(Backend& backend, const RwkvTimeWeights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0);
  ScratchCutter scratch(in.scratch, rows);
  const Tensor copies = scratch.cut(3 * int64_t{hidden}), mixed = scratch.cut(3 * int64_t{hidden}), inner = scratch.cut(3 * int64_t{width}),
               means = scratch.cut(width);
  const auto piece = [&](int64_t i) { return Tensor(inner.at(i * rows * width), inner.dtype, {rows, width}); };
  mix_rows(backend, in, in.h, w.mix, 3, copies, mixed);
  project_mixed(backend, mixed, hidden, 0, w.inner, piece(0));
  backend.mean_scan({.k = piece(0),
                     .v = piece(1),
                     .decay = vector_of(w.decay, {width}),
                     .first = vector_of(w.first, {width}),
                     .kv = in.kv,
                     .batch = &in.group.attention,
                     .out = means});
  backend.gate(Activation::kSigmoid, piece(2), width, means, width, means);
  backend.linear(means, w.output, in.out);
}

void RwkvChannelSpec::list_slots(int64_t hidden_size, RwkvChannelWeights& w, SlotList& slots) const {
  slots.norm(w.norm, "post_attention_layernorm", hidden_size, norm);
  list_mix(slots, w.mix, "feed_forward", {"key", "receptance"}, hidden_size);
  w.up.resize(1);
  w.gate.resize(1);
  slots.linear(w.up[0], {{"feed_forward.key", width}}, hidden_size, false);
  slots.linear(w.gate[0], {{"feed_forward.receptance", hidden_size}}, hidden_size, false);
  slots.linear(w.down, {{"feed_forward.value", hidden_size}}, width, false);
}

int64_t RwkvChannelSpec::scratch_width() const {
  return ScratchCutter::width({hidden, 2 * hidden, 2 * hidden, width, hidden});
}

void RwkvChannelSpec::shape_kv(KvLayer& kv) const {
  kv.dtype = DType::kF32;
  kv.conv_floats = 2 * int64_t{hidden};
}

void RwkvChannelSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max<int64_t>({limits.max_k, hidden, width});
  limits.need(RareOp::kHeadLinear);
}

void RwkvChannelSpec::run(Backend& backend, const RwkvChannelWeights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0);
  ScratchCutter scratch(in.scratch, rows);
  const Tensor h = scratch.cut(hidden), copies = scratch.cut(2 * int64_t{hidden}), mixed = scratch.cut(2 * int64_t{hidden}), up = scratch.cut(width),
               gate = scratch.cut(hidden);
  add_norm(backend, norm, w.norm, in.h, {}, h);
  mix_rows(backend, in, h, w.mix, 2, copies, mixed);
  project_mixed(backend, mixed, hidden, 0, w.up, up);
  project_mixed(backend, mixed, hidden, 1, w.gate, gate);
  backend.activation(Activation::kRelu2, up, up);
  backend.linear(up, w.down, in.out);
  backend.gate(Activation::kSigmoid, gate, hidden, in.out, hidden, in.out);
}

}  // namespace serval
