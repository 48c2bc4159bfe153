// Whatever a template calls is charged for what it is given: counted in steps, for every filter, test, method
// and function there is. The names are read from the tables in the source, so that a new one is tried too.
#include <gtest/gtest.h>

#include <regex>

#include "tests/engine/text/template/template_cases.h"

namespace serval {
namespace {

namespace json = boost::json;

// The first strings of the rows of an array in a file of engine/text/jinja.
std::vector<std::string> names_of(const std::string& file, const std::string& array) {
  const std::string source = own_file("../../../../engine/text/jinja/" + file);
  const size_t begin = source.find(array + "[] = {");
  if (begin == std::string::npos) return {};
  const std::string rows = source.substr(begin, source.find("\n};", begin) - begin);
  const std::regex row(R"re(\{\s*"([^"]+)",)re");
  std::vector<std::string> names;
  for (std::sregex_iterator at(rows.begin(), rows.end(), row), end; at != end; ++at)
    names.push_back((*at)[1]);
  return names;
}

std::vector<std::string> every_call() {
  std::vector<std::string> calls;
  const auto add = [&](const std::string& file, const std::string& array, size_t at_least,
                       const std::string& before, const std::string& after,
                       std::initializer_list<const char*> arguments) {
    const std::vector<std::string> names = names_of(file, array);
    EXPECT_GE(names.size(), at_least) << array;
    for (const std::string& name : names) {
      for (const char* some : arguments) calls.push_back(before + name + some + after);
    }
  };
  for (const char* subject : {"text", "wide", "'a'", "items", "'%s'"}) {
    const std::string self(subject);
    for (const char* file : {"filters_text.cc", "filters_sequence.cc"}) {
      const bool of_text = std::string(file) == "filters_text.cc";
      add(file, of_text ? "kTextFilters" : "kSequenceFilters", 20, self + " | ", "",
          {"", "(text)", "(wide, wide)", "(items)", "(2)", "('upper')"});
    }
    add("builtins.cc", "kTests", 30, self + " is ", "", {"", "(text)", "(items)", "(2)"});
    add("text_methods.cc", "kTextMethods", 30, self + ".", "",
        {"()", "(text)", "(text, text)", "('a', wide)", "(items)", "(2)", "(2, wide)", "((text, wide))"});
    if (self == "items") {
      add("methods.cc", "kListMethods", 3, self + ".", "", {"()", "(text)", "(items)"});
      add("methods.cc", "kDictMethods", 5, "table.", "", {"()", "(text)", "(items)"});
    }
  }
  add("builtins.cc", "kFunctions", 5, "", "", {"(text)", "(*items)", "(items)", "(**table)", "(a=text)"});
  for (const char* operation : {"text + text",
                                "text ~ wide",
                                "text * 2",
                                "text == wide ~ ''",
                                "text < text ~ 'a'",
                                "'z' in text",
                                "text in text",
                                "'%s' % text",
                                "text % 2",
                                "text[::-1]",
                                "wide[3]",
                                "wide[-1]",
                                "items + items",
                                "items == items + []",
                                "items[::2]",
                                "'z' in items",
                                "{text: 1}[text]",
                                "table[text]",
                                "table == dict(table)",
                                "(text,) < (text ~ '',)"}) {
    calls.push_back(operation);
  }
  return calls;
}

TEST(ChatTemplateBudget, ChargesEveryCallForWhatItIsGiven) {
  constexpr size_t kBytes = 64 << 10;
  json::object context;
  context["text"] = std::string(kBytes, 'a');
  std::string wide;
  while (wide.size() < kBytes) wide += "\u00e9 ";
  context["wide"] = wide;
  json::array items;
  json::object table;
  for (size_t i = 0; i < kBytes / 32; ++i) {
    items.push_back(json::value(static_cast<int64_t>(i)));
    table["key" + std::to_string(i)] = static_cast<int64_t>(i);
  }
  context["items"] = items;
  context["table"] = table;

  // So many steps are enough for the context and for less than a hundred calls that read 64 KiB each: a call
  // that is charged for less than it is given would come to the end of the loop.
  const TemplateLimits limits{.max_steps = 20'000, .max_wall_ms = 0};
  ASSERT_TRUE(render_once("{{ text | length }}", context, limits).ok());
  int num_limited = 0, num_calls = 0;
  for (const std::string& call : every_call()) {
    const bool big = call.find("text") != std::string::npos || call.find("wide") != std::string::npos ||
                     call.find("items") != std::string::npos || call.find("table") != std::string::npos;
    if (!big) continue;
    const Result<std::string> rendered =
        render_once("{% for i in range(400) %}{% set y = " + call + " %}{% endfor %}", context, limits);
    EXPECT_FALSE(rendered.ok()) << call << " was charged less than it was given";
    if (rendered.ok()) continue;
    ++num_calls;
    num_limited += rendered.error().code == "template_limit";
  }
  // The others fail in the first call: a wrong type or number of arguments.
  EXPECT_GT(num_limited, 250) << "of " << num_calls;
}

// Binding is linear and counted: twice the parameters are twice the steps.
TEST(ChatTemplateBudget, ChargesTheParametersOfMacrosOnce) {
  const auto steps_of = [](int count) {
    std::string parameters;
    json::object values;
    for (int i = 0; i < count; ++i) {
      parameters += (i > 0 ? ", p" : "p") + std::to_string(i);
      values["p" + std::to_string(count - 1 - i)] = i;
    }
    const std::string source = "{% macro m(" + parameters + ") %}{{ p0 }}{% endmacro %}{{ m(**values) }}";
    int64_t low = 0, high = 10'000'000;  // the least number of steps with which it renders
    while (low + 1 < high) {
      const int64_t middle = (low + high) / 2;
      (render_once(source, {{"values", values}}, {.max_steps = middle, .max_wall_ms = 0}).ok() ? high : low) =
          middle;
    }
    return high;
  };
  const int64_t some = steps_of(500), twice = steps_of(1000);
  EXPECT_GT(some, 1000) << "a parameter and a keyword are a step each";
  EXPECT_LT(twice, 3 * some);
  json::object values;
  std::string parameters;
  for (int i = 0; i < 60'000; ++i) {
    values["p" + std::to_string(59'999 - i)] = i;
    parameters += (i > 0 ? ", p" : "p") + std::to_string(i);
  }
  // Quadratic binding would take minutes here.
  EXPECT_EQ(render_once("{% macro m(" + parameters + ") %}{{ p0 }}{% endmacro %}{{ m(**values) }}",
                        {{"values", values}}, {.max_steps = 10'000'000, .max_wall_ms = 0})
                .value(),
            "59999");
}

}  // namespace
}  // namespace serval
