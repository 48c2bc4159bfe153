// Sequences by how long they may become, for models that rotate long ones another way (dynamic NTK, longrope). A
// request's class is fixed when it comes, by its prompt and max_tokens, and never changes: so no token depends on when
// a sequence grew (law 1), and nobody takes up what another class has cached. Plain arithmetic.
#pragma once

#include <algorithm>
#include <cstdint>

namespace serval {

inline constexpr int kMaxLengthBounds = 16;

struct LengthClasses {
  int32_t num_bounds = 0;
  // Ascending. Class i has the sequences that become no longer than bounds[i], the last class all others.
  int32_t bounds[kMaxLengthBounds] = {};

  int32_t class_of(int32_t length) const {
    return static_cast<int32_t>(std::lower_bound(bounds, bounds + num_bounds, length) - bounds);
  }
  // The classes' rows lie one behind another in the tables by position, as many as their sequences have positions.
  int32_t first_row(int32_t length_class) const {
    int32_t row = 0;
    for (int32_t i = 0; i < length_class; ++i) row += bounds[i];
    return row;
  }
  // Rows of all classes that sequences of up to so many positions can be of.
  int32_t num_rows(int32_t max_length) const { return first_row(class_of(max_length)) + max_length; }
};

}  // namespace serval
