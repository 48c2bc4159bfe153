#include "tests/engine/text/template/template_cases.h"

#include <filesystem>
#include <fstream>
#include <sstream>

namespace serval {
namespace {

const std::filesystem::path kRoot = SERVAL_SOURCE_DIR;

}  // namespace

std::filesystem::path vendored_cases() {
  return kRoot / "tests/fixtures/published/chat-templates";
}

std::filesystem::path shared_cases() {
  return kRoot / "../shared/data/chat-templates";
}

std::optional<std::string> read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

std::string own_file(const std::string& name) {
  std::optional<std::string> text = read_file(kRoot / "tests/engine/text/template" / name);
  SERVAL_CHECK(text, name);
  return *text;
}

std::vector<boost::json::object> json_lines(const std::string& text) {
  std::vector<boost::json::object> rows;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty()) rows.push_back(boost::json::parse(line).as_object());
  }
  return rows;
}

Result<std::string> render_once(std::string_view source, const boost::json::object& context,
                                const TemplateLimits& limits) {
  Result<ChatTemplate> parsed = ChatTemplate::parse(source, limits);
  if (!parsed) return parsed.error();
  return parsed->render(context, kCaseTime);
}

boost::json::object case_context(const boost::json::object& shared_context, bool add_generation_prompt) {
  boost::json::object context;
  context["messages"] = shared_context.at("messages");
  context["tools"] = shared_context.contains("tools") ? shared_context.at("tools") : nullptr;
  context["documents"] = nullptr;
  context["add_generation_prompt"] = add_generation_prompt;
  context["bos_token"] = "<s>";
  context["eos_token"] = "</s>";
  return context;
}

}  // namespace serval
