#include "tests/engine/text/template/fuzz.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/engine/text/template/template_cases.h"

namespace serval {
namespace {

namespace json = boost::json;

constexpr std::string_view kPieces[] = {"{{",
                                        "}}",
                                        "{%",
                                        "%}",
                                        "{#",
                                        "#}",
                                        "-",
                                        "+",
                                        "if",
                                        "else",
                                        "for",
                                        "in",
                                        "endfor",
                                        "endif",
                                        "set",
                                        "macro",
                                        "endmacro",
                                        "call",
                                        "endcall",
                                        "loop",
                                        "caller",
                                        "namespace",
                                        "recursive",
                                        "not",
                                        "is",
                                        "and",
                                        "or",
                                        "|",
                                        ".",
                                        "(",
                                        ")",
                                        "[",
                                        "]",
                                        "{",
                                        "}",
                                        ":",
                                        ",",
                                        "**",
                                        "*",
                                        "//",
                                        "%",
                                        "~",
                                        "=",
                                        "==",
                                        "<",
                                        "'",
                                        "\"",
                                        "\\",
                                        "\n",
                                        " ",
                                        "0",
                                        "-1",
                                        "1e308",
                                        "99999999999999999999",
                                        "170141183460469231731687303715884105727",
                                        "range(9)",
                                        "messages",
                                        "x",
                                        "none",
                                        "true",
                                        "[]",
                                        "''",
                                        "'é'",
                                        "\xf0\x9f\x98\x80",
                                        "\xff",
                                        "| tojson",
                                        "| sort",
                                        "| map('upper')",
                                        "| groupby(0)",
                                        "| list",
                                        "| join",
                                        ".split()",
                                        ".items()",
                                        "[::-1]",
                                        "% x",
                                        "{% break %}",
                                        "{% raw %}",
                                        "{% endraw %}",
                                        "{% generation %}",
                                        "__class__",
                                        "loop(x)",
                                        "loop.changed(loop)",
                                        "ns.x",
                                        "caller()",
                                        "\\u",
                                        "\\ud83d"};

std::string mutate(std::string source, const std::vector<std::string>& corpus, std::mt19937_64& random) {
  const auto below = [&](size_t n) { return n == 0 ? size_t{0} : static_cast<size_t>(random() % n); };
  for (size_t edits = 1 + below(3); edits > 0; --edits) {
    const size_t at = below(source.size() + 1);
    const size_t length = std::min(below(12), source.size() - at);
    switch (below(6)) {
      case 0:
        source.erase(at, length);
        break;
      case 1:
        source.insert(at, kPieces[below(std::size(kPieces))]);
        break;
      case 2:
        source.replace(at, length, kPieces[below(std::size(kPieces))]);
        break;
      case 3:
        source.insert(at, source.substr(below(source.size() + 1), below(40)));
        break;
      case 4: {
        const std::string& other = corpus[below(corpus.size())];
        source.insert(at, other.substr(below(other.size() + 1), below(80)));
        break;
      }
      default:
        if (at < source.size()) source[at] = static_cast<char>(random() % (below(8) == 0 ? 256 : 128));
    }
  }
  return source;
}

}  // namespace

FuzzCounts fuzz_templates(uint64_t seed, int64_t count) {
  std::vector<std::string> corpus;
  json::object context =
      json::parse(
          R"({"x": 7, "s": "Some é <b>\n", "l": [3, 1, 2.5], "d": {"a": {"n": 1}, "items": [null]}, "tools": null,
    "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a</think>b", "tool_calls": []}]})")
          .as_object();
  for (const json::object& row : json_lines(own_file("language_cases.jsonl")))
    corpus.emplace_back(row.at("template").as_string());
  if (const std::optional<std::string> shared = read_file(shared_cases() / "hfjs_e2e.json")) {
    const json::value rows = json::parse(*shared);
    for (const json::value& row : rows.as_array()) corpus.emplace_back(row.at("template").as_string());
  }
  std::mt19937_64 random(seed);
  FuzzCounts counts;
  for (int64_t i = 0; i < count; ++i) {
    const std::string source = mutate(corpus[random() % corpus.size()], corpus, random);
    const TemplateLimits limits{
        .max_depth = 32, .max_steps = 20'000, .max_output_bytes = 1 << 18, .max_wall_ms = 0};
    const Result<std::string> rendered = render_once(source, context, limits);
    ++(rendered.ok() ? counts.rendered : counts.refused);
    if (rendered.ok()) {
      EXPECT_LE(rendered.value().size(), limits.max_output_bytes);
    } else {
      EXPECT_TRUE(rendered.error().code.starts_with("template_")) << rendered.error().code;
    }
  }
  return counts;
}

}  // namespace serval
