// What configurations with a first Mamba's mixer among other layers say of it.
#pragma once

#include <boost/json.hpp>

#include "engine/json/fields.h"
#include "engine/model/architectures/decoder_fields.h"

namespace serval {

// Sizes and biases (mamba_expand, mamba_d_state, mamba_d_conv, mamba_dt_rank, mamba_conv_bias, mamba_proj_bias), those that are
// absent as the references have them.
template <class Mixer>
void read_mamba_fields(const Fields& config, int hidden, Mixer& mixer) {
  mixer.channels = config.find_int("mamba_expand", 1, 64).value_or(2) * hidden;
  mixer.num_states = config.find_int("mamba_d_state", 1, kMaxScanStates).value_or(mixer.num_states);
  mixer.taps = config.find_int("mamba_d_conv", 2, kMaxConvTaps).value_or(mixer.taps);
  const boost::json::value* const rank = config.find("mamba_dt_rank");
  const bool is_auto = rank == nullptr || (rank->is_string() && rank->get_string() == "auto");
  mixer.step_rank = is_auto ? (hidden + 15) / 16 : config.get_int("mamba_dt_rank", 1, kMaxHidden);
  mixer.has_conv_bias = config.get_bool("mamba_conv_bias", true);
  mixer.has_bias = config.get_bool("mamba_proj_bias", false);
}

}  // namespace serval
