// Numbers from text and from each other, by Python's rules.
#pragma once

#include <string_view>

#include "engine/text/jinja/value.h"

namespace serval::jinja {

Int to_int(double x);  // towards zero; fails for NaN, infinities and what does not fit
// int(text, base): white space around, sign, underscores between digits, a prefix when the base allows it (0:
// whichever stands there).
bool parse_int(std::string_view text, int base, Int& out);
bool parse_float(std::string_view text, double& out);

}  // namespace serval::jinja
