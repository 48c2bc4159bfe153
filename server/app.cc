#include "server/app.h"

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
#include "engine/model/lengthen.h"
#include "engine/model/model_folder.h"
#include "engine/model/quantise_folder.h"
#include "engine/model/slice.h"
#include "engine/runner/load_model.h"
#include "engine/runner/speculators/make_drafters.h"
#include "engine/scheduler/scheduler.h"
#include "kernels/base/log.h"
#include "kernels/base/regular_file.h"
#include "server/admin_handlers.h"
#include "server/anthropic/messages_handlers.h"
#include "server/batches/batches_handlers.h"
#include "server/grpc/grpc_server.h"
#include "server/http/api_keys.h"
#include "server/http/http_server.h"
#include "server/ollama/ollama_handlers.h"
#include "server/openai/openai_handlers.h"
#include "server/openai/pooling_handlers.h"
#include "server/observe_inputs.h"
#include "server/process_limits.h"
#include "server/responses/responses_handlers.h"
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

bool is_on_gpu(const EngineConfig& config) {
  return config.device.device != "cpu" && cuda_problem().empty();
}

// Rows of a step where the settings leave them open. Who comes waits for the step that runs, and a CPU's step takes as long as it has
// rows: docs/benchmarks.md has what fewer cost.
int rows_of_a_step(const EngineConfig& config) {
  return std::max(is_on_gpu(config) ? 512 : 128, config.scheduler.max_num_seqs);
}

// The settings that depend on the model: its context, and units and names in the engine's own terms; the model as they
// want it.
void resolve(ServedModel& served, ServerConfig& config) {
  ModelSpec& model = served.spec;
  SchedulerConfig& scheduler = config.engine.scheduler;
  using Long = LongAttention::Kind;
  config.engine.long_attention.kind = config.attention == "streaming"     ? Long::kStreaming
                                      : config.attention == "self_extend" ? Long::kSelfExtend
                                                                          : Long::kNone;
  const int made_for = model.max_positions;
  model = sliced(std::move(model), config.engine.ffn_widths, config.engine.skip_layers);
  model = lengthened(std::move(model), config.engine.long_attention);
  if (config.max_model_len > model.max_positions) {
    throw std::runtime_error("max_model_len is " + std::to_string(config.max_model_len) +
                             "; this model was made for " + std::to_string(model.max_positions) +
                             (model.why_no_longer.empty() ? "" : ": " + model.why_no_longer));
  }
  // A stream has no end of its own.
  const int whole = config.attention == "streaming" ? made_for : model.max_positions;
  const int usual = std::min(whole, served.max_text_tokens.value_or(whole));
  scheduler.max_model_len = config.max_model_len > 0 ? config.max_model_len : usual;
  if (model.is_encoder) {
    scheduler.whole_prompts = true;
    scheduler.enable_prefix_cache = false;
    scheduler.step_budget_ms = 0;  // nobody decodes
    scheduler.max_prefill_chunk = std::min(scheduler.max_prefill_chunk, rows_of_a_step(config.engine));
    if (scheduler.max_num_batched_tokens == 0) scheduler.max_num_batched_tokens = scheduler.max_model_len + scheduler.max_num_seqs;
  }
  if (scheduler.max_num_batched_tokens == 0) scheduler.max_num_batched_tokens = rows_of_a_step(config.engine);
  scheduler.max_prefill_chunk = std::min(scheduler.max_prefill_chunk, scheduler.max_num_batched_tokens);
  check_scheduler_config(scheduler);
  if ((config.engine.block_size & (config.engine.block_size - 1)) != 0) {
    throw std::runtime_error("block_size is " + std::to_string(config.engine.block_size) +
                             "; it must be a power of two");
  }
  scheduler.policy = config.policy == "priority" ? QueuePolicy::kPriority : QueuePolicy::kFcfs;
  scheduler.num_draft_tokens = config.engine.speculation == "off" ? 0 : config.num_draft_tokens;
  config.engine.speculation_trace_bytes = static_cast<size_t>(config.speculation_trace_mib) << 20;
  config.engine.kv_cache_bytes = static_cast<size_t>(config.kv_cache_mib) << 20;
  config.service.limits.max_model_len = scheduler.max_model_len;
  config.service.limits.vocab_size = model.vocab_size;
  scheduler.mask_words = (model.vocab_size + 31) / 32;
  const auto* const acceptance = std::ranges::find(kAcceptanceNames, config.speculation_acceptance);
  config.engine.speculation_acceptance = static_cast<Acceptance>(acceptance - std::begin(kAcceptanceNames));
  find_own_layers(served.folder, model, config.engine);
  config.service.limits.drafters = drafters_of(config.engine, model);
  config.service.limits.acceptance = config.engine.speculation_acceptance;
  config.service.limits.accepts_only_exactly = is_on_gpu(config.engine);
  config.service.scheduler = scheduler;
}

// A model that guesses speaks of the same tokens.
void check_draft(const Tokenizer& tokenizer, const ServerConfig& config) {
  if ((config.service.limits.drafters & drafter_bit(DrafterKind::kDraft)) != 0) check_draft_tokenizer(tokenizer, config.engine.speculation_model);
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

// What bounds HTTP bounds gRPC too.
void share_limits(const HttpConfig& http, GrpcConfig& grpc) {
  grpc.insecure = http.insecure;
  grpc.max_connections_per_address = http.max_connections_per_address;
  grpc.max_total_bytes = http.max_total_body_bytes;
  grpc.stream_buffer_bytes = http.stream_buffer_bytes;
  grpc.answers = http.answers;
  H2Limits& connection = grpc.connection;
  connection.max_header_bytes = http.head.max_header_bytes;
  connection.max_fields = http.head.max_fields;
  connection.header_timeout = http.header_timeout;
  connection.body_timeout = http.body_timeout;
  connection.body_total_timeout = http.body_total_timeout;
  connection.idle_timeout = http.keep_alive_timeout;
  connection.write_stall_timeout = http.write_stall_timeout;
  connection.linger_timeout = http.linger_timeout;
}

std::unique_ptr<GrpcServer> start_grpc(GrpcConfig config, const ApiKeys& keys, InferenceService& service,
                                       ServiceMetrics& metrics, HttpServer& http) {
  config.submit_text = [&http](size_t bytes, std::function<void()> task) { return http.submit_text(bytes, std::move(task)); };
  if (!keys.empty()) config.find_key = [&keys](std::string_view bearer) { return keys.find(bearer); };
  GrpcHooks hooks;
  hooks.response = [&metrics](const std::string& method, std::string_view code) { metrics.grpc_finished(method, code); };
  hooks.refused = [&metrics](const std::string& code) { metrics.rejected(code); };
  hooks.client_gone = [&metrics](const char* reason) { metrics.client_gone(reason); };
  hooks.ended = log_request;
  return std::make_unique<GrpcServer>(std::move(config), service, std::move(hooks));
}

LogLevel log_level(const std::string& name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warn") return LogLevel::kWarn;
  return name == "error" ? LogLevel::kError : LogLevel::kInfo;
}

// Says how far something long is, at most ten times and twice a second: of what is short, nothing.
Progress progress_lines(const char* what) {
  using Clock = std::chrono::steady_clock;
  return [what, last = size_t{0}, said = Clock::now()](size_t done, size_t total) mutable {
    const size_t tenth = total == 0 ? 10 : done * 10 / total;
    if (tenth == last || Clock::now() - said < std::chrono::milliseconds(500)) return;
    last = tenth;
    said = Clock::now();
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
  raise_descriptor_limit(config.http.max_connections + (config.serve_grpc ? config.grpc.max_connections : 0));
  ServedModel served = read_served_model(model);
  resolve(served, config);
  check_draft(*served.tokenizer, config);
  check_record_path(config.engine.record_path);

  const std::string model_id = config.service.model_id.empty() ? served.name : config.service.model_id;
  config.service.model_id = model_id;
  config.service.created = std::time(nullptr);
  config.service.prompts.template_time = parse_template_time(config.template_time);
  config.service.defaults = served.defaults;
  config.service.pooling = served.pooling;
  config.service.answers = std::make_shared<MemoryBudget>(static_cast<size_t>(config.max_total_answer_bytes));
  config.http.answers = config.service.answers;
  share_limits(config.http, config.grpc);

  // The listeners open before the model is loaded: probes get an answer at once, requests a 503.
  ServiceMetrics metrics(model_id);
  EngineService service(config.service, served.tokenizer, std::move(served.chat_templates),
                        metrics);
  RouteTable routes;
  RequestOptions request_options;
  request_options.strict = config.strict_parameters;
  request_options.on_ignored = [&metrics](int count) { metrics.fields_ignored(count); };
  routes.add(openai_routes(service, request_options));
  routes.add(pooling_routes(service, request_options));
  routes.add(ollama_routes(service, request_options.strict, kVersion));
  routes.add(messages_routes(service, request_options.strict));
  routes.add(responses_routes(service, {.strict = request_options.strict, .max_stored_bytes = static_cast<size_t>(config.max_stored_response_bytes)}));
  HttpHooks hooks;
  hooks.response = [&metrics](const std::string& route, int status) { metrics.http_response(route, status); };
  hooks.refused = [&metrics](const std::string& code) { metrics.rejected(code); };
  hooks.client_gone = [&metrics](const char* reason) { metrics.client_gone(reason); };
  hooks.ended = log_request;
  const ApiKeys keys(config.http.api_keys);
  config.batches.strict = config.strict_parameters;
  Batches batches(config.batches, routes.routes(), keys, hooks);
  routes.add(batches.routes());
  routes.add(admin_routes(
      service, [&metrics] { return metrics.text(); }, kVersion));
  HttpServer http(config.http, std::move(routes), std::move(hooks));
  http.start();
  const std::unique_ptr<GrpcServer> grpc =
      config.serve_grpc ? start_grpc(config.grpc, keys, service, metrics, http) : nullptr;
  log_info("listening",
           {{"host", config.http.host}, {"http_port", http.port()}, {"grpc_port", grpc ? grpc->port() : 0}});

  const std::unique_ptr<Backend> backend = make_backend(config.engine.device);
  const std::unique_ptr<ModelRunner> runner =
      load_model(served.folder, config.engine, *backend, nullptr, progress_lines("loading weights"));
  const BlockGeometry geometry = runner->plan().geometry;
  {
    Engine engine(config.engine, geometry, run_on(*runner), service.event_sink());
    service.attach(&engine, geometry);
    metrics.set_engine([&engine] { return engine.stats(); }, geometry,
                       config.engine.scheduler.enable_prefix_cache);
    if (grpc) grpc->set_serving(true);
    log_info("ready", {{"model", model_id},
                       {"context", config.service.limits.max_model_len},
                       {"planned_mib", (runner->plan().total_bytes() +
                                        Scheduler::planned_bytes(config.engine.scheduler, geometry)) >>
                                           20}});

    signals.ready();
    signals.wait();
    if (grpc) grpc->set_serving(false);
    batches.stop();
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

void quantize(const std::string& model, const std::string& out, const std::string& format, const std::string& text) {
  std::function<InputPowers()> observe;
  if (!text.empty()) observe = [&] { return observe_inputs(model, text); };
  quantise_folder(resolve_model(model), out, format, progress_lines("rounding weights"), observe);
}

// What listening and the first hundreds of requests add to a process: pages of the program that a plan does not touch, stacks, buffers of
// connections and of the threads' allocators. Seen: 4 MiB at the start, 6 after thousands of requests of 48 clients (tests/e2e/test_soak.py).
constexpr size_t kServingBytes = size_t{5} << 20;

std::string plan_text(const std::string& model, ServerConfig config) {
  ServedModel served = read_served_model(model);
  resolve(served, config);
  check_draft(*served.tokenizer, config);
  // What a process with these libraries, this tokenizer and this template holds before the engine: measured
  // here and now.
  const size_t process_bytes = resident_bytes();
  const std::unique_ptr<Backend> backend = make_backend(config.engine.device);
  const ModelSpec spec = quantised(served.spec, config.engine.quantize);
  const DraftModels draft = read_draft_models(config.engine, spec);
  const MemoryPlan plan = plan_memory(spec, config.engine, *backend, backend->available_bytes(), draft);
  const auto gib = [](size_t bytes) { return static_cast<double>(bytes) / static_cast<double>(1 << 30); };
  std::ostringstream out;
  out << std::fixed << std::setprecision(2);
  const auto row = [&](const char* name, size_t bytes, const std::string& what) {
    out << std::left << std::setw(12) << name << std::right << std::setw(16) << bytes << " bytes "
        << std::setw(8) << gib(bytes) << " GiB  " << what << "\n";
  };
  const MatrixFormat wanted = spec.main_format(), held = backend->held_format(wanted);
  row("weights", plan.weight_bytes,
      "packed for " + std::string(backend->name()) + " as " + format_row(held.id).name +
          (held == wanted ? "" : std::string(", which has no kernels for ") + format_row(wanted.id).name));
  row("kv_cache", plan.kv_cache_bytes,
      std::to_string(plan.geometry.groups[0].num_blocks) + " blocks of " +
          std::to_string(plan.geometry.rule(0).span()) + " positions");
  row("workspace", plan.workspace_bytes, "activations, logits, rotation table");
  row("scratch", plan.scratch_bytes, "of the device's operations and draws");
  row("tables", plan.table_bytes, "histories, block tables, inputs of a step");
  if (plan.draft_bytes > 0) row("drafters", plan.draft_bytes, "of speculation " + config.engine.speculation);
  const SchedulerConfig& scheduler = config.engine.scheduler;
  const size_t scheduler_bytes = Scheduler::planned_bytes(scheduler, plan.geometry);
  row("scheduler", scheduler_bytes, "blocks, prefix cache, lines, steps in flight");
  row("process", process_bytes, "program, libraries, tokenizer");
  row("serving", kServingBytes, "threads, connections, code of requests: as seen under load");
  row("total", plan.total_bytes() + scheduler_bytes + process_bytes + kServingBytes, "");
  out << "\nIt fits: " << gib(plan.available_bytes) << " GiB of memory are available, and "
      << gib(plan.available_bytes - plan.total_bytes()) << " GiB stay free.\n"
      << "The KV cache holds " << plan.full_sequences << " sequences of max_model_len "
      << scheduler.max_model_len << " at once; max_num_seqs is " << scheduler.max_num_seqs << ".\n";
  const int longest = largest_model_len(spec, config.engine, *backend, plan.available_bytes, draft);
  out << "The largest max_model_len that fits is " << longest
      << (longest == served.spec.max_positions ? ", all that the model was made for" : "")
      << (served.spec.why_no_longer.empty() ? "" : ": " + served.spec.why_no_longer) << ".\n";
  return out.str();
}

}  // namespace serval
