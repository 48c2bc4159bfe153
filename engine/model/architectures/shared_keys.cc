#include "engine/model/architectures/shared_keys.h"

namespace serval {

std::vector<std::optional<int>> read_key_sources(const Fields& config, const std::vector<bool>& windowed,
                                                 int shared_when_absent) {
  const int num_layers = static_cast<int>(windowed.size());
  const int first = num_layers - config.find_int("num_kv_shared_layers", 0, num_layers - 1).value_or(shared_when_absent);
  std::vector<std::optional<int>> sources(num_layers);
  for (int l = first; l < num_layers; ++l) {
    int source = first - 1;
    while (source >= 0 && windowed[source] != windowed[l]) --source;
    if (source < 0) config.refuse("num_kv_shared_layers", "leaves no layer of one of the kinds with keys of its own");
    sources[l] = source;
  }
  return sources;
}

void leave_shared_keys(const std::vector<std::optional<int>>& sources, ModelSpec& spec) {
  for (KvGroupSpec& group : spec.kv_groups)
    std::erase_if(group.layers, [&](int l) { return sources[l].has_value(); });
}

}  // namespace serval
