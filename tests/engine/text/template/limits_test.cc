// What a template cannot do to us: nest, loop, grow or wait beyond TemplateLimits. A case that is not stopped
// hangs or dies here.
#include <gtest/gtest.h>

#include "tests/engine/text/template/template_cases.h"

namespace serval {
namespace {

namespace json = boost::json;

std::string repeat(std::string_view text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

void expect_limit(const std::string& name, std::string_view source, const json::object& context = {}) {
  const Result<std::string> rendered = render_once(source, context);
  ASSERT_FALSE(rendered.ok()) << name << " rendered " << rendered.value().size() << " bytes";
  EXPECT_EQ(rendered.error().code, "template_limit") << name << ": " << rendered.error().message;
}

TEST(ChatTemplateLimits, StopDeepSources) {
  expect_limit("blocks", repeat("{% if true %}", 50'000) + repeat("{% endif %}", 50'000));
  expect_limit("unclosed blocks", repeat("{% for x in y %}", 50'000));
  expect_limit("parentheses", "{{ " + repeat("(", 50'000) + "1" + repeat(")", 50'000) + " }}");
  expect_limit("lists", "{{ " + repeat("[", 50'000) + repeat("]", 50'000) + " }}");
  expect_limit("dictionaries", "{{ " + repeat("{1:", 50'000) + "1" + repeat("}", 50'000) + " }}");
  expect_limit("signs", "{{ " + repeat("-", 50'000) + "1 }}");
  expect_limit("nots", "{{ " + repeat("not ", 50'000) + "1 }}");
  expect_limit("sums", "{{ 1" + repeat(" + 1", 50'000) + " }}");
  expect_limit("logic", "{{ 1" + repeat(" and 1", 50'000) + " }}");
  expect_limit("conditions", "{{ 1" + repeat(" if 1 else 1", 50'000) + " }}");
  expect_limit("conditions without else", "{{ 1" + repeat(" if 1", 50'000) + " }}");
  expect_limit("attributes", "{{ x" + repeat(".x", 50'000) + " }}");
  expect_limit("subscripts", "{{ x" + repeat("[0]", 50'000) + " }}");
  expect_limit("calls", "{{ x" + repeat("()", 50'000) + " }}");
  expect_limit("filters", "{{ x" + repeat("|e", 50'000) + " }}");
  expect_limit("filter blocks", "{% filter e" + repeat("|e", 50'000) + " %}{% endfilter %}");
  expect_limit("arguments", "{{ " + repeat("f(", 50'000) + "1" + repeat(")", 50'000) + " }}");
  expect_limit("targets", "{% set " + repeat("(", 50'000) + "a" + repeat(")", 50'000) + " = 1 %}");
  expect_limit("powers", "{{ 2" + repeat(" ** 2", 50'000) + " }}");
  expect_limit("call blocks", repeat("{% call f() %}", 50'000) + repeat("{% endcall %}", 50'000));
}

TEST(ChatTemplateLimits, AcceptLongFlatSources) {
  EXPECT_EQ(render_once("{{ 'a'" + repeat(" ~ 'a'", 20'000) + " }}").value().size(), 20'001u);
  EXPECT_EQ(render_once("{{ [" + repeat("1,", 20'000) + "] | length }}").value(), "20000");
  EXPECT_EQ(render_once("{% if 0 %}" + repeat("{% elif 0 %}", 20'000) + "{% else %}x{% endif %}").value(),
            "x");
  EXPECT_EQ(render_once("{{ 1" + repeat(" + 1", 400) + " }}").value(), "401");
  EXPECT_EQ(render_once(repeat("{{ 'x' }}", 20'000)).value().size(), 20'000u);
}

TEST(ChatTemplateLimits, StopRecursion) {
  expect_limit("macro", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}");
  expect_limit("two macros",
               "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}");
  expect_limit("default", "{% macro m(x=m()) %}{% endmacro %}{{ m() }}");
  expect_limit("caller",
               "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{{ caller() if caller }}{% endmacro "
               "%}{{ m() }}");
  expect_limit("loop",
               "{% set ns = namespace() %}{% set ns.l = [1] %}{% for x in [1] recursive %}{{ loop(ns.l) }}{% "
               "endfor %}");
  expect_limit("branching", "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}");
}

TEST(ChatTemplateLimits, StopLoops) {
  expect_limit("range", "{% for x in range(10 ** 9) %}{{ x }}{% endfor %}");
  expect_limit("range of limits", "{{ range(-9223372036854775807, 9223372036854775807) | length }}");
  expect_limit("range length", "{{ range(10 ** 30) | length }}");
  expect_limit("nested", "{% for x in range(99999) %}{% for y in range(99999) %}{% endfor %}{% endfor %}");
  expect_limit("filters", "{% for x in range(99999) %}{% set y = range(99999) | sum %}{% endfor %}");
  expect_limit(
      "joins",
      "{% set l = range(99999) | list %}{% for x in l %}{% set y = l | map('string') | join %}{% endfor %}");
  expect_limit("membership", "{% set l = range(99999) | list %}{% for x in l %}{{ -1 in l }}{% endfor %}");
  expect_limit(
      "sorting",
      "{% set l = range(99999) | list %}{% for x in l %}{% set l = l | sort(reverse=true) %}{% endfor %}");
}

TEST(ChatTemplateLimits, StopGrowth) {
  const std::string double_forty = "{% set ns = namespace(s='ab') %}{% for i in range(40) %}{% set ns.s = ";
  expect_limit("text sum", double_forty + "ns.s + ns.s %}{% endfor %}");
  expect_limit("text concatenation", double_forty + "ns.s ~ ns.s %}{% endfor %}");
  expect_limit("text product", double_forty + "ns.s * 2 %}{% endfor %}");
  expect_limit("text replace", double_forty + "ns.s.replace('', 'xx') %}{% endfor %}");
  expect_limit("text format", double_forty + "'%s%s' % (ns.s, ns.s) %}{% endfor %}");
  expect_limit("text brace format", double_forty + "'{0}{0}'.format(ns.s) %}{% endfor %}");
  expect_limit("text join", double_forty + "[ns.s, ns.s] | join %}{% endfor %}");
  expect_limit("text escape", double_forty + "('<' ~ ns.s ~ '<' ~ ns.s) | forceescape %}{% endfor %}");
  expect_limit("text block", "{% set s = 'ab' %}" + repeat("{% set s %}{{ s }}{{ s }}{% endset %}", 40));
  expect_limit(
      "list sum",
      "{% set ns = namespace(s=[1]) %}{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}");
  expect_limit("list product", "{{ ([1] * 10 ** 9) | length }}");
  expect_limit("product of a product", "{{ (('a' * 4000000) | list) | length }}");
  expect_limit("huge product", "{{ 'a' * 10 ** 30 }}");
  expect_limit("centre", "{{ 'a'.center(2 ** 31) }}");
  expect_limit("fill", "{{ 'a'.zfill(10 ** 12) }}");
  expect_limit("width", "{{ '%999999999d' % 1 }}");
  expect_limit("brace width", "{{ '{:>999999999}'.format(1) }}");
  expect_limit("precision", "{{ '%.999999999f' % 1.0 }}");
  expect_limit("indent", "{{ 'a\nb' | indent(10 ** 12) }}");
  expect_limit("json indent", "{{ [1] | tojson(indent=10 ** 12) }}");
  expect_limit("deep json indent", "{{ [[[[[[1]]]]]] | tojson(indent=3000000) }}");
  expect_limit("batch", "{{ [1] | batch(10 ** 12, 'x') | list }}");
  expect_limit("slice", "{{ [1] | slice(10 ** 12) | list }}");
  expect_limit("time", "{{ strftime_now('%099999999d') }}");
  expect_limit("time format", "{{ strftime_now('x' * 100000) }}");
  expect_limit("output", "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}");
  expect_limit("live texts",
               "{% set ns = namespace(l=[]) %}{% for i in range(999) %}{% set ns.l = ns.l + ['x' * 1000000 ~ "
               "i] %}{% endfor %}");
  expect_limit("namespace",
               "{% set ns = namespace() %}{% for i in range(99999) %}{% set ns.x = namespace(a=ns.x, b='x' * "
               "1000) %}{% endfor %}");
}

TEST(ChatTemplateLimits, StopDeepAndSharedValues) {
  // Each step wraps what was there: the depth of a value, not of the source.
  const std::string wrap = "{% set ns = namespace(v=1) %}{% for i in range(99999) %}{% set ns.v = ";
  expect_limit("list", wrap + "[ns.v] %}{% endfor %}{{ ns.v }}");
  expect_limit("tuple", wrap + "(ns.v,) %}{% endfor %}{{ ns.v }}");
  expect_limit("dictionary", wrap + "{'a': ns.v} %}{% endfor %}{{ ns.v }}");
  expect_limit("key", wrap + "{(ns.v, 1): 1}.keys() | first %}{% endfor %}{{ ns.v }}");
  expect_limit("method", wrap + "[ns.v].index %}{% endfor %}{{ ns.v }}");
  expect_limit("joiner", wrap + "joiner(ns.v) %}{% endfor %}{{ ns.v }}");
  expect_limit("cycler", wrap + "cycler(ns.v) %}{% endfor %}{{ ns.v }}");
  expect_limit("cycler's method", wrap + "cycler(ns.v).next %}{% endfor %}{{ ns.v }}");
  // A value that is small to hold and exponential to walk.
  const std::string share =
      "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% set "
      "ns.b = [ns.b, ns.b] %}{% endfor %}";
  expect_limit("print", share + "{{ ns.a }}");
  expect_limit("json", share + "{{ ns.a | tojson }}");
  expect_limit("equality", share + "{{ ns.a == ns.b }}");
  expect_limit("order", share + "{{ ns.a < ns.b }}");
  expect_limit("sort", share + "{{ [ns.a, ns.b] | sort }}");
  const std::string tuples =
      "{% set ns = namespace(a=(1, 2), b=(1, 2)) %}{% for i in range(60) %}{% set ns.a = (ns.a, ns.a) %}{% "
      "set ns.b = (ns.b, ns.b) %}{% endfor %}";
  expect_limit("key comparison", tuples + "{{ {ns.a: 1}[ns.b] }}");
}

TEST(ChatTemplateLimits, FreeWhatHoldsItself) {
  // AddressSanitizer sees what stays behind.
  for (const std::string_view source :
       {"{% set ns = namespace() %}{% set ns.me = ns %}{{ ns.me.me is defined }}",
        "{% set ns = namespace() %}{% macro m() %}{{ ns }}{% endmacro %}{% set ns.m = m %}{% set ns.l = [ns, "
        "m] %}",
        "{% for x in [1] %}{% set y = loop %}{% macro m() %}{{ loop }}{{ y }}{% endmacro %}{{ "
        "loop.changed(loop, loop.changed) }}{% endfor %}",
        "{% set ns = namespace() %}{% for x in [1, 2] %}{{ ns.l.changed(ns) if ns.l }}{% set ns.l = loop "
        "%}{% endfor %}{{ ns.l.changed(ns.l) }}{{ ns.l.index }}{{ ns.l.last }}{{ ns.l.length }}",
        "{% macro m() %}{% set ns.c = caller %}{% endmacro %}{% set ns = namespace() %}{% call m() %}x{% "
        "endcall %}"}) {
    const Result<std::string> rendered = render_once(source);
    EXPECT_TRUE(rendered.ok() || rendered.error().code == "template_error") << rendered.error().message;
  }
  EXPECT_FALSE(render_once("{% set ns = namespace() %}{% for x in [1] recursive %}{% set ns.l = loop "
                           "%}{% endfor %}{{ ns.l([2]) }}")
                   .ok());
}

TEST(ChatTemplateLimits, LeadNowhereOutsideTheData) {
  for (const std::string_view name :
       {"__class__", "__globals__", "__init__", "__mro__", "__subclasses__", "__builtins__", "__dict__",
        "func_globals", "gi_frame", "mro", "_private"}) {
    for (const std::string_view object : {"''", "1", "1.5", "[]", "{}", "()", "none", "range", "namespace",
                                          "namespace()", "cycler", "cycler(1)", "dict", "joiner()", "''.join",
                                          "[].index", "raise_exception", "(range(2) | map('string'))"}) {
      for (const char* access : {".", "['", "|attr('"}) {
        std::string expression = "(" + std::string(object) + ")" + access + std::string(name);
        if (access[0] == '[') expression += "']";
        if (access[0] == '|') expression += "')";
        EXPECT_EQ(render_once("{{ " + expression + " }}").value(), "") << expression;
        EXPECT_FALSE(render_once("{{ (" + expression + ").x }}").ok()) << expression;
        EXPECT_FALSE(render_once("{{ (" + expression + ")() }}").ok()) << expression;
      }
    }
  }
  // A key of that name is data like any other.
  const json::object context{{"d", {{"__class__", "mine"}}}};
  EXPECT_EQ(render_once("{{ d['__class__'] }}", context).value(), "mine");
}

TEST(ChatTemplateLimits, BoundTheContext) {
  json::value deep = 1;
  for (int i = 0; i < 500; ++i) deep = json::array{std::move(deep)};
  expect_limit("deep", "x", {{"v", deep}});
  json::value shallow = 1;
  for (int i = 0; i < 100; ++i) shallow = json::object{{"a", std::move(shallow)}};
  EXPECT_TRUE(render_once("{{ v }}{{ v | tojson(indent=1) }}{{ v == v }}", {{"v", shallow}}).ok());
  expect_limit("text", "x", {{"v", std::string(5 << 20, 'x')}});
  json::array texts;
  for (int i = 0; i < 100; ++i) texts.push_back(json::value(std::string(1 << 20, 'x')));
  expect_limit("all of it", "x", {{"v", texts}});
}

TEST(ChatTemplateLimits, SearchInLinearTime) {
  // Each of these takes minutes with a search that starts over at every place.
  json::object context;
  context["text"] = std::string(3'000'000, 'a');
  context["needle"] = std::string(1'500'000, 'a') + "b";
  context["spaces"] = std::string(3'000'000, ' ');
  for (const std::string_view expression :
       {"needle in text", "text.find(needle)", "text.rfind(needle)", "text.count(needle)",
        "text.replace(needle, '') | length", "text.split(needle) | length", "text.rsplit(needle) | length",
        "text.partition(needle) | length", "text | replace(needle, '') | length",
        "text.strip(needle) | length", "spaces.split() | length", "spaces | trim | length",
        "spaces | wordcount", "spaces | title | length"}) {
    const Result<std::string> rendered = render_once("{{ " + std::string(expression) + " }}", context);
    EXPECT_TRUE(rendered.ok()) << expression << ": " << rendered.error().message;
  }
}

TEST(ChatTemplateLimits, KeepTheClock) {
  const TemplateLimits limits{.max_steps = INT64_MAX, .max_wall_ms = 20};
  const Result<std::string> rendered = render_once(
      "{% for x in range(99999) %}{% for y in range(99999) %}{% endfor %}{% endfor %}", {}, limits);
  ASSERT_FALSE(rendered.ok());
  EXPECT_EQ(rendered.error().code, "template_limit");
  EXPECT_NE(rendered.error().message.find("20 ms"), std::string::npos) << rendered.error().message;
}

TEST(ChatTemplateLimits, LeaveRoomForWork) {
  // 2,000 turns of 1 KB each, with the usual handling of each turn, within the default limits.
  json::array messages;
  for (int i = 0; i < 2'000; ++i) {
    messages.push_back(
        {{"role", i % 2 ? "assistant" : "user"}, {"content", std::string(1'000, 'x') + "</think> y "}});
  }
  const Result<std::string> rendered = render_once(
      "{% for m in messages %}{% set c = m.content %}{% if '</think>' in c %}{% set c = "
      "c.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
      "{{ '<|' + m['role'] + '|>' + m.content | trim + c }}{% if not loop.last %}\n{% endif %}{% endfor %}",
      {{"messages", messages}});
  ASSERT_TRUE(rendered.ok()) << rendered.error().message;
  EXPECT_GT(rendered.value().size(), 2'000'000u);
}

}  // namespace
}  // namespace serval
