// What a step costs, learned from the steps that were: milliseconds = base + per_row * rows, least squares over the last ones, the
// newest counting most. Pure arithmetic.
#pragma once

#include <algorithm>

namespace serval {

class StepCost {
 public:
  void learn(int rows, double ms) {
    constexpr double kKept = 0.97;  // of what was known, at each step
    count_ = count_ * kKept + 1;
    rows_ = rows_ * kKept + rows;
    rows2_ = rows2_ * kKept + double(rows) * rows;
    ms_ = ms_ * kKept + ms;
    rows_ms_ = rows_ms_ * kKept + rows * ms;
  }

  // The most rows, from `least` to `most`, of a step that takes `budget_ms`, or twice what it takes without rows where that is
  // more: whatever the machine, prompts get on. `most` while nothing was measured.
  int max_rows(double budget_ms, int least, int most) const {
    if (count_ == 0 || ms_ <= 0) return most;
    const double mean_rows = rows_ / count_, mean_ms = ms_ / count_;
    const double variance = rows2_ / count_ - mean_rows * mean_rows;
    // Steps all of one size do not tell the two apart: a row then costs no more than its share of a step.
    double per_row = mean_ms / std::max(1.0, mean_rows);
    if (variance > 1) per_row = std::clamp((rows_ms_ / count_ - mean_rows * mean_ms) / variance, 0.0, per_row);
    const double base = mean_ms - per_row * mean_rows, allowed = std::max(budget_ms, 2 * base) - base;
    if (per_row * most <= allowed) return most;
    return std::clamp(static_cast<int>(allowed / per_row), least, most);
  }

 private:
  double count_ = 0, rows_ = 0, rows2_ = 0, ms_ = 0, rows_ms_ = 0;
};

}  // namespace serval
