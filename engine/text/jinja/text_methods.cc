// The methods of str. What they make of a safe text is safe.
#include <algorithm>

#include "engine/text/jinja/access.h"
#include "engine/text/jinja/format.h"
#include "engine/text/jinja/methods.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/parameters.h"
#include "engine/text/jinja/pieces.h"
#include "engine/text/jinja/unicode.h"

namespace serval::jinja {
namespace {

constexpr size_t kNotFound = std::string_view::npos;
Value same_kind(Runtime& rt, const Value& self, std::string_view text) {
  return rt.text(text, self.text().safe);
}

// ---- taking apart and putting together

template <Side side>
Value strip_method(Runtime& rt, const Value& self, const CallArgs& args) {
  const Parameters p("strip", args, {"chars"});
  return same_kind(rt, self, p.present(0) ? strip(self.str(), side, p.text(0)) : strip(self.str(), side));
}

Value texts(Runtime& rt, const Value& self, const std::vector<std::string_view>& pieces,
            Sequence::Kind kind) {
  rt.require_size(pieces.size() * sizeof(Value));
  std::vector<Value> items;
  items.reserve(pieces.size());
  for (std::string_view piece : pieces) items.push_back(same_kind(rt, self, piece));
  return rt.sequence(kind, std::move(items));
}

template <bool from_right>
Value split_method(Runtime& rt, const Value& self, const CallArgs& args) {
  const Parameters p("split", args, {"sep", "maxsplit"});
  const auto limit = static_cast<int64_t>(std::clamp(p.integer(1, -1), Int{-1}, Int{INT32_MAX}));
  if (!p.present(0)) {
    return texts(
        rt, self,
        from_right ? split_spaces_from_right(rt, self.str(), limit) : split_spaces(rt, self.str(), limit),
        Sequence::Kind::kList);
  }
  if (p.text(0).empty()) fail("empty separator");
  return texts(rt, self,
               from_right ? split_on_from_right(rt, self.str(), p.text(0), limit)
                          : split_on(rt, self.str(), p.text(0), limit),
               Sequence::Kind::kList);
}

Value splitlines_method(Runtime& rt, const Value& self, const CallArgs& args) {
  const Parameters p("splitlines", args, {"keepends"});
  return texts(rt, self, split_lines(rt, self.str(), p.flag(0, false)), Sequence::Kind::kList);
}

template <bool from_right>
Value partition_method(Runtime& rt, const Value& self, const CallArgs& args) {
  const Parameters p("partition", args, {"sep"});
  const std::string_view text = self.str(), separator = p.text(0);
  if (separator.empty()) fail("empty separator");
  const size_t at = from_right ? rfind(text, separator) : find(text, separator);
  if (at != kNotFound) {
    return texts(rt, self, {text.substr(0, at), separator, text.substr(at + separator.size())},
                 Sequence::Kind::kTuple);
  }
  if (from_right) return texts(rt, self, {"", "", text}, Sequence::Kind::kTuple);
  return texts(rt, self, {text, "", ""}, Sequence::Kind::kTuple);
}

Value join_method(Runtime& rt, const Value& self, const CallArgs& args) {
  const Parameters p("join", args, {"iterable"});
  TextBuilder out(rt);
  size_t index = 0;
  for (const Value& item : iterate(rt, p.required(0))) {
    if (!item.is_text())
      fail("sequence item " + std::to_string(index) + ": expected str instance, " +
           std::string(type_name(item)) + " found");
    if (index++ > 0) out.append(self.str());
    out.append(self.text().safe && !item.text().safe ? escape_html(item.str()) : item.text().bytes);
  }
  return rt.text(out.take(), self.text().safe);
}

Value replace_method(Runtime& rt, const Value& self, const CallArgs& args) {
  const Parameters p("replace", args, {"old", "new", "count"});
  const auto count = static_cast<int64_t>(std::clamp(p.integer(2, -1), Int{-1}, Int{INT32_MAX}));
  p.text(1);
  const bool escapes = self.text().safe && !p.required(1).text().safe;
  return rt.text(replace_all(rt, self.str(), p.text(0),
                             escapes ? escape_html(p.text(1)) : std::string(p.text(1)), count),
                 self.text().safe);
}

Value format_method(Runtime& rt, const Value& self, const CallArgs& args) {
  return rt.text(brace_format(rt, self.str(), args), self.text().safe);
}

Value removeprefix_method(Runtime& rt, const Value& self, const CallArgs& args) {
  const Parameters p("removeprefix", args, {"prefix"});
  const bool has = self.str().starts_with(p.text(0));
  return same_kind(rt, self, self.str().substr(has ? p.text(0).size() : 0));
}

Value removesuffix_method(Runtime& rt, const Value& self, const CallArgs& args) {
  const Parameters p("removesuffix", args, {"suffix"});
  const bool has = self.str().ends_with(p.text(0));
  return same_kind(rt, self, self.str().substr(0, self.str().size() - (has ? p.text(0).size() : 0)));
}

template <char align>
Value justify_method(Runtime& rt, const Value& self, const CallArgs& args) {
  const Parameters p("justify", args, {"width", "fillchar"});
  const std::string_view fill = p[1] ? p.text(1) : " ";
  if (num_chars(fill) != 1) fail("The fill character must be exactly one character long");
  const auto width = static_cast<size_t>(std::clamp(p.integer(0, 0), Int{0}, Int{INT32_MAX}));
  const size_t length = num_chars(self.str());
  const size_t missing = width > length ? width - length : 0;
  // Python puts the odd space of a centred text to the left when the width is odd.
  const size_t left = align == '>' ? missing : align == '^' ? missing / 2 + (missing & width & 1) : 0;
  rt.require_size(missing * fill.size());
  std::string out;
  for (size_t i = 0; i < left; ++i) out += fill;
  out += self.str();
  for (size_t i = left; i < missing; ++i) out += fill;
  return rt.text(std::move(out), self.text().safe);
}

Value zfill_method(Runtime& rt, const Value& self, const CallArgs& args) {
  const Parameters p("zfill", args, {"width"});
  const auto width = static_cast<size_t>(std::clamp(p.integer(0, 0), Int{0}, Int{INT32_MAX}));
  const size_t length = num_chars(self.str());
  const size_t missing = width > length ? width - length : 0;
  rt.require_size(missing);
  std::string out(self.str());
  const bool signed_text = !out.empty() && (out[0] == '-' || out[0] == '+');
  return rt.text(out.insert(signed_text ? 1 : 0, missing, '0'), self.text().safe);
}

// ---- letters

Value upper_method(Runtime& rt, const Value& self, const CallArgs& args) {
  Parameters("upper", args, {});
  return rt.text(to_upper(self.str()), self.text().safe);
}

Value lower_method(Runtime& rt, const Value& self, const CallArgs& args) {
  Parameters("lower", args, {});
  return rt.text(to_lower(self.str()), self.text().safe);
}

Value title_method(Runtime& rt, const Value& self, const CallArgs& args) {
  Parameters("title", args, {});
  return rt.text(title_words(self.str()), self.text().safe);
}

Value capitalize_method(Runtime& rt, const Value& self, const CallArgs& args) {
  Parameters("capitalize", args, {});
  return rt.text(capitalize(self.str()), self.text().safe);
}

// Every character is of the class, and there is one.
template <bool (*of_class)(char32_t)>
Value all_method(Runtime& rt, const Value& self, const CallArgs& args) {
  Parameters("is", args, {});
  const std::string_view text = self.str();
  for (size_t at = 0; at < text.size(); at += char_bytes(text, at)) {
    rt.work(kLetterBytes);
    if (!of_class(char_at(text, at))) return false;
  }
  return !text.empty();
}

bool is_alnum(char32_t c) {
  return is_alpha(c) || is_digit(c);
}

// No letter is of the other case, and one is of this case.
template <bool (*is_case)(char32_t), bool (*is_other)(char32_t)>
Value case_method(Runtime& rt, const Value& self, const CallArgs& args) {
  Parameters("is", args, {});
  const std::string_view text = self.str();
  bool any = false;
  for (size_t at = 0; at < text.size(); at += char_bytes(text, at)) {
    rt.work(kLetterBytes);
    if (is_other(char_at(text, at))) return false;
    any = any || is_case(char_at(text, at));
  }
  return any;
}

// ---- searching, within text[start:end]

struct Window {
  std::string_view text;
  size_t first_char;  // how many characters stand before it
  bool possible;      // false when it starts behind the text's end: nothing is found, not even ""
};

Window window(std::string_view text, const Value* start, const Value* end) {
  if (!start && !end) return {text, 0, true};
  const auto length = static_cast<int64_t>(num_chars(text));
  const SliceRange range = slice_range(length, start ? *start : None{}, end ? *end : None{}, None{});
  size_t begin = 0;
  for (int64_t i = 0; i < range.first; ++i) begin += char_bytes(text, begin);
  size_t stop = begin;
  for (int64_t i = 0; i < range.count; ++i) stop += char_bytes(text, stop);
  const bool possible = !start || start->is_none() || start->integer() <= length;
  return {text.substr(begin, stop - begin), static_cast<size_t>(range.first), possible};
}

Int find_in(const Value& self, const Parameters& p, bool from_right) {
  const Window w = window(self.str(), p.present(1), p.present(2));
  const size_t at = from_right ? rfind(w.text, p.text(0)) : find(w.text, p.text(0));
  if (at == kNotFound || !w.possible) return -1;
  return static_cast<Int>(w.first_char + num_chars(w.text.substr(0, at)));
}

template <bool from_right, bool must_find>
Value find_method(Runtime&, const Value& self, const CallArgs& args) {
  const Int at = find_in(self, Parameters("find", args, {"sub", "start", "end"}), from_right);
  if (must_find && at < 0) fail("substring not found");
  return at;
}

Value count_method(Runtime& rt, const Value& self, const CallArgs& args) {
  const Parameters p("count", args, {"sub", "start", "end"});
  const Window w = window(self.str(), p.present(1), p.present(2));
  const std::string_view sub = p.text(0);
  if (!w.possible) return Value::of(0);
  if (sub.empty()) return static_cast<Int>(num_chars(w.text) + 1);
  Int count = 0;
  for (size_t at = find(w.text, sub); at != kNotFound; at = find(w.text, sub, at + sub.size())) {
    rt.work(kLetterBytes);
    ++count;
  }
  return count;
}

template <bool at_end>
Value affix_method(Runtime& rt, const Value& self, const CallArgs& args) {
  const Parameters p(at_end ? "endswith" : "startswith", args, {"affix", "start", "end"});
  const Window w = window(self.str(), p.present(1), p.present(2));
  const auto matches = [&](const Value& affix) {
    if (!affix.is_text())
      fail("startswith and endswith take a str or a tuple of str, not " + std::string(type_name(affix)));
    rt.step(affix.str().size());
    return w.possible && (at_end ? w.text.ends_with(affix.str()) : w.text.starts_with(affix.str()));
  };
  const Value& affix = p.required(0);
  if (!affix.is_sequence() || !affix.sequence().is_tuple()) return matches(affix);
  return std::any_of(affix.sequence().items.begin(), affix.sequence().items.end(), matches);
}

constexpr NamedMethod kTextMethods[] = {
    {"capitalize", capitalize_method},
    {"center", justify_method<'^'>},
    {"count", count_method},
    {"endswith", affix_method<true>},
    {"find", find_method<false, false>},
    {"format", format_method},
    {"index", find_method<false, true>},
    {"isalnum", all_method<is_alnum>},
    {"isalpha", all_method<is_alpha>},
    {"isdecimal", all_method<is_digit>},
    {"isdigit", all_method<is_digit>},
    {"islower", case_method<is_lower, is_upper>},
    {"isnumeric", all_method<is_digit>},
    {"isspace", all_method<is_space>},
    {"isupper", case_method<is_upper, is_lower>},
    {"join", join_method},
    {"ljust", justify_method<'<'>},
    {"lower", lower_method},
    {"lstrip", strip_method<Side::kLeft>},
    {"partition", partition_method<false>},
    {"removeprefix", removeprefix_method},
    {"removesuffix", removesuffix_method},
    {"replace", replace_method},
    {"rfind", find_method<true, false>},
    {"rindex", find_method<true, true>},
    {"rjust", justify_method<'>'>},
    {"rpartition", partition_method<true>},
    {"rsplit", split_method<true>},
    {"rstrip", strip_method<Side::kRight>},
    {"split", split_method<false>},
    {"splitlines", splitlines_method},
    {"startswith", affix_method<false>},
    {"strip", strip_method<Side::kBoth>},
    {"title", title_method},
    {"upper", upper_method},
    {"zfill", zfill_method},
};

}  // namespace

std::span<const NamedMethod> text_methods() {
  return kTextMethods;
}

}  // namespace serval::jinja
