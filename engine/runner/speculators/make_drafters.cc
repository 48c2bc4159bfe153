#include "engine/runner/speculators/make_drafters.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <utility>

#include "engine/model/read_model.h"
#include "engine/model/weight_loader.h"
#include "engine/model/weight_map.h"
#include "engine/runner/speculators/eagle_speculator.h"
#include "engine/runner/speculators/lookahead_speculator.h"
#include "engine/runner/speculators/medusa_speculator.h"
#include "engine/runner/speculators/model_speculator.h"
#include "engine/runner/speculators/ngram_speculator.h"
#include "engine/runner/speculators/prediction_speculator.h"
#include "kernels/base/check.h"

namespace serval {
namespace {

// Whom a setting asks, beside the client: in the order of DrafterKind.
struct Setting {
  const char* name;
  bool ngram = false, draft = false, self = false, lookahead = false, medusa = false, eagle = false, is_auto = false;
};
constexpr Setting kSettings[] = {
    {"off"},
    {.name = "ngram", .ngram = true},
    {.name = "draft", .draft = true},
    {.name = "self", .self = true},
    {.name = "lookahead", .lookahead = true},
    {.name = "medusa", .medusa = true},
    {.name = "eagle", .eagle = true},
    // And what is in speculation_model; or the model's own layers, where it is said how many.
    {.name = "auto", .ngram = true, .is_auto = true},
};

// By the names in the folder.
void add_what_is_there(const EngineConfig& config, Setting& setting) {
  const std::filesystem::path folder = config.speculation_model;
  setting.self = folder.empty() && config.num_draft_layers > 0;
  if (folder.empty()) return;
  setting.medusa = has_medusa(folder);
  setting.eagle = !setting.medusa && has_eagle(folder);
  setting.draft = !setting.medusa && !setting.eagle;
}

Setting setting_of(const EngineConfig& config) {
  const std::string& speculation = config.speculation;
  for (Setting setting : kSettings) {
    if (speculation != setting.name) continue;
    if (setting.is_auto) add_what_is_there(config, setting);
    return setting;
  }
  throw std::runtime_error("speculation is '" + speculation + "'; it takes off, ngram, draft, self, lookahead, medusa, eagle or auto");
}

bool is_off(const Setting setting) {
  return !setting.ngram && !setting.draft && !setting.self && !setting.lookahead && !setting.medusa && !setting.eagle;
}

}  // namespace

uint32_t drafters_of(const EngineConfig& config) {
  const Setting setting = setting_of(config);
  if (is_off(setting)) return 0;
  return drafter_bit(DrafterKind::kPrediction) | (setting.ngram ? drafter_bit(DrafterKind::kNgram) : 0) |
         (setting.draft ? drafter_bit(DrafterKind::kDraft) : 0) | (setting.self ? drafter_bit(DrafterKind::kSelf) : 0) |
         (setting.lookahead ? drafter_bit(DrafterKind::kLookahead) : 0) |
         (setting.medusa ? drafter_bit(DrafterKind::kMedusa) : 0) | (setting.eagle ? drafter_bit(DrafterKind::kEagle) : 0);
}

DraftModels read_draft_models(const EngineConfig& config, const ModelSpec& target) {
  const Setting setting = setting_of(config);
  const bool needs = setting.draft || setting.medusa || setting.eagle;
  if (needs == config.speculation_model.empty())
    throw std::runtime_error("speculation is '" + config.speculation +
                             (needs ? "', which needs a model: speculation_model is not set"
                                    : "', which asks no model: speculation_model is set"));
  DraftModels models;
  if (setting.draft) models.model = read_model_spec(config.speculation_model);
  if (setting.medusa) models.medusa = read_medusa_spec(config.speculation_model, target);
  if (setting.eagle) models.eagle = read_eagle_spec(config.speculation_model, target);
  return models;
}

Drafters make_drafters(const EngineConfig& config, const ModelSpec& target, const std::optional<DraftPlan>& plan,
                       DraftModels draft, Backend& backend) {
  Drafters drafters{.max_tokens = config.scheduler.num_draft_tokens, .max_width = config.draft_width};
  const Setting setting = setting_of(config);
  drafters.is_closed_loop = setting.is_auto;
  if (is_off(setting)) return drafters;
  const auto add = [&](std::unique_ptr<Speculator> speculator) { drafters.speculators.push_back(std::move(speculator)); };
  add(std::make_unique<PredictionSpeculator>());
  if (setting.ngram) add(std::make_unique<NgramSpeculator>());
  if (setting.lookahead) add(std::make_unique<LookaheadSpeculator>());
  if (setting.medusa)
    add(std::make_unique<MedusaSpeculator>(load_medusa(config.speculation_model, *draft.medusa, target, backend)));
  if (setting.eagle) {
    EagleWeights weights = load_eagle(config.speculation_model, *draft.eagle, target.vocab_size, backend);
    add(std::make_unique<EagleSpeculator>(*plan, std::move(*draft.eagle), std::move(weights),
                                          config.scheduler.num_draft_tokens, config.draft_width));
  }
  if (setting.self) add(std::make_unique<ModelSpeculator>(*plan));
  if (setting.draft) {
    ModelWeights weights = load_weights(config.speculation_model, *draft.model, backend);
    const size_t weight_bytes = held_bytes(map_weights(*draft.model, weights));
    SERVAL_CHECK(weight_bytes == plan->weight_bytes, weight_bytes, plan->weight_bytes);
    add(std::make_unique<ModelSpeculator>(*plan, std::move(*draft.model), std::move(weights)));
  }
  return drafters;
}

size_t planned_draft_bytes(const EngineConfig& config) {
  const SchedulerConfig& s = config.scheduler;
  const Setting setting = setting_of(config);
  if (is_off(setting)) return 0;
  return Drafting::planned_bytes(s.max_num_seqs) + PredictionSpeculator::planned_bytes(s.max_num_seqs, s.max_model_len) +
         (setting.lookahead ? LookaheadSpeculator::planned_bytes(s.max_num_seqs) : 0) +
         (setting.ngram ? NgramSpeculator::planned_bytes(s.max_num_seqs, s.max_model_len) : 0);
}

}  // namespace serval
