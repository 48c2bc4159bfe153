// Folders with a vocab.txt: the ids that transformers gives, and those of the tokenizer.json that it would save.
#include "engine/text/tokenizer/word_piece_vocabulary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/text/tokenizer/load_tokenizer.h"
#include "engine/text/tokenizer/tokenizer_json.h"
#include "tests/engine/text/tokenizer/tokenizer_data.h"

namespace serval::test {
namespace {

namespace json = boost::json;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::string_view kSmall = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\nab\n";

std::string error_of(std::string_view text, const TokenizerConfig& config = {}) {
  try {
    tokenizer_from_word_pieces(text, "", config);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

json::value reference() {
  return json::parse(read_text(std::string(SERVAL_SOURCE_DIR) + "/tests/fixtures/tokenizers/word_pieces.json"));
}

std::string vocab_file(const json::value& golden) {
  std::string text;
  for (const json::value& name : golden.at("vocab").as_array()) text += std::string(name.as_string()) + "\n";
  return text;
}

TEST(WordPieceVocabulary, GivesTheIdsOfTheReference) {
  const json::value golden = reference();
  const json::array& texts = golden.at("texts").as_array();
  for (const json::value& wanted : golden.at("cases").as_array()) {
    const std::string config = json::serialize(wanted.at("config"));
    const ModelFolder folder({{"vocab.txt", vocab_file(golden)}, {"tokenizer_config.json", config}});
    const auto tokenizer = load_tokenizer(folder.path());
    for (size_t i = 0; i < texts.size(); ++i) {
      ASSERT_EQ(tokenizer->encode(std::string(texts[i].as_string()), true), json::value_to<std::vector<TokenId>>(wanted.at("ids").at(i)))
          << config << " " << texts[i];
    }
    ASSERT_TRUE(tokenizer->joins_texts());
    const TextPair pair = tokenizer->encode_pair("the first", "another one", 100);
    EXPECT_EQ(pair.ids, json::value_to<std::vector<TokenId>>(wanted.at("pair"))) << config;
    EXPECT_EQ(pair.second, wanted.at("second").as_int64()) << config;
  }
}

TEST(WordPieceVocabulary, GivesTheIdsOfItsTokenizerJson) {
  const json::value golden = reference();
  json::object vocab;
  int64_t id = 0;
  for (const json::value& name : golden.at("vocab").as_array()) vocab.emplace(name.as_string(), id++);
  json::array added;
  for (const char* name : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"})
    added.push_back({{"id", vocab.at(name)}, {"content", name}, {"special", true}, {"normalized", false}});
  const json::value file = {{"added_tokens", added},
                            {"normalizer", {{"type", "BertNormalizer"}}},
                            {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
                            {"post_processor", {{"type", "BertProcessing"}, {"cls", {"[CLS]", vocab.at("[CLS]")}}, {"sep", {"[SEP]", vocab.at("[SEP]")}}}},
                            {"decoder", {{"type", "WordPiece"}}},
                            {"model", {{"type", "WordPiece"}, {"vocab", vocab}}}};
  const auto whole = tokenizer_from_json(json::serialize(file), {}), bare = tokenizer_from_word_pieces(vocab_file(golden), "", {});
  for (const std::string& text : pool_texts(vendored_data("tok-pool"))) {
    const std::vector<TokenId> ids = bare->encode(text, true);
    ASSERT_EQ(ids, whole->encode(text, true)) << text;
    EXPECT_EQ(bare->decode(ids, true), whole->decode(ids, true));
    EXPECT_EQ(bare->least_tokens(text), whole->least_tokens(text));
    EXPECT_EQ(bare->encode_pair(text, "b", 40).ids, whole->encode_pair(text, "b", 40).ids);
  }
  EXPECT_EQ(bare->special_names().size(), whole->special_names().size());
}

TEST(WordPieceVocabulary, CountsLinesHoweverTheyEnd) {
  const auto tokenizer = tokenizer_from_word_pieces("[UNK]\r\n[CLS]\r\n\r\n[SEP]\r\nx", "", {});
  EXPECT_THAT(tokenizer->encode("x", true), ElementsAre(1, 4, 3));
  EXPECT_EQ(tokenizer->vocab_size(), 5);
  EXPECT_TRUE(tokenizer->is_special(0));
}

TEST(WordPieceVocabulary, LowersBeforeAllElseWhereTheFolderSaysSo) {
  constexpr std::string_view kCased = R"({"do_lower_case": false})";
  TokenizerConfig config;
  EXPECT_THAT(tokenizer_from_word_pieces(kSmall, kCased, config)->encode("AB", false), ElementsAre(1));
  config.lowers_text = true;
  EXPECT_THAT(tokenizer_from_word_pieces(kSmall, kCased, config)->encode("AB", false), ElementsAre(7));
}

TEST(WordPieceVocabulary, KnowsWhoPlaysARoleByEitherSpelling) {
  const auto tokenizer = tokenizer_from_word_pieces(kSmall, R"({"cls_token": {"content": "[PAD]"}, "sep_token": "[MASK]", "unk_token": null})", {});
  EXPECT_THAT(tokenizer->encode("ab z", true), ElementsAre(0, 7, 1, 4));
}

TEST(WordPieceVocabulary, NamesWhatItCannotRead) {
  const std::string small(kSmall);
  EXPECT_EQ(error_of(small), "");
  EXPECT_THAT(error_of(small + "a\n"), HasSubstr("'a' is there twice"));
  EXPECT_THAT(error_of(small + "\xFF\n"), HasSubstr("not UTF-8"));
  EXPECT_THAT(error_of("[CLS]\n[SEP]\na\n"), HasSubstr("no token '[UNK]'"));
  EXPECT_THAT(error_of("[UNK]\n[SEP]\na\n"), HasSubstr("no token '[CLS]'"));
  EXPECT_THAT(error_of("[UNK]\n[CLS]\na\n"), HasSubstr("no token '[SEP]'"));
  EXPECT_THAT(error_of(""), HasSubstr("no token '[UNK]'"));
  TokenizerConfig config;
  config.num_rows = 7;
  EXPECT_THAT(error_of(small, config), HasSubstr("'ab' has the id 7"));
  config = {};
  config.tokenizer_class = "BertJapaneseTokenizer";
  EXPECT_THAT(error_of(small, config), HasSubstr("a tokenizer.json is needed"));
  std::string many;
  for (int i = 0; i <= 1 << 19; ++i) many += std::to_string(i) + "\n";
  EXPECT_THAT(error_of(many), HasSubstr("more than 524288 tokens"));
}

}  // namespace
}  // namespace serval::test
