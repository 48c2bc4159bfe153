#include "engine/grammar/token_mask.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/engine/grammar/suite.h"

namespace serval {
namespace {

// All bytes, pieces of the texts of a few kinds of JSON, and some tokens that no text of JSON has.
std::vector<std::string> vocabulary() {
  std::vector<std::string> tokens = {"", "\xff\xfe", "<|end|>", std::string(40, ' '), std::string(40, 'a')};
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  const std::string text =
      "{\"name\": \"Jané\", \"tags\":[\"a\\n\", \"\\u00e9x\", \"\\ud83d\\ude00\"],\n  \"value\":-12.50e3, \"more\": {\"a\":true, "
      "\"b\":null,\"c\":[[],{}]}, \"日本語\": false}\n\t(x+1)*22 \"red\",\"green\"]}}";
  std::mt19937 random(1);
  while (tokens.size() < 1500) {
    const size_t begin = random() % text.size();
    tokens.push_back(text.substr(begin, 2 + random() % 7));
  }
  return tokens;
}

struct MaskCase {
  const char* name;
  Result<std::shared_ptr<const Grammar>> grammar;
};
std::vector<MaskCase> mask_cases() {
  return {
      {"anything", Grammar::json_schema("{}")},
      {"object", Grammar::json_object()},
      {"closed",
       Grammar::json_schema(
           R"({"type":"object","properties":{"name":{"type":"string","maxLength":40},"tags":{"type":"array","items":{
               "enum":["red","green"]},"uniqueItems":true,"maxItems":2},"value":{"type":"number","minimum":-20,
               "maximum":1000}},"required":["name","tags"],"additionalProperties":false})")},
      {"open",
       Grammar::json_schema(
           R"({"type":"object","properties":{"name":{"pattern":"^[a-z]{3,60}$"},"a":{"type":"boolean"}},"required":["name"],
               "maxProperties":3,"dependentRequired":{"a":["b"]},"patternProperties":{"^x":{"type":"integer"}}})")},
      {"choices", Grammar::json_schema(
                      R"({"anyOf":[{"type":"object","properties":{"a":{"const":true}},"required":["a"]},
                      {"type":"object","properties":{"a":{"type":"null"},"c":{"type":"array"}},"required":["c","a"]}]})")},
      {"recursive", Grammar::json_schema(
                        R"({"$defs":{"n":{"type":"object","properties":{"c":{"type":"array","items":{"$ref":"#/$defs/n"},
                        "maxItems":3}},"additionalProperties":false}},"$ref":"#/$defs/n"})")},
      {"distinct", Grammar::json_schema(R"({"type":"array","uniqueItems":true,"items":{"type":["string","integer"],
                                            "maxLength":3,"minimum":0,"maximum":99},"contains":{"const":"a"}})")},
      {"regex", Grammar::regex(R"((\(x\+\d{1,3}\)\*?|[a-zé]{2,9} )+)")},
      {"tags", Grammar::structural_tag(R"({"type":"triggered_tags","triggers":["{\"","<|"],"tags":[{"begin":"{\"name\": ","content":{"type":"sequence","elements":[{"type":"regex",
               "pattern":"\"[^\"]{1,30}\""},{"type":"json_schema","json_schema":{"type":["array","number"]}}]},"end":"}"},{"begin":"<|end|>","content":{"type":"any_text"},"end":["]","red"]}]})")},
      {"arguments", Grammar::structural_tag(R"({"type":"json_schema","style":"python","json_schema":{"properties":{"x":{"type":"integer"},"a":{"type":["string","boolean"]}}}})")},
      {"grammar", Grammar::ebnf("root ::= e\ne ::= t ([-+*] t)*\nt ::= [0-9]+ | \"x\" | \"(\" e \")\" | \"\\\"\" [^\"]* \"\\\"\"\n")},
  };
}

void expect_masks_of_the_matcher(const std::vector<std::string>& tokens, const std::vector<MaskCase>& mask_cases) {
  const std::vector<std::string_view> views(tokens.begin(), tokens.end());
  const auto trie = std::make_shared<const TokenTrie>(views, static_cast<int>(views.size()) + 5);
  for (const MaskCase& mask_case : mask_cases) {
    ASSERT_TRUE(mask_case.grammar.ok()) << mask_case.name << mask_case.grammar.error().message;
    // One that keeps everything and one that keeps next to nothing.
    TokenMasks keeping(mask_case.grammar.value(), trie, size_t{64} << 20);
    TokenMasks forgetting(mask_case.grammar.value(), trie, 1000);
    std::mt19937 random(7);
    int ended = 0, stuck = 0;
    for (int run = 0; run < 12; ++run) {
      GrammarMatcher matcher(mask_case.grammar.value());
      std::string text;
      for (int step = 0; step < 60; ++step) {
        std::vector<uint32_t> mask(trie->num_words(), ~0u), again(trie->num_words(), 0u);
        keeping.fill(matcher, mask);
        forgetting.fill(matcher, again);
        ASSERT_EQ(mask, again) << mask_case.name << ": " << text;
        std::vector<size_t> allowed;
        for (size_t id = 0; id < tokens.size(); ++id) {
          GrammarMatcher copy = matcher;
          const bool takes = !tokens[id].empty() && copy.advance(tokens[id]);
          const bool is_set = mask[id / 32] >> id % 32 & 1;
          ASSERT_EQ(is_set, takes) << mask_case.name << ": " << text << " then " << tokens[id];
          if (takes) allowed.push_back(id);
        }
        for (size_t id = tokens.size(); id < 32 * mask.size(); ++id)
          ASSERT_FALSE(mask[id / 32] >> id % 32 & 1) << id;
        if (matcher.accepting() && (allowed.empty() || random() % 4 == 0)) {
          ++ended;
          break;
        }
        if (allowed.empty()) {
          ++stuck;
          ADD_FAILURE() << mask_case.name << " is stuck behind " << text;
          break;
        }
        const size_t drawn = allowed[random() % allowed.size()];
        ASSERT_TRUE(matcher.advance(tokens[drawn]));
        text += tokens[drawn];
      }
    }
    EXPECT_EQ(stuck, 0) << mask_case.name;
  }
}

TEST(TokenMasks, AreWhatTheMatcherTakesTokenByToken) { expect_masks_of_the_matcher(vocabulary(), mask_cases()); }

// Items that begin, end or stand whole within a token, of few letters, so that they are often one of those before, or the same twice.
TEST(TokenMasks, KnowWhichItemsWereThere) {
  std::vector<std::string> tokens = {"[", "]", "\"", "a", "b", "\xc3", "\xa9", "\\u", "00", "61", "null", ","};
  for (const char* const item : {"", "a", "b", "ab", "\\u0061", "\\u00"}) {
    for (const char* const next : {"\"]", "\",\"", "\",\"a", "\",\"a\",\"", "\",\"\",\"b\"", "\",null", "\",null,\"b", "\",[\"a\"],\"", "\",[null,null],\"", "\",\"\xc3"})
      tokens.push_back(std::string(item) + next);
  }
  const auto schema = [](std::string items) { return Grammar::json_schema(R"({"type":"array","uniqueItems":true,"items":)" + items + "}"); };
  const auto cases = [&]() -> std::vector<MaskCase> {
    return {{"any length", schema(R"({"type":["string","null","array"],"pattern":"^[abé]*$"})")},
            {"nothing else", schema(R"({"type":"string","pattern":"^[abé]*$"})")},
            {"45", schema(R"({"type":["string","null"],"pattern":"^[ab]*$","maxLength":45})")},
            {"90", schema(R"({"type":["string","null","array"],"pattern":"^[ab]*$","maxLength":90})")},
            {"a first", Grammar::json_schema(R"({"type":"array","uniqueItems":true,"prefixItems":[{"enum":["a","b",null]}],"items":{"type":"string","pattern":"^[ab]*$"}})")},
            {"nested", schema(R"({"type":"array","uniqueItems":true,"items":{"type":["string","null"],"pattern":"^[ab]*$"}})")}};
  };
  expect_masks_of_the_matcher(tokens, cases());
  for (const size_t length : {31, 33, 40, 70}) {
    tokens.push_back(std::string(length, 'a'));
    tokens.push_back(std::string(length, 'a') + "\"");
    tokens.push_back(std::string(length, 'a') + "\",\"b\",\"");
  }
  expect_masks_of_the_matcher(tokens, cases());
}

}  // namespace
}  // namespace serval
