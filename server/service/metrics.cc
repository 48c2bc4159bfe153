#include "server/service/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <array>
#include <map>
#include <mutex>
#include <vector>

#include "kernels/base/log.h"

namespace serval {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// Finer at the low end than the peers': a small model's first token takes well under a millisecond.
const std::vector<double> kLatencyBuckets = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                             0.5,    1,     2.5,    5,     10,   30,    60,   300};
const std::vector<double> kMaskBuckets = {1e-5, 5e-5, 2.5e-4, 1e-3, 2e-2};
const std::vector<double> kCompileBuckets = {1e-3, 1e-2, 0.1, 1, 10};
const std::vector<double> kTokenBuckets = {1, 4, 16, 64, 256, 1024, 4096, 16384, 65536};
const std::vector<double> kChoiceBuckets = {1, 2, 4, 8, 16};

// Native suffix -> vllm: suffix, where the meaning is the same. The native name is "serval:" + first.
constexpr std::array<std::pair<const char*, const char*>, 29> kVllmNames = {{
    {"num_requests_running", "num_requests_running"},
    {"num_requests_waiting", "num_requests_waiting"},
    {"kv_cache_usage_perc", "kv_cache_usage_perc"},
    {"cache_config_info", "cache_config_info"},
    {"prompt_tokens_total", "prompt_tokens_total"},
    {"generation_tokens_total", "generation_tokens_total"},
    {"prompt_tokens_cached_total", "prompt_tokens_cached_total"},
    {"prompt_tokens_by_source_total", "prompt_tokens_by_source_total"},
    {"request_success_total", "request_success_total"},
    {"preemptions_total", "num_preemptions_total"},
    {"prefix_cache_queries_total", "prefix_cache_queries_total"},
    {"prefix_cache_hits_total", "prefix_cache_hits_total"},
    {"spec_decode_num_drafts_total", "spec_decode_num_drafts_total"},
    {"spec_decode_num_draft_tokens_total", "spec_decode_num_draft_tokens_total"},
    {"spec_decode_num_accepted_tokens_total", "spec_decode_num_accepted_tokens_total"},
    {"spec_decode_num_accepted_tokens_per_pos_total", "spec_decode_num_accepted_tokens_per_pos_total"},
    {"time_to_first_token_seconds", "time_to_first_token_seconds"},
    {"inter_token_latency_seconds", "inter_token_latency_seconds"},
    {"inter_token_latency_seconds", "time_per_output_token_seconds"},
    {"request_time_per_output_token_seconds", "request_time_per_output_token_seconds"},
    {"e2e_request_latency_seconds", "e2e_request_latency_seconds"},
    {"request_queue_time_seconds", "request_queue_time_seconds"},
    {"request_prefill_time_seconds", "request_prefill_time_seconds"},
    {"request_decode_time_seconds", "request_decode_time_seconds"},
    {"request_inference_time_seconds", "request_inference_time_seconds"},
    {"request_prompt_tokens", "request_prompt_tokens"},
    {"request_generation_tokens", "request_generation_tokens"},
    {"request_params_max_tokens", "request_params_max_tokens"},
    {"request_params_n", "request_params_n"},
}};

}  // namespace

struct ServiceMetrics::Impl {
  explicit Impl(std::string model) : labels{{"model_name", std::move(model)}, {"engine", "0"}} {}

  prometheus::Histogram& histogram(const char* name, const char* help, const std::vector<double>& buckets) {
    return prometheus::BuildHistogram()
        .Name(std::string("serval:") + name)
        .Help(help)
        .Labels(labels)
        .Register(registry)
        .Add({}, buckets);
  }
  prometheus::Family<prometheus::Counter>& counters(const char* name, const char* help) {
    return prometheus::BuildCounter()
        .Name(std::string("serval:") + name)
        .Help(help)
        .Labels(labels)
        .Register(registry);
  }

  // A family of one kind whose values come from the engine's snapshot.
  MetricFamily family(
      const char* name, const char* help, MetricType type,
      const std::vector<std::pair<std::map<std::string, std::string>, double>>& values) const {
    MetricFamily result{std::string("serval:") + name, help, type, {}};
    for (const auto& [extra, value] : values) {
      ClientMetric metric;
      for (const auto& [key, label] : labels) metric.label.push_back({key, label});
      for (const auto& [key, label] : extra) metric.label.push_back({key, label});
      (type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
      result.metric.push_back(std::move(metric));
    }
    return result;
  }

  // Guesses by who made them and how far behind the last token they stood.
  void collect_drafters(const SchedulerStats& s, std::vector<MetricFamily>& out) const {
    std::vector<std::pair<std::map<std::string, std::string>, double>> drafted, accepted, at_place;
    for (int place = 0; place < DrafterStats::kPlaces; ++place) {
      const std::string position = std::to_string(place);
      double of_all = 0;
      bool was_tried = false;
      for (int i = 0; i < kNumDrafters; ++i) {
        const DrafterStats& of = s.drafters[i];
        of_all += static_cast<double>(of.accepted[place]);
        if (of.drafted[place] == 0) continue;
        was_tried = true;
        const std::map<std::string, std::string> extra = {{"drafter", kDrafterNames[i]}, {"position", position}};
        drafted.emplace_back(extra, of.drafted[place]);
        accepted.emplace_back(extra, of.accepted[place]);
      }
      if (was_tried) at_place.push_back({{{"position", position}}, of_all});
    }
    out.push_back(family("spec_draft_tokens_total", "Tokens guessed, by drafter and position behind the last token.",
                         MetricType::Counter, drafted));
    out.push_back(family("spec_accepted_tokens_total", "Of those, the model's own.", MetricType::Counter, accepted));
    out.push_back(family("spec_decode_num_accepted_tokens_per_pos_total", "Guesses that were the model's own, by position.",
                         MetricType::Counter, at_place));
  }

  void collect_engine(std::vector<MetricFamily>& out) const {
    std::function<EngineStats()> source;
    BlockGeometry geo;
    bool caches = false;
    {
      std::lock_guard lock(engine_mutex);
      source = engine;
      geo = geometry;
      caches = prefix_cache;
    }
    if (!source) return;
    const EngineStats stats = source();
    const SchedulerStats& s = stats.scheduler;
    const auto gauge = [&](const char* name, const char* help, double value) {
      out.push_back(family(name, help, MetricType::Gauge, {{{}, value}}));
    };
    const auto counter = [&](const char* name, const char* help, double value) {
      out.push_back(family(name, help, MetricType::Counter, {{{}, value}}));
    };
    gauge("num_requests_running", "Sequences in a slot.", s.num_running);
    gauge("num_requests_waiting", "Sequences queued.", s.num_waiting);
    gauge(
        "kv_cache_usage_perc",
        "Share of the KV blocks that running sequences hold, 0 to 1; of windowed layers' where that is more.",
        s.kv_usage);
    gauge("kv_blocks_cached", "KV blocks only the prefix cache holds; they can be evicted.",
          s.num_cached_blocks);
    gauge("kv_blocks_free", "KV blocks that hold nothing.", s.num_free_blocks);
    out.push_back(family("cache_config_info", "The KV cache's shape, as labels.", MetricType::Gauge,
                         {{{{"block_size", std::to_string(geo.rule(0).span())},
                            {"num_gpu_blocks", std::to_string(s.num_blocks)},
                            {"enable_prefix_caching", caches ? "True" : "False"}},
                           1}}));
    counter("prompt_tokens_total", "Prompt tokens of requests queued.", s.prompt_tokens);
    counter("generation_tokens_total", "Tokens generated.", s.generation_tokens);
    counter("prompt_tokens_cached_total", "Prompt tokens taken from the prefix cache.", s.prefix_hit_tokens);
    out.push_back(family("prompt_tokens_by_source_total", "Prompt tokens by where their KV came from.",
                         MetricType::Counter,
                         {{{{"source", "local_compute"}}, static_cast<double>(s.prompt_tokens_computed)},
                          {{{"source", "local_cache_hit"}}, static_cast<double>(s.prefix_hit_tokens)}}));
    counter("preemptions_total", "Sequences that gave their blocks back and were computed again.",
            s.num_preemptions);
    counter("prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
            s.prefix_query_tokens);
    counter("prefix_cache_hits_total", "Of those, tokens found.", s.prefix_hit_tokens);
    counter("spec_decode_num_drafts_total", "Times that a sequence's guesses were verified.", s.num_drafts);
    counter("spec_decode_num_draft_tokens_total", "Tokens guessed.", s.num_draft_tokens);
    counter("spec_decode_num_accepted_tokens_total", "Of those, the model's own.", s.num_accepted_tokens);
    collect_drafters(s, out);
    counter("spec_draft_forwards_total", "Forwards of a smaller model, or of first layers, that guess.", stats.draft_work.forwards);
    counter("spec_ahead_tokens_total", "Tokens guessed ahead of it.", stats.draft_work.ahead);
    counter("spec_ahead_accepted_tokens_total", "Of those, the ones that it drew itself.", stats.draft_work.ahead_accepted);
    counter("kv_blocks_evicted_total", "Cached blocks evicted to make room.", s.num_evicted_blocks);
    counter("engine_steps_total", "Forward steps completed: the engine's heartbeat.", stats.steps);
    counter("recording_lost_total", "Inputs of the scheduler that the recording could not take.",
            stats.recording_lost);
    gauge("engine_step_max_seqs", "Most sequences any step had.", stats.max_step_seqs);
    gauge("engine_step_max_mixed_seqs", "Most sequences any step had that computed prompts beside decoding.",
          stats.max_mixed_step_seqs);
    counter("engine_step_seconds_total", "Time spent in forward steps.", stats.step_seconds_total);
  }

  const prometheus::Labels labels;
  prometheus::Registry registry;
  prometheus::Histogram& ttft = histogram("time_to_first_token_seconds",
                                          "From receiving a request to its first token.", kLatencyBuckets);
  prometheus::Histogram& itl =
      histogram("inter_token_latency_seconds", "Between two tokens of one choice.", kLatencyBuckets);
  prometheus::Histogram& tpot = histogram("request_time_per_output_token_seconds",
                                          "Mean time per output token after the first.", kLatencyBuckets);
  prometheus::Histogram& e2e =
      histogram("e2e_request_latency_seconds", "From receiving a request to its end.", kLatencyBuckets);
  prometheus::Histogram& queue =
      histogram("request_queue_time_seconds", "Until first scheduled.", kLatencyBuckets);
  prometheus::Histogram& prefill =
      histogram("request_prefill_time_seconds", "From first scheduled to the first token.", kLatencyBuckets);
  prometheus::Histogram& decode =
      histogram("request_decode_time_seconds", "From the first token to the end.", kLatencyBuckets);
  prometheus::Histogram& inference =
      histogram("request_inference_time_seconds", "From first scheduled to the end.", kLatencyBuckets);
  prometheus::Histogram& prompt_tokens =
      histogram("request_prompt_tokens", "Prompt tokens of a request.", kTokenBuckets);
  prometheus::Histogram& output_tokens =
      histogram("request_generation_tokens", "Output tokens of a request.", kTokenBuckets);
  prometheus::Histogram& max_tokens =
      histogram("request_params_max_tokens", "The output budget of a request.", kTokenBuckets);
  prometheus::Histogram& choices = histogram("request_params_n", "Choices asked for.", kChoiceBuckets);
  prometheus::Family<prometheus::Counter>& success =
      counters("request_success_total", "Requests ended, by reason.");
  prometheus::Family<prometheus::Counter>& rejections =
      counters("requests_rejected_total", "Requests answered with an error, by its code.");
  prometheus::Histogram& grammar_compile = histogram(
      "grammar_compile_seconds", "From a schema, an expression or a grammar to what it compiles to.", kCompileBuckets);
  prometheus::Counter& grammars_refused =
      counters("grammars_refused_total", "Of those compiled, those that cannot be enforced.").Add({});
  prometheus::Histogram& mask =
      histogram("grammar_mask_seconds", "Making the mask of one token under a grammar.", kMaskBuckets);
  prometheus::Counter& ignored =
      counters("request_fields_ignored_total", "Unknown fields of requests, which were ignored.").Add({});
  prometheus::Family<prometheus::Counter>& gone =
      counters("requests_aborted_total", "Requests whose client left, by how.");
  prometheus::Family<prometheus::Counter>& grpc =
      counters("grpc_calls_total", "gRPC calls that ended, by method and status code.");
  prometheus::Family<prometheus::Counter>& http =
      counters("http_requests_total", "HTTP responses by route and status.");

  mutable std::mutex engine_mutex;
  std::function<EngineStats()> engine;
  BlockGeometry geometry;
  bool prefix_cache = false;
};

ServiceMetrics::ServiceMetrics(std::string model_name)
    : impl_(std::make_unique<Impl>(std::move(model_name))) {}
ServiceMetrics::~ServiceMetrics() = default;

void ServiceMetrics::set_engine(std::function<EngineStats()> stats, const BlockGeometry& geometry,
                                bool prefix_cache) {
  std::lock_guard lock(impl_->engine_mutex);
  impl_->engine = std::move(stats);
  impl_->geometry = geometry;
  impl_->prefix_cache = prefix_cache;
}

void ServiceMetrics::first_token(double seconds) {
  impl_->ttft.Observe(seconds);
}
void ServiceMetrics::inter_token(double seconds) {
  impl_->itl.Observe(seconds);
}

void ServiceMetrics::finished(const RequestRecord& r) {
  impl_->success.Add({{"finished_reason", finished_reason(r.finish)}}).Increment();
  impl_->e2e.Observe(r.total_s);
  impl_->prompt_tokens.Observe(r.prompt_tokens);
  impl_->output_tokens.Observe(r.output_tokens);
  impl_->max_tokens.Observe(r.max_tokens);
  impl_->choices.Observe(r.n);
  if (r.first_s <= 0) return;  // ended before it produced anything: the phases below never happened
  impl_->queue.Observe(r.queue_s);
  impl_->prefill.Observe(r.first_s - r.queue_s);
  impl_->decode.Observe(r.total_s - r.first_s);
  impl_->inference.Observe(r.total_s - r.queue_s);
  if (r.output_tokens > 1) impl_->tpot.Observe((r.total_s - r.first_s) / (r.output_tokens - 1));
}

void ServiceMetrics::rejected(const std::string& code) {
  impl_->rejections.Add({{"code", code}}).Increment();
}
void ServiceMetrics::grammar_compiled(double seconds, bool accepted) {
  impl_->grammar_compile.Observe(seconds);
  if (!accepted) impl_->grammars_refused.Increment();
}
void ServiceMetrics::mask_made(double seconds) {
  impl_->mask.Observe(seconds);
}
void ServiceMetrics::fields_ignored(int count) {
  impl_->ignored.Increment(count);
}
void ServiceMetrics::client_gone(const char* reason) {
  impl_->gone.Add({{"reason", reason}}).Increment();
}
void ServiceMetrics::grpc_finished(const std::string& method, std::string_view status) {
  impl_->grpc.Add({{"method", method}, {"status", std::string(status)}}).Increment();
}
void ServiceMetrics::http_response(const std::string& route, int status) {
  impl_->http.Add({{"route", route}, {"status", std::to_string(status)}}).Increment();
}

std::string ServiceMetrics::text() const {
  std::vector<MetricFamily> families = impl_->registry.Collect();
  impl_->collect_engine(families);
  families.push_back(impl_->family("log_lines_dropped_total", "Log lines a full pipe refused.",
                                   MetricType::Counter, {{{}, static_cast<double>(log_lines_dropped())}}));
  std::vector<MetricFamily> renamed;
  for (const MetricFamily& family : families) {
    for (const auto& [native, theirs] : kVllmNames) {
      if (family.name != std::string("serval:") + native) continue;
      renamed.push_back(family);
      renamed.back().name = std::string("vllm:") + theirs;
    }
  }
  families.insert(families.end(), renamed.begin(), renamed.end());
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace serval
