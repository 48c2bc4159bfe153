#include "engine/model/lengthen.h"

#include <stdexcept>
#include <string>
#include <variant>

namespace serval {
namespace {

// Why a part cannot have a second query for far keys; null: it has it now.
template <class Part>
const char* take_far_keys(Part& part, const FarKeysSpec&) {
  return has_mixer(part) ? "a layer of it keeps something else than keys and values" : nullptr;
}
const char* take_far_keys(GqaSpec& part, const FarKeysSpec& far) {
  if (!part.has_keys) return "a layer of it reads the keys of another";
  if (part.value_dim > 0) return "its values are narrower than its keys";
  if (part.indexer.is_there()) return "an index chooses the keys that it reads";
  if (!part.slopes.empty()) return "it lowers scores by distance (ALiBi) instead of rotating";
  if (part.head_norm.is_there() && (part.head_norm_place != HeadNormPlace::kEachHead || !part.head_norm.has_weight || part.has_layer_norms()))
    return "its queries and keys are normalised in a way that is not served with it";
  part.far = far;
  return nullptr;
}

}  // namespace

ModelSpec lengthened(ModelSpec spec, const LongAttention& settings) {
  if (!settings.is_there()) return spec;
  const bool streams = settings.kind == LongAttention::Kind::kStreaming;
  const auto refuse = [&](const std::string& why) {
    throw std::runtime_error(std::string("attention is ") + (streams ? "streaming" : "self_extend") + ", but " + why);
  };
  const std::string made_for = std::to_string(spec.max_positions) + " positions that the model was made for";
  if (spec.positions != PositionTable::kNone || spec.ropes.empty()) refuse("the model does not rotate by position");
  if (spec.length_classes().num_bounds > 0) refuse("the model itself rotates long sequences another way");
  if (streams && settings.sinks + settings.window > spec.max_positions)
    refuse("attention_sinks and attention_window are together more than the " + made_for);
  if (!streams && settings.window >= spec.max_positions) refuse("attention_window is not less than the " + made_for);
  if (settings.reach(spec.max_positions) <= spec.max_positions) refuse("attention_group makes no more of the " + made_for);
  const FarKeysSpec far{.near = settings.window, .num_far = streams ? settings.sinks : 0, .has_own_keys = !streams};
  for (LayerSpec& layer : spec.layers) {
    const char* why = std::visit([&](auto& part) { return take_far_keys(part, far); }, layer.mixer);
    if (why == nullptr && std::visit([](const auto& part) { return has_mixer(part); }, layer.mixer) &&
        (layer.rope == kNoRope || layer.query_rope || layer.query_growth))
      why = "a layer of it does not rotate queries and keys alike";
    if (why != nullptr) refuse(why);
  }
  for (KvGroupSpec& group : spec.kv_groups) {
    if (group.window > 0) refuse("the model has windows of its own");
    if (!streams) continue;
    group.window = settings.window;
    group.sinks = settings.sinks;
  }
  spec.max_positions = static_cast<int>(settings.reach(spec.max_positions));
  spec.long_attention = settings;
  return spec;
}

}  // namespace serval
