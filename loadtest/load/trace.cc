#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <random>
#include <stdexcept>

#include "engine/json/json_reader.h"
#include "loadtest/load/servegen.h"
#include "loadtest/load/trace_parts.h"
#include "loadtest/load/workload.h"

namespace serval::load {
namespace {

namespace json = boost::json;

// Token ids that stand for `key`: the same key always gives the same ids, and different keys practically
// never do.
void append_keyed_ids(uint64_t key, int count, const WorkloadOptions& options, std::vector<int32_t>& ids) {
  std::mt19937_64 random(key * 0x9e3779b97f4a7c15ull + options.seed);
  for (int i = 0; i < count; ++i)
    ids.push_back(options.first_id + static_cast<int>(random() % options.num_ids));
}

// TIMESTAMP,ContextTokens,GeneratedTokens with times like 2023-11-16 18:15:46.6805900.
std::vector<PlannedRequest> azure(const std::string& path, const std::vector<std::string>& lines,
                                  const WorkloadOptions& options) {
  std::vector<PlannedRequest> requests;
  double first = -1;
  for (size_t i = 1; i < lines.size() && requests.size() < static_cast<size_t>(options.num_requests); ++i) {
    if (lines[i].empty()) continue;
    int year, month, day, hour, minute, context, generated;
    double second;
    if (std::sscanf(lines[i].c_str(), "%d-%d-%d %d:%d:%lf,%d,%d", &year, &month, &day, &hour, &minute,
                    &second, &context, &generated) != 8) {
      bad_line(path, i + 1, "not TIMESTAMP,ContextTokens,GeneratedTokens");
    }
    const double at = ((day * 24.0 + hour) * 60 + minute) * 60 + second;
    if (first < 0) first = at;
    requests.push_back(synthetic_entry(i, (at - first) / options.scale_rate, scaled(context, options),
                                       scaled(generated, options), options));
  }
  return requests;
}

int64_t integer(const json::object& entry, const char* name, const std::string& path, size_t line) {
  const json::value* value = entry.if_contains(name);
  if (!value || !value->is_int64() || value->get_int64() < 0)
    bad_line(path, line, std::string(name) + " is not a whole number");
  return value->get_int64();
}

// A hash id stands for block_tokens tokens; equal ids are equal text, so equal prefixes of ids are shared
// prefixes.
PlannedRequest mooncake(const json::object& entry, const std::string& path, size_t line,
                        const WorkloadOptions& options) {
  PlannedRequest request;
  request.at_s = static_cast<double>(integer(entry, "timestamp", path, line)) / 1000 / options.scale_rate;
  request.output_tokens = scaled(static_cast<double>(integer(entry, "output_length", path, line)), options);
  const int length = scaled(static_cast<double>(integer(entry, "input_length", path, line)), options);
  const int block = scaled(options.block_tokens, options);
  const json::value* hashes = entry.if_contains("hash_ids");
  if (!hashes || !hashes->is_array()) bad_line(path, line, "hash_ids is not a list");
  for (const json::value& hash : hashes->get_array()) {
    if (!hash.is_int64()) bad_line(path, line, "hash_ids has something else than whole numbers");
    const int room = length - static_cast<int>(request.token_ids.size());
    if (room <= 0) break;
    append_keyed_ids(static_cast<uint64_t>(hash.get_int64()), std::min(block, room), options,
                     request.token_ids);
  }
  return request;
}

// A conversation's user turns: each waits for the one before it.
void add_turns(const std::vector<std::string>& turns, const WorkloadOptions& options,
               std::vector<PlannedRequest>& requests) {
  std::string history;
  int previous = -1;
  for (const std::string& turn : turns) {
    if (requests.size() >= static_cast<size_t>(options.num_requests)) return;
    history += (history.empty() ? "" : "\n") + turn;
    PlannedRequest request;
    request.prompt = history;
    request.output_tokens = options.output_tokens;
    request.after = previous;
    request.think_s = previous < 0 ? 0 : options.think_s;
    previous = static_cast<int>(requests.size());
    requests.push_back(std::move(request));
  }
}

// A text; or messages, of which those of the user; or lists of either, a turn each.
void append_user_texts(const json::value& said, std::vector<std::string>& turns) {
  if (said.is_string()) turns.emplace_back(said.get_string());
  if (said.is_array()) {
    for (const json::value& part : said.get_array()) append_user_texts(part, turns);
  }
  if (!said.is_object()) return;
  const json::value* role = said.get_object().if_contains("role");
  const json::value* content = said.get_object().if_contains("content");
  if (role && *role == "user" && content && content->is_string()) turns.emplace_back(content->get_string());
}

void add_json_entry(const json::value& value, const std::string& path, size_t line,
                    const WorkloadOptions& options, std::vector<PlannedRequest>& requests) {
  const json::object* entry = value.if_object();
  if (!entry) bad_line(path, line, "not a JSON object");
  if (entry->if_contains("hash_ids")) {
    requests.push_back(mooncake(*entry, path, line, options));
    return;
  }
  std::vector<std::string> turns;
  if (const json::value* conversations = entry->if_contains("conversations")) {  // ShareGPT
    if (!conversations->is_array()) bad_line(path, line, "conversations is not a list");
    for (const json::value& message : conversations->get_array()) {
      const json::object* said = message.if_object();
      const json::value* from = said ? said->if_contains("from") : nullptr;
      const json::value* text = said ? said->if_contains("value") : nullptr;
      if (from && (*from == "human" || *from == "user") && text && text->is_string())
        turns.emplace_back(text->get_string());
    }
  } else if (const json::value* list = entry->if_contains("turns"); list && list->is_array()) {
    for (const json::value& turn : list->get_array()) {
      if (turn.is_string()) turns.emplace_back(turn.get_string());
    }
  } else {
    for (const char* name : {"prompt", "question", "text", "messages"}) {
      const json::value* said = entry->if_contains(name);
      if (said && turns.empty()) append_user_texts(*said, turns);
    }
    const json::value* ids = entry->if_contains("token_ids");
    if (turns.empty() && !ids)
      bad_line(path, line,
               "has none of prompt, question, text, messages, turns, conversations, hash_ids, token_ids");
  }
  const size_t first = requests.size();
  if (!turns.empty()) {
    add_turns(turns, options, requests);
  } else {
    PlannedRequest request;
    for (const json::value& id : entry->at("token_ids").as_array())
      request.token_ids.push_back(static_cast<int32_t>(id.to_number<int64_t>()));
    request.output_tokens = options.output_tokens;
    requests.push_back(std::move(request));
  }
  // A recorded run carries its own times and budgets.
  if (const json::value* at = entry->if_contains("at_s"); at && at->is_number() && first < requests.size()) {
    requests[first].at_s = at->to_number<double>() / options.scale_rate;
  }
  if (const json::value* out = entry->if_contains("output_tokens");
      out && out->is_int64() && first < requests.size()) {
    requests[first].output_tokens = static_cast<int>(std::clamp<int64_t>(out->get_int64(), 1, 1 << 20));
  }
}

// Any trace in one file, by what it looks like.
std::vector<PlannedRequest> file_requests(const std::string& path, const WorkloadOptions& options) {
  if (path.ends_with("-trace.csv")) return servegen_client(path, options);
  const std::string text = read_trace_file(path);
  const std::vector<std::string> lines = lines_of(text);
  const size_t start = text.find_first_not_of(" \t\r\n");
  if (start == std::string::npos) throw std::runtime_error("the trace " + path + " is empty");
  std::vector<PlannedRequest> requests;
  if (lines[0].starts_with("TIMESTAMP,")) {
    requests = azure(path, lines, options);
  } else if (text[start] == '[') {
    const Result<json::value> root = read_json(text, kOwnJson, path);
    if (!root) throw std::runtime_error(root.error().message);
    const json::array& entries = root->get_array();
    for (size_t i = 0; i < entries.size() && requests.size() < static_cast<size_t>(options.num_requests); ++i) {
      add_json_entry(entries[i], path, i + 1, options, requests);
    }
  } else if (text[start] == '{') {
    for (size_t i = 0; i < lines.size() && requests.size() < static_cast<size_t>(options.num_requests); ++i) {
      if (lines[i].empty()) continue;
      const Result<json::value> entry = read_json(lines[i], kOwnJson);
      if (!entry) bad_line(path, i + 1, "not JSON");
      add_json_entry(*entry, path, i + 1, options, requests);
    }
  } else {
    for (size_t i = 0; i < lines.size() && requests.size() < static_cast<size_t>(options.num_requests); ++i) {
      if (!lines[i].empty()) add_turns({lines[i]}, options, requests);
    }
  }
  return requests;
}

}  // namespace

std::vector<PlannedRequest> trace_workload(const std::string& path, const WorkloadOptions& options) {
  std::vector<PlannedRequest> requests =
      std::filesystem::is_directory(path) ? servegen_folder(path, options) : file_requests(path, options);
  // The sender needs the earliest first; an equal time keeps the file's order. References to earlier turns
  // move along.
  std::vector<int> order(requests.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return requests[a].at_s < requests[b].at_s; });
  std::vector<int> position(requests.size());
  for (size_t i = 0; i < order.size(); ++i) position[order[i]] = static_cast<int>(i);
  std::vector<PlannedRequest> sorted;
  for (const int i : order) {
    if (sorted.size() == static_cast<size_t>(options.num_requests)) break;
    sorted.push_back(std::move(requests[i]));
    if (sorted.back().after >= 0) sorted.back().after = position[sorted.back().after];
  }
  assign_arrivals(options, sorted);
  return sorted;
}

}  // namespace serval::load
