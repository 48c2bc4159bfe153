// How a model is stretched beyond the context it was made for, where the settings ask for it: as values, and as the
// rows of the rotation tables that stand for a position. Plain arithmetic.
#pragma once

#include <algorithm>
#include <cstdint>

namespace serval {

struct LongAttention {
  enum class Kind : uint8_t {
    kNone,
    // StreamingLLM (Xiao et al. 2023): a row sees the first `sinks` positions and the last `window`, its own included,
    // at distances as if nothing lay between them (section 3.2); all else is forgotten.
    kStreaming,
    // Self-Extend (Jin et al. 2024): keys `window` or more positions away are seen at distances between groups of
    // `group` positions, so that none is greater than those the model knows.
    kSelfExtend,
  } kind = Kind::kNone;
  int sinks = 4;
  int window = 1024;
  int group = 8;

  bool is_there() const { return kind != Kind::kNone; }
  // A query at `position` meets the keys that are far from it as if it stood at this row.
  int far_query_row(int position) const {
    const int row = kind == Kind::kStreaming ? sinks + window - 1 : position / group + window - window / group;
    return std::min(position, row);
  }
  // And those as if they stood at this one.
  int far_key_row(int position) const { return kind == Kind::kStreaming ? position : position / group; }
  // Positions that a model made for so many can have.
  int64_t reach(int64_t positions) const {
    return kind == Kind::kStreaming ? int64_t{1} << 24 : (positions - window + window / group) * group;
  }
};

}  // namespace serval
