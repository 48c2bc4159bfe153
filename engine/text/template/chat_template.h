// A bounded interpreter of the Jinja subset that chat templates use. The reference is Jinja2 as transformers
// runs it: trim_blocks, lstrip_blocks, loop controls, tojson without ASCII escapes, strftime_now,
// raise_exception. A template is data from a model folder, its context is data from a client: neither can
// crash, hang or exhaust us.
#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "engine/text/jinja/limits.h"
#include "kernels/base/status.h"

namespace serval {

class ChatTemplate {
 public:
  // Parses once. Error kind kInvalidRequest, code "template_error" (syntax) or "template_limit".
  static Result<ChatTemplate> parse(std::string_view source, const TemplateLimits& limits = {});

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // context: messages, tools (null if none), documents, add_generation_prompt, bos_token, eos_token and extra
  // variables. now_unix_s: what strftime_now reads (the caller's clock or --template-time), rendered in UTC.
  // Any thread; const. Errors: code "template_raised" with the template's own words when it called
  // raise_exception, "template_error" for a type error, "template_limit" for a limit.
  Result<std::string> render(const boost::json::object& context, int64_t now_unix_s) const;
  // What parse() was given.
  const std::string& source() const;

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<Program> program);
  std::unique_ptr<Program> program_;
};

// A model's templates by their names.
using ChatTemplates = std::map<std::string, ChatTemplate, std::less<>>;
inline constexpr std::string_view kDefaultTemplate = "default";
inline constexpr std::string_view kToolTemplate = "tool_use";  // where there are tools, and one of that name

}  // namespace serval
