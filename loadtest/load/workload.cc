#include "loadtest/load/workload.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>

namespace serval::load {
namespace {

// Short common words: nearly every tokenizer has each, with its space, as one token.
constexpr std::array kWords = {"the", "of",   "and",   "to",    "in",    "a",    "is",  "that", "for", "it",
                               "as",  "was",  "with",  "be",    "by",    "on",   "not", "he",   "his", "but",
                               "at",  "are",  "this",  "have",  "had",   "from", "or",  "one",  "all", "were",
                               "her", "she",  "there", "would", "their", "we",   "him", "been", "has", "when",
                               "who", "will", "no",    "more",  "if",    "out",  "so",  "up"};

int jittered(int mean, double jitter, std::mt19937_64& random) {
  if (jitter <= 0) return std::max(1, mean);
  std::uniform_real_distribution<double> factor(1 - jitter, 1 + jitter);
  return std::max(1, static_cast<int>(std::lround(mean * factor(random))));
}

}  // namespace

std::vector<PlannedRequest> synthetic_workload(const WorkloadOptions& options) {
  std::mt19937_64 random(options.seed);
  std::mt19937_64 prefix_random(options.seed ^ 0x5eed);
  const auto append = [&](PlannedRequest& request, int tokens, std::mt19937_64& source) {
    for (int i = 0; i < tokens; ++i) {
      if (options.send_token_ids) {
        request.token_ids.push_back(options.first_id + static_cast<int>(source() % options.num_ids));
      } else {
        if (!request.prompt.empty()) request.prompt += ' ';
        request.prompt += kWords[source() % kWords.size()];
      }
    }
  };
  PlannedRequest prefix;
  append(prefix, options.shared_prefix_tokens, prefix_random);

  std::vector<PlannedRequest> requests(options.num_requests);
  for (PlannedRequest& request : requests) {
    request.prompt = prefix.prompt;
    request.token_ids = prefix.token_ids;
    append(request, jittered(options.input_tokens, options.length_jitter, random), random);
    request.output_tokens = jittered(options.output_tokens, options.length_jitter, random);
  }
  assign_arrivals(options, requests);
  return requests;
}

void assign_arrivals(const WorkloadOptions& options, std::vector<PlannedRequest>& requests) {
  if (options.rate <= 0) return;
  std::mt19937_64 random(options.seed ^ 0xa55);
  std::exponential_distribution<double> exponential(1);
  // Mean 1 and coefficient of variation cv: shape 1/cv^2, scale cv^2.
  const double variance = options.cv * options.cv;
  std::gamma_distribution<double> gamma(1 / variance, variance);
  double now = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].at_s = now;
    const double share = requests.size() > 1 ? static_cast<double>(i) / (requests.size() - 1) : 0;
    const double rate =
        options.ramp_to > 0 ? options.rate + share * (options.ramp_to - options.rate) : options.rate;
    const double gap = options.arrival == Arrival::kConstant  ? 1
                       : options.arrival == Arrival::kPoisson ? exponential(random)
                                                              : gamma(random);
    now += gap / rate;
  }
}

}  // namespace serval::load
