// The texts of JSON Schema's formats.
#pragma once

#include <string_view>

#include "engine/grammar/dfa.h"

namespace serval::grammar {

// Null for a name that the standard does not have: it is a comment then. Throws Refusal("format") for one that no
// automaton of bounded size can hold a text to. May accept less than the format (docs/grammar.md).
const Dfa* format_named(std::string_view name);

}  // namespace serval::grammar
