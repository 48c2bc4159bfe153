#include "engine/grammar/formats.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <optional>
#include <string>

#include "engine/grammar/regex.h"

namespace serval::grammar {
namespace {

// In pieces, as the standards name them.
const std::string kDate =
    R"((\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|1\d|2[0-8]))|)"
    R"((\d{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29))";
const std::string kOffset = R"(([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d))";
// A leap second is the last of a day, told in UTC.
const std::string kTime = R"((([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?)" + kOffset +
                          R"(|23:59:60(\.\d+)?([Zz]|[+-]00:00)))";
const std::string kDurationTime = R"(T(\d+H(\d+M(\d+S)?)?|\d+M(\d+S)?|\d+S))";
const std::string kDuration = "P(\\d+W|(\\d+Y(\\d+M(\\d+D)?)?|\\d+M(\\d+D)?|\\d+D)(" + kDurationTime + ")?|" +
                              kDurationTime + ")";
const std::string kByte = R"((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d))";
const std::string kIpv4 = "(" + kByte + "\\.){3}" + kByte;
const std::string kHexGroup = "[0-9A-Fa-f]{1,4}";
const std::string kLow32 = "(" + kHexGroup + ":" + kHexGroup + "|" + kIpv4 + ")";
std::string ipv6() {
  const std::string h = kHexGroup, g = "(" + h + ":)";
  std::string all = g + "{6}" + kLow32 + "|::" + g + "{5}" + kLow32;
  for (int before = 1; before <= 5; ++before)
    all += "|(" + g + "{0," + std::to_string(before - 1) + "}" + h + ")?::" + g + "{" +
           std::to_string(5 - before) + "}" + kLow32;
  return "(" + all + "|(" + g + "{0,5}" + h + ")?::" + h + "|(" + g + "{0,6}" + h + ")?::)";
}
// Labels whose third and fourth characters are hyphens are encoded names, with rules of their own: left out.
const std::string kLabel = R"(([A-Za-z0-9]([A-Za-z0-9]|[A-Za-z0-9-][A-Za-z0-9])?|[A-Za-z0-9][A-Za-z0-9-])"
                           R"(([A-Za-z0-9]-[A-Za-z0-9-]{0,58}[A-Za-z0-9]|)"
                           R"((-[A-Za-z0-9]|[A-Za-z0-9]{2})([A-Za-z0-9-]{0,58}[A-Za-z0-9])?)))";
const std::string kPlainLabel = R"([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)";
const std::string kAtom = R"([A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)";

// RFC 3986 and 3987. `more`: characters beyond ASCII, in a bracket.
std::string uri(const std::string& more, bool reference) {
  const std::string plain = "A-Za-z0-9._~" + more;
  const std::string sub = "!$&'()*+,;=";
  const std::string escaped = "%[0-9A-Fa-f]{2}";
  const std::string pchar = "([" + plain + sub + ":@-]|" + escaped + ")";
  const std::string no_colon = "([" + plain + sub + "@-]|" + escaped + ")";
  const std::string user = "(([" + plain + sub + ":-]|" + escaped + ")*@)?";
  const std::string host = "(\\[(" + ipv6() + "|[vV][0-9A-Fa-f]+\\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\\]|([" + plain + sub +
                           "-]|" + escaped + ")*)";
  const std::string authority = "//" + user + host + "(:\\d*)?(/" + pchar + "*)*";
  const std::string absolute = "/(" + pchar + "+(/" + pchar + "*)*)?";
  const std::string tail = "(\\?(" + pchar + "|[/?])*)?(#(" + pchar + "|[/?])*)?";
  const std::string whole = "[A-Za-z][A-Za-z0-9+.-]*:(" + authority + "|" + absolute + "|" + pchar + "+(/" + pchar +
                            "*)*|)" + tail;
  if (!reference) return whole;
  return "(" + whole + "|(" + authority + "|" + absolute + "|" + no_colon + "+(/" + pchar + "*)*|)" + tail + ")";
}
const std::string kBeyondAscii =
    R"(\u{A0}-\u{D7FF}\u{F900}-\u{FDCF}\u{FDF0}-\u{FFEF}\u{10000}-\u{1FFFD}\u{20000}-\u{2FFFD}\u{30000}-\u{3FFFD})";

std::string uri_template() {
  const std::string name = R"(([A-Za-z0-9_]|%[0-9A-Fa-f]{2})(\.?([A-Za-z0-9_]|%[0-9A-Fa-f]{2}))*)";
  const std::string variable = name + R"((:[1-9]\d{0,3}|\*)?)";
  return R"(([!#$&-;=?-\[\]_a-z~\u{A0}-\u{D7FF}\u{E000}-\u{10FFFD}]|%[0-9A-Fa-f]{2}|\{[+#./;?&=,!@|]?)" +
         variable + "(," + variable + R"()*\})*)";
}
const std::string kPointer = R"((/([^~/]|~[01])*)*)";

struct Format {
  std::string_view name;
  std::string regex;  // empty: not held to
  size_t max_length = kNoLimit;
  std::once_flag made{};
  Dfa dfa{};
};

auto& formats() {
  static std::array<Format, 19> table = {{
      {"date", kDate},
      {"time", kTime},
      {"date-time", "(" + kDate + ")[Tt](" + kTime + ")"},
      {"duration", kDuration},
      {"email", "(" + kAtom + "(\\." + kAtom + R"()*|"([ !#-\[\]-~]|\\[ -~])*")@()" + kPlainLabel + "(\\." +
                    kPlainLabel + ")*|\\[(" + kIpv4 + "|IPv6:" + ipv6() + ")\\])"},
      {"hostname", kLabel + "(\\." + kLabel + ")*", 253},
      {"ipv4", kIpv4},
      {"ipv6", ipv6()},
      {"uuid", "[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"},
      {"uri", uri("", false)},
      {"uri-reference", uri("", true)},
      {"iri", uri(kBeyondAscii, false)},
      {"iri-reference", uri(kBeyondAscii, true)},
      {"uri-template", uri_template()},
      {"json-pointer", kPointer},
      {"relative-json-pointer", R"((0|[1-9]\d*)(#|)" + kPointer + ")"},
      {"regex", ""},
      {"idn-email", ""},
      {"idn-hostname", ""},
  }};
  return table;
}

}  // namespace

const Dfa* format_named(std::string_view name) {
  auto& table = formats();
  const auto format =
      std::find_if(table.begin(), table.end(), [&](const Format& f) { return f.name == name; });
  if (format == table.end()) return nullptr;
  if (format->regex.empty()) throw Refusal("format", "\"" + std::string(name) + "\" is not enforced here");
  std::call_once(format->made, [&] {
    Budget budget(10'000'000);
    format->dfa = compile_regex(format->regex, RegexSyntax::kEcma, MatchWhat::kWhole, budget);
    if (format->max_length != kNoLimit)
      format->dfa = intersect(format->dfa, of_length(0, format->max_length, budget), budget);
  });
  return &format->dfa;
}

}  // namespace serval::grammar
