// What one more row of a step costs, where most steps are of one size and some are delayed by other work: a line through low
// times of each size, those seen lately counting most. Least squares over the steps themselves (step_cost.h) would forget what
// a larger step takes while all are small, and believe a step that waited for a core. Pure arithmetic.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

namespace serval {

class RowCost {
 public:
  void learn(int rows, double ms) {
    constexpr double kKept = 0.99;              // of the weight of sizes that are not seen, at each step
    constexpr double kDown = 0.2, kUp = 0.03;   // times are delayed more often than early: this goes to the low ones
    constexpr double kMost = 3;                 // what takes so much longer than is known is no measure of anything
    for (Size& size : sizes_) size.weight *= kKept;
    Size& size = sizes_[index_of(rows)];
    if (size.ms == 0) {
      size.rows = rows;
      size.ms = ms;
    }
    size.weight = 1;
    size.times_seen = std::min(size.times_seen + 1, kFewTimes);
    size.rows += kDown * (rows - size.rows);
    size.ms += (ms < size.ms ? kDown : kUp) * (std::min(ms, kMost * size.ms) - size.ms);
  }

  struct Line {
    double base_ms = 0, per_row_ms = 0;
  };
  // All 0 while nothing was measured. Until steps of several sizes were seen lately, and a few times, for the first ones are
  // cold, a row is taken to cost little beside the rest.
  Line line() const {
    constexpr double kForgotten = 0.01, kFirstShare = 0.1;
    double weight = 0, rows = 0, rows2 = 0, ms = 0, rows_ms = 0;
    const Size* any = nullptr;
    int num_sizes = 0;
    for (const Size& size : sizes_) {
      if (size.weight < kForgotten) continue;
      if (any == nullptr || size.weight > any->weight) any = &size;
      if (size.times_seen < kFewTimes) continue;
      ++num_sizes;
      weight += size.weight;
      rows += size.weight * size.rows;
      rows2 += size.weight * size.rows * size.rows;
      ms += size.weight * size.ms;
      rows_ms += size.weight * size.rows * size.ms;
    }
    if (any == nullptr) return {};
    if (num_sizes < 2) return {any->ms, kFirstShare * any->ms / any->rows};
    rows /= weight;
    ms /= weight;
    const double per_row = std::clamp((rows_ms / weight - rows * ms) / (rows2 / weight - rows * rows), 0.0, ms / rows);
    return {ms - per_row * rows, per_row};
  }

 private:
  struct Size {
    double rows = 0, ms = 0, weight = 0;
    int times_seen = 0;
  };
  static constexpr int kExact = 16, kFewTimes = 4;
  // Sizes up to kExact by themselves, then two to an octave.
  static size_t index_of(int rows) {
    if (rows <= kExact) return static_cast<size_t>(rows - 1);
    return std::min(kSizes - 1, kExact + static_cast<size_t>(2 * std::log2(static_cast<double>(rows) / kExact)));
  }
  static constexpr size_t kSizes = kExact + 16;
  std::array<Size, kSizes> sizes_;
};

}  // namespace serval
