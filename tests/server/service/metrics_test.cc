// Every series driven to a known value, and found under both of its names.

#include "server/service/metrics.h"

#include <gtest/gtest.h>

#include <sstream>

namespace serval {
namespace {

// The value of the line that starts with the name and has every label; -1 when there is none.
double value(const std::string& text, const std::string& name, const std::vector<std::string>& labels = {}) {
  std::stringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(name + "{")) continue;
    bool all = true;
    for (const std::string& label : labels) all = all && line.find(label) != std::string::npos;
    if (all) return std::stod(line.substr(line.rfind(' ') + 1));
  }
  return -1;
}

EngineStats known_stats() {
  EngineStats stats;
  SchedulerStats& s = stats.scheduler;
  s.num_running = 3;
  s.num_waiting = 4;
  s.num_blocks = 100;
  s.num_free_blocks = 50;
  s.num_cached_blocks = 25;
  s.kv_usage = 0.75;  // of another group than the blocks above
  s.num_preemptions = 6;
  s.num_evicted_blocks = 7;
  s.prompt_tokens = 80;
  s.prompt_tokens_computed = 70;
  s.generation_tokens = 90;
  s.prefix_query_tokens = 60;
  s.prefix_hit_tokens = 10;
  s.num_drafts = 20;
  s.num_draft_tokens = 40;
  s.num_accepted_tokens = 30;
  stats.steps = 11;
  stats.step_seconds_total = 1.5;
  stats.draft_work = {.forwards = 21, .ahead = 15, .ahead_accepted = 9};
  stats.max_step_seqs = 13;
  stats.max_mixed_step_seqs = 12;
  return stats;
}

TEST(Metrics, EngineSeriesAreTheSnapshotUnderBothNames) {
  ServiceMetrics metrics("m");
  BlockGeometry geometry;
  geometry.block_size = 16;
  metrics.set_engine(known_stats, geometry, /*prefix_cache=*/true);
  const std::string text = metrics.text();
  const std::tuple<const char*, const char*, double> cases[] = {
      {"num_requests_running", "num_requests_running", 3},
      {"num_requests_waiting", "num_requests_waiting", 4},
      {"kv_cache_usage_perc", "kv_cache_usage_perc", 0.75},
      {"prompt_tokens_total", "prompt_tokens_total", 80},
      {"generation_tokens_total", "generation_tokens_total", 90},
      {"prompt_tokens_cached_total", "prompt_tokens_cached_total", 10},
      {"preemptions_total", "num_preemptions_total", 6},
      {"prefix_cache_queries_total", "prefix_cache_queries_total", 60},
      {"prefix_cache_hits_total", "prefix_cache_hits_total", 10},
      {"spec_decode_num_drafts_total", "spec_decode_num_drafts_total", 20},
      {"spec_decode_num_draft_tokens_total", "spec_decode_num_draft_tokens_total", 40},
      {"spec_decode_num_accepted_tokens_total", "spec_decode_num_accepted_tokens_total", 30},
  };
  for (const auto& [native, theirs, expected] : cases) {
    EXPECT_EQ(value(text, std::string("serval:") + native, {"model_name=\"m\""}), expected) << native;
    EXPECT_EQ(value(text, std::string("vllm:") + theirs, {"engine=\"0\""}), expected) << theirs;
  }
  EXPECT_EQ(value(text, "vllm:prompt_tokens_by_source_total", {"local_compute"}), 70);
  EXPECT_EQ(value(text, "vllm:prompt_tokens_by_source_total", {"local_cache_hit"}), 10);
  EXPECT_EQ(value(text, "vllm:cache_config_info", {"block_size=\"16\"", "num_gpu_blocks=\"100\""}), 1);
  EXPECT_EQ(value(text, "serval:kv_blocks_cached"), 25);
  EXPECT_EQ(value(text, "serval:kv_blocks_free"), 50);
  EXPECT_EQ(value(text, "serval:kv_blocks_evicted_total"), 7);
  EXPECT_EQ(value(text, "serval:engine_steps_total"), 11);
  EXPECT_EQ(value(text, "serval:engine_step_seconds_total"), 1.5);
  EXPECT_EQ(value(text, "serval:spec_draft_forwards_total"), 21);
  EXPECT_EQ(value(text, "serval:spec_ahead_tokens_total"), 15);
  EXPECT_EQ(value(text, "serval:spec_ahead_accepted_tokens_total"), 9);
  EXPECT_EQ(value(text, "serval:engine_step_max_seqs"), 13);
  EXPECT_EQ(value(text, "serval:engine_step_max_mixed_seqs"), 12);
  for (const auto& [prefix_cache, label] : {std::pair{true, "\"True\""}, {false, "\"False\""}}) {
    metrics.set_engine(known_stats, geometry, prefix_cache);
    EXPECT_EQ(value(metrics.text(), "vllm:cache_config_info", {"enable_prefix_caching=", label}), 1);
  }
  metrics.set_engine(nullptr, geometry, false);
  EXPECT_EQ(value(metrics.text(), "serval:num_requests_running"), -1);
}

TEST(Metrics, AFinishedRequestGoesIntoEveryHistogramOfItsPhases) {
  ServiceMetrics metrics("m");
  metrics.first_token(0.25);
  metrics.inter_token(0.125);
  RequestRecord record;
  record.finish = FinishReason::kStopString;
  record.prompt_tokens = 10;
  record.output_tokens = 5;
  record.max_tokens = 40;
  record.n = 2;
  record.queue_s = 0.5;
  record.first_s = 1.5;
  record.total_s = 3.5;
  metrics.finished(record);
  const std::string text = metrics.text();
  const std::pair<const char*, double> sums[] = {
      {"time_to_first_token_seconds", 0.25},   {"inter_token_latency_seconds", 0.125},
      {"e2e_request_latency_seconds", 3.5},    {"request_queue_time_seconds", 0.5},
      {"request_prefill_time_seconds", 1.0},   {"request_decode_time_seconds", 2.0},
      {"request_inference_time_seconds", 3.0}, {"request_time_per_output_token_seconds", 0.5},
      {"request_prompt_tokens", 10},           {"request_generation_tokens", 5},
      {"request_params_max_tokens", 40},       {"request_params_n", 2},
  };
  for (const auto& [name, sum] : sums) {
    for (const char* prefix : {"serval:", "vllm:"}) {
      EXPECT_EQ(value(text, prefix + std::string(name) + "_sum"), sum) << prefix << name;
      EXPECT_EQ(value(text, prefix + std::string(name) + "_count"), 1) << prefix << name;
    }
  }
  EXPECT_EQ(value(text, "vllm:time_per_output_token_seconds_sum"), 0.125);
  EXPECT_EQ(value(text, "vllm:request_success_total", {"finished_reason=\"stop\""}), 1);
}

TEST(Metrics, EveryEndHasItsReason) {
  ServiceMetrics metrics("m");
  const std::pair<FinishReason, const char*> reasons[] = {
      {FinishReason::kStop, "stop"},         {FinishReason::kLength, "length"},
      {FinishReason::kNone, "abort"},        {FinishReason::kAborted, "abort"},
      {FinishReason::kDeadline, "deadline"}, {FinishReason::kNumericalError, "error"}};
  for (const auto& [reason, name] : reasons) {
    RequestRecord record;
    record.finish = reason;
    metrics.finished(record);
  }
  const std::string text = metrics.text();
  EXPECT_EQ(value(text, "serval:request_success_total", {"\"abort\""}), 2);
  for (const char* name : {"stop", "length", "deadline", "error"}) {
    EXPECT_EQ(value(text, "serval:request_success_total", {std::string("\"") + name + "\""}), 1) << name;
  }
  // None of them had a first token: the phases after it never happened.
  EXPECT_EQ(value(text, "serval:request_prefill_time_seconds_count"), 0);
}

TEST(Metrics, RefusalsDeparturesAndResponsesAreCountedByKind) {
  ServiceMetrics metrics("m");
  metrics.rejected("value_out_of_range");
  metrics.rejected("value_out_of_range");
  metrics.fields_ignored(3);
  metrics.client_gone("disconnect");
  metrics.http_response("/v1/models", 200);
  const std::string text = metrics.text();
  EXPECT_EQ(value(text, "serval:requests_rejected_total", {"code=\"value_out_of_range\""}), 2);
  EXPECT_EQ(value(text, "serval:request_fields_ignored_total"), 3);
  EXPECT_EQ(value(text, "serval:requests_aborted_total", {"reason=\"disconnect\""}), 1);
  EXPECT_EQ(value(text, "serval:http_requests_total", {"route=\"/v1/models\"", "status=\"200\""}), 1);
}

TEST(Metrics, AScrapeStaysSmall) {
  ServiceMetrics metrics("a-model-with-a-rather-long-name/7b-instruct");
  metrics.set_engine(known_stats, BlockGeometry{}, true);
  EXPECT_LE(metrics.text().size(), 68u << 10);
}

}  // namespace
}  // namespace serval
