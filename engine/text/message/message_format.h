// How a family of models writes reasoning and calls of tools: a row each, chosen by what its chat template says. Immutable; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace serval {

// What a call looks like behind its mark. Where kinds share a mark the first byte behind it tells: `{` kJson, `[` a list,
// anything else by name.
enum class CallBody : uint8_t {
  kJson,      // {"name": …, "arguments": {…}}, one, or several in [] or one after the other
  kNamed,     // NAME name_end {…}
  kTags,      // NAME and a tag for each argument, or kJson (see Tags)
  kPythonic,  // [name(key=value), …]
};

// The words of calls whose arguments are tags: call NAME name_end (argument KEY key_end value VALUE argument_end)* call_end.
struct Tags {
  std::string_view call, name_end, argument, key_end, value, argument_end, call_end;
};

// A way to call. Empty marks are not written.
struct CallShape {
  std::string_view begin;
  // What ends one call, and what ends them all; both may be left out by a model.
  std::string_view end;
  CallBody body = CallBody::kJson;
  // kNamed: what is between the name and its arguments.
  std::string_view name_end = {};
  const Tags* tags = nullptr;
  // A call's id stands behind its arguments, so that nothing of it can be told before its end.
  bool id_comes_last = false;
  // Only where an answer begins: the mark alone could be any text.
  bool only_first = false;
};

struct MessageFormat {
  // What a setting calls it.
  std::string_view name;
  // Each is in the source of the templates that this row is for.
  std::span<const std::string_view> signs;
  std::span<const CallShape> calls;
  // What reasoning stands between; empty: whatever the template's source has (reasoning_marks).
  std::string_view reasoning_begin = {}, reasoning_end = {};
  // Marks around or between calls and texts that say nothing.
  std::span<const std::string_view> silent = {};
  // Messages of channels (gpt-oss): none of the above.
  bool is_harmony = false;
  // What the keys of a call in JSON are called.
  std::string_view name_key = "name", arguments_key = "arguments";
  // Templates of this family take only ids of nine letters and digits.
  bool has_short_ids = false;
};

struct ReasoningMarks {
  std::string_view begin, end;
};

// The rows, the particular before the general.
std::span<const MessageFormat> message_formats();
// By the source of a template; null where no row is for it: such a model calls no tools.
const MessageFormat* find_message_format(std::string_view template_source);
// By the name of a row; null for none.
const MessageFormat* message_format_named(std::string_view name);
// What reasoning stands between in answers to prompts of this template. Empty for none.
ReasoningMarks reasoning_marks(const MessageFormat* format, std::string_view template_source);
// Every mark of them: what a parser must see of a text.
std::vector<std::string_view> all_marks(const MessageFormat* format, const ReasoningMarks& reasoning);
// What an answer begins with that is one call in JSON; empty: this family has none.
std::string_view json_call_mark(const MessageFormat& format);
// The end of a prompt that opens reasoning, from its mark on; empty where it does not.
std::string_view opened_reasoning(const ReasoningMarks& marks, std::string_view prompt);

}  // namespace serval
