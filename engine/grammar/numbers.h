// Automata over the text of JSON numbers: which are below a bound, multiples, integers. Bounds are decimal, exact
// however long the number is. A number that is held to a bound is written without an exponent.
#pragma once

#include <boost/json/value.hpp>
#include <string>
#include <string_view>

#include "engine/grammar/dfa.h"

namespace serval::grammar {

struct Decimal {
  bool negative = false;
  std::string whole;     // without leading zeros: "" is 0
  std::string fraction;  // without trailing zeros
};
// Of a number of a JSON text; throws Refusal(keyword) where its value is not known to the last digit.
Decimal decimal_of(const boost::json::value& number, const std::string& keyword);

const Dfa& any_number();    // with exponents too
const Dfa& any_integer();   // 1, 1.0, 1e2
const Dfa& plain_number();  // any without an exponent

// Plain numbers; labels 0, 1, 2: below, equal to, above the bound.
Dfa compared_to(const Decimal& bound, Budget& budget);
Dfa below(const Decimal& bound, bool or_equal, Budget& budget);
Dfa above(const Decimal& bound, bool or_equal, Budget& budget);
Dfa equal_to(const Decimal& value, Budget& budget);
// Plain numbers that are a multiple of `step`, which is not zero.
Dfa multiples_of(const Decimal& step, Budget& budget);

}  // namespace serval::grammar
