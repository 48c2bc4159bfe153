// A smaller model cut out of a larger one while it is loaded, as the settings ask, where the larger was trained so that it
// holds it (MatFormer; Devvrit et al. 2023; Gemma 3n): feed-forward parts of which the first neurons alone are used, and
// layers that are left out.
#pragma once

#include <string>

#include "engine/model/model_spec.h"

namespace serval {

// ffn_widths: neurons of each layer that stays, "8192" of all, or "8192, 16384, ..." one each; empty: all that there are.
// skip_layers: numbers of layers, from 0, and ranges of them, "20-24"; empty: none. Throws std::runtime_error with a
// sentence that names the setting.
ModelSpec sliced(ModelSpec spec, const std::string& ffn_widths, const std::string& skip_layers);

}  // namespace serval
