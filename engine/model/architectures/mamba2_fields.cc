#include "engine/model/architectures/mamba2_fields.h"

#include <limits>
#include <optional>
#include <string>

#include "engine/model/architectures/decoder_fields.h"

namespace serval {
namespace {

namespace json = boost::json;

std::optional<double> number_of(const json::value& value) {
  if (value.is_number()) return value.to_number<double>();
  if (!value.is_object()) return std::nullopt;
  const json::value* const name = value.get_object().if_contains("__float__");
  if (name == nullptr || !name->is_string() || name->get_string() != "Infinity") return std::nullopt;
  return std::numeric_limits<double>::infinity();
}

}  // namespace

Mamba2Spec read_mamba2_mixer(const Fields& config, int hidden_size, const NormSpec& norm, std::optional<int> inner) {
  Mamba2Spec mixer;
  mixer.num_heads = config.find_int("mamba_n_heads", 1, kMaxHeads).value_or(128);
  mixer.num_groups = config.find_int("mamba_n_groups", 1, kMaxHeads).value_or(1);
  mixer.num_states = config.find_int("mamba_d_state", 1, kMaxScanKeys).value_or(256);
  mixer.taps = config.find_int("mamba_d_conv", 2, kMaxConvTaps).value_or(mixer.taps);
  const int width = inner.value_or(config.find_int("mamba_expand", 1, 64).value_or(2) * hidden_size);
  config.find("mamba_expand");
  const json::value* const head_dim = config.find("mamba_d_head");
  const bool is_auto = head_dim == nullptr || (head_dim->is_string() && head_dim->get_string() == "auto");
  mixer.head_dim = is_auto ? width / mixer.num_heads : config.get_int("mamba_d_head", 1, kMaxHeadDim);
  if (mixer.inner() != width)
    config.refuse("mamba_n_heads", "heads must make up the mixer's width of " + std::to_string(width));
  if (mixer.num_heads % mixer.num_groups != 0)
    config.refuse("mamba_n_heads", "must be a multiple of mamba_n_groups");
  mixer.has_conv_bias = config.get_bool("mamba_conv_bias", true);
  mixer.has_input_bias = mixer.has_output_bias = config.get_bool("mamba_proj_bias", false);
  read_step_limits(config, "time_step_limit", mixer);
  mixer.norm = norm;
  config.ignore({"mamba_chunk_size", "num_logits_to_keep", "z_loss_coefficient", "use_mamba_kernels"});
  return mixer;
}

void read_step_limits(const Fields& config, std::string_view field, Mamba2Spec& mixer) {
  const json::array* const limits = config.find_array(field);
  if (limits == nullptr) return;
  const auto number = [&](size_t i) { return i < limits->size() ? number_of((*limits)[i]) : std::nullopt; };
  const std::optional<double> least = number(0), most = number(1);
  if (limits->size() != 2 || !least || !most || *least < 0 || *most <= *least)
    config.refuse(field, "must hold two numbers, from 0 on, the second above the first");
  mixer.least_step = static_cast<float>(*least);
  mixer.most_step = static_cast<float>(*most);
}

}  // namespace serval
