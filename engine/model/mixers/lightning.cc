#include "engine/model/mixers/lightning.h"

#include <algorithm>
#include <utility>

#include "engine/model/mixers/state_parts.h"

namespace serval {

void LightningSpec::list_slots(int64_t hidden, LightningWeights& w, SlotList& slots) const {
  // Each head's query, key and value lie together.
  std::vector<RowRange> rows;
  for (int part = 0; part < 3; ++part)
    for (int64_t h = 0; h < num_heads; ++h) rows.push_back({(3 * h + part) * head_dim, head_dim});
  slots.reordered_linear(w.qkv, "self_attn.qkv_proj", std::move(rows), hidden, false);
  slots.linear(w.gate, {{"self_attn.output_gate", width()}}, hidden, false);
  slots.constant(w.decays, decays);
  slots.norm(w.norm, "self_attn.norm", width(), norm);
  slots.linear(w.output, {{"self_attn.out_proj", hidden}}, width(), false);
}

int64_t LightningSpec::scratch_width() const {
  return ScratchCutter::width({3 * width(), width(), width()});
}

void LightningSpec::shape_kv(KvLayer& kv) const {
  kv.dtype = DType::kF32;
  kv.scan_floats = width() * head_dim;
}

void LightningSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max(limits.max_k, width());
  limits.need(RareOp::kLinearScan);
}

void LightningSpec::run(Backend& backend, const LightningWeights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0), stride = 3 * width();
  const DType type = in.scratch.dtype;
  ScratchCutter scratch(in.scratch, rows);
  const Tensor qkv = scratch.cut(stride), gate = scratch.cut(width()), mixed = scratch.cut(width());
  const auto heads = [&](int64_t at) { return Tensor(qkv.at(at), type, {rows, num_heads, head_dim}); };

  backend.linear(in.h, w.qkv, qkv);
  backend.activation(activation, qkv, qkv);
  backend.linear(in.h, w.gate, gate);
  backend.linear_scan({.q = heads(0),
                       .k = heads(width()),
                       .v = heads(2 * width()),
                       .qkv_stride = stride,
                       .decay = vector_of(w.decays, {1, num_heads}),
                       .strength = {},
                       .skip = {},
                       .kv = in.kv,
                       .batch = &in.group.attention,
                       .out = mixed});
  add_norm(backend, norm, w.norm, mixed, {}, mixed);
  backend.gate(Activation::kSigmoid, gate, width(), mixed, width(), mixed);
  backend.linear(mixed, w.output, in.out);
}

}  // namespace serval
