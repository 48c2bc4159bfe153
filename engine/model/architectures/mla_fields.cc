#include "engine/model/architectures/mla_fields.h"

#include <cmath>
#include <optional>
#include <string>
#include <string_view>

namespace serval {

MlaSpec read_mla(const Fields& config, bool has_neighbour_pairs) {
  MlaSpec mla;
  mla.num_heads = config.get_int("num_attention_heads", 1, kMaxHeads);
  mla.query_rank = config.find_int("q_lora_rank", 8, kMaxHidden).value_or(0);
  mla.latent_dim = config.get_int("kv_lora_rank", 8, kMaxHidden);
  mla.plain_dim = config.get_int("qk_nope_head_dim", 8, kMaxHidden);
  mla.rotary_dim = config.get_int("qk_rope_head_dim", 2, kMaxHidden);
  // MiniCPM3 leaves it out.
  const int hidden = config.get_int("hidden_size", 1, kMaxHidden);
  mla.value_dim = config.find_int("v_head_dim", 8, kMaxHidden).value_or(hidden / mla.num_heads);
  if (mla.latent_dim % 8 != 0 || mla.rotary_dim % 8 != 0 || mla.key_dim() > kMaxLatentKey)
    config.refuse("kv_lora_rank", "and qk_rope_head_dim must be multiples of 8 that make " +
                                      std::to_string(kMaxLatentKey) + " together at most");
  mla.has_bias = config.get_bool("attention_bias", false);
  mla.has_neighbour_pairs = config.get_bool("rope_interleave", has_neighbour_pairs);
  mla.norm = {.kind = NormSpec::Kind::kRms, .eps = 1e-6f};  // whatever rms_norm_eps is
  double scale = 1 / std::sqrt(static_cast<double>(mla.plain_dim + mla.rotary_dim));
  for (const std::string_view object : {"rope_scaling", "rope_parameters"}) {
    const std::optional<Fields> rope = config.find_object(object);
    if (!rope) continue;
    const double all_dims = rope->find_number("mscale_all_dim", 0, 1e6).value_or(0);
    const double factor = rope->find_positive("factor", 1e6).value_or(1);
    const double stretch = factor <= 1 || all_dims == 0 ? 1 : 0.1 * all_dims * std::log(factor) + 1;
    scale *= stretch * stretch;
    break;
  }
  mla.scale = static_cast<float>(scale);
  // What follows from the others.
  config.ignore({"num_key_value_heads", "head_dim", "qk_head_dim"});
  return mla;
}

}  // namespace serval
