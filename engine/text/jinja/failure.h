// How a template stops early. Thrown only inside this folder and caught at its edge (chat_template.cc), where
// it becomes an Error value: an interpreter whose every operator returned a Result would be mostly plumbing.
#pragma once

#include <string>
#include <utility>

namespace serval::jinja {

struct Failure {
  enum class Kind {
    kError,   // syntax, types, undefined names: code template_error
    kLimit,   // one of TemplateLimits: code template_limit
    kRaised,  // the template called raise_exception: code template_raised, in the template's own words
  };
  Kind kind;
  std::string message;
  int line = 0;  // of the statement that failed, once known
};

[[noreturn]] inline void fail(std::string message) {
  throw Failure{Failure::Kind::kError, std::move(message), 0};
}
[[noreturn]] inline void fail_limit(std::string message) {
  throw Failure{Failure::Kind::kLimit, std::move(message), 0};
}

}  // namespace serval::jinja
