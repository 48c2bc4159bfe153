// What a step of so many rows takes, where most steps are of one size and some are delayed by other work: two lines below each
// other, of which the higher one counts. Weights are read once however many rows, until the arithmetic takes longer (roofline:
// Williams et al. 2009), so the first rows more may cost nothing, and those behind them their whole share. The lines are those of
// least squares through low times of the sizes that were seen. Least squares over the steps themselves (step_cost.h) would forget
// what a larger step takes while all are small, and believe a step that waited for a core. Pure arithmetic.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <span>

namespace serval {

class RowCost {
 public:
  void learn(int rows, double ms) {
    constexpr double kKept = 0.99;              // of the weight of sizes that are not seen, at each step
    constexpr double kDown = 0.2, kUp = 0.03;   // times are delayed more often than early: this goes to the low ones
    constexpr double kMost = 3;                 // what takes so much longer than is known is no measure of anything
    for (Size& size : sizes_) {
      size.weight *= kKept;
      if (size.weight < kForgotten) size = {};  // what was dear once is tried again
    }
    Size& size = sizes_[index_of(rows)];
    if (size.times_seen == 0) size = {.rows = static_cast<double>(rows), .ms = ms};
    size.weight = 1;
    size.rows += kDown * (rows - size.rows);
    if (++size.times_seen < kFewTimes) {
      size.ms = std::min(size.ms, ms);  // the first ones are cold
    } else {
      size.ms += (ms < size.ms ? kDown : kUp) * (std::min(ms, kMost * size.ms) - size.ms);
    }
    if (num_learned_++ < kExact || num_learned_ % kRedrawn == 0) draw_lines();
  }

  // Of a step of so many rows; 0 while nothing was measured.
  double ms(double rows) const { return std::max({at_first_.at(rows), beyond_.at(rows), 0.0}); }

  // So many rows are tried at most, who were not before: what lies far beyond what was measured may cost anything.
  double most_rows(int num_decoding) const {
    const double known = std::max(most_known_, static_cast<double>(num_decoding));
    return known + std::max(4.0, known / 4);
  }

 private:
  struct Size {
    double rows = 0, ms = 0, weight = 0;
    int times_seen = 0;
  };
  struct Line {
    double ms = 0, per_row = 0;
    double at(double rows) const { return ms + per_row * rows; }
  };
  static constexpr double kFirstShare = 0.1, kLeastWeight = 0.02, kForgotten = 1e-6;
  static constexpr int kExact = 16, kFewTimes = 4, kOfOctave = 8, kRedrawn = 4;
  // Sizes up to kExact by themselves, then kOfOctave to an octave.
  static size_t index_of(int rows) {
    if (rows <= kExact) return static_cast<size_t>(rows - 1);
    return std::min(kSizes - 1, kExact + static_cast<size_t>(kOfOctave * std::log2(static_cast<double>(rows) / kExact)));
  }

  // Times differ by shares, so errors count as shares. More rows take no less.
  static double weight_of(const Size& size) {
    return std::max(size.weight, kLeastWeight) * std::min(size.times_seen, 2 * kFewTimes) / (size.ms * size.ms);
  }
  static Line line_through(std::span<const Size> sizes) {
    double w = 0, x = 0, y = 0, xx = 0, xy = 0;
    for (const Size& size : sizes) {
      const double weight = weight_of(size);
      w += weight, x += weight * size.rows, y += weight * size.ms;
    }
    x /= w, y /= w;
    for (const Size& size : sizes) {
      const double weight = weight_of(size), dx = size.rows - x;
      xx += weight * dx * dx, xy += weight * dx * (size.ms - y);
    }
    const double slope = xx > 0 ? std::max(0.0, xy / xx) : 0;
    return {y - slope * x, slope};
  }
  static double error(std::span<const Size> sizes, const Line& at_first, const Line& beyond) {
    double sum = 0;
    for (const Size& size : sizes) {
      const double off = std::max(at_first.at(size.rows), beyond.at(size.rows)) - size.ms;
      sum += weight_of(size) * off * off;
    }
    return sum;
  }

  // Through the sizes that were seen a few times; until there is one, through the one seen last.
  void draw_lines() {
    std::array<Size, kSizes> all;
    size_t count = 0;
    const auto take = [&](auto is_taken) { count = std::copy_if(sizes_.begin(), sizes_.end(), all.begin(), is_taken) - all.begin(); };
    take([](const Size& size) { return size.times_seen >= kFewTimes; });
    if (count == 0) take([](const Size& size) { return size.weight == 1; });
    const std::span<const Size> known(all.data(), count);
    most_known_ = known.back().rows;
    at_first_ = beyond_ = line_through(known);
    // A row is taken to cost little beside the rest where nothing tells.
    if (count == 1) at_first_ = beyond_ = {known[0].ms * (1 - kFirstShare), kFirstShare * known[0].ms / known[0].rows};
    double least = error(known, at_first_, beyond_);
    for (size_t split = 2; split + 2 <= count; ++split) {
      const Line left = line_through(known.first(split)), right = line_through(known.subspan(split));
      const double off = error(known, left, right);
      if (right.per_row < left.per_row || off >= least) continue;
      least = off;
      at_first_ = left;
      beyond_ = right;
    }
  }

  static constexpr size_t kSizes = kExact + 6 * kOfOctave;
  std::array<Size, kSizes> sizes_;
  Line at_first_, beyond_;
  double most_known_ = 0;
  int64_t num_learned_ = 0;
};

}  // namespace serval
