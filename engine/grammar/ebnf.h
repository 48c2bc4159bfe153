// Context-free grammars over text, written as GBNF ("root ::= ...", as llama.cpp has it) or as Lark ("start: ...").
#pragma once

#include <string_view>

#include "engine/grammar/program.h"

namespace serval::grammar {

// Throws Refusal: the grammar is malformed, recurses on the left, matches nothing, or asks for what is not here.
Program compile_ebnf(std::string_view utf8, Budget& budget);

}  // namespace serval::grammar
