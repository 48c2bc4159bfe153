// Structural tags: free text that turns into a form where a trigger begins it, and forms around and behind each other. The formats are those that
// XGrammar publishes and vLLM and SGLang take (docs/grammar.md lists them).
#pragma once

#include <boost/json/object.hpp>

#include "engine/grammar/program.h"

namespace serval::grammar {

// `tag`: {"format": FORMAT}, with formats in "definitions" that {"type": "defined", "name"} stands for, each before it is named; a FORMAT itself, or the older {"structures", "triggers"}. Throws Refusal, or FieldError where the tag is malformed.
Program compile_structural_tag(const boost::json::object& tag, Budget& budget);

}  // namespace serval::grammar
