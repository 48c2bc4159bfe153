// JSON Schema (2020-12, and what draft 4 to 7 spell otherwise) to a program. Throws Refusal.
#pragma once

#include <boost/json/value.hpp>

#include "engine/grammar/program.h"

namespace serval::grammar {

// A keyword that is known and cannot be enforced is refused, and so is a combination of keywords that cannot;
// keywords that the standard does not have are comments, as it says.
Program compile_schema(boost::json::value schema, Budget& budget);

}  // namespace serval::grammar
