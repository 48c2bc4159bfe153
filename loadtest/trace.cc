#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <stdexcept>

#include "loadtest/workload.h"

namespace serval::load {
namespace {

namespace json = boost::json;

constexpr size_t kMaxTraceBytes = size_t{1} << 30;

[[noreturn]] void bad_line(const std::string& path, size_t line, const std::string& why) {
  throw std::runtime_error(path + " line " + std::to_string(line) + ": " + why);
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw std::runtime_error("cannot read the trace " + path);
  if (static_cast<size_t>(file.tellg()) > kMaxTraceBytes)
    throw std::runtime_error("the trace " + path + " is larger than 1 GiB");
  file.seekg(0);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::stringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    lines.push_back(line);
  }
  return lines;
}

int scaled(double tokens, const WorkloadOptions& options) {
  return std::max(1, static_cast<int>(std::lround(tokens * options.scale_lengths)));
}

// Token ids that stand for `key`: the same key always gives the same ids, and different keys practically
// never do.
void append_keyed_ids(uint64_t key, int count, const WorkloadOptions& options, std::vector<int32_t>& ids) {
  std::mt19937_64 random(key * 0x9e3779b97f4a7c15ull + options.seed);
  for (int i = 0; i < count; ++i)
    ids.push_back(options.first_id + static_cast<int>(random() % options.num_ids));
}

PlannedRequest synthetic_entry(uint64_t key, double at_s, int input, int output,
                               const WorkloadOptions& options) {
  WorkloadOptions one = options;
  one.num_requests = 1;
  one.seed = options.seed * 1'000'003 + key;
  one.input_tokens = input;
  one.output_tokens = output;
  one.length_jitter = 0;
  one.rate = 0;
  PlannedRequest request = std::move(synthetic_workload(one)[0]);
  request.at_s = at_s;
  return request;
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
    for (const char* name : {"prompt", "question", "text"}) {
      const json::value* text = entry->if_contains(name);
      if (text && text->is_string()) {
        turns.emplace_back(text->get_string());
        break;
      }
    }
    const json::value* ids = entry->if_contains("token_ids");
    if (turns.empty() && !ids)
      bad_line(path, line, "has none of prompt, question, text, turns, conversations, hash_ids, token_ids");
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

// ServeGen: rows of "window start (s), rate (1/s), cv of gaps, family, two parameters"; lengths from the
// dataset beside it, by the 6-hour window they belong to: {"0": {"input_tokens": "{34: 0.001, ...}",
// "output_tokens": ...}, ...}.
class ServeGenLengths {
 public:
  explicit ServeGenLengths(const std::string& path) {
    const json::value root = json::parse(read_file(path));
    for (const auto& [window, entry] : root.as_object()) {
      Window parsed;
      parsed.input = distribution(std::string(entry.at("input_tokens").as_string()), path);
      parsed.output = distribution(std::string(entry.at("output_tokens").as_string()), path);
      windows_[std::stod(std::string(window))] = std::move(parsed);
    }
    if (windows_.empty()) throw std::runtime_error(path + ": no window of lengths");
  }
  std::pair<int, int> draw(double at_s, std::mt19937_64& random) const {
    auto window = windows_.upper_bound(at_s);
    if (window != windows_.begin()) --window;
    return {window->second.input.draw(random), window->second.output.draw(random)};
  }

 private:
  struct Distribution {
    std::vector<int> values;
    std::vector<double> cumulative;
    int draw(std::mt19937_64& random) const {
      const double at = std::uniform_real_distribution<double>(0, cumulative.back())(random);
      const size_t i = std::lower_bound(cumulative.begin(), cumulative.end(), at) - cumulative.begin();
      return values[std::min(i, values.size() - 1)];
    }
  };
  struct Window {
    Distribution input, output;
  };
  static Distribution distribution(const std::string& text, const std::string& path) {
    Distribution result;
    double sum = 0;
    const char* at = text.c_str();
    for (int tokens, used; *at != '\0';) {
      double mass;
      if (*at == '{' || *at == ',' || *at == ' ') {
        ++at;
      } else if (*at == '}') {
        break;
      } else if (std::sscanf(at, "%d: %lf%n", &tokens, &mass, &used) == 2) {
        sum += mass;
        result.values.push_back(tokens);
        result.cumulative.push_back(sum);
        at += used;
      } else {
        throw std::runtime_error(path + ": a distribution is not {tokens: mass, ...}");
      }
    }
    if (result.values.empty() || !(sum > 0)) throw std::runtime_error(path + ": an empty distribution");
    return result;
  }
  std::map<double, Window> windows_;
};

std::vector<PlannedRequest> servegen(const std::string& path, const std::vector<std::string>& lines,
                                     const WorkloadOptions& options) {
  std::string dataset = path;
  const size_t tail = dataset.rfind("-trace.csv");
  if (tail == std::string::npos) throw std::runtime_error(path + ": a ServeGen trace is named ...-trace.csv");
  dataset.replace(tail, std::string::npos, "-dataset.json");
  const ServeGenLengths lengths(dataset);
  std::mt19937_64 random(options.seed);
  std::vector<PlannedRequest> requests;
  for (size_t i = 0; i < lines.size() && requests.size() < static_cast<size_t>(options.num_requests); ++i) {
    if (lines[i].empty()) continue;
    double start, rate, cv, first, second;
    char family[16];
    if (std::sscanf(lines[i].c_str(), "%lf,%lf,%lf,%15[^,],%lf,%lf", &start, &rate, &cv, family, &first,
                    &second) != 6) {
      bad_line(path, i + 1, "not window start, rate, cv, family and two parameters");
    }
    if (!(first > 0) || !(second > 0)) continue;  // a window without requests
    double next = i + 1 < lines.size() ? std::strtod(lines[i + 1].c_str(), nullptr) : start + 600;
    if (next <= start) next = start + 600;
    const bool is_gamma = std::string(family) == "Gamma";
    std::gamma_distribution<double> gamma(first, second);
    std::weibull_distribution<double> weibull(first, second);
    for (double at = start; requests.size() < static_cast<size_t>(options.num_requests);) {
      at += is_gamma ? gamma(random) : weibull(random);
      if (at >= next) break;
      const auto [input, output] = lengths.draw(at, random);
      requests.push_back(synthetic_entry(requests.size(), at / options.scale_rate, scaled(input, options),
                                         scaled(output, options), options));
    }
  }
  return requests;
}

}  // namespace

std::vector<PlannedRequest> trace_workload(const std::string& path, const WorkloadOptions& options) {
  const std::string text = read_file(path);
  const std::vector<std::string> lines = lines_of(text);
  const size_t start = text.find_first_not_of(" \t\r\n");
  if (start == std::string::npos) throw std::runtime_error("the trace " + path + " is empty");
  std::vector<PlannedRequest> requests;
  if (lines[0].starts_with("TIMESTAMP,")) {
    requests = azure(path, lines, options);
  } else if (path.ends_with("-trace.csv")) {
    requests = servegen(path, lines, options);
  } else if (text[start] == '[') {
    boost::system::error_code failed;
    const json::value root = json::parse(text, failed);
    if (failed || !root.is_array()) throw std::runtime_error(path + ": not a JSON list");
    for (size_t i = 0;
         i < root.get_array().size() && requests.size() < static_cast<size_t>(options.num_requests); ++i) {
      add_json_entry(root.get_array()[i], path, i + 1, options, requests);
    }
  } else if (text[start] == '{') {
    for (size_t i = 0; i < lines.size() && requests.size() < static_cast<size_t>(options.num_requests); ++i) {
      if (lines[i].empty()) continue;
      boost::system::error_code failed;
      const json::value entry = json::parse(lines[i], failed);
      if (failed) bad_line(path, i + 1, "not JSON");
      add_json_entry(entry, path, i + 1, options, requests);
    }
  } else {
    for (size_t i = 0; i < lines.size() && requests.size() < static_cast<size_t>(options.num_requests); ++i) {
      if (!lines[i].empty()) add_turns({lines[i]}, options, requests);
    }
  }
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
    sorted.push_back(std::move(requests[i]));
    if (sorted.back().after >= 0) sorted.back().after = position[sorted.back().after];
  }
  assign_arrivals(options, sorted);
  return sorted;
}

}  // namespace serval::load
