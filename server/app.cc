#include "server/app.h"

#include <arpa/inet.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <optional>
#include <sstream>
#include <stdexcept>

#include "engine/engine.h"
#include "engine/runner/model_runner.h"
#include "engine/runner/speculators/ngram_speculator.h"
#include "kernels/base/log.h"
#include "kernels/base/regular_file.h"
#include "server/admin_handlers.h"
#include "server/grpc/grpc_server.h"
#include "server/http/api_keys.h"
#include "server/http/http_server.h"
#include "server/openai/openai_handlers.h"
#include "server/process_limits.h"
#include "server/service/engine_service.h"
#include "server/service/metrics.h"
#include "server/service/served_model.h"
#include "server/stop_signals.h"
#include "server/version.h"

namespace serval {
namespace {

namespace fs = std::filesystem;

std::optional<int64_t> parse_template_time(const std::string& text) {
  if (text.empty()) return std::nullopt;
  std::tm time{};
  const char* end = strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &time);
  if (!end || (*end != '\0' && std::string(end) != "Z")) {
    throw std::runtime_error("template_time is '" + text + "'; it must look like 2026-01-31T12:00:00Z");
  }
  return timegm(&time);
}

// An address, not a name that begins like one: "127.example.org" is somewhere else.
bool is_loopback(const std::string& host) {
  in_addr v4;
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  return host == "localhost" || host == "::1";
}

// The settings that depend on the model: its context, and units and names in the engine's own terms.
void resolve(const ModelSpec& model, ServerConfig& config) {
  SchedulerConfig& scheduler = config.engine.scheduler;
  if (config.max_model_len > model.max_positions) {
    throw std::runtime_error("max_model_len is " + std::to_string(config.max_model_len) +
                             "; this model was made for " + std::to_string(model.max_positions));
  }
  scheduler.max_model_len = config.max_model_len > 0 ? config.max_model_len : model.max_positions;
  scheduler.max_prefill_chunk = std::min(scheduler.max_prefill_chunk, scheduler.max_num_batched_tokens);
  if (scheduler.max_num_batched_tokens < scheduler.max_num_seqs) {
    throw std::runtime_error("max_num_batched_tokens is " + std::to_string(scheduler.max_num_batched_tokens) +
                             "; it must be at least max_num_seqs (" + std::to_string(scheduler.max_num_seqs) +
                             "), or decodes would wait for each other");
  }
  if ((config.engine.block_size & (config.engine.block_size - 1)) != 0) {
    throw std::runtime_error("block_size is " + std::to_string(config.engine.block_size) +
                             "; it must be a power of two");
  }
  scheduler.policy = config.policy == "priority" ? QueuePolicy::kPriority : QueuePolicy::kFcfs;
  scheduler.num_draft_tokens = config.speculation == "off" ? 0 : config.num_draft_tokens;
  config.engine.kv_cache_bytes = static_cast<size_t>(config.kv_cache_mib) << 20;
  config.limits.max_model_len = scheduler.max_model_len;
  config.limits.vocab_size = model.vocab_size;
}

// Said before anything listens or loads. Leaves the file there: the recorder will write it.
void check_record_path(const std::string& path) {
  if (path.empty()) return;
  try {
    require_writable_file(path);
  } catch (const std::runtime_error& refused) {
    throw std::runtime_error(std::string("record: ") + refused.what());
  }
}

HttpConfig http_config(const ServerConfig& config, std::shared_ptr<MemoryBudget> answers) {
  HttpConfig http;
  http.answers = std::move(answers);
  http.host = config.host;
  http.port = static_cast<uint16_t>(config.port);
  http.api_keys = config.api_keys;
  http.insecure = config.insecure;
  http.cors_allow_origins = config.cors_allow_origins;
  http.io_threads = config.io_threads;
  http.text_threads = config.text_threads;
  http.head.max_request_line_bytes = static_cast<size_t>(config.max_request_line_bytes);
  http.head.max_header_bytes = static_cast<size_t>(config.max_header_bytes);
  http.head.max_fields = config.max_header_fields;
  http.body.max_bytes = static_cast<size_t>(config.max_body_bytes);
  http.max_total_body_bytes = static_cast<size_t>(config.max_total_body_bytes);
  http.max_connections = config.max_connections;
  http.max_connections_per_address = config.max_connections_per_address;
  http.max_waiting_long_texts = static_cast<size_t>(config.max_waiting_long_texts);
  http.max_waiting_long_text_bytes = static_cast<size_t>(config.max_waiting_long_text_bytes);
  http.stream_buffer_bytes = static_cast<size_t>(config.stream_buffer_bytes);
  http.header_timeout = HttpConfig::Duration(config.header_timeout_ms);
  http.body_timeout = HttpConfig::Duration(config.body_timeout_ms);
  http.body_total_timeout = HttpConfig::Duration(config.body_total_timeout_ms);
  http.keep_alive_timeout = HttpConfig::Duration(config.keep_alive_timeout_ms);
  http.write_stall_timeout = HttpConfig::Duration(config.write_stall_timeout_ms);
  http.linger_timeout = HttpConfig::Duration(config.linger_timeout_ms);
  return http;
}

std::unique_ptr<GrpcServer> start_grpc(const ServerConfig& config, const ApiKeys& keys,
                                       InferenceService& service, ServiceMetrics& metrics, HttpServer& http,
                                       std::shared_ptr<MemoryBudget> answers) {
  if (!config.grpc) return nullptr;
  if (!is_loopback(config.grpc_host) && keys.empty() && !config.insecure) {
    throw std::runtime_error("grpc_host is " + config.grpc_host +
                             "; other addresses than loopback need api_keys or insecure");
  }
  GrpcConfig grpc;
  grpc.host = config.grpc_host;
  grpc.port = static_cast<uint16_t>(config.grpc_port);
  grpc.max_connections = config.grpc_max_connections;
  grpc.max_connections_per_address = config.max_connections_per_address;
  grpc.max_message_bytes = static_cast<size_t>(config.grpc_max_message_bytes);
  grpc.max_total_bytes = static_cast<size_t>(config.max_total_body_bytes);
  grpc.stream_buffer_bytes = static_cast<size_t>(config.stream_buffer_bytes);
  grpc.answers = std::move(answers);
  grpc.connection.max_streams = config.grpc_max_concurrent_streams;
  grpc.connection.max_header_bytes = static_cast<size_t>(config.max_header_bytes);
  grpc.connection.max_fields = config.max_header_fields;
  grpc.connection.header_timeout = H2Limits::Duration(config.header_timeout_ms);
  grpc.connection.body_timeout = H2Limits::Duration(config.body_timeout_ms);
  grpc.connection.body_total_timeout = H2Limits::Duration(config.body_total_timeout_ms);
  grpc.connection.idle_timeout = H2Limits::Duration(config.keep_alive_timeout_ms);
  grpc.connection.write_stall_timeout = H2Limits::Duration(config.write_stall_timeout_ms);
  grpc.connection.linger_timeout = H2Limits::Duration(config.linger_timeout_ms);
  grpc.submit_text = [&http](size_t bytes, std::function<void()> task) { return http.submit_text(bytes, std::move(task)); };
  if (!keys.empty()) grpc.find_key = [&keys](std::string_view bearer) { return keys.find(bearer); };
  GrpcHooks hooks;
  hooks.response = [&metrics](const std::string& method, std::string_view code) { metrics.grpc_finished(method, code); };
  hooks.refused = [&metrics](const std::string& code) { metrics.rejected(code); };
  hooks.client_gone = [&metrics](const char* reason) { metrics.client_gone(reason); };
  hooks.ended = log_request;
  return std::make_unique<GrpcServer>(std::move(grpc), service, std::move(hooks));
}

std::unique_ptr<Speculator> speculator_of(const ServerConfig& config) {
  if (config.speculation == "ngram") return std::make_unique<NgramSpeculator>();
  return nullptr;
}

LogLevel log_level(const std::string& name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warn") return LogLevel::kWarn;
  return name == "error" ? LogLevel::kError : LogLevel::kInfo;
}

// Says how far each part of loading is, at most ten times.
LoadProgress progress_lines() {
  return [last = std::pair<std::string, size_t>()](const char* what, size_t done, size_t total) mutable {
    const size_t tenth = total == 0 ? 10 : done * 10 / total;
    const std::pair<std::string, size_t> now(what, tenth);
    if (tenth == 0 || now == last) return;
    last = now;
    log_info(what, {{"percent", tenth * 10}, {"mib", total >> 20}});
  };
}

size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  size_t total_pages = 0, resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return resident_pages * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

// Running requests go on until they end, the budget is spent, or a second signal comes.
void drain(EngineService& service, StopSignals& signals, int budget_s) {
  log_info("draining", {{"seconds", budget_s}});
  service.begin_drain();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(budget_s);
  while (!service.wait_until_idle(Time{0})) {
    if (std::chrono::steady_clock::now() >= end) {
      log_warn("the drain ran out of time; ending what still runs");
      break;
    }
    if (signals.wait_for(std::chrono::milliseconds(20))) {
      log_warn("a second signal; ending what still runs");
      break;
    }
  }
  service.abort_all();
}

void serve_until_stopped(const std::string& model, ServerConfig config, StopSignals& signals) {
  set_log_level(log_level(config.log_level));
  raise_descriptor_limit(config.max_connections + (config.grpc ? config.grpc_max_connections : 0));
  ServedModel served = read_served_model(model);
  resolve(served.spec, config);
  check_record_path(config.engine.record_path);

  ServiceConfig service_config;
  service_config.model_id = config.served_model_name.empty() ? served.name : config.served_model_name;
  service_config.aliases = config.model_aliases;
  service_config.created = std::time(nullptr);
  service_config.limits = config.limits;
  service_config.template_time = parse_template_time(config.template_time);
  service_config.share_prefix_cache = config.share_prefix_cache;
  service_config.stall_seconds = config.stall_timeout_s;
  service_config.defaults = served.defaults;
  service_config.scheduler = config.engine.scheduler;
  const auto answers = std::make_shared<MemoryBudget>(static_cast<size_t>(config.max_total_answer_bytes));
  service_config.answers = answers;
  const std::string model_id = service_config.model_id;

  // The listeners open before the model is loaded: probes get an answer at once, requests a 503.
  ServiceMetrics metrics(model_id);
  EngineService service(std::move(service_config), served.tokenizer, std::move(served.chat_template),
                        metrics);
  RouteTable routes;
  RequestOptions request_options;
  request_options.strict = config.strict_parameters;
  request_options.on_ignored = [&metrics](int count) { metrics.fields_ignored(count); };
  routes.add(openai_routes(service, request_options));
  routes.add(admin_routes(
      service, [&metrics] { return metrics.text(); }, kVersion));
  HttpHooks hooks;
  hooks.response = [&metrics](const std::string& route, int status) { metrics.http_response(route, status); };
  hooks.refused = [&metrics](const std::string& code) { metrics.rejected(code); };
  hooks.client_gone = [&metrics](const char* reason) { metrics.client_gone(reason); };
  hooks.ended = log_request;
  HttpServer http(http_config(config, answers), std::move(routes), std::move(hooks));
  http.start();
  const ApiKeys keys(config.api_keys);
  const std::unique_ptr<GrpcServer> grpc = start_grpc(config, keys, service, metrics, http, answers);
  log_info("listening",
           {{"host", config.host}, {"http_port", http.port()}, {"grpc_port", grpc ? grpc->port() : 0}});

  ModelRunner runner(served.folder, config.engine, progress_lines(), speculator_of(config));
  const BlockGeometry geometry = runner.plan().geometry;
  {
    Engine engine(config.engine, geometry, run_on(runner), service.event_sink());
    service.attach(&engine, geometry);
    metrics.set_engine([&engine] { return engine.stats(); }, geometry,
                       config.engine.scheduler.enable_prefix_cache);
    if (grpc) grpc->set_serving(true);
    log_info("ready", {{"model", model_id},
                       {"context", config.limits.max_model_len},
                       {"planned_mib", runner.plan().total_bytes() >> 20}});

    signals.ready();
    signals.wait();
    if (grpc) grpc->set_serving(false);
    drain(service, signals, config.drain_timeout_s);
    // The last events are on their way to the connections: give readers a moment, not for ever.
    http.drain(std::chrono::milliseconds(2000));
    if (grpc) grpc->shutdown(2000);
    http.stop();
    metrics.set_engine(nullptr, geometry, false);
    service.attach(nullptr, geometry);
  }
}

}  // namespace

void serve(const std::string& model, ServerConfig config, StopSignals& signals) {
  serve_until_stopped(model, std::move(config), signals);
  log_info("ended");
}

std::string plan_text(const std::string& model, ServerConfig config) {
  const ServedModel served = read_served_model(model);
  resolve(served.spec, config);
  // What a process with these libraries, this tokenizer and this template holds before the engine: measured
  // here and now.
  const size_t process_bytes = resident_bytes();
  const std::unique_ptr<Backend> backend = make_backend(config.engine.device);
  const MemoryPlan plan = plan_memory(served.spec, config.engine, *backend);
  const auto gib = [](size_t bytes) { return static_cast<double>(bytes) / static_cast<double>(1 << 30); };
  std::ostringstream out;
  out << std::fixed << std::setprecision(2);
  const auto row = [&](const char* name, size_t bytes, const std::string& what) {
    out << std::left << std::setw(12) << name << std::right << std::setw(16) << bytes << " bytes "
        << std::setw(8) << gib(bytes) << " GiB  " << what << "\n";
  };
  row("weights", plan.weight_bytes, "packed for " + std::string(backend->name()));
  row("kv_cache", plan.kv_cache_bytes,
      std::to_string(plan.geometry.groups[0].num_blocks) + " blocks of " +
          std::to_string(plan.geometry.block_size) + " positions");
  row("workspace", plan.workspace_bytes, "activations, logits, scratch");
  row("tables", plan.table_bytes, "histories, block tables, scheduler");
  row("process", process_bytes, "program, libraries, tokenizer");
  row("total", plan.total_bytes() + process_bytes, "");
  const SchedulerConfig& scheduler = config.engine.scheduler;
  out << "\nIt fits: " << gib(plan.available_bytes) << " GiB of memory are available, and "
      << gib(plan.available_bytes - plan.total_bytes()) << " GiB stay free.\n"
      << "The KV cache holds " << plan.full_sequences << " sequences of max_model_len "
      << scheduler.max_model_len << " at once; max_num_seqs is " << scheduler.max_num_seqs << ".\n";
  const int longest = largest_model_len(served.spec, config.engine, *backend);
  out << "The largest max_model_len that fits is " << longest
      << (longest == served.spec.max_positions ? ", all that the model was made for" : "") << ".\n";
  return out.str();
}

}  // namespace serval
