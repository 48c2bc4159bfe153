// What the reference answered on a fixture checkpoint (written by tests/golden/model_golden.py), and the
// gate that holds our forward pass against it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "engine/model/transformer.h"
#include "tests/engine/model/paged_driver.h"

namespace serval::testing {

struct GoldenCase {
  std::vector<int32_t> prompt;
  int second_text = 0;  // Request::second_text
  std::vector<int32_t> greedy;
  std::vector<double> margins;                 // top-1 minus top-2 log-probability at each greedy step
  std::vector<int32_t> positions;              // of prompt + greedy
  std::vector<std::vector<double>> log_probs;  // [positions, vocab]

  std::vector<int32_t> all_ids() const;
};

std::vector<GoldenCase> read_golden(const std::filesystem::path& path);

// log-softmax of one row, in double.
std::vector<double> log_softmax(std::span<const float> logits);

struct GoldenVerdict {
  double worst = 0;           // largest |log-probability difference| at the chosen positions
  int first_wrong_step = -1;  // greedy step that picked another id although its margin was safe
  int num_steps_compared = 0;

  bool passes(double tolerance) const { return worst <= tolerance && first_wrong_step < 0; }
};

// `logits`: every row of golden.all_ids(). The rows follow the reference's own ids, so every greedy step is
// compared whose margin is at least twice the tolerance, not only those before the first that is closer.
GoldenVerdict compare(const GoldenCase& golden, std::span<const float> logits, double tolerance);

}  // namespace serval::testing
