#include "tests/engine/model/golden_file.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <fstream>
#include <iterator>

namespace serval::testing {
namespace json = boost::json;

std::vector<int32_t> GoldenCase::all_ids() const {
  std::vector<int32_t> ids = prompt;
  ids.insert(ids.end(), greedy.begin(), greedy.end());
  return ids;
}

std::vector<GoldenCase> read_golden(const std::filesystem::path& path) {
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const json::value root = json::parse(text);
  std::vector<GoldenCase> cases;
  for (const json::value& entry : root.at("cases").as_array()) {
    const json::value* const second = entry.as_object().if_contains("second_text");
    cases.push_back({.prompt = json::value_to<std::vector<int32_t>>(entry.at("prompt")),
                     .second_text = second == nullptr ? 0 : json::value_to<int>(*second),
                     .greedy = json::value_to<std::vector<int32_t>>(entry.at("greedy")),
                     .margins = json::value_to<std::vector<double>>(entry.at("margins")),
                     .positions = json::value_to<std::vector<int32_t>>(entry.at("positions")),
                     .log_probs = json::value_to<std::vector<std::vector<double>>>(entry.at("log_probs"))});
  }
  return cases;
}

std::vector<double> log_softmax(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float x : logits) total += std::exp(x - largest);
  std::vector<double> out;
  for (const float x : logits) out.push_back(x - largest - std::log(total));
  return out;
}

GoldenVerdict compare(const GoldenCase& golden, std::span<const float> logits, double tolerance) {
  const size_t vocab = logits.size() / (golden.prompt.size() + golden.greedy.size());
  GoldenVerdict verdict;
  for (size_t i = 0; i < golden.positions.size(); ++i) {
    const std::vector<double> ours = log_softmax(logits.subspan(golden.positions[i] * vocab, vocab));
    for (size_t t = 0; t < vocab; ++t) {
      const double difference = std::abs(ours[t] - golden.log_probs[i][t]);
      if (!(difference <= verdict.worst)) verdict.worst = difference;  // also takes a NaN
    }
  }
  for (size_t step = 0; step < golden.greedy.size(); ++step) {
    if (golden.margins[step] < 2 * tolerance) continue;
    const std::span<const float> row = logits.subspan((golden.prompt.size() - 1 + step) * vocab, vocab);
    const auto best = std::max_element(row.begin(), row.end()) - row.begin();
    if (best != golden.greedy[step]) {
      verdict.first_wrong_step = static_cast<int>(step);
      break;
    }
    ++verdict.num_steps_compared;
  }
  return verdict;
}

}  // namespace serval::testing
