#include "engine/text/template/chat_template.h"

#include <boost/json.hpp>
#include <new>
#include <stdexcept>

#include "engine/text/jinja/failure.h"
#include "engine/text/jinja/interpreter.h"
#include "engine/text/jinja/parser.h"

namespace serval {
namespace {

using jinja::Failure;

Error to_error(const Failure& failure) {
  const std::string place = failure.line > 0 ? "line " + std::to_string(failure.line) + ": " : "";
  switch (failure.kind) {
    case Failure::Kind::kRaised:
      return invalid("", "template_raised", failure.message);
    case Failure::Kind::kLimit:
      return invalid("", "template_limit",
                     "The chat template stopped at a limit: " + place + failure.message + ".");
    case Failure::Kind::kError:
      break;
  }
  return invalid("", "template_error", "The chat template failed: " + place + failure.message + ".");
}

// Runs `work`, the only way in and out of the interpreter: nothing thrown gets past it.
template <class T, class Work>
Result<T> guarded(Work work) {
  try {
    return work();
  } catch (const Failure& failure) {
    return to_error(failure);
  } catch (const std::bad_alloc&) {
    return to_error(Failure{Failure::Kind::kLimit, "out of memory"});
  } catch (const std::length_error&) {
    return to_error(Failure{Failure::Kind::kLimit, "a text is too long"});
  }
}

}  // namespace

struct ChatTemplate::Program {
  jinja::Body body;
  TemplateLimits limits;
  std::string source;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Program> program) : program_(std::move(program)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::parse(std::string_view source, const TemplateLimits& limits) {
  return guarded<ChatTemplate>(
      [&] { return ChatTemplate(std::make_unique<Program>(jinja::parse(source, limits), limits, std::string(source))); });
}

const std::string& ChatTemplate::source() const {
  return program_->source;
}

Result<std::string> ChatTemplate::render(const boost::json::object& context, int64_t now_unix_s) const {
  return guarded<std::string>(
      [&] { return jinja::interpret(program_->body, context, program_->limits, now_unix_s); });
}

}  // namespace serval
