// Latent attention as the configurations of DeepSeek and of those after it say it. Beside decoder_fields.h.
#pragma once

#include "engine/model/config_fields.h"
#include "engine/model/model_spec.h"

namespace serval {

// With scores that a stretched rotation scales (YaRN; DeepSeek-V2, section 3.1.4). has_neighbour_pairs: where
// rope_interleave does not say it.
MlaSpec read_mla(const Fields& config, bool has_neighbour_pairs = true);

}  // namespace serval
