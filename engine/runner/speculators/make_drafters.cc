#include "engine/runner/speculators/make_drafters.h"

#include <algorithm>
#include <bit>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "engine/model/read_model.h"
#include "engine/model/weight_loader.h"
#include "engine/model/weight_map.h"
#include "engine/runner/speculators/datastore_speculator.h"
#include "engine/runner/speculators/dflash_speculator.h"
#include "engine/runner/speculators/eagle_speculator.h"
#include "engine/runner/speculators/heads_speculator.h"
#include "engine/runner/speculators/lookahead_speculator.h"
#include "engine/runner/speculators/model_speculator.h"
#include "engine/runner/speculators/ngram_speculator.h"
#include "engine/runner/speculators/prediction_speculator.h"
#include "kernels/base/check.h"
#include "kernels/base/log.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

using enum DrafterKind;

// Whom a setting asks.
struct Setting {
  const char* name = "";
  uint32_t drafters = 0;
  bool is_auto = false;

  bool has(DrafterKind kind) const { return (drafters & drafter_bit(kind)) != 0; }
  bool needs_folder() const { return has(kDraft) || has(kMedusa) || has(kHydra) || has(kEagle) || has(kDflash); }
};
// Beside each method: what the client predicts, and what a form forces, which its masks tell the scheduler.
constexpr uint32_t kAlways = drafter_bit(kPrediction) | drafter_bit(kGrammar);
constexpr Setting setting_with(DrafterKind kind) {
  return {kDrafterNames[static_cast<int>(kind)], kAlways | drafter_bit(kind)};
}
constexpr Setting kSettings[] = {
    {"off"},
    setting_with(kNgram),
    setting_with(kDatastore),
    setting_with(kDraft),
    setting_with(kSelf),
    setting_with(kLookahead),
    setting_with(kMedusa),
    setting_with(kHydra),
    setting_with(kEagle),
    setting_with(kDflash),
    setting_with(kGrammar),
    // And what is in speculation_model; or the model's own first layers, where it is said how many.
    {"auto", kAlways | drafter_bit(kNgram), true},
};

// Heads are published in files that only their author's programs may read.
void refuse_torch_files(const std::filesystem::path& folder) {
  std::filesystem::path torch_file;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".safetensors" || extension == ".gguf") return;
    if (extension == ".bin" || extension == ".pt" || extension == ".pth") torch_file = std::max(torch_file, entry.path());
  }
  if (torch_file.empty()) return;
  const std::string name = shown(torch_file.filename().string()), stem = shown(torch_file.stem().string());
  throw std::runtime_error("speculation_model: " + torch_file.string() +
                           " is a PyTorch file, which is not read, for such a file may hold a program; in Python, with torch and "
                           "safetensors, safetensors.torch.save_file({n: t.clone().contiguous() for n, t in torch.load('" + name +
                           "', weights_only=True).items()}, '" + (stem == "pytorch_model" ? "model" : stem) +
                           ".safetensors') makes of it one that is");
}

// By the names in the folder. Layers that predict further tokens are of use to a model as wide as theirs alone: to another one
// their model is a draft.
DrafterKind kind_in(const std::filesystem::path& folder, const ModelSpec& target) {
  if (const std::optional<DrafterKind> heads = find_heads(folder)) return *heads;
  return has_dflash(folder) ? kDflash : has_eagle(folder) || has_mtp(folder, target) ? kEagle : kDraft;
}

Setting setting_named(const std::string& name, const EngineConfig& config) {
  std::string names;
  for (const Setting& setting : kSettings) {
    if (name == setting.name) return setting;
    names += (names.empty() ? "" : ", ") + std::string(setting.name);
  }
  throw std::runtime_error("speculation is '" + config.speculation + "'; it takes one of " + names + ", or several that + joins");
}

// Those who hold the one plan of a model that guesses, or its folder.
constexpr uint32_t kWithWeights =
    drafter_bit(kDraft) | drafter_bit(kSelf) | drafter_bit(kMedusa) | drafter_bit(kHydra) | drafter_bit(kEagle) | drafter_bit(kDflash);

// Of a name, or of all that + joins; but for what is in the folder.
Setting setting_of(const EngineConfig& config) {
  Setting all;
  std::istringstream parts(config.speculation);
  for (std::string name; std::getline(parts, name, '+');) {
    const Setting setting = setting_named(name, config);
    // The window of lookahead is found again by its places among the guesses.
    if (config.merges_drafts() && (setting.is_auto || setting.drafters == 0 || setting.has(kLookahead)))
      throw std::runtime_error("speculation is '" + config.speculation + "'; " + setting.name + " stands alone");
    all.drafters |= setting.drafters;
    all.is_auto |= setting.is_auto;
  }
  const std::filesystem::path folder = config.speculation_model;
  if (!folder.empty()) refuse_torch_files(folder);
  if (all.is_auto && folder.empty() && config.num_draft_layers > 0) all.drafters |= drafter_bit(kSelf);
  if (all.is_auto && !config.speculation_datastore.empty()) all.drafters |= drafter_bit(kDatastore);
  if (std::popcount(all.drafters & kWithWeights) > 1)
    throw std::runtime_error("speculation is '" + config.speculation + "'; of those with weights or layers one guesses at a time");
  if (all.has(kDatastore) == config.speculation_datastore.empty())
    throw std::runtime_error("speculation is '" + config.speculation +
                             (all.has(kDatastore) ? "', which needs texts: speculation_datastore is not set"
                                                  : "', which looks into no texts: speculation_datastore is set"));
  return all;
}

// With what is in the folder, which is looked into.
Setting whole_setting_of(const EngineConfig& config, const ModelSpec& target) {
  Setting setting = setting_of(config);
  if (setting.is_auto && !config.speculation_model.empty()) setting.drafters |= drafter_bit(kind_in(config.speculation_model, target));
  if (config.stages_drafts() && !setting.has(kDraft) && !setting.has(kSelf))
    throw std::runtime_error("draft_speculation is '" + config.draft_speculation +
                             "', which guesses ahead of a smaller model or of the model's own first layers; speculation is '" +
                             config.speculation + "', which asks neither");
  return setting;
}

}  // namespace

uint32_t drafters_of(const EngineConfig& config, const ModelSpec& target) {
  return whole_setting_of(config, target).drafters;
}

bool guesses_by_itself(const EngineConfig& config) {
  return setting_of(config).has(kSelf);
}

void find_own_layers(const std::filesystem::path& folder, const ModelSpec& target, EngineConfig& config) {
  const Setting setting = setting_of(config);
  const bool may = (setting.is_auto && !setting.has(kSelf)) || setting.has(kEagle);
  if (!may || !config.speculation_model.empty() || !has_mtp(folder, target)) return;
  try {
    read_eagle_spec(folder, target);
  } catch (const std::runtime_error& why) {
    if (!setting.is_auto) throw;
    log_info("the model's own layers for further tokens do not guess", {{"reason", why.what()}});
    return;
  }
  log_info("the model's own layers for further tokens guess", {{"speculation", config.speculation}});
  config.speculation_model = folder.string();
}

DraftModels read_draft_models(const EngineConfig& config, const ModelSpec& target) {
  const Setting setting = whole_setting_of(config, target);
  const bool needs = setting.needs_folder();
  if (needs == config.speculation_model.empty())
    throw std::runtime_error("speculation is '" + config.speculation +
                             (needs ? "', which needs a model: speculation_model is not set"
                                    : "', which asks no model: speculation_model is set"));
  DraftModels models;
  if (setting.has(kDraft)) models.model = read_model_spec(config.speculation_model);
  if (setting.has(kMedusa) || setting.has(kHydra))
    models.heads = read_heads_spec(setting.has(kMedusa) ? kMedusa : kHydra, config.speculation_model, target);
  if (setting.has(kEagle))
    models.eagle = read_eagle_spec(config.speculation_model, target, std::max(1, config.scheduler.num_draft_tokens));
  if (setting.has(kDflash)) models.dflash = read_dflash_spec(config.speculation_model, target);
  return models;
}

Drafters make_drafters(const EngineConfig& config, const ModelSpec& target, const std::optional<DraftPlan>& plan,
                       DraftModels draft, Backend& backend) {
  Drafters drafters{.max_tokens = config.scheduler.num_draft_tokens, .max_width = config.draft_width};
  const Setting setting = setting_of(config);
  drafters.is_closed_loop = setting.is_auto;
  drafters.merges = config.merges_drafts();
  if (setting.drafters == 0) return drafters;
  const auto add = [&](std::unique_ptr<Speculator> speculator) { drafters.speculators.push_back(std::move(speculator)); };
  add(std::make_unique<PredictionSpeculator>());
  if (setting.has(kNgram)) add(std::make_unique<NgramSpeculator>());
  if (setting.has(kDatastore)) add(std::make_unique<DatastoreSpeculator>(TokenStore(config.speculation_datastore), target.vocab_size));
  if (setting.has(kLookahead)) add(std::make_unique<LookaheadSpeculator>());
  if (draft.heads) {
    std::unique_ptr<PrefixLayer> prefix;
    if (draft.heads->prefix)
      prefix = std::make_unique<PrefixLayer>(*plan, *draft.heads->prefix, load_prefix(config.speculation_model, *draft.heads, backend));
    std::vector<DraftHead> heads = load_heads(config.speculation_model, *draft.heads, target, backend);
    add(std::make_unique<HeadsSpeculator>(*draft.heads, std::move(heads), std::move(prefix)));
  }
  if (draft.eagle) {
    EagleWeights weights = load_eagle(config.speculation_model, *draft.eagle, target.vocab_size, backend);
    add(std::make_unique<EagleSpeculator>(*plan, std::move(*draft.eagle), std::move(weights),
                                          config.scheduler.num_draft_tokens, config.draft_width));
  }
  if (draft.dflash) {
    DflashWeights weights = load_dflash(config.speculation_model, *draft.dflash, backend);
    add(std::make_unique<DflashSpeculator>(*plan, std::move(*draft.dflash), std::move(weights)));
  }
  if (setting.has(kSelf)) add(std::make_unique<ModelSpeculator>(*plan));
  if (draft.model) {
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
  if (setting.drafters == 0) return 0;
  return Drafting::planned_bytes(s.max_num_seqs, setting.is_auto) + PredictionSpeculator::planned_bytes(s.max_num_seqs, s.max_model_len) +
         (setting.has(kLookahead) ? LookaheadSpeculator::planned_bytes(s.max_num_seqs) : 0) +
         (setting.has(kDatastore) ? TokenStore::planned_bytes(config.speculation_datastore) : 0) +
         (setting.has(kNgram) ? NgramSpeculator::planned_bytes(s.max_num_seqs, s.max_model_len) : 0);
}

}  // namespace serval
