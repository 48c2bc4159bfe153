#include "engine/grammar/numbers.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "engine/grammar/regex.h"

namespace serval::grammar {
namespace {

Dfa fixed(std::string_view regex) {
  Budget budget(1'000'000);
  return compile_regex(regex, RegexSyntax::kEcma, MatchWhat::kWhole, budget);
}

// Where the text of a plain number stands.
enum Phase : int32_t { kBegin, kMinus, kZero, kWhole, kPoint, kFraction };

// A phase and a few small numbers.
template <size_t N>
struct Progress {
  int32_t phase = kBegin;
  std::array<int32_t, N> numbers{};
  bool operator==(const Progress&) const = default;
};
template <size_t N>
struct ProgressHash {
  size_t operator()(const Progress<N>& progress) const {
    uint64_t hash = static_cast<uint64_t>(progress.phase);
    for (const int32_t number : progress.numbers)
      hash = (hash ^ static_cast<uint64_t>(static_cast<uint32_t>(number))) * 0x9e3779b97f4a7c15ull;
    return hash ^ hash >> 31;
  }
};

// Numbers of digits: `whole` and `fraction` take a digit and return what follows, `minus` the same for a sign.
template <size_t N, class Minus, class Whole, class Fraction, class Label>
Dfa of_digits(Budget& budget, Minus minus, Whole whole, Fraction fraction, Label label) {
  using State = Progress<N>;
  const auto follow = [&](const State& state, const auto& add) {
    const auto moved = [](State next, Phase phase) {
      next.phase = phase;
      return next;
    };
    if (state.phase == kBegin) add('-', '-', moved(minus(state), kMinus));
    if (state.phase == kZero || state.phase == kWhole) add('.', '.', moved(state, kPoint));
    for (Symbol digit = '0'; digit <= '9'; ++digit) {
      const auto value = static_cast<int32_t>(digit - '0');
      if (state.phase == kBegin || state.phase == kMinus)
        add(digit, digit, value == 0 ? moved(state, kZero) : moved(whole(state, value), kWhole));
      else if (state.phase == kWhole)
        add(digit, digit, moved(whole(state, value), kWhole));
      else if (state.phase == kPoint || state.phase == kFraction)
        add(digit, digit, moved(fraction(state, value), kFraction));
    }
  };
  return explore<State, ProgressHash<N>>(State{}, budget, follow, [&](const State& state) {
    const bool ends = state.phase == kZero || state.phase == kWhole || state.phase == kFraction;
    return ends ? label(state) : -1;
  });
}

int32_t sign_of(int32_t difference) { return difference < 0 ? -1 : difference > 0 ? 1 : 0; }

Dfa labelled(const Dfa& compared, const std::array<bool, 3>& wanted, Budget& budget) {
  return combine(compared, compared, budget,
                 [&](int32_t label, int32_t) { return label >= 0 && wanted[label] ? 0 : -1; });
}

}  // namespace

Decimal decimal_of(const boost::json::value& number, const std::string& keyword) {
  std::array<char, 512> text{};
  char* end = text.data();
  if (const auto* integer = number.if_int64()) {
    end = std::to_chars(text.begin(), text.end(), *integer).ptr;
  } else if (const auto* large = number.if_uint64()) {
    end = std::to_chars(text.begin(), text.end(), *large).ptr;
  } else {
    const auto* real = number.if_double();
    if (real == nullptr) throw Refusal(keyword, "is no number");
    // The reader has rounded what is longer.
    if (!std::isfinite(*real) || std::abs(*real) >= 1e17) throw Refusal(keyword, "is too large a number");
    end = std::to_chars(text.begin(), text.end(), *real, std::chars_format::fixed).ptr;
  }
  std::string_view digits(text.data(), static_cast<size_t>(end - text.data()));
  Decimal decimal;
  if (digits.starts_with('-')) {
    decimal.negative = true;
    digits.remove_prefix(1);
  }
  const size_t point = std::min(digits.find('.'), digits.size());
  decimal.whole = digits.substr(0, point);
  decimal.whole.erase(0, decimal.whole.find_first_not_of('0'));
  if (point < digits.size()) decimal.fraction = digits.substr(point + 1);
  decimal.fraction.erase(decimal.fraction.find_last_not_of('0') + 1);
  return decimal;
}

const Dfa& any_number() {
  static const Dfa dfa = fixed(R"(-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?([0-2]?\d?\d|30[0-7]))?)");
  return dfa;
}
const Dfa& any_integer() {
  static const Dfa dfa = fixed(R"(-?(0|[1-9]\d*)((\.0+)?|[eE]\+?([0-2]?\d?\d|30[0-7])))");
  return dfa;
}
const Dfa& plain_number() {
  static const Dfa dfa = fixed(R"(-?(0|[1-9]\d*)(\.\d+)?)");
  return dfa;
}

Dfa compared_to(const Decimal& bound, Budget& budget) {
  // numbers: is negative, is not zero, digits of the whole part (capped), how what was read compares with the
  // bound's digits, digits of the fraction (capped). Magnitudes are compared, signs come last.
  enum { kNegative, kNotZero, kDigits, kRelation, kAfterPoint };
  using State = Progress<5>;
  const auto num_digits = static_cast<int32_t>(bound.whole.size());
  const auto num_fraction = static_cast<int32_t>(bound.fraction.size());
  const auto of_whole = [=](const State& state) {
    const int32_t digits = state.numbers[kDigits];
    return digits != num_digits ? sign_of(digits - num_digits) : state.numbers[kRelation];
  };
  return of_digits<5>(
      budget,
      [](State state) {
        state.numbers[kNegative] = 1;
        return state;
      },
      [&](State state, int32_t digit) {
        if (digit != 0) state.numbers[kNotZero] = 1;
        int32_t& digits = state.numbers[kDigits];
        if (digits < num_digits && state.numbers[kRelation] == 0)
          state.numbers[kRelation] = sign_of(digit - (bound.whole[digits] - '0'));
        digits = std::min(digits + 1, num_digits + 1);
        return state;
      },
      [&](State state, int32_t digit) {
        if (digit != 0) state.numbers[kNotZero] = 1;
        int32_t& after = state.numbers[kAfterPoint];
        if (after == 0) {
          state.numbers[kRelation] = of_whole(state);
          state.numbers[kDigits] = num_digits;
        }
        if (state.numbers[kRelation] == 0)
          state.numbers[kRelation] = sign_of(digit - (after < num_fraction ? bound.fraction[after] - '0' : 0));
        after = std::min(after + 1, num_fraction + 1);
        return state;
      },
      [&](const State& state) {
        int32_t relation = of_whole(state);
        if (relation == 0 && state.numbers[kAfterPoint] < num_fraction) relation = -1;
        const bool bound_is_zero = num_digits == 0 && num_fraction == 0;
        const bool is_negative = state.numbers[kNegative] != 0 && state.numbers[kNotZero] != 0;
        const bool bound_is_negative = bound.negative && !bound_is_zero;
        if (is_negative != bound_is_negative) return is_negative ? 0 : 2;
        return 1 + (is_negative ? -relation : relation);
      });
}

Dfa below(const Decimal& bound, bool or_equal, Budget& budget) {
  return labelled(compared_to(bound, budget), {true, or_equal, false}, budget);
}
Dfa above(const Decimal& bound, bool or_equal, Budget& budget) {
  return labelled(compared_to(bound, budget), {false, or_equal, true}, budget);
}
Dfa equal_to(const Decimal& value, Budget& budget) {
  return labelled(compared_to(value, budget), {false, true, false}, budget);
}

Dfa multiples_of(const Decimal& step, Budget& budget) {
  const std::string digits = step.whole + step.fraction;
  const auto scale = static_cast<int32_t>(step.fraction.size());
  int64_t modulus = 0;  // of the number times 10^scale
  for (const char c : digits) {
    modulus = modulus * 10 + (c - '0');
    if (modulus > 1'000'000) throw Refusal("multipleOf", "has too many digits");
  }
  if (modulus == 0) throw Refusal("multipleOf", "is zero");
  // numbers: the remainder of the digits so far, how many of them are behind the point (capped), whether one that
  // must be zero was not.
  using State = Progress<3>;
  const auto append = [=](State state, int32_t digit) {
    state.numbers[0] = static_cast<int32_t>((int64_t{state.numbers[0]} * 10 + digit) % modulus);
    return state;
  };
  return of_digits<3>(
      budget, [](const State& state) { return state; }, append,
      [&](State state, int32_t digit) {
        if (state.numbers[1] == scale) {
          if (digit != 0) state.numbers[2] = 1;
          return state;
        }
        state = append(state, digit);
        ++state.numbers[1];
        return state;
      },
      [&](const State& state) {
        int64_t remainder = state.numbers[0];
        for (int32_t i = state.numbers[1]; i < scale; ++i) remainder = remainder * 10 % modulus;
        return remainder == 0 && state.numbers[2] == 0 ? 0 : -1;
      });
}

}  // namespace serval::grammar
