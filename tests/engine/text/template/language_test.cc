// The language, feature by feature: language_cases.jsonl holds templates with what Python's Jinja2 made of
// them (make_language_cases.py).
#include <gtest/gtest.h>

#include <thread>

#include "tests/engine/text/template/template_cases.h"

namespace serval {
namespace {

namespace json = boost::json;

TEST(ChatTemplate, AgreesWithPythonOnEveryFeature) {
  int num_cases = 0;
  for (const json::object& row : json_lines(own_file("language_cases.jsonl"))) {
    const std::string source(row.at("template").as_string());
    const Result<std::string> rendered = render_once(source, row.at("context").as_object());
    const json::string& status = row.at("status").as_string();
    ++num_cases;
    if (status == "ok") {
      ASSERT_TRUE(rendered.ok()) << source << ": " << rendered.error().message;
      EXPECT_EQ(rendered.value(), std::string(row.at("expected").as_string())) << source;
      continue;
    }
    ASSERT_FALSE(rendered.ok()) << source << " rendered: " << rendered.value();
    EXPECT_EQ(rendered.error().kind, ErrorKind::kInvalidRequest);
    EXPECT_EQ(rendered.error().code, status == "raised" ? "template_raised" : "template_error") << source;
  }
  EXPECT_GT(num_cases, 150);
}

TEST(ChatTemplate, NamesTheLineThatFailed) {
  const Result<std::string> failed = render_once("a\n{% if true %}\n\n{{ nope.x }}\n{% endif %}", {});
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().message, "The chat template failed: line 4: 'nope' is undefined.");
  const Result<std::string> unparsed = render_once("a\n\n{% if %}", {});
  ASSERT_FALSE(unparsed.ok());
  EXPECT_NE(unparsed.error().message.find("line 3: expected an expression"), std::string::npos)
      << unparsed.error().message;
}

TEST(ChatTemplate, PassesOnTheTemplatesOwnWords) {
  const Result<std::string> raised = render_once("{{ raise_exception('Roles must alternate: ' ~ 1) }}", {});
  ASSERT_FALSE(raised.ok());
  EXPECT_EQ(raised.error().code, "template_raised");
  EXPECT_EQ(raised.error().message, "Roles must alternate: 1");
}

TEST(ChatTemplate, ReadsTheTimeItIsGiven) {
  const Result<ChatTemplate> parsed =
      ChatTemplate::parse("{{ strftime_now('%Y-%m-%d %H:%M:%S') }}", kUnclocked);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed.value().render({}, 0).value(), "1970-01-01 00:00:00");
  EXPECT_EQ(parsed.value().render({}, 4102444799).value(), "2099-12-31 23:59:59");
}

TEST(ChatTemplate, LeavesItsContextAlone) {
  const json::object context =
      json::parse(R"({"messages": [{"role": "user", "content": "x"}], "tools": null})").as_object();
  const json::object before = context;
  ASSERT_TRUE(render_once("{% set messages = messages + [1] %}{{ messages | length }}", context).ok());
  EXPECT_EQ(context, before);
}

TEST(ChatTemplate, RefusesASourceThatIsNotUtf8) {
  EXPECT_EQ(render_once("a\xff", {}).error().code, "template_error");
}

TEST(ChatTemplate, SurvivesAContextThatIsNotUtf8) {
  const json::object context{{"s", "a\xff\xc3z\xf0\x9f"}};
  const Result<std::string> rendered = render_once(
      "{{ s }}{{ s | length }}{{ s[1] }}{{ s[::-1] }}{{ s | upper }}{{ s.split('z') }}{{ s | tojson }}{{ [s] "
      "}}",
      context);
  EXPECT_TRUE(rendered.ok()) << rendered.error().message;
}

TEST(ChatTemplate, RendersOnManyThreadsAtOnce) {
  const Result<ChatTemplate> parsed = ChatTemplate::parse(
      "{% macro m(x) %}<{{ x | upper }}>{% endmacro %}{% set ns = namespace(n=0) %}"
      "{% for w in words %}{{ m(w) }}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}{{ 'lit' ~ 'eral' }}",
      kUnclocked);
  ASSERT_TRUE(parsed.ok());
  std::vector<std::thread> threads;
  std::vector<std::string> texts(8);
  for (size_t i = 0; i < texts.size(); ++i) {
    threads.emplace_back([&, i] {
      json::object context;
      context["words"] = json::array(i, json::value("w"));
      for (int round = 0; round < 50; ++round) texts[i] = parsed.value().render(context, 0).value();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < texts.size(); ++i) {
    std::string expected;
    for (size_t n = 0; n < i; ++n) expected += "<W>";
    EXPECT_EQ(texts[i], expected + std::to_string(i) + "literal");
  }
}

}  // namespace
}  // namespace serval
