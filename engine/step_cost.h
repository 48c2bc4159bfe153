// What a step costs, learned from the steps that were: milliseconds = base + per_row * rows, least squares over the last ones, the
// newest counting most. Pure arithmetic.
#pragma once

#include <algorithm>
#include <optional>

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
    reach_ = std::max(reach_ * kKept, double(rows));
  }

  struct Line {
    double base_ms = 0, per_row_ms = 0;
  };
  // Nothing where nothing was measured, or steps all of one size, which do not tell the two apart.
  std::optional<Line> line() const {
    constexpr double kLeastVariance = 0.25;
    if (count_ == 0 || ms_ <= 0 || variance() < kLeastVariance) return std::nullopt;
    const double mean_rows = rows_ / count_, mean_ms = ms_ / count_;
    const double per_row = std::clamp((rows_ms_ / count_ - mean_rows * mean_ms) / variance(), 0.0, mean_ms / std::max(1.0, mean_rows));
    return Line{mean_ms - per_row * mean_rows, per_row};
  }

  // What a step of so many rows takes; 0 while nothing was measured.
  double expected_ms(int rows) const {
    if (count_ == 0) return 0;
    const Line line = line_or_share();
    return line.base_ms + rows * line.per_row_ms;
  }

  // The most rows, from `least` to `most`, of a step that takes `budget_ms`, or twice what it takes without rows where that is
  // more: whatever the machine, prompts get on. `most` while nothing was measured. The line is believed up to kReach times
  // the largest step seen lately, because few rows may cost what one does; beyond that a row costs all that steps took, shared out.
  int max_rows(double budget_ms, int least, int most) const {
    if (count_ == 0 || ms_ <= 0) return most;
    const Line line = line_or_share();
    const double allowed = std::max(budget_ms, 2 * line.base_ms) - line.base_ms;
    const double reached = std::max(kReach * reach_, allowed * rows_ / ms_);
    if (line.per_row_ms * most <= allowed && most <= reached) return most;
    return std::clamp(static_cast<int>(std::min(allowed / line.per_row_ms, reached)), least, most);
  }

 private:
  static constexpr double kReach = 2;

  // Of steps all of one size a row costs its share.
  Line line_or_share() const { return line().value_or(Line{0, ms_ / std::max(1.0, rows_)}); }
  double variance() const {
    const double mean_rows = rows_ / count_;
    return rows2_ / count_ - mean_rows * mean_rows;
  }

  double count_ = 0, rows_ = 0, rows2_ = 0, ms_ = 0, rows_ms_ = 0, reach_ = 0;
};

}  // namespace serval
