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
  slots.unrounded_linear(w.router, {{"block_sparse_moe.gate", num_experts}}, hidden, false);
  w.gate_up.resize(num_experts);
  w.down.resize(num_experts);
  for (int e = 0; e < num_experts; ++e) {
    const std::string expert = "block_sparse_moe.experts." + std::to_string(e);
    const std::string gate = expert + ".w1", up = expert + ".w3", down = expert + ".w2";
    slots.linear(w.gate_up[e], {{gate, intermediate_size}, {up, intermediate_size}}, hidden, false);
    slots.linear(w.down[e], {{down, hidden}}, intermediate_size, false);
  }
}

// A row's copies and what they become, and, in bytes, its logits and its part of the routing; cut in whole
// lines, which one row may need alone. A number of the scratch has two bytes at least.
int64_t MoeFfnSpec::scratch_width() const {
  const size_t routing =
      whole_lines(ExpertRouting::bytes(1, num_experts, top_k)) + whole_lines(num_experts * sizeof(float));
  const int64_t copies = int64_t{top_k} * (hidden_size + 3 * intermediate_size);
  return copies + static_cast<int64_t>(routing / 2);
}

void MoeFfnSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max(limits.max_k, int64_t{intermediate_size});
}

// Score the experts, copy each row for those it chose, and what a gated feed-forward does for every expert's
// copies by its own weights; then each row's answers are added.
void MoeFfnSpec::run(Backend& backend, const MoeFfnWeights& w, const FfnInput& in) const {
  const int64_t rows = in.h.dim(0), copies = rows * top_k, width = intermediate_size;
  const DType type = in.scratch.dtype;
  auto* next = static_cast<std::byte*>(in.scratch.data);
  const auto take = [&next](size_t bytes) {
    void* const at = next;
    next += whole_lines(bytes);
    return at;
  };
  const ExpertRouting routing(take(ExpertRouting::bytes(rows, num_experts, top_k)), rows, num_experts, top_k);
  const Tensor logits(take(rows * num_experts * sizeof(float)), DType::kF32, {rows, num_experts});
  const Tensor copied(next, type, {copies, hidden_size});
  const Tensor gate_up(copied.at(copied.num_elements()), type, {copies, 2 * width});
  const Tensor activated(gate_up.at(gate_up.num_elements()), type, {copies, width});

  backend.linear(in.h, w.router, logits);
  backend.route_experts(rule, logits, routing);
  backend.dispatch_rows(in.h, routing, copied);
  backend.expert_linear(copied, w.gate_up, routing, gate_up);
  backend.gated_activation(activation, gate_up, activated);
  backend.expert_linear(activated, w.down, routing, copied);
  backend.combine_experts(copied, routing, in.out);
}

}  // namespace serval
