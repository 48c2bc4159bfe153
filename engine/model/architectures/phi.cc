#include "engine/model/architectures/phi.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/harmless_fields.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

// LongRoPE (Ding et al. 2024): short_factor up to the original context, long_factor beyond it. Which of the
// two a sequence is rotated by would depend on how long it becomes, so contexts end at the original one here.
void read_longrope(const Fields& config, const Fields& rope, ModelSpec& spec, RopeSpec& out) {
  constexpr std::string_view kOriginal = "original_max_position_embeddings";
  const std::optional<int> beside = config.find_int(kOriginal, 2, kMaxPositions);
  const std::optional<int> within = rope.find_int(kOriginal, 2, kMaxPositions);
  if (!beside && !within) config.refuse(kOriginal, "is missing");
  const int original = beside.value_or(within.value_or(0));
  const double stretch = rope.find_positive("factor", 1e6).value_or(double(spec.max_positions) / original);
  const double amplitude = stretch <= 1 ? 1 : std::sqrt(1 + std::log(stretch) / std::log(double(original)));
  out.amplitude = rope.find_positive("attention_factor", 1e6).value_or(amplitude);
  out.scaling.type = RopeScaling::Type::kByPair;
  for (const boost::json::value& factor : rope.get_array("short_factor")) {
    if (!factor.is_number() || !(factor.to_number<double>() > 0)) {
      rope.refuse("short_factor", "must be an array of numbers above 0");
    }
    out.scaling.factors.push_back(factor.to_number<double>());
  }
  if (static_cast<int>(out.scaling.factors.size()) != out.rotary_dim / 2) {
    rope.refuse("short_factor", "must have a factor for each of the " + std::to_string(out.rotary_dim / 2) +
                                    " pairs of dimensions that rotate");
  }
  rope.find("long_factor");
  if (original < spec.max_positions) {
    spec.why_no_longer = "beyond " + std::to_string(original) +
                         " positions it is rotated by other factors (longrope), which is not supported";
    spec.max_positions = original;
  }
}

RopeSpec read_rotation(const Fields& config, int head_dim, ModelSpec& spec) {
  RopeSpec out{.theta = find_theta(config, "rope_theta").value_or(10000), .scaling = {}};
  double part = config.find_number("partial_rotary_factor", 0.01, 1).value_or(1);
  std::optional<Fields> rope = config.find_object("rope_scaling");
  if (config.find("rope_parameters") != nullptr && !rope) rope = config.find_object("rope_parameters");
  if (rope) {
    out.theta = find_theta(*rope, "rope_theta").value_or(out.theta);
    part = rope->find_number("partial_rotary_factor", 0.01, 1).value_or(part);
  }
  out.rotary_dim = static_cast<int>(head_dim * part);
  if (out.rotary_dim < 2 || out.rotary_dim % 2 != 0) {
    config.refuse("partial_rotary_factor", "rotates " + std::to_string(out.rotary_dim) +
                                               " dimensions of a head; it must be an even number");
  }
  if (!rope) return out;
  const std::string_view type_field = rope->find("rope_type") != nullptr ? "rope_type" : "type";
  const std::string type = rope->find_string(type_field).value_or("default");
  if (type == "longrope" || type == "su") {
    read_longrope(config, *rope, spec, out);
  } else if (type != "default") {
    rope->refuse(type_field, in_quotes(type) + " is not supported; supported are default, longrope");
  } else {
    rope->find_int("original_max_position_embeddings", 1, kMaxPositions);
  }
  refuse_unasked(*rope);
  return out;
}

ModelSpec read_phi3(const Fields& config) {
  ModelSpec spec = read_frame(config);
  const GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false});
  spec.final_norm = read_rms_norm(config);
  spec.layers.assign(spec.layers.size(), pre_norm_layer(attention, read_gated_ffn(config), spec.final_norm));
  config.find_int("original_max_position_embeddings", 1, kMaxPositions);  // of longrope alone
  spec.ropes = {read_rotation(config, attention.head_dim, spec)};
  const std::optional<int> window = read_window(config);
  set_windows(config, window, std::vector<bool>(spec.layers.size(), window.has_value()), spec);
  return spec;
}

constexpr StoredName kModules[] = {{"self_attn.q_proj", "self_attn.qkv_proj"},
                                   {"self_attn.k_proj", "self_attn.qkv_proj"},
                                   {"self_attn.v_proj", "self_attn.qkv_proj"},
                                   {"mlp.gate_proj", "mlp.gate_up_proj"},
                                   {"mlp.up_proj", "mlp.gate_up_proj"}};

}  // namespace

constexpr Architecture kPhi3{
    "Phi3ForCausalLM", "phi3", read_phi3, {.modules = kModules}, "Phi-3, Phi-3.5 mini, Phi-4",
    "phi3 phi3-bf16"};

}  // namespace serval
