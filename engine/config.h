// Plain settings of the engine, by value. The server's one description of every knob (server/config.cc) fills
// them; there is no global configuration.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "engine/long_attention.h"
#include "engine/request.h"
#include "kernels/values.h"

namespace serval {

enum class QueuePolicy : uint8_t { kFcfs, kPriority };

struct SchedulerConfig {
  int max_num_seqs = 64;             // slots: sequences that run together
  int max_num_batched_tokens = 512;  // token budget of one step
  int max_prefill_chunk = 512;       // most prompt tokens of one sequence in one step
  int max_model_len = 2048;          // positions a sequence may reach
  int step_budget_ms = 150;  // a step beside those that decode takes no longer, for all the prompts there are; 0: off
  int num_draft_tokens = 0;  // guesses of one sequence that a step verifies, up to kMaxDrafts; 0: none
  int mask_words = 0;        // of a mask over the vocabulary; 0: nobody asks for masks
  int max_waiting = 256;             // sequences queued beyond the running ones
  int64_t max_waiting_tokens = int64_t{4} << 20;  // of the prompts that wait; one alone may have more
  int max_wait_ms = 150;  // who would wait longer for a place lets those go first who would not; 0: off
  QueuePolicy policy = QueuePolicy::kFcfs;
  bool enable_prefix_cache = true;
  // A step has all of a prompt or nothing of it: rows see those behind them (ModelSpec::is_encoder). Then max_prefill_chunk is
  // what a step has of several prompts at most; one alone may fill max_num_batched_tokens. Without the prefix cache.
  bool whole_prompts = false;
};

// Throws std::runtime_error with a sentence for settings that contradict each other.
inline void check_scheduler_config(const SchedulerConfig& config) {
  if (config.whole_prompts && config.max_num_batched_tokens < config.max_model_len + config.max_num_seqs)
    throw std::runtime_error("max_num_batched_tokens is " + std::to_string(config.max_num_batched_tokens) +
                             "; this model reads a prompt whole, in one step: it must be at least max_model_len + max_num_seqs, " +
                             std::to_string(config.max_model_len + config.max_num_seqs));
  if (config.max_num_batched_tokens >= config.max_num_seqs) return;
  throw std::runtime_error("max_num_batched_tokens is " + std::to_string(config.max_num_batched_tokens) +
                           "; it must be at least max_num_seqs, " + std::to_string(config.max_num_seqs) +
                           ", so that every sequence can decode in every step");
}

// Guesses that a step verifies at most, of all its sequences: a quarter of its rows.
constexpr int max_drafts_of_step(const SchedulerConfig& config) {
  const int64_t all = int64_t{config.max_num_seqs} * config.num_draft_tokens;
  return static_cast<int>(all < config.max_num_batched_tokens / 4 ? all : config.max_num_batched_tokens / 4);
}

struct EngineConfig {
  DeviceConfig device;
  SchedulerConfig scheduler;
  // 0: enough for max_num_seqs * max_model_len, bounded by a share of the memory that is free.
  size_t kv_cache_bytes = 0;
  int block_size = 16;
  std::string kv_dtype = "auto";  // auto, f32, f16, bf16, fp8, int8, int4
  std::string quantize = "off";   // what matrices are rounded to while they are loaded: off, or a row of kRoundings (engine/model/model_spec.cc)
  std::string packed_cache;       // folder of files of packed weights (engine/model/packed_cache.h); empty: none
  // Who guesses what comes next (docs/speculation.md): one of make_drafters.cc's settings; the folder of its model.
  std::string speculation = "off";
  std::string speculation_model;
  std::string speculation_datastore;  // a file of TokenStore
  bool merges_drafts() const { return speculation.find('+') != speculation.npos; }  // several drafters, whose guesses are one tree
  // Of requests that say nothing.
  Acceptance speculation_acceptance = Acceptance::kExact;
  // Then it is kept by which probabilities guesses were drawn, where one drafter alone makes them.
  bool takes_by_rejection() const { return speculation_acceptance == Acceptance::kRejection && !merges_drafts(); }
  // A file for training heads, of at most so many bytes (engine/runner/hidden_trace.h); empty: none.
  std::string speculation_trace;
  size_t speculation_trace_bytes = size_t{256} << 20;
  int draft_width = 1;         // guesses beside each other; beyond 1 a branch is one more sequence to attention
  bool drafts_branch() const { return draft_width > 1 || merges_drafts() || speculation == "lookahead"; }
  int num_draft_layers = 0;    // of the model itself, where they guess; 0: a quarter of them
  std::string draft_speculation = "off";  // who guesses ahead of a model that guesses: off, ngram
  bool stages_drafts() const { return draft_speculation != "off"; }
  LongAttention long_attention;
  std::string ffn_widths, skip_layers;  // of a smaller model within the model (engine/model/slice.h); empty: the whole
  std::string record_path;        // when set, scheduler inputs are recorded for replay
};

}  // namespace serval
