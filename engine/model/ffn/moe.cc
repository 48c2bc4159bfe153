#include "engine/model/ffn/moe.h"

#include <algorithm>
#include <string>

namespace serval {
namespace {

size_t whole_lines(size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

}  // namespace

void MoeFfnSpec::list_slots(int64_t hidden, MoeFfnWeights& w, SlotList& slots) const {
  slots.unrounded_linear(w.router, {{"mlp.gate", num_experts}}, hidden, router_bias);
  if (has_correction) slots.vector(w.correction, "mlp.gate.e_score_correction_bias", {num_experts});
  w.gate_up.resize(num_experts);
  w.down.resize(num_experts);
  const int64_t width = intermediate_size, shared = shared_size;
  for (int e = 0; e < num_experts; ++e) {
    slots.expert_linear(w.gate_up[e], {e, num_experts},
                        {{"mlp.experts.*.gate_proj", width}, {"mlp.experts.*.up_proj", width}}, hidden, expert_bias);
    slots.expert_linear(w.down[e], {e, num_experts}, {{"mlp.experts.*.down_proj", hidden}}, width, expert_bias);
  }
  if (shared == 0) return;
  slots.linear(w.shared_gate_up, {{"mlp.shared_experts.gate_proj", shared}, {"mlp.shared_experts.up_proj", shared}},
               hidden, shared_bias);
  slots.linear(w.shared_down, {{"mlp.shared_experts.down_proj", hidden}}, shared, shared_bias);
  if (has_shared_gate) slots.unrounded_linear(w.shared_gate, {{"mlp.shared_expert_gate", 1}}, hidden, false);
}

// A row's copies (and the shared expert's answer) and what they become, and, in bytes, its logits and its part of the
// routing; cut in whole lines, which one row may need alone. A number of the scratch has two bytes at least.
int64_t MoeFfnSpec::scratch_width() const {
  const size_t routing = whole_lines(ExpertRouting::bytes(1, num_experts, top_k)) +
                         whole_lines(num_experts * sizeof(float)) + whole_lines(sizeof(float));
  const int64_t answers = int64_t{top_k + (shared_size > 0 ? 1 : 0)} * hidden_size;
  const int64_t widths = std::max(int64_t{top_k} * intermediate_size, int64_t{shared_size});
  return answers + 3 * widths + static_cast<int64_t>(routing / 2);
}

void MoeFfnSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max<int64_t>({limits.max_k, intermediate_size, shared_size});
}

// Score the experts, copy each row for those it chose, and what a gated feed-forward does for every expert's
// copies by its own weights; then the same for all rows by the shared one's, and each row's answers are added.
void MoeFfnSpec::run(Backend& backend, const MoeFfnWeights& w, const FfnInput& in) const {
  const int64_t rows = in.h.dim(0), copies = rows * top_k, answers = copies + (shared_size > 0 ? rows : 0);
  const DType type = in.scratch.dtype;
  auto* next = static_cast<std::byte*>(in.scratch.data);
  const auto take = [&next](size_t bytes) {
    void* const at = next;
    next += whole_lines(bytes);
    return at;
  };
  ExpertRouting routing(take(ExpertRouting::bytes(rows, num_experts, top_k)), rows, num_experts, top_k);
  routing.weighs_inputs = weighs_inputs;
  const Tensor logits(take(rows * num_experts * sizeof(float)), DType::kF32, {rows, num_experts});
  Tensor shared_gate(take(rows * sizeof(float)), DType::kF32, {rows, 1});
  const Tensor copied(next, type, {answers, hidden_size});
  void* const wide = copied.at(copied.num_elements());
  const auto activate = [&](int64_t count, int64_t width) {
    const Tensor gate_up(wide, type, {count, 2 * width});
    const Tensor activated(gate_up.at(gate_up.num_elements()), type, {count, width});
    if (gate_limit > 0) backend.clamp_gate_up(gate_up, gate_limit, up_offset);
    backend.gated_activation(activation, gate_up, activated);
    return activated;
  };

  const Tensor correction =
      has_correction ? Tensor(w.correction.data(), DType::kF32, {num_experts}) : Tensor();
  const Tensor routed(copied.data, type, {copies, hidden_size});
  backend.linear(in.h, w.router, logits);
  backend.route_experts(rule, logits, correction, routing);
  backend.dispatch_rows(in.h, routing, routed);
  backend.expert_linear(routed, w.gate_up, routing, Tensor(wide, type, {copies, 2 * int64_t{intermediate_size}}));
  backend.expert_linear(activate(copies, intermediate_size), w.down, routing, routed);
  if (shared_size > 0) {
    backend.linear(in.h, w.shared_gate_up, Tensor(wide, type, {rows, 2 * int64_t{shared_size}}));
    backend.linear(activate(rows, shared_size), w.shared_down,
                   Tensor(routed.at(routed.num_elements()), type, {rows, hidden_size}));
  }
  if (has_shared_gate) {
    backend.linear(in.h, w.shared_gate, shared_gate);
  } else {
    shared_gate = {};
  }
  backend.combine_experts(copied, routing, shared_gate, in.out);
}

}  // namespace serval
