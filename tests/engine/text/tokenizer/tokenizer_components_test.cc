// Every component of tokenizer.json against what the `tokenizers` library does with it:
// tests/golden/make_tokenizer_golden.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "engine/text/tokenizer/load_tokenizer.h"
#include "engine/text/tokenizer/normalizer.h"
#include "engine/text/tokenizer/pretokenizer.h"
#include "engine/text/tokenizer/tokenizer_json.h"
#include "tests/engine/text/tokenizer/tokenizer_data.h"

namespace serval::test {
namespace {

namespace json = boost::json;

json::value read_fixture(const std::string& name) {
  return json::parse(
      read_text(std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/tokenizers" / name));
}

const json::object& golden() {
  static const json::value file = read_fixture("components.json");
  return file.as_object();
}

std::string text_of(const json::value& value) {
  return std::string(value.as_string());
}

TEST(Normalizers, DoWhatTheReferenceDoes) {
  for (const json::value& row : golden().at("normalizers").as_array()) {
    const Normalizer normalizer = Normalizer::from_json(&row.at("json"));
    const json::array& texts = golden().at("texts").as_array();
    for (size_t i = 0; i < texts.size(); ++i) {
      EXPECT_EQ(normalizer.apply(text_of(texts[i])), text_of(row.at("out").at(i)))
          << row.at("name") << " of " << texts[i];
    }
  }
}

TEST(PreTokenizers, CutWhereTheReferenceCuts) {
  for (const json::value& row : golden().at("pretokenizers").as_array()) {
    const PreTokenizer pretokenizer = PreTokenizer::from_json(&row.at("json"));
    const json::array& texts = golden().at("texts").as_array();
    Pieces pieces;
    for (size_t i = 0; i < texts.size(); ++i) {
      SplitBudget budget(text_of(texts[i]).size());
      pretokenizer.split(text_of(texts[i]), /*starts_text=*/true, budget, pieces);
      json::array cut;
      for (size_t p = 0; p < pieces.spans.size(); ++p) cut.push_back(json::value(pieces.piece(p)));
      EXPECT_EQ(json::serialize(cut), json::serialize(row.at("out").at(i)))
          << row.at("name") << " of " << texts[i];
    }
  }
}

TEST(TokenizerJson, GivesTheIdsOfTheReference) {
  for (const json::value& row : golden().at("tokenizers").as_array()) {
    const auto tokenizer = tokenizer_from_json(json::serialize(row.at("json")), TokenizerConfig{});
    const json::array& texts = golden().at("texts").as_array();
    for (size_t i = 0; i < texts.size(); ++i) {
      const std::string text = text_of(texts[i]);
      const auto expected = [&](const char* key) {
        return json::value_to<std::vector<TokenId>>(row.at(key).at(i));
      };
      EXPECT_EQ(tokenizer->encode(text, false, true), expected("ids"))
          << row.at("name") << " of " << texts[i];
      EXPECT_EQ(tokenizer->encode(text, true, true), expected("ids_with_special"))
          << row.at("name") << " of " << texts[i];
      EXPECT_EQ(tokenizer->encode(text, false, false), expected("ids_plain"))
          << row.at("name") << " of " << texts[i];
      EXPECT_EQ(tokenizer->decode(expected("ids"), true), text_of(row.at("decoded").at(i)))
          << row.at("name") << " of " << texts[i];
    }
  }
}

TEST(TokenizerJson, JoinsTwoTextsAsTheReferenceDoes) {
  int num_rows = 0;
  for (const json::value& row : golden().at("tokenizers").as_array()) {
    const auto tokenizer = tokenizer_from_json(json::serialize(row.at("json")), TokenizerConfig{});
    const json::value* const pairs = row.as_object().if_contains("pairs");
    if (pairs == nullptr) continue;
    ++num_rows;
    ASSERT_TRUE(tokenizer->joins_texts()) << row.at("name");
    const json::array& texts = golden().at("texts").as_array();
    for (size_t i = 0; i + 1 < texts.size(); ++i) {
      const TextPair both = tokenizer->encode_pair(text_of(texts[i]), text_of(texts[i + 1]), 1000);
      EXPECT_EQ(both.ids, json::value_to<std::vector<TokenId>>(pairs->at(i).at("ids"))) << row.at("name") << " of " << texts[i];
      std::vector<int> types(both.ids.size(), 0);
      if (both.second > 0) std::fill(types.begin() + static_cast<std::ptrdiff_t>(both.second), types.end(), 1);
      EXPECT_EQ(types, json::value_to<std::vector<int>>(pairs->at(i).at("types"))) << row.at("name") << " of " << texts[i];
      const TextPair cut = tokenizer->encode_pair(text_of(texts[i]), text_of(texts[i + 1]), 9);
      EXPECT_EQ(cut.ids, json::value_to<std::vector<TokenId>>(pairs->at(i).at("nine"))) << row.at("name") << " of " << texts[i];
    }
  }
  EXPECT_EQ(num_rows, 3);
}

// A name with a character in it that is left out again is text, also where names are looked for in normalised
// text.
void expect_breakable(const Tokenizer& tokenizer, const json::value& name) {
  const std::string breaker = "\uFDD0";
  const std::vector<std::string> names = tokenizer.special_names();
  EXPECT_FALSE(names.empty()) << name;
  for (const std::string& special : names) {
    for (const std::string& text : {special, "x " + special + " y", special + special}) {
      std::string broken = text;
      for (size_t at = 0; (at = broken.find(special, at)) != std::string::npos;)
        broken.insert(at + 1, breaker);
      const TokenId id = tokenizer.token_to_id(special);
      const auto count = [&](const std::vector<TokenId>& ids) {
        return std::count(ids.begin(), ids.end(), id);
      };
      const std::vector<TokenId> ids = tokenizer.encode(broken, false, true, breaker);
      const std::vector<TokenId> plain = tokenizer.encode(text, false, /*parse_special=*/false);
      EXPECT_NE(count(tokenizer.encode(text, false)), 0) << name << " of " << text;
      if (special == "<unk>" || special == "[UNK]") continue;  // what a model does not know has that id
      EXPECT_EQ(count(ids), 0) << name << " of " << text;
      // Some models have it among their ordinary names and put it together themselves.
      if (count(plain) == 0) {
        EXPECT_EQ(ids, plain) << name << " of " << text;
      }
    }
  }
}

TEST(TokenizerJson, LeavesABreakerOutOfTheNamesItBreaks) {
  for (const json::value& row : golden().at("tokenizers").as_array()) {
    json::value file = row.at("json");
    if (file.at("added_tokens").as_array().empty()) continue;
    expect_breakable(*tokenizer_from_json(json::serialize(file), TokenizerConfig{}), row.at("name"));
    for (json::value& token : file.at("added_tokens").as_array()) token.as_object()["normalized"] = true;
    expect_breakable(*tokenizer_from_json(json::serialize(file), TokenizerConfig{}), row.at("name"));
  }
  expect_breakable(*load_tokenizer(vendored_data("tok-mistral-v1-spm")), "sentencepiece");
}

// ids: of the golden's texts, and then of `more`.
void expect_ids(const Tokenizer& tokenizer, const json::value& more, const json::value& ids, bool add_special,
                bool parse_special) {
  json::array texts = golden().at("texts").as_array();
  texts.insert(texts.end(), more.as_array().begin(), more.as_array().end());
  for (size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(tokenizer.encode(text_of(texts[i]), add_special, parse_special),
              json::value_to<std::vector<TokenId>>(ids.at(i)))
        << texts[i];
  }
}

TEST(RankFiles, GiveTheIdsOfTiktoken) {
  const json::value file = read_fixture("ranks.json");
  for (const json::value& family : file.at("families").as_array()) {
    SCOPED_TRACE(family.at("file"));
    const ModelFolder folder({{text_of(family.at("file")), text_of(file.at("ranks"))},
                              {"tokenizer_config.json", json::serialize(family.at("config"))}});
    const auto tokenizer = load_tokenizer(folder.path());
    EXPECT_EQ(tokenizer->vocab_size(), family.at("size").to_number<int>());
    expect_ids(*tokenizer, file.at("texts"), family.at("ids"), false, true);
  }
}

// Kimi's reference cuts runs of more than 25,000 characters, and texts of more than 400,000, before it looks for words.
TEST(RankFiles, CutLongTextsAsKimiDoes) {
  const json::value file = read_fixture("ranks.json");
  const ModelFolder folder({{"tiktoken.model", text_of(file.at("ranks"))}});
  const auto tokenizer = load_tokenizer(folder.path());
  const auto expect_parts = [&](const std::string& text, const std::vector<size_t>& ends) {
    std::vector<TokenId> want;
    for (size_t begin = 0, i = 0; begin < text.size(); begin = ends[i++]) {
      const std::vector<TokenId> ids = tokenizer->encode(text.substr(begin, ends[i] - begin), false);
      want.insert(want.end(), ids.begin(), ids.end());
    }
    EXPECT_EQ(tokenizer->encode(text, false), want);
  };
  const std::string run(25'000, 'a'), spaces(25'000, ' ');
  expect_parts(run, {25'000});
  expect_parts(run + run + "aaa b", {25'000, 50'000, 50'005});
  expect_parts("x" + spaces + " y", {25'001, 25'003});
  std::string words;
  for (int i = 0; i < 200'001; ++i) words += "e ";
  expect_parts(words, {400'000, 400'002});
  std::string wide;
  for (int i = 0; i < 25'001; ++i) wide += "\u00e9";
  expect_parts(wide, {50'000, 50'002});
}

// GLM-4's tokenizer puts two tokens before a text. Its chat template writes them, and what it renders is encoded as it is.
TEST(RankFiles, BeginTextsAsGlmDoesAndRenderedMessagesOnce) {
  const json::value file = read_fixture("ranks.json");
  constexpr const char* kConfig = R"({"added_tokens_decoder": {
      "500": {"content": "<|endoftext|>", "special": true}, "501": {"content": "[gMASK]", "special": true},
      "502": {"content": "<sop>", "special": true}, "503": {"content": "<|user|>", "special": true},
      "504": {"content": "<|assistant|>", "special": true}}})";
  const ModelFolder folder({{"tokenizer.model", text_of(file.at("ranks"))}, {"tokenizer_config.json", kConfig}});
  const auto tokenizer = load_tokenizer(folder.path());
  const std::vector<TokenId> text = tokenizer->encode("Hi", false), line = tokenizer->encode("\nHi", false);
  std::vector<TokenId> begun = {501, 502}, rendered = {501, 502, 503};
  begun.insert(begun.end(), text.begin(), text.end());
  rendered.insert(rendered.end(), line.begin(), line.end());
  rendered.push_back(504);
  EXPECT_EQ(tokenizer->encode("Hi", true), begun);
  EXPECT_EQ(tokenizer->encode("[gMASK]<sop><|user|>\nHi<|assistant|>", false, true), rendered);
}

TEST(RankFiles, GiveTheIdsOfMistralsTekken) {
  const json::value file = read_fixture("ranks.json");
  const json::value& tekken = file.at("tekken");
  const ModelFolder folder({{"tekken.json", json::serialize(tekken.at("json"))}});
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->vocab_size(), tekken.at("size").to_number<int>());
  expect_ids(*tokenizer, file.at("texts"), tekken.at("ids"), true, false);
  const json::array& special = tekken.at("special").as_array();
  for (TokenId id = 0; id < static_cast<TokenId>(special.size()); ++id) {
    EXPECT_EQ(tokenizer->token_bytes(id), text_of(special[id]));
    EXPECT_EQ(tokenizer->encode(text_of(special[id]), false), std::vector<TokenId>{id});
  }
}

TEST(RankFiles, SayWhatIsWrongInside) {
  EXPECT_THAT(load_error({{"qwen.tiktoken", "YQ== 0\nYg==\n"}}),
              testing::HasSubstr("qwen.tiktoken: line 2 is not"));
  EXPECT_THAT(load_error({{"qwen.tiktoken", "YQ== 0\n"}}), testing::HasSubstr("no token for each byte"));
  EXPECT_THAT(load_error({{"tekken.json", "{}"}}), testing::HasSubstr("config is missing"));
}

}  // namespace
}  // namespace serval::test
