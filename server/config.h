// Every knob of the daemon, once: a row in config.cc gives its name, default, range and help, and from the
// rows come the YAML keys, the command line, --help, the range checks, docs/config.md and the dump of what is
// in effect.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/config.h"
#include "server/service/validator.h"

namespace serval {

struct ServerConfig {
  // Who answers where.
  std::string host = "127.0.0.1";
  int port = 8000;
  std::string grpc_host = "127.0.0.1";
  int grpc_port = 8001;
  bool grpc = true;
  std::string served_model_name;  // empty: the folder's name
  std::vector<std::string> model_aliases;
  std::vector<std::string> api_keys;
  bool insecure = false;

  // HTTP.
  std::vector<std::string> cors_allow_origins;
  int io_threads = 1;
  int text_threads = 1;
  int max_request_line_bytes = 8 << 10;
  int max_header_bytes = 16 << 10;
  int max_header_fields = 100;
  int64_t max_body_bytes = 8 << 20;
  int64_t max_total_body_bytes = 256 << 20;
  int max_connections = 4096;
  int max_connections_per_address = 0;
  int max_waiting_long_texts = 256;
  int64_t max_waiting_long_text_bytes = 64 << 20;
  int64_t max_total_answer_bytes = 256 << 20;
  int header_timeout_ms = 10'000;
  int body_timeout_ms = 30'000;
  int body_total_timeout_ms = 300'000;
  int keep_alive_timeout_ms = 60'000;
  int write_stall_timeout_ms = 30'000;
  int linger_timeout_ms = 1'000;
  int64_t stream_buffer_bytes = 256 << 10;
  int grpc_max_connections = 1024;
  int grpc_max_concurrent_streams = 128;
  int64_t grpc_max_message_bytes = 4 << 20;
  bool strict_parameters = false;

  // Life.
  int drain_timeout_s = 30;
  int stall_timeout_s = 60;
  std::string log_level = "info";
  std::string template_time;  // ISO 8601; empty: the clock

  // What a request may ask for; the model's own limits are filled in at start.
  ServiceLimits limits;

  EngineConfig engine{.device = {.device = "auto"}};
  int64_t kv_cache_mib = 0;  // engine.kv_cache_bytes in the unit people write
  bool share_prefix_cache = false;
  int max_model_len = 0;        // 0: what the model was made for
  std::string policy = "fcfs";  // engine.scheduler.policy by name
  std::string speculation = "off";
  int num_draft_tokens = 8;  // engine.scheduler.num_draft_tokens when there is speculation
};

// One knob, bound to the field it sets.
struct Knob {
  std::string name;  // snake_case in YAML; --kebab-case on the command line
  std::string section;
  std::string help;
  std::variant<bool*, int*, int64_t*, std::string*, std::vector<std::string>*> field;
  int64_t min = 0, max = 0;          // numbers: the allowed range
  std::vector<std::string> choices;  // strings: empty means any
};

// The table, bound to `config`; the fields' present values are the defaults.
std::vector<Knob> knobs(ServerConfig& config);

// All throw std::runtime_error with one sentence naming the knob, the value and the range.
void load_yaml_file(const std::string& path, ServerConfig& config);
void load_yaml_text(const std::string& text, const std::string& source, ServerConfig& config);
// Consumes --name value, --name=value, --flag and --no-flag; returns what is left (positional arguments). An
// unknown option or a missing value is a UsageError (kernels/base/usage.h).
std::vector<std::string> parse_arguments(const std::vector<std::string>& arguments, ServerConfig& config);

// Reads what `environment` ("NAME=VALUE", ended by null) says of settings: SERVAL_ and the name in capitals.
// Empty values count as absent. Returns a sentence for each other SERVAL_ variable; what Kubernetes adds for
// a service called serval is none.
std::vector<std::string> load_environment(const char* const* environment, ServerConfig& config);

std::string dump_yaml(const ServerConfig& config);  // what is in effect; keys are never shown
std::string knob_help();                            // for --help
std::string knob_markdown();                        // docs/config.md

}  // namespace serval
