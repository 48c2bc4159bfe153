#include "engine/grammar/grammar.h"

#include <gtest/gtest.h>

#include "tests/engine/grammar/suite.h"

namespace serval {
namespace {

using Compiled = Result<std::shared_ptr<const Grammar>>;

void expect_decisions(const Compiled& grammar, const std::vector<std::string>& accepted,
                      const std::vector<std::string>& rejected) {
  ASSERT_TRUE(grammar.ok()) << grammar.error().message;
  for (const std::string& text : accepted) EXPECT_TRUE(test::accepts(*grammar.value(), text)) << text;
  for (const std::string& text : rejected) EXPECT_FALSE(test::accepts(*grammar.value(), text)) << text;
}

std::string refused_for(const Compiled& grammar) { return grammar.ok() ? "" : grammar.error().param; }

TEST(Grammar, MatchesARegularExpressionAsAWhole) {
  expect_decisions(Grammar::regex(R"((\d{3})-[a-f]+|x{0,2})"), {"123-abc", "", "xx"}, {"123-", "xxx", "1123-a"});
  expect_decisions(Grammar::regex(R"(\bfoo\b.*)"), {"foo", "foo bar"}, {"foobar"});
  expect_decisions(Grammar::regex(R"((?!ab)[a-z]+)"), {"ac", "ba", "a"}, {"ab", "abc"});
  expect_decisions(Grammar::regex(R"([^\x00-\x7f]\p{Lu})"), {"éÄ"}, {"eÄ", "éä"});
}

TEST(Grammar, RefusesWhatNoAutomatonHas) {
  for (const char* regex : {R"((a)\1)", "(?<=a)b", "[a", "(a", "a**+", "a{2}{3}", "a{3,2}", "\\"})
    EXPECT_EQ(refused_for(Grammar::regex(regex)), "pattern") << regex;
}

TEST(Grammar, KeepsToItsBoundsWhateverItIsAsked) {
  for (const char* regex :
       {"(a|b)*a(a|b){60}", "((((a{99999}){99999}){99999}){99999})", "((){99999}){99999}"}) {
    const Compiled grammar = Grammar::regex(regex);
    EXPECT_EQ(grammar.ok() ? "" : grammar.error().code, "grammar_too_complex") << regex;
  }
  std::string deep, any = R"({"anyOf":[)";
  for (int i = 0; i < 500; ++i) deep += "(";
  EXPECT_EQ(refused_for(Grammar::regex(deep)), "pattern");
  for (int i = 0; i < 40; ++i)
    any += R"({"properties":{"p)" + std::to_string(i) + R"(":{"const":1}},"required":["p)" + std::to_string(i) + R"("]},)";
  any.back() = ']';
  const Compiled product = Grammar::json_schema(R"({"allOf":[)" + any + "}," + any + "}," + any + "}]}");
  EXPECT_EQ(product.ok() ? "" : product.error().code, "grammar_too_complex");
}

TEST(Grammar, ListsChoices) {
  expect_decisions(Grammar::choice({"yes", "no", "nö"}), {"yes", "no", "nö"}, {"", "ye", "yesno"});
  EXPECT_EQ(refused_for(Grammar::choice({})), "choice");
}

TEST(Grammar, ReadsGbnf) {
  const Compiled arithmetic = Grammar::ebnf(R"gbnf(
# sums in parentheses
root ::= expr
expr ::= term ([-+] term)*
term ::= num | "(" expr ")"
num  ::= [0-9]{1,3}
         | "\x78" # x
)gbnf");
  expect_decisions(arithmetic, {"1", "1+2", "(1+(23-x))+9"}, {"", "1+", "((1)", "1234", "y"});
  expect_decisions(Grammar::ebnf("root ::= \"a\" root \"b\" | \"\"\n"), {"", "ab", "aaabbb"}, {"a", "abb", "ba"});
}

TEST(Grammar, ReadsLark) {
  const Compiled lists = Grammar::ebnf(R"lark(
%import common.INT
?start: list | NAME
list: "[" [item ("," item)*] "]"   -> listing
item: start | INT | /x+\/y/ | "k"i ~ 2..3 | "a".."c"
NAME.2: /[A-Z][a-z]*/
)lark");
  expect_decisions(lists, {"Name", "[]", "[12,[Ab],xx/y,kKk,b]"}, {"name", "[", "[1,]", "[k]", "[d]"});
}

TEST(Grammar, RefusesGrammarsThatCannotBegin) {
  EXPECT_EQ(refused_for(Grammar::ebnf("root ::= root \"a\" | \"b\"")), "grammar");
  EXPECT_EQ(refused_for(Grammar::ebnf("root ::= empty root \"a\" | \"b\"\nempty ::= \"\" | \"e\"")), "grammar");
  EXPECT_EQ(refused_for(Grammar::ebnf("root ::= \"a\" root")), "grammar") << "never ends";
  EXPECT_EQ(refused_for(Grammar::ebnf("root ::= other")), "grammar");
  EXPECT_EQ(refused_for(Grammar::ebnf("start: \"a\"\n%ignore \" \"")), "grammar");
  EXPECT_EQ(refused_for(Grammar::ebnf("root ::= \"a")), "grammar");
}

TEST(Grammar, TakesPropertiesInAnyOrderEachOnce) {
  expect_decisions(
      Grammar::json_schema(
          R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"enum":["x","y"]}},"required":["b"],
              "additionalProperties":false})"),
      {R"({"b":"x"})", R"({"a": 1, "b": "y"})", R"({"b":"x","a":-2})", "{\n  \"\\u0062\": \"\\u0078\"\n}"},
      {"{}", R"({"a":1})", R"({"b":"x","b":"x"})", R"({"b":"z"})", R"({"b":"x","c":1})", R"({"b":"x",})"});
}

TEST(Grammar, SpellsNumbersInDecimal) {
  expect_decisions(Grammar::json_schema(R"({"minimum":-1.5,"exclusiveMaximum":20,"multipleOf":0.25})"),
                   {"-1.5", "-1.50", "0", "-0", "19.75", "\"text\""}, {"-1.75", "20", "20.0", "0.3", "1e1", "01"});
  expect_decisions(Grammar::json_schema(R"({"const":1})"), {"1", "1.0"}, {"1.01", "11", "true", "-1"});
  expect_decisions(Grammar::json_schema(R"({"type":"integer"})"), {"1", "1.0", "1e3", "-0"}, {"1.5", "1e-3", "\"1\""});
}

TEST(Grammar, KnowsStringsByTheirCharacters) {
  expect_decisions(Grammar::json_schema(R"({"type":"string","minLength":2,"maxLength":2})"),
                   {R"("ab")", R"("é\u00e9")", R"("\ud83d\ude00x")", R"("\"\\")"},
                   {R"("a")", R"("abc")", R"("\ud83d")", R"("\ude00\ud83d")", "\"a\n\"", "\"\xc3\"", "\"\xed\xa0\x80x\""});
}

TEST(Grammar, ComparesItems) {
  expect_decisions(Grammar::json_schema(R"({"uniqueItems":true})"),
                   {"[]", R"([1,true,"1",[1],{"a":1}])", R"([{"a":1},{"a":2}])", "[10,1,0.1]"},
                   {"[1,1.0]", R"(["a","\u0061"])", R"([{"a":1,"b":2},{"b":2.0,"a":1}])", "[[1],[1]]", "[0,-0]"});
}

TEST(Grammar, KnowsWhetherAnotherItemIsLeft) {
  expect_decisions(Grammar::json_schema(R"({"uniqueItems":true,"items":{"pattern":"b$"}})"), {R"(["b","ab","aab"])"},
                   {R"(["b","b"])"});
  GrammarMatcher matcher(Grammar::json_schema(R"({"uniqueItems":true,"items":{"enum":["ab","ac","d"]}})").value());
  ASSERT_TRUE(matcher.advance(R"(["ab","d","a)"));
  EXPECT_FALSE(matcher.advance("b"));
  ASSERT_TRUE(matcher.advance("c\""));
  EXPECT_FALSE(matcher.advance(","));
}

TEST(Grammar, ASchemaThatIsAlwaysFalseMatchesNothing) {
  const Compiled never = Grammar::json_schema(R"({"allOf":[{"type":"string"},{"type":"null"}]})");
  ASSERT_TRUE(never.ok());
  EXPECT_TRUE(never.value()->matches_nothing());
  EXPECT_FALSE(Grammar::json_object().value()->matches_nothing());
}

TEST(Grammar, NamesTheKeywordThatCannotBeEnforced) {
  for (const auto& [keyword, schema] : std::vector<std::pair<std::string, std::string>>{
           {"$ref", R"({"$ref":"#/$defs/missing"})"},
           {"$ref", R"({"$ref":"https://example.com/other"})"},
           {"$ref", R"({"$ref":"#"})"},
           {"pattern", R"({"pattern":"(a)\\1"})"},
           {"format", R"({"format":"regex"})"},
           {"type", R"({"type":"text"})"},
           {"minLength", R"({"minLength":1000000})"},
           {"maxLength", R"({"maxLength":30000})"},
           {"multipleOf", R"({"multipleOf":0.123456789})"},
           {"uniqueItems", R"({"not":{"uniqueItems":true}})"},
           {"unevaluatedItems", R"({"contains":{"const":1},"unevaluatedItems":false})"},
           {"properties", R"({"properties":[]})"},
           {"items", R"({"items":3})"}})
    EXPECT_EQ(refused_for(Grammar::json_schema(schema)), keyword) << schema;
}

TEST(Grammar, AMatcherStaysWhereItWasWhenRefusedAndACopyGoesItsOwnWay) {
  GrammarMatcher matcher(Grammar::json_schema(R"({"items":{"enum":["ab","ac"]},"type":"array"})").value());
  ASSERT_TRUE(matcher.advance("[\"a"));
  GrammarMatcher other = matcher;
  EXPECT_FALSE(matcher.advance("b\", \"x"));
  EXPECT_TRUE(matcher.advance("c\"]"));
  EXPECT_TRUE(matcher.accepting());
  EXPECT_TRUE(matcher.finished());
  EXPECT_TRUE(other.advance("b\""));
  EXPECT_FALSE(other.accepting());
  EXPECT_FALSE(other.finished());
}

TEST(Grammar, EndsWhereWhatItStillCallsMayBeEmpty) {
  expect_decisions(Grammar::ebnf("root ::= \"x\" a a\na ::= \"\" | \"(\" a \")\"\n"), {"x", "x()", "x(())()"}, {"", "x(", "x()()()"});
}

// A schema of one argument.
const std::string kCity = R"({"type":"object","properties":{"city":{"type":"string","maxLength":5}},"required":["city"],"additionalProperties":false})";

TEST(StructuralTags, LeaveTextFreeUntilATriggerBeginsAForm) {
  const std::string tags = R"("triggers":["<call="],"tags":[{"begin":"<call=time>","content":{"type":"json_schema","json_schema":)" + kCity +
                           R"(},"end":"</call>"},{"begin":"<call=now>","content":{"type":"const_string","value":""},"end":["</call>","<end>"]}])";
  const std::string call = R"(<call=time>{"city":"Rome"}</call>)";
  expect_decisions(Grammar::structural_tag(R"({"type":"structural_tag","format":{"type":"triggered_tags",)" + tags + "}}"),
                   {"", "no call", "a < b <cal <call time", call, "So: " + call + " and <call=now></call> é", "<<call=now><end>", "<call=now></call><call=now></call>"},
                   {"<call=", "<call=other></call>", R"(<call=time>{"city":"Lisbon"}</call>)", R"(<call=time>{"city":5}</call>)", R"(<call=time>{"city":"Rome"})", "<call=now>", "<call=now></call><call=now>"});
  expect_decisions(Grammar::structural_tag(R"({"type":"triggered_tags","at_least_one":true,"stop_after_first":true,)" + tags + "}"), {call, "<call=now></call>"},
                   {"", "text", " " + call, call + " ", call + call});
  expect_decisions(Grammar::structural_tag(R"({"type":"triggered_tags","stop_after_first":true,"excludes":["bad"],)" + tags + "}"), {"", "text", "text" + call, "ba"},
                   {call + "x", "a bad text", "bad" + call});
  expect_decisions(Grammar::structural_tag(R"({"structures":[{"begin":"<f>","schema":{"type":"integer"},"end":"</f>"}],"triggers":["<f"]})"), {"x", "x<f>12</f>y"}, {"<fx", "<f>a</f>"});
}

TEST(StructuralTags, AreMadeOfEachOther) {
  expect_decisions(Grammar::structural_tag(R"({"type":"sequence","elements":[{"type":"tag","begin":"<think>","content":{"type":"any_text"},"end":"</think>"},
      {"type":"or","elements":[{"type":"regex","pattern":"[0-9]{2}"},{"type":"json_schema","json_schema":{"type":"array"}}]},{"type":"optional","content":{"type":"const_string","value":"!"}}]})"),
                   {"<think></think>12", "<think>a</think>[1]!", "<think>a<b</think> [ ]", "<think></thin</think>12"}, {"12", "<think>x</think>1", "<think>a</think>b</think>12", "<think>a</think>[1]!!"});
  expect_decisions(Grammar::structural_tag(R"({"type":"tags_with_separator","separator":", ","tags":[{"type":"tag","begin":"<","content":{"type":"grammar","grammar":"root ::= \"a\" | \"(\" root \")\""},"end":">"}]})"),
                   {"", "<a>", "<(a)>, <a>, <((a))>"}, {"<a>,<a>", "<a>, ", "<>", "<(a>"});
  expect_decisions(Grammar::structural_tag(R"({"type":"tag","begin":"[","end":"]","content":{"type":"dispatch","rules":[["#",{"type":"regex","pattern":"\\d"}]]}})"), {"[]", "[a]", "[a#1b#2]"},
                   {"[a#b]", "[a]]", "[#]", "a"});
  expect_decisions(Grammar::structural_tag(R"({"type":"dispatch","loop":false,"rules":[["#",{"type":"json_schema","json_schema":{"type":"integer"}}]]})"), {"", "a", "a#12"}, {"a#", "a#12b", "a#1#2"});
  expect_decisions(Grammar::structural_tag(R"({"type":"sequence","elements":[{"type":"triggered_tags","ends_with_tag":true,"triggers":["<a>"],"tags":[{"begin":"<a>","content":{"type":"const_string","value":"1"},"end":";"}]},
      {"type":"any_text","excludes":["<a>"]}]})"), {"", "x", "x<a>1;y<a>1;<a"}, {"x<a>2", "<a>1;<a>"});
  // Loops of what may be empty get on, and end.
  expect_decisions(Grammar::structural_tag(R"({"type":"star","content":{"type":"star","content":{"type":"any_text","excludes":["x"]}}})"), {"", "abc"}, {"x"});
  expect_decisions(Grammar::structural_tag(R"({"type":"repeat","min":1,"max":2,"content":{"type":"json_schema","json_schema":{"type":"integer","minimum":10,"maximum":99}}})"), {"12", "1234"}, {"", "123", "123456"});
}

TEST(StructuralTags, HoldArgumentsBetweenTagsToTheirSchema) {
  const std::string schema = R"({"type":"object","properties":{"city":{"type":"string","maxLength":5},"hours":{"type":"integer","minimum":0,"maximum":23},"unit":{"enum":["C","F"]}},"required":["city","hours"]})";
  const auto styled = [&](const std::string& style) { return Grammar::structural_tag(R"({"type":"json_schema","style":")" + style + R"(","json_schema":)" + schema + "}"); };
  expect_decisions(styled("qwen_xml"),
                   {"<parameter=city>\nRome\n</parameter>\n<parameter=hours>\n7\n</parameter>\n", "<parameter=hours>7</parameter><parameter=unit>C</parameter><parameter=city>Rome</parameter>",
                    "<parameter=city>\n\na\n\n</parameter>\n<parameter=hours>\n23\n</parameter>", "<parameter=city>abcde\n</parameter><parameter=hours>0</parameter>", "<parameter=city>\nabcde</parameter><parameter=hours>0</parameter>"},
                   {"", "<parameter=city>\nRome\n</parameter>\n", "<parameter=city>\nLisbon\n</parameter>\n<parameter=hours>\n7\n</parameter>\n", "<parameter=city>\nRomeo!</parameter><parameter=hours>7</parameter>",
                    "<parameter=city>R</parameter><parameter=hours>24</parameter>", "<parameter=city>R</parameter><parameter=hours>1</parameter><parameter=city>R</parameter>",
                    "<parameter=city>R</parameter><parameter=hours>1</parameter><parameter=unit>K</parameter>", "<parameter=city>\"Rome\"x</parameter><parameter=hours>1</parameter>"});
  expect_decisions(styled("minimax_xml"), {"<parameter name=\"city\">Rome</parameter>\n<parameter name=\"hours\">7</parameter>"}, {"<parameter name=\"city\">Rome</parameter>"});
  expect_decisions(styled("glm_xml"), {"<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n<arg_key>hours</arg_key>\n<arg_value>7</arg_value>"}, {"<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>"});
  expect_decisions(styled("python"), {"city=\"Rome\", hours=7", "hours=7,unit=\"F\", city=\"R\""}, {"city=Rome, hours=7", "city=\"Rome\" hours=7", ", city=\"Rome\", hours=7", "city=\"Rome\", hours=24"});
  std::string many = R"({"type":"object","properties":{)", all, unordered;
  for (int i = 0; i < 12; ++i) {
    const std::string name = "p" + std::to_string(i);
    many += (i > 0 ? ",\"" : "\"") + name + "\":{\"type\":\"boolean\"}";
    (i % 2 == 0 ? all : unordered) += name + (i < 10 ? "=true," : "=True");
  }
  many += R"(},"required":["p0","p2","p4","p6","p8","p10"]})";
  expect_decisions(Grammar::structural_tag(R"({"type":"json_schema","style":"python","json_schema":)" + many + "}"), {all, all + ",p11=False", "p0=true,p1=False" + all.substr(7)}, {unordered, "p0=true,p4=true", "p1=true," + all});
}

TEST(StructuralTags, RefuseWhatTheyCannotEnforce) {
  const auto refused = [](const std::string& tag) { return refused_for(Grammar::structural_tag(tag)); };
  EXPECT_EQ(refused("[]"), "structural_tag");
  EXPECT_EQ(refused("{}"), "type");
  EXPECT_EQ(refused(R"({"type":"any_tokens"})"), "type");
  EXPECT_EQ(refused(R"({"format":{"type":"token","token":5}})"), "format.type");
  EXPECT_EQ(refused(R"({"type":"const_string","value":"x","more":1})"), "more");
  EXPECT_EQ(refused(R"({"type":"json_schema","json_schema":false})"), "json_schema");
  EXPECT_EQ(refused(R"({"type":"json_schema","json_schema":{"not":{"uniqueItems":true}}})"), "uniqueItems");
  EXPECT_EQ(refused(R"({"type":"json_schema","style":"qwen_xml","json_schema":{"type":"object","minProperties":1}})"), "minProperties");
  EXPECT_EQ(refused(R"({"type":"triggered_tags","triggers":["<a"],"tags":[{"begin":"<b","content":{"type":"any_text"},"end":"x"}]})"), "tags[0].begin");
  EXPECT_EQ(refused(R"({"type":"star","content":{"type":"grammar","grammar":"root ::= a\na ::= \"\" | \"(\" a \")\""}})"), "grammar");
  std::string deep = R"({"type":"any_text"})";
  for (int i = 0; i < 60; ++i) deep = R"({"type":"optional","content":)" + deep + "}";
  EXPECT_NE(refused(deep), "");
}

}  // namespace
}  // namespace serval
