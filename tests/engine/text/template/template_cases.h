// Reads the case files of the chat template tests.
#pragma once

#include <boost/json.hpp>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "engine/text/template/chat_template.h"

namespace serval {

// 2024-07-26 15:04:05 UTC: the moment at which all recorded expectations were rendered.
inline constexpr int64_t kCaseTime = 1722006245;

// The folders of published templates and cases: the part in the repository, and all of it beside it, where a
// checkout has that.
std::filesystem::path vendored_cases();
std::filesystem::path shared_cases();
// A file of such a folder, or nullopt when it is not there.
std::optional<std::string> read_file(const std::filesystem::path& path);

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
