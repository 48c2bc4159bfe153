// Walks a parsed template and writes the text. One instance per render, one thread; the tree is only read.
#pragma once

#include <boost/json/fwd.hpp>
#include <string>

#include "engine/text/jinja/ast.h"
#include "engine/text/jinja/runtime.h"

namespace serval::jinja {

// Throws Failure.
std::string interpret(const Body& body, const boost::json::object& context, const TemplateLimits& limits,
                      int64_t now_unix_s);

}  // namespace serval::jinja
