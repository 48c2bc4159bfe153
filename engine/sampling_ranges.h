// What sampling fields may be, wherever they come from: a client's request and a model folder's
// generation_config.json are held to the same table.
#pragma once

namespace serval {

struct NumberRange {
  double low;
  double high;
  bool open_low = false;  // `low` itself is outside

  bool holds(double value) const {  // false for what is no number
    return value <= high && (open_low ? value > low : value >= low);
  }
};

inline constexpr NumberRange kTemperatureRange{0, 2};  // 0: the most likely token
inline constexpr NumberRange kTopPRange{0, 1};         // 0: the most likely token
inline constexpr NumberRange kMinPRange{0, 1};
inline constexpr NumberRange kRepetitionPenaltyRange{0, 10, /*open_low=*/true};  // 1: none
inline constexpr NumberRange kAdditivePenaltyRange{-2, 2};  // presence and frequency; 0: none
inline constexpr int kLeastTopK = -1;                       // -1 and 0: all

}  // namespace serval
