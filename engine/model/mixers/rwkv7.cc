#include "engine/model/mixers/rwkv7.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

#include "engine/model/mixers/state_parts.h"
#include "engine/model/mixers/time_mix.h"

namespace serval {
namespace {

constexpr int kMixes = 6;
// Of the logarithm of a decay: minus e^(-1/2) times a sigmoid.
const float kLogDecay = -std::exp(-0.5f);

// The checkpoint has the shares of the position before; those of the own are one less.
void own_shares(std::vector<float>& values, const std::vector<int64_t>&) {
  for (size_t i = values.size() / 2; i < values.size(); ++i) values[i] = 1 - values[i];
}

void list_low_rank(SlotList& slots, Rwkv7LowRank& weights, const std::string& module, int rank, int64_t hidden, bool has_bias) {
  const std::string low = module + ".lora.0", high = module + ".lora.2";
  weights.low.resize(1);
  slots.linear(weights.low[0], {{low, rank}}, hidden, false);
  slots.linear(weights.high, {{high, hidden}}, rank, has_bias);
}

}  // namespace

void Rwkv7TimeSpec::list_slots(int64_t hidden_size, Rwkv7TimeWeights& w, SlotList& slots) const {
  std::vector<SlotList::NamedShape> mixes;
  for (int tap = 0; tap < 2; ++tap) {
    if (slots.names().has_packed_mixes) {
      mixes.push_back({"attn.x_x", {kMixes, hidden_size}});
    } else {
      for (const char use : std::string_view("rkvwag")) mixes.push_back({std::string("attn.x_") + use, {hidden_size}});
    }
  }
  // Where they are one tensor, decays stand before keys and values.
  slots.vectors(w.mix, mixes, [is_packed = slots.names().has_packed_mixes, hidden_size](auto& values, const auto& shape) {
    own_shares(values, shape);
    for (int tap = 0; tap < 2 && is_packed; ++tap) {
      const auto at = [&](int use) { return values.begin() + (tap * kMixes + use) * hidden_size; };
      std::rotate(at(1), at(2), at(4));
    }
  });
  w.inner.resize(3);
  constexpr std::string_view kInner[] = {"attn.r_proj", "attn.k_proj", "attn.v_proj"};
  for (int i = 0; i < 3; ++i) slots.linear(w.inner[i], {{kInner[i], hidden_size}}, hidden_size, false);
  list_low_rank(slots, w.decay, "attn.w_lora", decay_rank, hidden_size, true);
  list_low_rank(slots, w.rate, "attn.a_lora", rate_rank, hidden_size, true);
  list_low_rank(slots, w.gate, "attn.g_lora", gate_rank, hidden_size, false);
  if (!is_first) list_low_rank(slots, w.value, "attn.v_lora", value_rank, hidden_size, true);
  slots.constant(w.signs, std::vector<float>(hidden_size, -1));
  slots.vector(w.key_scale, "attn.k_k", {hidden_size});
  slots.vector(w.key_rate, "attn.k_a", {hidden_size});
  slots.vector(w.bonus, "attn.r_k", {num_heads(), head_dim});
  slots.norm(w.norm, "attn.g_norm", hidden_size, norm);
  slots.linear(w.output, {{"attn.o_proj", hidden_size}}, hidden_size, false);
}

// Copies, mixtures; r, k and v; what the low ranks give; the low; decays and rates in f32, as wide as two elements; what the
// scan gives, and what is added behind its norm.
int64_t Rwkv7TimeSpec::scratch_width() const {
  const int low = std::max({decay_rank, rate_rank, gate_rank, value_rank});
  return ScratchCutter::width({kMixes * int64_t{hidden}, kMixes * int64_t{hidden}, 3 * int64_t{hidden}, hidden, hidden, hidden, 2 * low,
                               2 * int64_t{hidden}, 2 * int64_t{hidden}, hidden, hidden});
}

void Rwkv7TimeSpec::shape_kv(KvLayer& kv) const {
  kv.dtype = DType::kF32;
  kv.conv_floats = kMixes * int64_t{hidden};
  kv.scan_floats = int64_t{hidden} * head_dim;
}

void Rwkv7TimeSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max<int64_t>({limits.max_k, hidden, decay_rank, rate_rank, gate_rank, value_rank});
  limits.need(RareOp::kReplacingScan);
  limits.need(RareOp::kHeadLinear);
}

void Rwkv7TimeSpec::run(Backend& backend, const Rwkv7TimeWeights& w, const MixerInput& in) const {
  const int64_t rows = in.h.dim(0), heads = num_heads();
  const int most_low = std::max({decay_rank, rate_rank, gate_rank, value_rank});
  ScratchCutter scratch(in.scratch, rows);
  const Tensor copies = scratch.cut(kMixes * int64_t{hidden}), mixed = scratch.cut(kMixes * int64_t{hidden}), rkv = scratch.cut(3 * int64_t{hidden}),
               step = scratch.cut(hidden), rate = scratch.cut(hidden), gate = scratch.cut(hidden), lows = scratch.cut_f32(most_low),
               decay = scratch.cut_f32(hidden), strength = scratch.cut_f32(hidden), out = scratch.cut(hidden),
               direct = scratch.cut(hidden);
  const auto piece = [&](int64_t i) { return Tensor(rkv.at(i * rows * hidden), rkv.dtype, {rows, hidden}); };
  const auto of_heads = [&](const Tensor& x) { return Tensor(x.data, x.dtype, {rows, heads, head_dim}); };
  const Tensor r = piece(0), k = piece(1), v = piece(2);
  mix_rows(backend, in, in.h, w.mix, kMixes, copies, mixed);
  project_mixed(backend, mixed, hidden, 0, w.inner, r);
  const auto through = [&](const Rwkv7LowRank& weights, int mix, int rank, const auto& between, const Tensor& to) {
    const Tensor low(lows.data, lows.dtype, {rows, rank});
    project_mixed(backend, mixed, hidden, mix, weights.low, low);
    between(low);
    backend.linear(low, weights.high, to);
  };
  const auto nothing = [](const Tensor&) {};
  through(w.decay, 3, decay_rank, [&](const Tensor& low) { backend.soft_cap(low, 1); }, step);  // that is its tanh
  through(w.rate, 4, rate_rank, nothing, rate);
  through(w.gate, 5, gate_rank, [&](const Tensor& low) { backend.activation(Activation::kSigmoid, low, low); }, gate);
  if (is_first) {
    backend.scaled_add(v, 1, {}, in.first_values);
  } else {
    through(w.value, 2, value_rank, nothing, out);
    backend.scaled_add(v, -1, in.first_values, direct);
    backend.gate(Activation::kSigmoid, out, hidden, direct, hidden, direct);
    backend.scaled_add(direct, 1, v, v);
  }
  backend.scan_gates({.x = step,
                      .x_stride = hidden,
                      .beta = rate,
                      .beta_stride = hidden,
                      .bias = {},
                      .rate = vector_of(w.signs, {hidden}),
                      .lower_bound = kLogDecay,
                      .decay = decay,
                      .strength = strength});
  backend.replacing_scan({.r = of_heads(r),
                          .k = of_heads(k),
                          .v = of_heads(v),
                          .decay = decay,
                          .rate = strength,
                          .key_scale = vector_of(w.key_scale, {hidden}),
                          .key_rate = vector_of(w.key_rate, {hidden}),
                          .bonus = vector_of(w.bonus, {hidden}),
                          .length_eps = length_eps,
                          .kv = in.kv,
                          .batch = &in.group.attention,
                          .out = out,
                          .direct = direct});
  backend.head_layer_norm(of_heads(out), hidden, vector_of(w.norm.weight, {heads, head_dim}),
                          vector_of(w.norm.bias, {heads, head_dim}), norm.eps);
  backend.scaled_add(direct, 1, out, out);
  backend.gate(Activation::kIdentity, gate, hidden, out, hidden, out);
  backend.linear(out, w.output, in.out);
}

void Rwkv7ChannelSpec::list_slots(int64_t hidden_size, Rwkv7ChannelWeights& w, SlotList& slots) const {
  slots.norm(w.norm, "post_attention_layernorm", hidden_size, norm);
  slots.vectors(w.mix, {{"ffn.x_k", {hidden_size}}, {"ffn.x_k", {hidden_size}}}, own_shares);
  w.up.resize(1);
  slots.linear(w.up[0], {{"ffn.key", width}}, hidden_size, false);
  slots.linear(w.down, {{"ffn.value", hidden_size}}, width, false);
}

int64_t Rwkv7ChannelSpec::scratch_width() const {
  return ScratchCutter::width({hidden, hidden, hidden, width});
}

void Rwkv7ChannelSpec::shape_kv(KvLayer& kv) const {
  kv.dtype = DType::kF32;
  kv.conv_floats = hidden;
}

void Rwkv7ChannelSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max<int64_t>({limits.max_k, hidden, width});
  limits.need(RareOp::kHeadLinear);
}

void Rwkv7ChannelSpec::run(Backend& backend, const Rwkv7ChannelWeights& w, const MixerInput& in) const {
  ScratchCutter scratch(in.scratch, in.h.dim(0));
  const Tensor h = scratch.cut(hidden), copies = scratch.cut(hidden), mixed = scratch.cut(hidden), up = scratch.cut(width);
  add_norm(backend, norm, w.norm, in.h, {}, h);
  mix_rows(backend, in, h, w.mix, 1, copies, mixed);
  project_mixed(backend, mixed, hidden, 0, w.up, up);
  backend.activation(Activation::kRelu2, up, up);
  backend.linear(up, w.down, in.out);
}

}  // namespace serval
