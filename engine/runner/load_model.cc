#include "engine/runner/load_model.h"

#include <utility>

#include "engine/model/lengthen.h"
#include "engine/model/read_model.h"
#include "engine/model/slice.h"
#include "engine/model/weight_loader.h"
#include "engine/model/weight_map.h"
#include "engine/runner/speculators/make_drafters.h"
#include "kernels/base/check.h"

namespace serval {

std::unique_ptr<ModelRunner> load_model(const std::filesystem::path& folder, const EngineConfig& config,
                                        Backend& backend, std::unique_ptr<Speculator> speculator,
                                        const Progress& progress) {
  ModelSpec spec = quantised(
      lengthened(sliced(read_model_spec(folder), config.ffn_widths, config.skip_layers), config.long_attention), config.quantize);
  DraftModels draft = read_draft_models(config, spec);
  const MemoryPlan plan = plan_memory(spec, config, backend, backend.available_bytes(), draft);
  ModelWeights weights = load_weights(folder, spec, backend, progress, config.packed_cache);
  const size_t weight_bytes = held_bytes(map_weights(spec, weights));
  SERVAL_CHECK(weight_bytes == plan.weight_bytes, weight_bytes, plan.weight_bytes);
  Drafters drafters = make_drafters(config, spec, plan.draft, std::move(draft), backend);
  if (!config.speculation_trace.empty())
    drafters.trace = std::make_unique<HiddenTrace>(config.speculation_trace, config.speculation_trace_bytes);
  if (speculator) drafters.speculators.push_back(std::move(speculator));
  return std::make_unique<ModelRunner>(std::move(spec), std::move(weights), plan, backend, std::move(drafters));
}

}  // namespace serval
