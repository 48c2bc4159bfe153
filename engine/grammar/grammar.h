// What a text may be, compiled once, and how far a text has come: for output that must have a form. Knows neither
// tokens nor requests; JSON Schema, regular expressions and grammars come in as texts.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/status.h"

namespace serval {

namespace grammar {
struct Program;
struct MatcherState;
}

struct GrammarLimits {
  size_t max_bytes = size_t{512} << 10;  // of the text
  size_t max_depth = 64;                 // of a schema's JSON
  size_t max_steps = 4'000'000;          // states and edges made while compiling: some seconds at most
};

// Immutable; any thread.
class Grammar {
 public:
  // Errors have the code grammar_refused, or grammar_too_complex where a limit ended it; their param is the keyword
  // (of a schema) or the construct that is to blame, and the message says it again.
  static Result<std::shared_ptr<const Grammar>> json_schema(std::string_view schema, const GrammarLimits& = {});
  static Result<std::shared_ptr<const Grammar>> json_object(const GrammarLimits& = {});
  // Of the whole text.
  static Result<std::shared_ptr<const Grammar>> regex(std::string_view regex, const GrammarLimits& = {});
  static Result<std::shared_ptr<const Grammar>> choice(const std::vector<std::string>& texts,
                                                       const GrammarLimits& = {});
  // GBNF or Lark.
  static Result<std::shared_ptr<const Grammar>> ebnf(std::string_view text, const GrammarLimits& = {});
  // JSON: free text and forms within it (structural_tag.h).
  static Result<std::shared_ptr<const Grammar>> structural_tag(std::string_view tag, const GrammarLimits& = {});

  explicit Grammar(std::unique_ptr<const grammar::Program> program);
  ~Grammar();
  // No text is accepted: a schema that is false for every value. Nothing can be written under it.
  bool matches_nothing() const;
  const grammar::Program& program() const { return *program_; }

 private:
  std::unique_ptr<const grammar::Program> program_;
};

// One text on its way through a grammar. One thread at a time; a copy is cheap and goes its own way, which is how
// to come back: keep a copy. Copies of one matcher belong to one thread.
class GrammarMatcher {
 public:
  explicit GrammarMatcher(std::shared_ptr<const Grammar> grammar);
  GrammarMatcher(const GrammarMatcher&);
  GrammarMatcher(GrammarMatcher&&) noexcept;
  GrammarMatcher& operator=(GrammarMatcher) noexcept;
  ~GrammarMatcher();

  // False: no accepted text begins so; the matcher stays where it was.
  bool advance(std::string_view bytes);
  // The text so far is one that is accepted.
  bool accepting() const;
  // Nothing may follow.
  bool finished() const;

  const grammar::MatcherState& state() const { return *state_; }
  const std::shared_ptr<const Grammar>& grammar() const { return grammar_; }

 private:
  std::shared_ptr<const Grammar> grammar_;
  std::unique_ptr<grammar::MatcherState> state_;
};

}  // namespace serval
