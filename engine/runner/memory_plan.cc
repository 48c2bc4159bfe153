#include "engine/runner/memory_plan.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <stdexcept>
#include <utility>

#include "engine/model/transformer.h"
#include "engine/model/weight_loader.h"
#include "engine/model/workspace.h"
#include "engine/runner/guess_probabilities.h"
#include "engine/runner/kv_cache.h"
#include "engine/runner/model_input.h"
#include "engine/runner/pooler.h"
#include "engine/runner/sampler.h"
#include "engine/runner/slot_table.h"
#include "engine/runner/speculators/dflash_speculator.h"
#include "engine/runner/speculators/eagle_speculator.h"
#include "engine/runner/speculators/heads_speculator.h"
#include "engine/runner/speculators/make_drafters.h"
#include "engine/runner/speculators/model_speculator.h"

namespace serval {
namespace {

// Of the memory left beside everything else, what a KV cache of unspecified size may take: the rest of the
// machine lives too, and a page cache that holds the checkpoint makes the next start fast.
constexpr double kDefaultKvShare = 0.6;

std::string size_text(size_t bytes) {
  char text[32];
  const double mib = static_cast<double>(bytes) / (1 << 20);
  if (mib >= 1024) {
    std::snprintf(text, sizeof text, "%.2f GiB", mib / 1024);
  } else {
    std::snprintf(text, sizeof text, "%.2f MiB", mib);
  }
  return text;
}

void check_settings(const ModelSpec& spec, const EngineConfig& config, const Backend& backend) {
  const SchedulerConfig& s = config.scheduler;
  if (config.speculation_acceptance != Acceptance::kExact && backend.is_asynchronous())
    throw std::runtime_error("speculation_acceptance other than exact runs on the CPU only (device: cpu): such draws have no kernel on " +
                             std::string(backend.name()) + " yet");
  const auto at_least_one = [](const char* name, int value) {
    if (value < 1)
      throw std::runtime_error(std::string(name) + " is " + std::to_string(value) +
                               "; it must be at least 1");
  };
  at_least_one("max_num_seqs", s.max_num_seqs);
  at_least_one("max_num_batched_tokens", s.max_num_batched_tokens);
  at_least_one("max_prefill_chunk", s.max_prefill_chunk);
  at_least_one("max_model_len", s.max_model_len);
  at_least_one("block_size", config.block_size);
  check_scheduler_config(s);
  if (spec.is_encoder && !s.whole_prompts)
    throw std::runtime_error(spec.architecture + " is an encoder, which makes vectors and scores of whole prompts; that is served, and nothing else");
  if (s.max_model_len > spec.max_positions) {
    throw std::runtime_error("max_model_len is " + std::to_string(s.max_model_len) +
                             ", but the model knows only " + std::to_string(spec.max_positions) +
                             " positions");
  }
  if (spec.kv_groups.size() > kMaxKvGroups) {
    throw std::runtime_error("the model needs " + std::to_string(spec.kv_groups.size()) +
                             " groups of KV layers; at most " + std::to_string(kMaxKvGroups) +
                             " are supported");
  }
}

// A state is many times what keys and values of a position take, so its snapshots stand as many blocks apart:
// what a prompt computes again behind the last one is little beside what it saves.
constexpr int kStateBlocks = 16;

KvGroupGeometry group_of(const KvGroupSpec& group, const EngineConfig& config) {
  // What a prompt's rows see is all there in the one step that computes it, and nobody comes behind.
  if (config.scheduler.whole_prompts) return {};
  return {.window = group.window, .sinks = group.sinks, .state_span = group.keeps_state ? kStateBlocks * config.block_size : 0};
}

// Blocks of a group that one sequence of the largest length holds at once.
int blocks_per_sequence(const KvGroupSpec& group, const EngineConfig& config) {
  const KvRule rule(group_of(group, config), config.block_size);
  const int all = rule.blocks_for(config.scheduler.max_model_len);
  return rule.forgets() ? std::min(all, rule.blocks_of_step(config.scheduler.max_prefill_chunk) + 1) : all;
}

// Of the largest length, how many hold keys and values at once: where prompts are computed whole, those of a step.
double usual_sequences(const EngineConfig& config) {
  const SchedulerConfig& s = config.scheduler;
  if (!s.whole_prompts) return s.max_num_seqs;
  return static_cast<double>(s.max_num_batched_tokens + int64_t{s.max_num_seqs} * config.block_size) / s.max_model_len;
}

// As many blocks in each group as `sequences` (a fraction, too) of the largest length need.
BlockGeometry geometry_for(const ModelSpec& spec, const EngineConfig& config, double sequences) {
  BlockGeometry geometry;
  geometry.block_size = config.block_size;
  geometry.num_groups = static_cast<int>(spec.kv_groups.size());
  geometry.lengths = spec.length_classes();
  for (int g = 0; g < geometry.num_groups; ++g) {
    const double blocks = std::floor(sequences * blocks_per_sequence(spec.kv_groups[g], config));
    geometry.groups[g] = group_of(spec.kv_groups[g], config);
    const double most = std::numeric_limits<int32_t>::max() / geometry.rule(g).span();  // slots are 32 bits wide
    geometry.groups[g].num_blocks = static_cast<int32_t>(std::min(blocks, most));
  }
  return geometry;
}

bool has_layer(const ModelSpec& spec, bool (*is_meant)(const KvLayer& kv)) {
  return std::ranges::any_of(spec.layers, [&](const LayerSpec& layer) {
    KvLayer kv;
    std::visit([&](const auto& mixer) { mixer.shape_kv(kv); }, layer.mixer);
    return is_meant(kv);
  });
}

bool keeps_rows(const KvLayer& kv) {
  return kv.row_floats > 0;
}

// "auto" is the backend's preference. Throws when the name is unknown.
DType kv_dtype_of(const std::string& name, const ModelSpec& spec, const Backend& backend) {
  if (name == "auto") return backend.preferred_kv_dtype(spec.weight_dtype);
  constexpr std::pair<const char*, DType> kTypes[] = {
      {"f32", DType::kF32}, {"f16", DType::kF16}, {"bf16", DType::kBF16}, {"fp8", DType::kF8},
      {"int8", DType::kI8}, {"int4", DType::kI4}};
  for (const auto& [type_name, type] : kTypes) {
    if (name != type_name) continue;
    if (type != DType::kF32 && has_layer(spec, keeps_rows))
      throw std::runtime_error("kv_dtype is '" + name + "', which " + spec.architecture + " does not take: it keeps keys that are values " +
                               "too, and are compressed later, and those in f32 alone");
    // A scale for each key needs keys of one kind of number.
    if (KvLayer{.dtype = type}.has_scales() && has_layer(spec, [](const KvLayer& kv) { return kv.has_joint_keys; }))
      throw std::runtime_error("kv_dtype is '" + name + "', which " + spec.architecture + " does not take: its keys are several " +
                               "vectors side by side, which one scale does not suit");
    if (backend.takes_kv_dtype(type, spec.weight_dtype)) return type;
    throw std::runtime_error("kv_dtype is '" + name + "', which the device " + std::string(backend.name()) +
                             " does not take with " + dtype_name(spec.weight_dtype) + " weights");
  }
  throw std::runtime_error("kv_dtype is '" + name + "'; it takes auto, f32, f16, bf16, fp8, int8 or int4");
}

StepLimits steps_of(const ModelSpec& spec, const EngineConfig& config, const BlockGeometry& geometry) {
  const SchedulerConfig& s = config.scheduler;
  return Transformer::step_limits(
      spec, {.max_rows = s.max_num_batched_tokens,
             .max_logit_rows = s.max_num_seqs,  // a step of plain decoding takes one call
             .max_seqs = s.max_num_seqs,
             .max_branches = config.drafts_branch() ? max_drafts_of_step(s) : 0,
             .max_model_len = s.max_model_len,
             .table_stride = geometry.table_entries(s.max_model_len)});
}

// An op without a kernel is found here, not in the middle of a step.
void check_ops(const ModelSpec& spec, const RareOps& needed, const Backend& backend) {
  for (size_t op = 0; op < needed.size(); ++op) {
    if (needed.test(op) && !backend.has(static_cast<RareOp>(op)))
      throw std::runtime_error(spec.architecture + " runs on the CPU only (device: cpu): it needs " + kRareOpNames[op] +
                               ", which has no kernel on " + std::string(backend.name()) + " yet");
  }
}

// Whether what guesses has layers: a smaller model, a head, or the model itself.
bool guesses_by_model(const EngineConfig& config, const ModelSpec* draft) {
  return guesses_by_itself(config) || draft != nullptr;
}

bool keeps_state(const ModelSpec& spec) {
  return std::ranges::any_of(spec.kv_groups, [](const KvGroupSpec& group) { return group.keeps_state; });
}

// A state, and what a guess is compressed into, has one place: guesses of such a model follow one another.
void check_guesses(const ModelSpec& spec, const EngineConfig& config, const ModelSpec* draft) {
  const bool target_does = has_layer(spec, keeps_rows), any_does = target_does || (draft != nullptr && has_layer(*draft, keeps_rows));
  if (config.scheduler.num_draft_tokens > 0 && ((target_does && config.drafts_branch()) || (any_does && guesses_by_model(config, draft))))
    throw std::runtime_error("speculation of a model with compressed keys takes guesses of texts alone (no smaller model, head or "
                             "layers of its own), of which none stand beside each other (draft_width: 1)");
  if (config.scheduler.num_draft_tokens > 0 && keeps_state(spec) && (config.drafts_branch() || guesses_by_itself(config)))
    throw std::runtime_error("speculation of a model with states takes guesses of texts, of a smaller model or of a head (not self), of "
                             "which none stand beside each other (draft_width: 1, no lookahead and none that + joins)");
  if (draft != nullptr && keeps_state(*draft))
    throw std::runtime_error("speculation_model: " + draft->architecture +
                             " of that folder keeps states, which cannot forget what was guessed; one without must guess");
}

// Which of the target's groups keeps at least the positions that one of the draft's reads.
int group_for(const KvGroupSpec& group, const ModelSpec& target) {
  for (size_t g = 0; g < target.kv_groups.size(); ++g) {
    const int window = target.kv_groups[g].window;
    if (!target.kv_groups[g].keeps_state && (window == 0 || (group.window > 0 && group.window <= window))) return static_cast<int>(g);
  }
  throw std::runtime_error("speculation_model: a layer of " + target.architecture +
                           " of that folder reads positions that this model's cache lets go of");
}

// Rows of one forward of a model that guesses, for what is guessed ahead of it: as many as a step of the target verifies.
int rows_ahead(const DraftModels& models, const EngineConfig& config) {
  return config.stages_drafts() && (models.model || guesses_by_itself(config)) ? max_drafts_of_step(config.scheduler) : 0;
}

// The largest of its steps: what a step has computed, and the token behind it; the target's own layers have that already.
StepLimits draft_steps(const ModelSpec& target, const DraftModels& models, const EngineConfig& config, const StepLimits& steps) {
  const SchedulerConfig& s = config.scheduler;
  if (models.eagle) return EagleSpeculator::limits_of(*models.eagle, steps, std::min(config.draft_width, s.num_draft_tokens));
  if (models.dflash) return DflashSpeculator::limits_of(*models.dflash, steps);
  if (models.heads) return PrefixLayer::limits_of(*models.heads->prefix, steps);
  return Transformer::step_limits(models.model ? *models.model : target,
                                  {.max_rows = (models.model ? steps.max_rows : 0) + steps.max_seqs + rows_ahead(models, config),
                                   .max_logit_rows = steps.max_seqs,
                                   .max_seqs = steps.max_seqs,
                                   .max_model_len = s.max_model_len,
                                   .table_stride = steps.table_stride});
}

// All of it but what depends on how many blocks there are. one: the geometry of a sequence.
DraftPlan plan_draft(const ModelSpec& target, const DraftModels& models, const EngineConfig& config, const Backend& backend,
                     const StepLimits& steps, const BlockGeometry& one) {
  DraftPlan plan;
  const ModelSpec* const draft = models.with_kv();
  const ModelSpec& spec = draft ? *draft : target;
  const SchedulerConfig& s = config.scheduler;
  plan.num_layers = spec.num_layers();
  if (!draft) {
    plan.num_layers = config.num_draft_layers > 0 ? config.num_draft_layers : std::max(1, spec.num_layers() / 4);
    if (plan.num_layers >= spec.num_layers())
      throw std::runtime_error("num_draft_layers is " + std::to_string(plan.num_layers) + "; the model has " +
                               std::to_string(spec.num_layers()) + ", and fewer must guess");
  }
  if (spec.max_positions < s.max_model_len)
    throw std::runtime_error("speculation_model: its model knows only " + std::to_string(spec.max_positions) +
                             " positions; max_model_len is " + std::to_string(s.max_model_len));
  const LengthClasses lengths = spec.length_classes();
  if (lengths.num_bounds != one.lengths.num_bounds ||
      !std::equal(lengths.bounds, lengths.bounds + lengths.num_bounds, one.lengths.bounds))
    throw std::runtime_error("speculation_model: its model rotates long sequences at other lengths than this one");
  plan.kv_dtype = kv_dtype_of(config.kv_dtype, spec, backend);
  plan.steps = draft_steps(target, models, config, steps);
  plan.rows_ahead = rows_ahead(models, config);
  check_ops(spec, plan.steps.rare_ops, backend);
  plan.geometry = one;
  plan.geometry.num_groups = static_cast<int>(spec.kv_groups.size());
  for (int d = 0; d < plan.geometry.num_groups; ++d) {
    plan.target_groups[d] = draft ? group_for(spec.kv_groups[d], target) : d;
    plan.geometry.groups[d] = group_of(spec.kv_groups[d], config);
  }
  const int own_positions = std::max(s.num_draft_tokens, models.dflash ? models.dflash->block_size : 0);
  for (int g = 0; g < one.num_groups; ++g) plan.own_blocks[g] = one.rule(g).blocks_for(own_positions);
  if (models.eagle) {
    StepLimits with_lists = plan.steps;
    with_lists.max_rows *= EagleHead::kListsOfRows;
    plan.scratch_bytes = backend.step_context_bytes(with_lists);
    plan.weight_bytes = planned_eagle_bytes(*models.eagle, backend);
    plan.table_bytes = EagleSpeculator::planned_bytes(*models.eagle, plan.steps, steps, s.num_draft_tokens,
                                                      std::min(config.draft_width, s.num_draft_tokens), one, backend);
    return plan;
  }
  if (models.dflash) {
    plan.scratch_bytes = backend.step_context_bytes(DflashSpeculator::context_limits(*models.dflash, plan.steps));
    plan.weight_bytes = planned_dflash_bytes(*models.dflash, backend);
    plan.table_bytes = DflashSpeculator::planned_bytes(*models.dflash, plan.steps, steps, one, backend);
    return plan;
  }
  if (models.heads) {
    plan.scratch_bytes = backend.step_context_bytes(PrefixLayer::context_limits(plan.steps));
    plan.weight_bytes = planned_prefix_bytes(*models.heads, backend);
    plan.table_bytes = PrefixLayer::planned_bytes(spec, plan.steps, steps, one, backend);
    return plan;
  }
  if (draft) {
    plan.weight_bytes = planned_weight_bytes(spec, backend);
    plan.workspace_bytes = Transformer::planned_bytes(spec, s.max_model_len);
  }
  plan.workspace_bytes += Workspace::planned_bytes(spec, plan.steps.max_rows, plan.steps.max_logit_rows,
                                                   backend.activation_dtype(spec.weight_dtype));
  plan.scratch_bytes = backend.step_context_bytes(plan.steps);
  plan.table_bytes = ModelInput::planned_bytes(plan.steps.max_rows, plan.steps.max_seqs, 0, plan.steps.table_stride, one,
                                               spec.long_attention) +
                     ModelSpeculator::planned_table_bytes(plan.steps.max_seqs, plan.rows_ahead, s.max_model_len);
  return plan;
}

size_t planned_heads(const ModelSpec& target, const DraftModels& models, const StepLimits& steps, const Backend& backend) {
  if (!models.heads) return 0;
  return planned_heads_bytes(*models.heads, target, backend) +
         HeadsSpeculator::planned_bytes(*models.heads, target, steps, backend);
}

// Bytes of a block of one of the target's groups: its layers', and those of a draft's that read its tables.
size_t block_bytes(const ModelSpec& spec, const ModelSpec* draft, const MemoryPlan& plan, int g, int span) {
  size_t bytes = kv_block_bytes(spec, g, span, plan.kv_dtype);
  for (size_t d = 0; draft && d < draft->kv_groups.size(); ++d)
    if (plan.draft->target_groups[d] == g) bytes += kv_block_bytes(*draft, static_cast<int>(d), span, plan.draft->kv_dtype);
  return bytes;
}

// Behind the blocks of the target's geometry, those that every slot has to guess in.
void add_own_blocks(const ModelSpec* draft, int num_slots, MemoryPlan& plan) {
  DraftPlan& own = *plan.draft;
  for (int g = 0; g < plan.geometry.num_groups; ++g) own.first_own_block[g] = plan.geometry.groups[g].num_blocks;
  BlockGeometry& holds = draft ? own.geometry : plan.kv_geometry;
  for (int d = 0; d < holds.num_groups; ++d) {
    const int g = own.target_groups[d];
    holds.groups[d].num_blocks = own.first_own_block[g] + num_slots * own.own_blocks[g];
  }
  if (draft) own.kv_cache_bytes = KvCache::planned_bytes(*draft, own.geometry, own.kv_dtype);
}

// The memory that is there is too little, as against a setting that no memory could meet.
struct NoRoom : std::runtime_error {
  using std::runtime_error::runtime_error;
};

MemoryPlan plan_within(const ModelSpec& spec, const DraftModels& models, const EngineConfig& config,
                       const Backend& backend, size_t available) {
  const ModelSpec* const draft = models.with_kv();
  check_settings(spec, config, backend);
  const SchedulerConfig& s = config.scheduler;
  MemoryPlan plan;
  plan.available_bytes = available;
  check_guesses(spec, config, draft);
  plan.kv_dtype = kv_dtype_of(config.kv_dtype, spec, backend);
  // What does not depend on how many blocks there are, only on how many a sequence may hold.
  const BlockGeometry one = geometry_for(spec, config, 1);
  plan.steps = steps_of(spec, config, one);
  check_ops(spec, plan.steps.rare_ops, backend);
  plan.weight_bytes = planned_weight_bytes(spec, backend);
  plan.workspace_bytes = Workspace::planned_bytes(spec, plan.steps.max_rows, plan.steps.max_logit_rows,
                                                  backend.activation_dtype(spec.weight_dtype)) +
                         Transformer::planned_bytes(spec, s.max_model_len);
  plan.scratch_bytes = backend.step_context_bytes(plan.steps);
  plan.table_bytes = SlotTable::planned_bytes(s.max_num_seqs, s.max_model_len, one) +
                     ModelInput::planned_bytes(plan.steps.max_rows, plan.steps.max_seqs, plan.steps.max_branches,
                                               plan.steps.table_stride, one, spec.long_attention) +
                     Sampler::planned_bytes(plan.steps.max_rows, plan.steps.max_seqs, plan.steps.max_branches) +
                     Pooler::planned_bytes(plan.steps.max_seqs, spec.hidden_size);
  plan.kept_guesses = config.takes_by_rejection() && guesses_by_model(config, models.model ? &*models.model : nullptr) ? s.num_draft_tokens : 0;
  size_t of_drafters = planned_draft_bytes(config) + planned_heads(spec, models, plan.steps, backend) +
                       GuessProbabilities::planned_bytes(s.max_num_seqs, plan.kept_guesses, spec.vocab_size);
  if (!config.speculation_trace.empty())
    of_drafters += Drafting::planned_bytes(s.max_num_seqs, false) +
                   HiddenTrace::planned_bytes(plan.steps, spec.hidden_size, backend.activation_dtype(spec.weight_dtype));
  plan.draft_bytes = of_drafters;
  if (guesses_by_model(config, draft)) {
    plan.draft = plan_draft(spec, models, config, backend, plan.steps, one);
    plan.draft_bytes += plan.draft->total_bytes();
    for (int g = 0; g < one.num_groups; ++g)
      plan.draft_bytes += size_t{1} * s.max_num_seqs * plan.draft->own_blocks[g] *
                          block_bytes(spec, draft, plan, g, one.rule(g).span());
  }
  const size_t fixed = plan.total_bytes();
  if (fixed > available) {
    throw NoRoom("the model needs " + size_text(fixed) + " before its KV cache, but only " +
                 size_text(available) + " of memory are available");
  }

  double per_sequence = 0;
  for (int g = 0; g < one.num_groups; ++g) {
    per_sequence += static_cast<double>(one.groups[g].num_blocks) *
                    static_cast<double>(block_bytes(spec, draft, plan, g, one.rule(g).span()));
  }
  const auto room = static_cast<double>(available - fixed);
  const double budget = config.kv_cache_bytes > 0
                            ? static_cast<double>(config.kv_cache_bytes)
                            : std::min(per_sequence * usual_sequences(config), room * kDefaultKvShare);
  if (budget > room) {
    throw NoRoom("kv_cache_mib asks for " + size_text(config.kv_cache_bytes) + ", but beside " +
                 size_text(fixed) + " for the model only " + size_text(available - fixed) +
                 " of memory are available");
  }
  if (budget < per_sequence) {
    throw NoRoom("a KV cache of " + size_text(static_cast<size_t>(budget)) +
                 " cannot hold one sequence of max_model_len " + std::to_string(s.max_model_len) +
                 ", which takes " + size_text(static_cast<size_t>(per_sequence)) +
                 ": lower max_model_len or raise kv_cache_mib");
  }
  plan.geometry = geometry_for(spec, config, budget / per_sequence);
  plan.kv_geometry = plan.geometry;
  if (plan.draft) {
    add_own_blocks(draft, s.max_num_seqs, plan);
    plan.draft_bytes = of_drafters + plan.draft->total_bytes();
  }
  plan.kv_cache_bytes = KvCache::planned_bytes(spec, plan.kv_geometry, plan.kv_dtype);
  plan.full_sequences = std::numeric_limits<int>::max();
  for (int g = 0; g < one.num_groups; ++g) {
    plan.full_sequences =
        std::min(plan.full_sequences, plan.geometry.groups[g].num_blocks / one.groups[g].num_blocks);
  }
  return plan;
}

}  // namespace

MemoryPlan plan_memory(const ModelSpec& spec, const EngineConfig& config, const Backend& backend, size_t available,
                       const DraftModels& draft) {
  try {
    return plan_within(spec, draft, config, backend, available);
  } catch (const NoRoom& none) {
    const int length = largest_model_len(spec, config, backend, available, draft);
    if (length == 0) throw;
    throw std::runtime_error(std::string(none.what()) + "; max_model_len " + std::to_string(length) +
                             " would fit");
  }
}

int largest_model_len(const ModelSpec& spec, const EngineConfig& config, const Backend& backend, size_t available,
                      const DraftModels& draft) {
  const auto fits = [&](int length) {
    EngineConfig tried = config;
    tried.scheduler.max_model_len = length;
    try {
      plan_within(spec, draft, tried, backend, available);
      return true;
    } catch (const NoRoom&) {
      return false;
    }
  };
  // Shorter sequences never need more.
  int longest = 0;
  const ModelSpec* const guessing = draft.with_kv();
  const int most = guessing ? std::min(spec.max_positions, guessing->max_positions) : spec.max_positions;
  for (int beyond = most + 1; longest + 1 < beyond;) {
    const int middle = longest + (beyond - longest) / 2;
    (fits(middle) ? longest : beyond) = middle;
  }
  return longest;
}

}  // namespace serval
