// Every knob of the daemon, once: a row in config.cc gives its name, default, range and help, and from the
// rows come the YAML keys, the command line, --help, the range checks, docs/config.md and the dump of what is
// in effect.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/config.h"
#include "kernels/base/option_table.h"
#include "server/batches/batches_handlers.h"
#include "server/grpc/grpc_server.h"
#include "server/http/http_server.h"
#include "server/service/engine_service.h"

namespace serval {

// What each part of the server is made with; settings that are written in other units or by name beside them.
struct ServerConfig {
  HttpConfig http{.port = 8000};
  // Its times, buffers, fields and bytes in all are HTTP's (share_limits).
  GrpcConfig grpc{.port = 8001, .connection = {.max_streams = 128}};
  // What depends on the model is filled in when that was read.
  ServiceConfig service;
  BatchesConfig batches;
  EngineConfig engine{.device = {.device = "auto"}, .scheduler = {.max_num_batched_tokens = 0}};

  bool serve_grpc = true;
  bool strict_parameters = false;
  // service.answers
  int64_t max_total_answer_bytes = 256 << 20;
  // Of /v1/responses.
  int64_t max_stored_response_bytes = 64 << 20;
  int drain_timeout_s = 30;
  std::string log_level = "info";
  // ISO 8601; empty: the clock. service.prompts.template_time
  std::string template_time;
  // engine.kv_cache_bytes
  int64_t kv_cache_mib = 0;
  // 0: what the model was made for.
  int max_model_len = 0;
  // engine.long_attention.kind
  std::string attention = "full";
  // engine.scheduler.policy
  std::string policy = "fcfs";
  std::string speculation_acceptance = "exact";  // a name of Acceptance
  // engine.speculation_trace_bytes
  int64_t speculation_trace_mib = 256;
  // engine.scheduler.num_draft_tokens where there is speculation.
  int num_draft_tokens = 8;
};

// One knob, bound to the field it sets.
struct Knob {
  std::string name;  // snake_case in YAML; --kebab-case on the command line
  std::string section;
  std::string help;
  std::variant<bool*, int*, int64_t*, size_t*, uint16_t*, std::chrono::milliseconds*, std::string*,
               std::vector<std::string>*>
      field;
  int64_t min = 0, max = 0;          // numbers: the allowed range
  std::vector<std::string> choices;  // strings: empty means any
};

// Whether it is written as a whole number.
bool is_number(const Knob& knob);

// The table, bound to `config`; the fields' present values are the defaults.
std::vector<Knob> knobs(ServerConfig& config);

// All throw std::runtime_error with one sentence naming the knob, the value and the range.
void load_yaml_file(const std::string& path, ServerConfig& config);
void load_yaml_text(const std::string& text, const std::string& source, ServerConfig& config);
// The same table as options of a command line: --name VALUE, and for flags --name and --no-name. `config` outlives
// the rows.
std::vector<OptionRow> setting_rows(ServerConfig& config);

// Reads what `environment` ("NAME=VALUE", ended by null) says of settings: SERVAL_ and the name in capitals.
// Empty values count as absent. Returns a sentence for each other SERVAL_ variable; what Kubernetes adds for
// a service called serval is none.
std::vector<std::string> load_environment(const char* const* environment, ServerConfig& config);

std::string dump_yaml(const ServerConfig& config);  // what is in effect; keys are never shown
std::string knob_help();                            // for --help
std::string knob_markdown();                        // docs/config.md

}  // namespace serval
