// Tokens to tree, by Jinja's grammar. Everything that would need a second template (include, import, extends)
// is refused.
#pragma once

#include <string_view>

#include "engine/text/jinja/ast.h"
#include "engine/text/jinja/limits.h"

namespace serval::jinja {

// Throws Failure: kError for syntax, kLimit for nesting beyond limits.max_depth or a source beyond
// max_output_bytes.
Body parse(std::string_view source, const TemplateLimits& limits);

}  // namespace serval::jinja
