#include "server/config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <climits>
#include <functional>
#include <regex>
#include <sstream>
#include <stdexcept>

#include "engine/text/message/message_format.h"
#include "engine/batch.h"
#include "kernels/base/regular_file.h"
#include "kernels/base/usage.h"

namespace serval {
namespace {

std::vector<std::string> tool_call_formats() {
  std::vector<std::string> names{"auto"};
  for (const MessageFormat& format : message_formats()) names.emplace_back(format.name);
  return names;
}

constexpr size_t kMaxFileBytes = size_t{1} << 20;

std::string kebab(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

[[noreturn]] void reject(const std::string& source, const std::string& name, const std::string& why) {
  throw std::runtime_error(source + ": " + name + " " + why);
}

int64_t parse_number(const std::string& text, const Knob& knob) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw std::runtime_error("is '" + text + "'; it must be a whole number");
  if (value < knob.min || value > knob.max) {
    throw std::runtime_error("is " + text + "; it must be between " + std::to_string(knob.min) + " and " +
                             std::to_string(knob.max));
  }
  return value;
}

template <class T>
constexpr bool kIsNumber = std::is_same_v<T, std::chrono::milliseconds> || (std::is_integral_v<T> && !std::is_same_v<T, bool>);

void set_number(const Knob& knob, int64_t value) {
  std::visit(
      [&]<class T>(T* field) {
        if constexpr (kIsNumber<T>) *field = static_cast<T>(value);
      },
      knob.field);
}

int64_t get_number(const Knob& knob) {
  return std::visit(
      []<class T>(T* field) -> int64_t {
        if constexpr (std::is_same_v<T, std::chrono::milliseconds>) return field->count();
        if constexpr (std::is_integral_v<T>) return static_cast<int64_t>(*field);
        return 0;
      },
      knob.field);
}

bool parse_bool(const std::string& text) {
  if (text == "true") return true;
  if (text == "false") return false;
  throw std::runtime_error("is '" + text + "'; it must be true or false");
}

// Throws std::runtime_error("is '...'; it must be ...").
void set_text(const Knob& knob, const std::string& text) {
  if (auto* const* field = std::get_if<bool*>(&knob.field)) {
    **field = parse_bool(text);
  } else if (is_number(knob)) {
    set_number(knob, parse_number(text, knob));
  } else if (auto* const* field = std::get_if<std::string*>(&knob.field)) {
    if (!knob.choices.empty() &&
        std::find(knob.choices.begin(), knob.choices.end(), text) == knob.choices.end()) {
      std::string all;
      for (const std::string& choice : knob.choices) all += (all.empty() ? "" : ", ") + choice;
      throw std::runtime_error("is '" + text + "'; it must be one of " + all);
    }
    **field = text;
  } else {
    std::vector<std::string>& list = *std::get<std::vector<std::string>*>(knob.field);
    list.clear();
    std::stringstream items(text);
    for (std::string item; std::getline(items, item, ',');) {
      if (!item.empty()) list.push_back(item);
    }
  }
}

void set_text(const Knob& knob, const std::string& text, const std::string& source) {
  try {
    set_text(knob, text);
  } catch (const std::runtime_error& wrong) {
    throw std::runtime_error(source + ": " + knob.name + " " + wrong.what());
  }
}

std::string get_text(const Knob& knob) {
  if (auto* const* field = std::get_if<bool*>(&knob.field)) return **field ? "true" : "false";
  if (is_number(knob)) return std::to_string(get_number(knob));
  if (auto* const* field = std::get_if<std::string*>(&knob.field)) return **field;
  std::string joined;
  for (const std::string& item : *std::get<std::vector<std::string>*>(knob.field))
    joined += (joined.empty() ? "" : ",") + item;
  return joined;
}

std::string range_text(const Knob& knob) {
  if (std::holds_alternative<bool*>(knob.field)) return "true or false";
  if (is_number(knob)) {
    return std::to_string(knob.min) + " to " + std::to_string(knob.max);
  }
  if (std::holds_alternative<std::vector<std::string>*>(knob.field)) return "a list";
  std::string all;
  for (const std::string& choice : knob.choices) all += (all.empty() ? "" : ", ") + choice;
  return all.empty() ? "text" : all;
}

const Knob* find(const std::vector<Knob>& table, std::string_view name) {
  for (const Knob& knob : table) {
    if (knob.name == name) return &knob;
  }
  return nullptr;
}

std::string option_name(const std::string& name) {
  return "--" + kebab(name);
}

std::string variable_name(const std::string& name) {
  std::string variable = "SERVAL_" + name;
  for (char& c : variable) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return variable;
}

// " (did you mean NAME?)", or nothing.
std::string suggestion(const std::vector<Knob>& table, std::string_view given,
                       const std::function<std::string(const std::string&)>& spell) {
  std::vector<std::string> names;
  for (const Knob& knob : table) names.push_back(knob.name);
  const std::string nearest = nearest_name(given, names);
  return nearest.empty() ? "" : did_you_mean(spell(nearest));
}

// The addresses that Kubernetes tells every pod of a service called serval, or serval-grpc:
// SERVAL_PORT=tcp://10.0.0.7:80, SERVAL_GRPC_SERVICE_HOST=10.0.0.7, ...
bool is_of_kubernetes(const std::string& name, const std::string& value) {
  static const std::regex names("SERVAL_(.*_)?(SERVICE_(HOST|PORT.*)|PORT_[0-9]+_(TCP|UDP|SCTP).*)");
  return std::regex_match(name, names) || (name.ends_with("_PORT") && value.find("://") != std::string::npos);
}

void apply_yaml(const YAML::Node& root, const std::string& source, ServerConfig& config) {
  if (root.IsNull()) return;
  if (!root.IsMap()) throw std::runtime_error(source + ": the top level must be a map of settings");
  const std::vector<Knob> table = knobs(config);
  std::vector<std::string> seen;
  for (const auto& entry : root) {
    if (!entry.first.IsScalar()) throw std::runtime_error(source + ": a setting's name must be plain text");
    const std::string name = entry.first.Scalar();
    const Knob* knob = find(table, name);
    if (!knob)
      throw std::runtime_error(source + ": unknown setting '" + name + "'" +
                               suggestion(table, name, std::identity()));
    if (std::find(seen.begin(), seen.end(), name) != seen.end()) reject(source, name, "is given twice");
    seen.push_back(name);
    const bool is_list = std::holds_alternative<std::vector<std::string>*>(knob->field);
    if (entry.second.IsSequence() && is_list) {
      std::vector<std::string>& list = *std::get<std::vector<std::string>*>(knob->field);
      list.clear();
      for (const YAML::Node& item : entry.second) {
        if (!item.IsScalar()) reject(source, name, "must be a list of plain texts");
        list.push_back(item.Scalar());
      }
    } else if (entry.second.IsScalar()) {
      set_text(*knob, entry.second.Scalar(), source);
    } else {
      reject(source, name, is_list ? "must be a list" : "must be a single value");
    }
  }
}

}  // namespace

bool is_number(const Knob& knob) {
  return std::visit([]<class T>(T*) { return kIsNumber<T>; }, knob.field);
}

std::vector<Knob> knobs(ServerConfig& c) {
  SchedulerConfig& s = c.engine.scheduler;
  DeviceConfig& d = c.engine.device;
  HttpConfig& h = c.http;
  GrpcConfig& g = c.grpc;
  ServiceLimits& l = c.service.limits;
  constexpr int64_t kGiB = int64_t{1} << 30;
  return {
      {"host", "Addresses", "address HTTP listens on; other than loopback needs api_keys or insecure",
       &h.host},
      {"port", "Addresses", "HTTP port; 0 takes a free one", &h.port, 0, 65535},
      {"grpc", "Addresses", "whether to serve gRPC", &c.serve_grpc},
      {"grpc_host", "Addresses", "address gRPC listens on; the same rule as host", &g.host},
      {"grpc_port", "Addresses", "gRPC port; 0 takes a free one", &g.port, 0, 65535},
      {"served_model_name", "Addresses", "name the model answers to; empty: the folder's name",
       &c.service.model_id},
      {"model_aliases", "Addresses", "further names of the model", &c.service.aliases},
      {"api_keys", "Addresses", "keys that may use the API; none: open, on loopback only", &h.api_keys},
      {"insecure", "Addresses", "allow other addresses than loopback without keys", &h.insecure},

      {"io_threads", "HTTP", "threads that read and write connections", &h.io_threads, 1, 64},
      {"text_threads", "HTTP",
       "threads that render templates and tokenise; one more takes bodies above 64 KiB", &h.text_threads, 1,
       64},
      {"max_request_line_bytes", "HTTP", "longest request line; a longer one is answered 414",
       &h.head.max_request_line_bytes, 64, 1 << 20},
      {"max_header_bytes", "HTTP", "header fields of a request together; more are answered 431",
       &h.head.max_header_bytes, 128, 1 << 20},
      {"max_header_fields", "HTTP", "header fields of a request; more are answered 431", &h.head.max_fields,
       4, 10'000},
      {"max_body_bytes", "HTTP", "largest request body", &h.body.max_bytes, 1024, kGiB},
      {"max_total_body_bytes", "HTTP",
       "request bodies in memory at once, over all connections; beyond it 429", &h.max_total_body_bytes, 1024,
       1024 * kGiB},
      {"max_stored_response_bytes", "HTTP", "of responses that are kept for who comes back to them, the oldest go first; 0: none is kept",
       &c.max_stored_response_bytes, 0, 1024 * kGiB},
      {"max_total_answer_bytes", "HTTP",
       "answers in memory at once, over all connections, beyond 64 KiB of each; beyond it 429",
       &c.max_total_answer_bytes, 0, 1024 * kGiB},
      {"max_waiting_long_texts", "HTTP", "bodies above 64 KiB that wait for their thread; beyond it 429",
       &h.max_waiting_long_texts, 1, 1'000'000},
      {"max_waiting_long_text_bytes", "HTTP", "sizes of those together; beyond it 429",
       &h.max_waiting_long_text_bytes, 1024, 1024 * kGiB},
      {"max_connections", "HTTP",
       "connections open at once; for a further one the longest idle is closed, else it is answered 503 "
       "unless it asks a probe",
       &h.max_connections, 1, 1'000'000},
      {"max_connections_per_address", "HTTP",
       "the same for the connections of one client (IPv4 address, IPv6 /64 network); 0: no limit",
       &h.max_connections_per_address, 0, 1'000'000},
      {"header_timeout_ms", "HTTP", "time for a request's head to arrive", &h.header_timeout, 10,
       3'600'000},
      {"body_timeout_ms", "HTTP", "longest pause while a body arrives", &h.body_timeout, 10, 3'600'000},
      {"body_total_timeout_ms", "HTTP", "time for a whole body to arrive", &h.body_total_timeout, 10,
       3'600'000},
      {"keep_alive_timeout_ms", "HTTP", "how long an idle connection is kept", &h.keep_alive_timeout, 10,
       3'600'000},
      {"write_stall_timeout_ms", "HTTP", "longest time a reader may take not a byte",
       &h.write_stall_timeout, 10, 3'600'000},
      {"linger_timeout_ms", "HTTP", "after a last answer, time for the client to close its side first",
       &h.linger_timeout, 10, 3'600'000},
      {"stream_buffer_bytes", "HTTP", "unsent bytes of one stream before its reader is cut off",
       &h.stream_buffer_bytes, 1024, kGiB},
      {"cors_allow_origins", "HTTP",
       "origins whose pages may call from a browser, as http://localhost:3000; *: any; none: no page may",
       &h.cors_allow_origins},
      {"strict_parameters", "HTTP", "answer 400 to unknown request fields instead of ignoring them",
       &c.strict_parameters},

      {"files_folder", "Batches", "folder for /v1/files and /v1/batches, this server's alone; empty: they are answered 501", &c.batches.folder},
      {"max_files_bytes", "Batches", "all files in it together, answers of batches too", &c.batches.max_bytes, 4096, 1024 * kGiB},
      {"batch_concurrency", "Batches", "requests of a batch at once; one batch runs at a time", &c.batches.concurrency, 1, 1024},

      {"grpc_max_connections", "gRPC", "connections open at once, at most an eighth of the file descriptors; for a further one the longest idle is "
       "closed, else it is answered nothing but health",
       &g.max_connections, 1, 1'000'000},
      {"grpc_max_concurrent_streams", "gRPC", "calls open at once on one connection; more are refused",
       &g.connection.max_streams, 1, 100'000},
      {"grpc_max_message_bytes", "gRPC", "largest request message; its times, buffers and bytes in all are HTTP's",
       &g.max_message_bytes, 1024, kGiB},

      {"drain_timeout_s", "Life", "time running requests get after SIGTERM", &c.drain_timeout_s, 0, 86'400},
      {"stall_timeout_s", "Life", "work without a completed step, or events that are not told, for this long turns /live red",
       &c.service.stall_seconds, 1, 86'400},
      {"log_level",
       "Life",
       "least severe line that is written",
       &c.log_level,
       0,
       0,
       {"debug", "info", "warn", "error"}},

      {"max_model_len", "Engine",
       "positions of a sequence, prompt and output; 0: what the model was made for, or the fewer of a folder's max_seq_length (sentence-transformers)", &c.max_model_len, 0,
       10'000'000},
      {"attention",
       "Engine",
       "full: as the model was made; or beyond its context, for models that rotate all layers alike, on the CPU. streaming "
       "(StreamingLLM): the first attention_sinks positions and the last attention_window are seen, the rest is forgotten, "
       "so that memory stays the same up to any max_model_len. self_extend: positions attention_window or more away are "
       "told apart by groups of attention_group",
       &c.attention,
       0,
       0,
       {"full", "streaming", "self_extend"}},
      {"attention_sinks", "Engine", "with streaming: first positions that stay", &c.engine.long_attention.sinks, 1, 1024},
      {"attention_window", "Engine",
       "with streaming: last positions that are seen; with self_extend: nearest positions that are seen as they are",
       &c.engine.long_attention.window, 8, 1 << 20},
      {"attention_group", "Engine", "with self_extend: positions of a group; the context becomes so many times as long, but for the window",
       &c.engine.long_attention.group, 2, 1024},
      {"ffn_widths", "Engine",
       "of a model that holds smaller ones (Gemma 3n E4B): the neurons of each layer's feed-forward part, from the first on: one "
       "number for all layers, or one for each that stays, with commas between; empty: all",
       &c.engine.ffn_widths},
      {"skip_layers", "Engine",
       "of such a model: layers that are left out, numbers from 0 and ranges of them, 20-24; empty: none",
       &c.engine.skip_layers},
      {"max_num_seqs", "Engine", "sequences that run together", &s.max_num_seqs, 1, 4096},
      {"max_num_batched_tokens", "Engine",
       "token budget of one step; 0: 512 on a GPU, 128 on a CPU, and never less than max_num_seqs", &s.max_num_batched_tokens, 0,
       1'000'000},
      {"max_prefill_chunk", "Engine", "most prompt tokens of one sequence in one step", &s.max_prefill_chunk,
       1, 1'000'000},
      {"step_budget_ms", "Engine",
       "a step beside sequences that decode computes prompts for no longer, by what steps cost so far; 0: off", &s.step_budget_ms, 0,
       60'000},
      {"max_waiting_tokens", "Engine", "tokens of prompts that wait; more are answered 429, but for one alone", &s.max_waiting_tokens, 1,
       int64_t{1} << 40},
      {"max_waiting", "Engine", "sequences queued beyond the running ones; more are answered 429",
       &s.max_waiting, 0, 1'000'000},
      {"max_wait_ms", "Engine",
       "a request that would wait longer than this for its turn lets those go first that would not; 0: nobody does",
       &s.max_wait_ms, 0, 3'600'000},
      {"policy", "Engine", "order of the queue", &c.policy, 0, 0, {"fcfs", "priority"}},
      {"speculation",
       "Engine",
       "guess tokens and verify several in a step (docs/speculation.md); the answers are the same. ngram: what followed the last "
       "ones before, in prompt or output; datastore: in speculation_datastore; draft: speculation_model; self: the model's own first layers; lookahead: "
       "n-grams that it drew further on, which takes some thirty num_draft_tokens; medusa, hydra, eagle, dflash: heads or a block drafter in speculation_model, or for eagle the layers for further tokens (MTP) in the model's own folder; auto: ngram and what is "
       "in speculation_model, or else the model's own layers for further tokens or, with num_draft_layers, its first layers, as far as measured times and luck make it worth it; grammar: what a form of the output leaves no choice of, which the others try too; a request's prediction is tried first. Several joined by + (ngram+draft) guess one tree together",
       &c.engine.speculation},
      {"speculation_model", "Engine", "folder of a smaller model with the same tokenizer, or of heads for this one (Medusa, Hydra, EAGLE, DFlash), which guess", &c.engine.speculation_model},
      {"speculation_datastore", "Engine", "file of texts that serval datastore made, where speculation is datastore or auto", &c.engine.speculation_datastore},
      {"speculation_acceptance", "Engine",
       "which guesses are taken where a request does not say (speculation.acceptance). exact: those that the model draws itself, so that answers are the same; "
       "rejection: by chance, so that answers are others and distributed alike; typical: those that are likely enough, so that answers are others; CPU only but for exact",
       &c.speculation_acceptance, 0, 0, {"exact", "rejection", "typical"}},
      {"speculation_trace", "Engine",
       "file that is written anew with tokens of all requests and what the model computed of them, to train heads that guess (deploy/models/train/trace.py); empty: none",
       &c.engine.speculation_trace},
      {"speculation_trace_mib", "Engine", "the most that file may hold; the rest is left out", &c.speculation_trace_mib, 1, int64_t{1} << 24},
      {"num_draft_tokens", "Engine", "guesses of one sequence in a step", &c.num_draft_tokens, 1, kMaxDrafts},
      {"draft_width", "Engine", "guesses beside each other; more than 1: the next best ones of a model that guesses, too",
       &c.engine.draft_width, 1, 16},
      {"num_draft_layers", "Engine", "the model's own layers that guess, with speculation self; 0: a quarter of them",
       &c.engine.num_draft_layers, 0, 1000},
      {"draft_speculation", "Engine",
       "who guesses ahead of speculation draft or self, which then makes several guesses in one forward; they are the same ones. ngram: what followed the last "
       "ones before, in prompt or output",
       &c.engine.draft_speculation, 0, 0, {"off", "ngram"}},
      {"prefix_cache", "Engine", "reuse the KV of prompts that begin alike", &s.enable_prefix_cache},
      {"share_prefix_cache", "Engine",
       "let API keys find each other's prompts in the prefix cache; cached_tokens then tells one what "
       "another asked",
       &c.service.share_prefix_cache},
      {"kv_cache_mib", "Engine",
       "memory for keys and values; 0: enough for max_num_seqs full sequences, within what is free",
       &c.kv_cache_mib, 0, int64_t{1} << 24},
      {"block_size", "Engine", "positions in a KV block", &c.engine.block_size, 8, 256},
      {"kv_dtype",
       "Engine",
       "precision of the KV cache; fp8: E4M3 without scales, half the memory of bf16; int8: 8 bits with a scale for each key and each "
       "value of a head, nearer than fp8; int4: 4 bits with a scale and an offset, somewhat above a quarter; these two on the CPU",
       &c.engine.kv_dtype,
       0,
       0,
       {"auto", "f32", "f16", "bf16", "fp8", "int8", "int4"}},
      {"quantize",
       "Engine",
       "round the weights while they are loaded; int8: 8 bits with a scale for each output row; int8_dynamic: the same, and each "
       "row that is multiplied with them rounded to 8 bits too, on CPUs by their products of bytes; int8_g32, int8_g128: 8 bits "
       "with a scale for each 32 or 128 inputs; int4, int4_g128: 4 bits with a scale for each 32 or 128, the embedding and the "
       "head int8; int4_dynamic, int4_dynamic_g128: the same, the embedding and the head int8_dynamic, and each row that is multiplied "
       "rounded to 8 bits too; fp8: E4M3 with a scale for each output row; fp6: E3M2 with one, the embedding and the head int8; off: as "
       "config.json says, whose method may be one that rounds while it loads (deepspeedfp)",
       &c.engine.quantize,
       0,
       0,
       {"off", "int8", "int8_dynamic", "int8_g32", "int8_g128", "int4", "int4_g128", "int4_dynamic", "int4_dynamic_g128", "fp8", "fp6"}},
      {"packed_cache", "Engine",
       "folder for the weights as they are packed: the next start with the same model maps them instead of packing them again; "
       "checked byte for byte, written anew where anything differs; on the CPU",
       &c.engine.packed_cache},
      {"device",
       "Engine",
       "what computes; auto: a CUDA device where this build and machine have one, else the CPU",
       &d.device,
       0,
       0,
       {"auto", "cpu", "cuda"}},
      {"invariant", "Engine",
       "on CUDA: a request's tokens do not depend on what runs beside it; off: products by cuBLASLt",
       &d.invariant},
      {"threads", "Engine",
       "threads that compute on the CPU; 0: by cores, affinity and quota, one core left for I/O from 4 on",
       &d.num_threads, 0, 1024},
      {"isa",
       "Engine",
       "instruction set of the CPU",
       &d.isa,
       0,
       0,
       {"auto", "generic", "avx2", "avx512", "avx512bf16", "avx512amx"}},
      {"pin_threads", "Engine", "bind computing threads to cores", &d.pin_threads},
      {"record", "Engine", "file to record the scheduler's inputs to, for replay", &c.engine.record_path},

      {"special_tokens_in_content",
       "Chats",
       "what the name of a special token in a chat's texts is; parse: that token, as elsewhere; text: text, so that "
       "nobody can forge a turn",
       &c.service.prompts.special_tokens_in_content,
       0,
       0,
       {"parse", "text"}},
      {"tool_call_format",
       "Chats",
       "how the model writes its calls of tools; auto: as its chat template says",
       &c.service.prompts.tool_call_format,
       0,
       0,
       tool_call_formats()},
      {"template_time", "Chats", "ISO 8601 time that chat templates read instead of the clock",
       &c.template_time},

      {"max_prompts", "Limits", "prompts in one completion request", &l.max_prompts, 1, 4096},
      {"max_inputs", "Limits", "texts in one request for vectors or scores", &l.max_inputs, 1, 65'536},
      {"max_n", "Limits", "choices of one prompt (n)", &l.max_n, 1, 1024},
      {"max_stop", "Limits", "stop strings", &l.max_stop, 0, 1024},
      {"max_stop_bytes", "Limits", "bytes of one stop string", &l.max_stop_bytes, 1, 65'536},
      {"max_stop_token_ids", "Limits", "stop token ids", &l.max_stop_token_ids, 0, 65'536},
      {"max_logit_bias", "Limits", "entries of logit_bias", &l.max_logit_bias, 0, 1'000'000},
      {"max_bad_words", "Limits", "texts of bad_words", &l.max_bad_words, 0, 65'536},
      {"max_chat_logprobs", "Limits", "top_logprobs of a chat, and prompt_logprobs", &l.max_chat_logprobs, 0,
       1024},
      {"max_completion_logprobs", "Limits", "logprobs of a completion", &l.max_completion_logprobs, 0, 1024},
      {"max_messages", "Limits", "messages of a chat", &l.max_messages, 1, 1'000'000},
      {"max_cache_salt_bytes", "Limits", "bytes of cache_salt", &l.max_cache_salt_bytes, 1, 65'536},
      {"max_answer_bytes", "Limits",
       "about what one answer may come to: log-probabilities of prompts for each choice, and a whole answer's output",
       &l.max_answer_bytes, 1024, 1024 * kGiB},
      {"default_completion_tokens", "Limits", "max_tokens of a completion that names none",
       &l.default_completion_tokens, 1, 1'000'000},
  };
}

void load_yaml_text(const std::string& text, const std::string& source, ServerConfig& config) {
  YAML::Node root;
  try {
    root = YAML::Load(text);
  } catch (const YAML::Exception& error) {
    throw std::runtime_error(source + ": not valid YAML: " + error.what());
  }
  apply_yaml(root, source, config);
}

void load_yaml_file(const std::string& path, ServerConfig& config) {
  load_yaml_text(read_regular_file(path, kMaxFileBytes), path, config);
}

std::vector<OptionRow> setting_rows(ServerConfig& config) {
  std::vector<OptionRow> rows;
  for (const Knob& knob : knobs(config)) {
    rows.push_back({.name = option_name(knob.name),
                    .value = "VALUE",
                    .help = knob.help,
                    .forms = kAnyForm,
                    .set = [knob](const std::string& text) { set_text(knob, text); },
                    .is_yes_or_no = std::holds_alternative<bool*>(knob.field)});
  }
  return rows;
}

std::vector<std::string> load_environment(const char* const* environment, ServerConfig& config) {
  constexpr std::string_view kPrefix = "SERVAL_";
  const std::vector<Knob> table = knobs(config);
  std::vector<std::string> complaints;
  for (; *environment; ++environment) {
    const std::string entry = *environment;
    const size_t equals = entry.find('=');
    if (!entry.starts_with(kPrefix) || equals == std::string::npos) continue;
    const std::string variable = entry.substr(0, equals);
    const std::string value = entry.substr(equals + 1);
    if (value.empty() || is_of_kubernetes(variable, value)) continue;
    const auto knob = std::find_if(table.begin(), table.end(),
                                   [&](const Knob& k) { return variable_name(k.name) == variable; });
    if (knob != table.end()) {
      set_text(*knob, value, "environment variable " + variable);
    } else {
      complaints.push_back("the environment variable " + variable + " is no setting" +
                           suggestion(table, variable.substr(kPrefix.size()), variable_name));
    }
  }
  return complaints;
}

std::string dump_yaml(const ServerConfig& config) {
  ServerConfig copy = config;
  YAML::Emitter out;
  out << YAML::BeginMap;
  for (const Knob& knob : knobs(copy)) {
    out << YAML::Key << knob.name << YAML::Value;
    if (auto* const* list = std::get_if<std::vector<std::string>*>(&knob.field)) {
      out << YAML::Flow << YAML::BeginSeq;
      for (const std::string& item : **list) out << (knob.name == "api_keys" ? "(hidden)" : item);
      out << YAML::EndSeq;
    } else if (auto* const* text = std::get_if<std::string*>(&knob.field)) {
      out << YAML::DoubleQuoted << **text;
    } else {
      out << get_text(knob);
    }
  }
  out << YAML::EndMap;
  return std::string(out.c_str()) + "\n";
}

std::string knob_help() {
  ServerConfig defaults;
  std::string out, section;
  for (const Knob& knob : knobs(defaults)) {
    if (knob.section != section) out += "\n" + (section = knob.section) + "\n";
    std::string left = "  --" + kebab(knob.name);
    if (left.size() < 30) left.resize(30, ' ');
    const std::string value = get_text(knob);
    out += left + " " + knob.help + " (" + range_text(knob) + (value.empty() ? "" : "; default " + value) +
           ")\n";
  }
  return out;
}

std::string knob_markdown() {
  ServerConfig defaults;
  std::string out =
      "# Configuration\n\n"
      "Generated by `serval config --markdown`; a test compares this page with the table in "
      "`server/config.cc`.\n\n"
      "Every setting has one name: a key of the YAML file given with `--config FILE`; in capitals behind "
      "`SERVAL_`, an environment\n"
      "variable (`SERVAL_MAX_MODEL_LEN`); with dashes, an option of `serval serve`. The command line wins "
      "over the environment, and\n"
      "that over the file. An unknown key or option, a wrong type or a value out of its range ends the start "
      "with a sentence; an\n"
      "unknown `SERVAL_` variable is a warning, and an empty one is none. Flags take `--name` and "
      "`--no-name` (`true` and `false`\n"
      "elsewhere); lists take `a,b`. Keys belong into the file or the environment: everybody can read a "
      "command line. `serval config`\n"
      "prints what is in effect.\n\n"
      "Settings are read at the start. SIGTERM and SIGINT drain and end the server (a second one ends it at "
      "once); SIGHUP changes nothing.\n\n"
      "Exit codes: 0 done, or stopped by SIGTERM or SIGINT; 1 a measurement's answer is no: a "
      "request of `serval bench`\n"
      "failed, no rate or fleet meets the SLOs; 2 the command line cannot be understood (unknown command or "
      "option, one that does not\n"
      "go with the command, a missing value); 3 a setting, a file, the machine or an endpoint is not as it "
      "must be.\n";
  std::string section;
  for (const Knob& knob : knobs(defaults)) {
    if (knob.section != section) {
      out += "\n## " + (section = knob.section) +
             "\n\n| setting | default | range | meaning |\n|---|---|---|---|\n";
    }
    const std::string value = get_text(knob);
    out += "| `" + knob.name + "` | " + (value.empty() ? "" : "`" + value + "`") + " | " + range_text(knob) +
           " | " + knob.help + " |\n";
  }
  return out;
}

}  // namespace serval
