#include "loadtest/load/servegen.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <stdexcept>

#include "engine/json/json_reader.h"
#include "loadtest/load/trace_parts.h"

namespace serval::load {
namespace {

namespace json = boost::json;

class ServeGenLengths {
 public:
  explicit ServeGenLengths(const std::string& path) {
    const Result<json::object> root = read_json_object(read_trace_file(path), kOwnJson, path);
    if (!root) throw std::runtime_error(root.error().message);
    for (const auto& [window, entry] : *root) {
      Window parsed;
      parsed.input = distribution(entry, "input_tokens", path);
      parsed.output = distribution(entry, "output_tokens", path);
      if (parsed.input.values.empty() || parsed.output.values.empty()) continue;  // without requests
      windows_[std::strtod(std::string(window).c_str(), nullptr)] = std::move(parsed);
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
  static Distribution distribution(const json::value& entry, const char* name, const std::string& path) {
    const json::value* value = entry.is_object() ? entry.get_object().if_contains(name) : nullptr;
    if (!value || !value->is_string()) throw std::runtime_error(path + ": a window has no " + name);
    const std::string text(value->get_string());
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
    return result;
  }
  std::map<double, Window> windows_;
};

}  // namespace

std::vector<PlannedRequest> servegen_client(const std::string& path, const WorkloadOptions& options) {
  const std::vector<std::string> lines = lines_of(read_trace_file(path));
  std::string dataset = path.substr(0, path.rfind("-trace.csv")) + "-dataset.json";
  if (!std::filesystem::exists(dataset)) dataset += ".xz";
  const ServeGenLengths lengths(dataset);
  std::mt19937_64 random(options.seed);
  std::vector<PlannedRequest> requests;
  for (size_t i = 0; i < lines.size() && requests.size() < static_cast<size_t>(options.num_requests); ++i) {
    if (lines[i].empty()) continue;
    double start, rate, cv, first, second;
    char family[16];
    const int fields = std::sscanf(lines[i].c_str(), "%lf,%lf,%lf,%15[^,],%lf,%lf", &start, &rate, &cv,
                                   family, &first, &second);
    if (fields >= 2 && rate <= 0) continue;  // a window without requests
    if (fields != 6 || !(first > 0) || !(second > 0))
      bad_line(path, i + 1, "not window start, rate, cv, family and two parameters");
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

std::vector<PlannedRequest> servegen_folder(const std::string& path, const WorkloadOptions& options) {
  std::vector<std::string> clients;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    if (entry.path().string().ends_with("-trace.csv")) clients.push_back(entry.path().string());
  }
  if (clients.empty()) throw std::runtime_error(path + " is a folder without a *-trace.csv");
  std::sort(clients.begin(), clients.end());
  std::vector<PlannedRequest> all;
  WorkloadOptions own = options;
  for (const std::string& client : clients) {
    own.seed = options.seed * 1'000'003 + all.size() + 1;
    for (PlannedRequest& request : servegen_client(client, own)) all.push_back(std::move(request));
  }
  return all;
}

}  // namespace serval::load
