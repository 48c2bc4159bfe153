// Reads the case files of the chat template tests.
#pragma once

#include <boost/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engine/text/chat_template.h"

namespace serval {

// 2024-07-26 15:04:05 UTC: the moment at which all recorded expectations were rendered.
inline constexpr int64_t kCaseTime = 1722006245;

// A file of ../shared/data/chat-templates, or nullopt when the checkout has none beside it.
std::optional<std::string> shared_file(const std::string& name);
// The reason to skip a test for, when shared_file gives nothing.
std::string shared_missing();

// A file of this folder.
std::string own_file(const std::string& name);
std::vector<boost::json::object> json_lines(const std::string& text);

// The default limits without the clock, so that a busy machine changes no result.
inline constexpr TemplateLimits kUnclocked{.max_wall_ms = 0};

Result<std::string> render_once(std::string_view source, const boost::json::object& context = {},
                                const TemplateLimits& limits = kUnclocked);

// What transformers hands to a template, from a case of cases.jsonl and its context of contexts.json.
boost::json::object case_context(const boost::json::object& shared_context, bool add_generation_prompt);

}  // namespace serval
