// Every component of tokenizer.json against what the `tokenizers` library does with it:
// tests/golden/make_tokenizer_golden.py.
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "engine/text/tokenizer/normalizer.h"
#include "engine/text/tokenizer/pretokenizer.h"
#include "engine/text/tokenizer/tokenizer_json.h"
#include "tests/engine/text/tokenizer/tokenizer_data.h"

namespace serval::test {
namespace {

namespace json = boost::json;

const json::object& golden() {
  static const json::value file = json::parse(
      read_text(std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/tokenizers/components.json"));
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

}  // namespace
}  // namespace serval::test
