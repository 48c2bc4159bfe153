// What a step of so many rows takes, where most steps are of one size and some are delayed by other work: the greatest convex
// curve below low times of each size seen lately. Weights are read once however many rows, until the arithmetic takes longer
// (roofline: Williams et al. 2009): so the first rows more may cost nothing, and those behind them their whole share. Least
// squares over the steps themselves (step_cost.h) would forget what a larger step takes while all are small, and believe a step
// that waited for a core. Pure arithmetic.
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
    if (size.weight < kForgotten) size = {.rows = static_cast<double>(rows), .ms = ms};
    size.weight = 1;
    size.rows += kDown * (rows - size.rows);
    if (++size.times_seen < kFewTimes) {
      size.ms = std::min(size.ms, ms);  // the first ones are cold
    } else {
      size.ms += (ms < size.ms ? kDown : kUp) * (std::min(ms, kMost * size.ms) - size.ms);
    }
    draw_curve();
  }

  // Of a step of so many rows; 0 while nothing was measured.
  double ms(double rows) const {
    if (num_points_ == 0) return 0;
    int next = 1;
    while (next + 1 < num_points_ && points_[next].rows < rows) ++next;
    const Point& from = points_[next - 1];
    double per_row = num_points_ > 1 ? slope(from, points_[next]) : 0;
    // A row is taken to cost little beside the rest where nothing tells.
    if (const Point& last = points_[num_points_ - 1]; num_points_ == 1 || rows > last.rows)
      per_row = std::max(per_row, kFirstShare * last.ms / last.rows);
    return std::max(from.ms + per_row * (rows - from.rows), 0.0);
  }

  // So many rows are tried at most, who were not before: what lies far beyond what was measured may cost anything.
  double most_rows(int num_decoding) const {
    const double known = std::max(num_points_ > 0 ? points_[num_points_ - 1].rows : 0, static_cast<double>(num_decoding));
    return known + std::max(4.0, known / 4);
  }

 private:
  struct Point {
    double rows = 0, ms = 0;
  };
  struct Size {
    double rows = 0, ms = 0, weight = 0;
    int times_seen = 0;
  };
  static constexpr double kForgotten = 0.01, kFirstShare = 0.1;
  static constexpr int kExact = 16, kFewTimes = 4, kOfOctave = 8;
  // Sizes up to kExact by themselves, then kOfOctave to an octave.
  static size_t index_of(int rows) {
    if (rows <= kExact) return static_cast<size_t>(rows - 1);
    return std::min(kSizes - 1, kExact + static_cast<size_t>(kOfOctave * std::log2(static_cast<double>(rows) / kExact)));
  }
  static double slope(const Point& a, const Point& b) { return (b.ms - a.ms) / (b.rows - a.rows); }

  // Through the sizes that were seen a few times; until there is one, through the one seen last. What is more takes no less:
  // a size takes at most what a larger one does.
  void draw_curve() {
    const auto is_known = [](const Size& size) { return size.weight >= kForgotten && size.times_seen >= kFewTimes; };
    const bool any_known = std::any_of(sizes_.begin(), sizes_.end(), is_known);
    std::array<double, kSizes> at_most;
    double least = INFINITY;
    for (size_t i = kSizes; i-- > 0;) at_most[i] = least = is_known(sizes_[i]) ? std::min(least, sizes_[i].ms) : least;
    num_points_ = 0;
    for (size_t i = 0; i < kSizes; ++i) {
      if (any_known ? !is_known(sizes_[i]) : sizes_[i].weight < 1) continue;
      const Point point = {sizes_[i].rows, any_known ? at_most[i] : sizes_[i].ms};
      while (num_points_ > 1 && slope(points_[num_points_ - 2], points_[num_points_ - 1]) >= slope(points_[num_points_ - 1], point)) --num_points_;
      points_[num_points_++] = point;
    }
  }

  static constexpr size_t kSizes = kExact + 6 * kOfOctave;
  std::array<Size, kSizes> sizes_;
  std::array<Point, kSizes> points_;  // of the curve
  int num_points_ = 0;
};

}  // namespace serval
