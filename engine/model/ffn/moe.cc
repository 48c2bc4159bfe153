#include "engine/model/ffn/moe.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "engine/model/norm.h"

namespace serval {
namespace {

size_t whole_lines(size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

}  // namespace

void MoeFfnSpec::list_slots(int64_t hidden, MoeFfnWeights& w, SlotList& slots) const {
  if (own_norm.is_there()) {
    // The router's input is divided by the root of its width too.
    slots.vector(w.router_norm.weight, "mlp.gate.scale", {hidden}, [hidden](std::vector<float>& values, const auto&) {
      for (float& value : values) value /= std::sqrt(static_cast<float>(hidden));
    });
    slots.norm(w.experts_norm, "mlp.experts_norm", hidden, own_norm);
    slots.norm(w.experts_post_norm, "mlp.experts_post_norm", hidden, own_norm);
    slots.norm(w.shared_post_norm, "mlp.shared_post_norm", hidden, own_norm);
  }
  slots.unrounded_linear(w.router, {{"mlp.gate", num_experts}}, hidden, router_bias);
  if (has_correction) slots.vector(w.correction, "mlp.gate.e_score_correction_bias", {num_experts});
  if (named_tokens > 0) slots.integers(w.of_tokens, "mlp.gate.tid2eid", {named_tokens, top_k}, num_experts);
  if (has_expert_scales) slots.vector(w.expert_scales, "mlp.gate.per_expert_scale", {num_experts});
  if (latent_size > 0) {
    slots.linear(w.latent_in, {{"mlp.fc1_latent_proj", latent_size}}, hidden, shared_bias);
    slots.linear(w.latent_out, {{"mlp.fc2_latent_proj", hidden}}, latent_size, shared_bias);
  }
  w.gate_up.resize(num_experts);
  w.down.resize(num_experts);
  const auto gate_up = [&](std::string_view gate, std::string_view up, int64_t rows) {
    return has_gate ? std::vector<SlotList::Rows>{{gate, rows}, {up, rows}} : std::vector<SlotList::Rows>{{up, rows}};
  };
  for (int e = 0; e < num_experts; ++e) {
    slots.expert_linear(w.gate_up[e], {e, num_experts},
                        gate_up("mlp.experts.*.gate_proj", "mlp.experts.*.up_proj", intermediate_size), width(),
                        expert_bias);
    slots.expert_linear(w.down[e], {e, num_experts}, {{"mlp.experts.*.down_proj", width()}}, intermediate_size,
                        expert_bias);
  }
  if (shared_size == 0) return;
  slots.linear(w.shared_gate_up,
               gate_up("mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj", shared_size), hidden, shared_bias);
  slots.linear(w.shared_down, {{"mlp.shared_experts.down_proj", hidden}}, shared_size, shared_bias);
  if (has_shared_gate) slots.unrounded_linear(w.shared_gate, {{"mlp.shared_expert_gate", 1}}, hidden, false);
}

// A row's copies (and the shared expert's answer), what the router or the routed experts read where that is theirs, and
// what copies become; and, in bytes, its logits and its part of the routing; cut in whole lines, which one row may need
// alone. A number of the scratch has two bytes at least.
int64_t MoeFfnSpec::scratch_width() const {
  const size_t routing = whole_lines(ExpertRouting::bytes(1, num_experts, top_k)) +
                         whole_lines(num_experts * sizeof(float)) + whole_lines(sizeof(float));
  const int64_t answers = int64_t{top_k} * width() + (shared_size > 0 ? hidden_size : 0);
  const int64_t widths = std::max(int64_t{top_k} * intermediate_size, int64_t{shared_size});
  return answers + (adds_shared_apart() ? hidden_size : 0) + (ups() + 1) * widths + static_cast<int64_t>(routing / 2);
}

void MoeFfnSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max<int64_t>({limits.max_k, intermediate_size, shared_size});
  if (named_tokens > 0) limits.need(RareOp::kTokenExperts);
}

// Score the experts, copy each row for those it chose, and what a feed-forward part does for every expert's
// copies by its own weights; then the same for all rows by the shared one's, and each row's answers are added.
void MoeFfnSpec::run(Backend& backend, const MoeFfnWeights& w, const FfnInput& in) const {
  const int64_t rows = in.h.dim(0), copies = rows * top_k;
  const DType type = in.scratch.dtype;
  auto* next = static_cast<std::byte*>(in.scratch.data);
  const auto take = [&next](size_t bytes) {
    void* const at = next;
    next += whole_lines(bytes);
    return at;
  };
  ExpertRouting routing(take(ExpertRouting::bytes(rows, num_experts, top_k)), rows, num_experts, top_k);
  routing.weighs_inputs = weighs_inputs;
  if (has_expert_scales) routing.scales = Tensor(w.expert_scales.data(), DType::kF32, {num_experts});
  if (named_tokens > 0) {
    routing.of_tokens = Tensor(w.of_tokens.data(), DType::kF32, {named_tokens, top_k});
    routing.tokens = in.token_ids;
  }
  const Tensor logits(take(rows * num_experts * sizeof(float)), DType::kF32, {rows, num_experts});
  Tensor shared_gate(take(rows * sizeof(float)), DType::kF32, {rows, 1});
  const Tensor routed(next, type, {copies, width()});
  const Tensor shared(routed.at(routed.num_elements()), type, {shared_size > 0 ? rows : 0, hidden_size});
  const Tensor own(shared.at(shared.num_elements()), type, {adds_shared_apart() ? rows : 0, hidden_size});
  void* const wide = own.at(own.num_elements());
  const auto widened = [&](int64_t count, int64_t size) { return Tensor(wide, type, {count, ups() * size}); };
  const auto activate = [&](int64_t count, int64_t size) {
    const Tensor gate_up = widened(count, size);
    const Tensor activated(gate_up.at(gate_up.num_elements()), type, {count, size});
    if (gate_limit > 0) backend.clamp_gate_up(gate_up, gate_limit, up_offset);
    if (has_gate) backend.gated_activation(activation, gate_up, activated);
    else backend.activation(activation, gate_up, activated);
    return activated;
  };
  // Of the residual, by a norm of the part's own.
  const auto read = [&](const NormWeights& norm) {
    if (!own_norm.is_there()) return in.h;
    backend.scaled_add(in.residual, 1, {}, own);
    return add_norm(backend, own_norm, norm, own, {}, own);
  };

  const Tensor correction =
      has_correction ? Tensor(w.correction.data(), DType::kF32, {num_experts}) : Tensor();
  backend.linear(read(w.router_norm), w.router, logits);
  backend.route_experts(rule, logits, correction, routing);
  Tensor given = read(w.experts_norm);
  if (latent_size > 0) {
    const Tensor latent(own.data, type, {rows, latent_size});
    backend.linear(given, w.latent_in, latent);
    given = latent;
  }
  backend.dispatch_rows(given, routing, routed);
  backend.expert_linear(routed, w.gate_up, routing, widened(copies, intermediate_size));
  backend.expert_linear(activate(copies, intermediate_size), w.down, routing, routed);
  if (shared_size > 0) {
    backend.linear(in.h, w.shared_gate_up, widened(rows, shared_size));
    backend.linear(activate(rows, shared_size), w.shared_down, shared);
  }
  if (has_shared_gate) {
    backend.linear(in.h, w.shared_gate, shared_gate);
  } else {
    shared_gate = {};
  }
  if (!adds_shared_apart()) {
    const int64_t answers = copies + shared.dim(0);
    return backend.combine_experts(Tensor(routed.data, type, {answers, hidden_size}), routing, shared_gate, in.out);
  }
  const Tensor combined(latent_size > 0 ? own.data : in.out.data, type, {rows, width()});
  backend.combine_experts(routed, routing, {}, combined);
  if (latent_size > 0) backend.linear(combined, w.latent_out, in.out);
  add_norm(backend, own_norm, w.experts_post_norm, in.out, {}, in.out);
  add_norm(backend, own_norm, w.shared_post_norm, shared, {}, shared);
  if (shared_size > 0) backend.scaled_add(shared, 1, in.out, in.out);
}

}  // namespace serval
