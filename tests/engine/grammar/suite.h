// Schemas and instances of others, told right or wrong by whoever published them.
#pragma once

#include <boost/json/value.hpp>
#include <filesystem>
#include <string>

#include "engine/grammar/grammar.h"

namespace serval::test {

// ../shared/data/NAME beside the repository.
std::filesystem::path grammar_data(const std::string& name);

// A JSON value as other programs write it; numbers without an exponent where that is possible.
std::string json_text(const boost::json::value& value);

bool accepts(const Grammar& grammar, const std::string& text);

}  // namespace serval::test
