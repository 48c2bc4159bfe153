// What tokenizer folders may look like and may not: everything wrong is one sentence that names it, never a
// crash. Fixtures are hand-made (tokenizer_data.cc).
#include "engine/text/tokenizer/tokenizer_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <boost/json.hpp>
#include <functional>
#include <random>
#include <stdexcept>
#include <thread>

#include "engine/text/tokenizer/byte_alphabet.h"
#include "engine/text/tokenizer/load_tokenizer.h"
#include "engine/text/tokenizer/rank_files.h"
#include "kernels/base/log.h"
#include "kernels/base/utf8.h"
#include "tests/engine/text/tokenizer/tokenizer_data.h"

namespace serval::test {
namespace {

namespace json = boost::json;
using testing::AllOf;
using testing::HasSubstr;

std::string error_of(std::string_view tokenizer_json) {
  try {
    tokenizer_from_json(tokenizer_json, TokenizerConfig{});
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

// The tiny byte-level file with one member changed.
std::string with(const std::string& pointer, const json::value& value) {
  json::value file = json::parse(tiny_byte_level_json());
  const size_t slash = pointer.rfind('/');
  json::value& parent = file.at_pointer(pointer.substr(0, slash));
  if (parent.is_object()) {
    parent.get_object()[pointer.substr(slash + 1)] = value;
  } else {
    parent.get_array().at(std::stoul(pointer.substr(slash + 1))) = value;
  }
  return json::serialize(file);
}

TEST(ByteLevelTokenizer, EncodesAndDecodesWithItsMerges) {
  const auto tokenizer = tokenizer_from_json(tiny_byte_level_json(), TokenizerConfig{});
  const TokenId hello = tokenizer->token_to_id("hello");
  const TokenId e_acute = tokenizer->token_to_id("Ã©");
  EXPECT_EQ(tokenizer->encode("hello world", false),
            (std::vector<TokenId>{hello, tokenizer->token_to_id("Ġwor"), 'l', 'd'}));
  EXPECT_EQ(tokenizer->encode("é", true), std::vector<TokenId>{e_acute});
  EXPECT_EQ(tokenizer->token_bytes(e_acute), "é");
  EXPECT_EQ(tokenizer->token_bytes(-1), "");
  EXPECT_EQ(tokenizer->token_bytes(tokenizer->vocab_size()), "");
  EXPECT_EQ(tokenizer->decode(std::vector<TokenId>{hello, 0xC3, 0x21}, true), "hello\uFFFD!");
}

TEST(ByteLevelTokenizer, TakesSpecialNamesOnlyWhenAskedTo) {
  const auto tokenizer = tokenizer_from_json(tiny_byte_level_json(), TokenizerConfig{});
  const TokenId end = tokenizer->token_to_id("<|end|>");
  ASSERT_TRUE(tokenizer->is_special(end));
  EXPECT_EQ(tokenizer->encode("<|end|>", false), std::vector<TokenId>{end});
  const std::vector<TokenId> plain = tokenizer->encode("<|end|>", false, /*parse_special=*/false);
  EXPECT_EQ(plain.size(), 7u);
  EXPECT_EQ(tokenizer->decode(plain, true), "<|end|>");
  EXPECT_EQ(tokenizer->decode(std::vector<TokenId>{'a', end}, true), "a");
  EXPECT_EQ(tokenizer->decode(std::vector<TokenId>{'a', end}, false), "a<|end|>");
}

TEST(ByteLevelTokenizer, EncodesBrokenTextAsReplacementCharacters) {
  const auto tokenizer = tokenizer_from_json(tiny_byte_level_json(), TokenizerConfig{});
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("a\xFFz\xE6", false), true), "a\uFFFDz\uFFFD");
}

TEST(ByteLevelTokenizer, GivesBackAnyText) {
  const auto tokenizer = tokenizer_from_json(tiny_byte_level_json(), TokenizerConfig{});
  std::mt19937 random(3);
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (int n = static_cast<int>(random() % 60); n > 0; --n) text += static_cast<char>(random());
    text = repair_utf8(text);
    ASSERT_EQ(tokenizer->decode(tokenizer->encode(text, false, false), false), text);
  }
}

TEST(ByteFallbackTokenizer, EncodesAndDecodesLikeSentencepiece) {
  const auto tokenizer = tokenizer_from_json(tiny_byte_fallback_json(), TokenizerConfig{});
  const TokenId hello = tokenizer->token_to_id("▁hello");
  EXPECT_EQ(tokenizer->encode("hello", true), (std::vector<TokenId>{1, hello}));
  EXPECT_EQ(tokenizer->encode("é", false),
            (std::vector<TokenId>{tokenizer->token_to_id("▁"), 3 + 0xC3, 3 + 0xA9}));
  EXPECT_EQ(tokenizer->token_bytes(hello), " hello");
  EXPECT_EQ(tokenizer->token_bytes(3 + 0xC3), "\xC3");
  EXPECT_TRUE(tokenizer->strips_leading_space());
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("hello é  w", true), true), "hello é  w");
}

TEST(Tokenizer, EncodesOnManyThreadsAtOnce) {
  const auto tokenizer = tokenizer_from_json(tiny_byte_level_json(), TokenizerConfig{});
  const std::string text = "hello world, hello <|end|> h\u00e9llo 123\n";
  const std::vector<TokenId> expected = tokenizer->encode(text, true);
  std::atomic<int> num_equal = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i)
        num_equal += tokenizer->encode(text, true) == expected && tokenizer->decode(expected, false) == text;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_equal, 800);
}

TEST(TokenizerFolder, TakesRolesAndBosFromTheConfiguration) {
  const ModelFolder folder(
      {{"tokenizer.json", tiny_byte_level_json()},
       {"tokenizer_config.json",
        R"({"bos_token": {"content": "<|pad|>"}, "eos_token": "<|end|>", "add_bos_token": true, "add_eos_token": true})"}});
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->bos_id(), tokenizer->token_to_id("<|pad|>"));
  EXPECT_EQ(tokenizer->eos_id(), tokenizer->token_to_id("<|end|>"));
  EXPECT_EQ(tokenizer->encode("a", true),
            (std::vector<TokenId>{tokenizer->bos_id(), 'a', tokenizer->eos_id()}));
  EXPECT_EQ(tokenizer->encode("a", false), (std::vector<TokenId>{'a'}));
}

TEST(TokenizerFolder, LetsTheConfigurationSwitchOffTheBosOfTheTemplate) {
  const ModelFolder folder({{"tokenizer.json", tiny_byte_fallback_json()},
                            {"tokenizer_config.json", R"({"bos_token": "<s>", "add_bos_token": false})"}});
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->encode("h", true), std::vector<TokenId>{tokenizer->token_to_id("▁h")});
}

TEST(TokenizerFolder, AddsTokensThatOnlyTheConfigurationNames) {
  const std::string config =
      R"({"added_tokens_decoder": {"300": {"content": "<tool>", "special": true}}, "pad_token": "hello"})";
  const ModelFolder folder({{"tokenizer.json", tiny_byte_level_json()}, {"tokenizer_config.json", config}});
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->encode("<tool>", false), std::vector<TokenId>{300});
  EXPECT_EQ(tokenizer->vocab_size(), 301);
  EXPECT_EQ(tokenizer->token_bytes(299), "");
  EXPECT_TRUE(tokenizer->is_special(300));
  EXPECT_TRUE(tokenizer->is_special(tokenizer->token_to_id("hello")));
}

TEST(TokenizerFolder, ReadsTheOlderFilesWhereTheConfigurationListsNoAddedTokens) {
  const std::string map =
      R"({"bos_token": {"content": "<|pad|>"}, "eos_token": "<|end|>", "extra_special_tokens": ["<mask>"]})";
  const std::string added = R"({"<mask>": 300, "<tool>": 301})";
  const ModelFolder folder({{"tokenizer.json", tiny_byte_level_json()},
                            {"tokenizer_config.json", R"({"eos_token": "hello"})"},
                            {"special_tokens_map.json", map},
                            {"added_tokens.json", added}});
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->bos_id(), tokenizer->token_to_id("<|pad|>"));
  EXPECT_EQ(tokenizer->eos_id(), tokenizer->token_to_id("<|end|>"));
  EXPECT_EQ(tokenizer->encode("<mask><tool>", false), (std::vector<TokenId>{300, 301}));
  EXPECT_TRUE(tokenizer->is_special(300));
  EXPECT_FALSE(tokenizer->is_special(301));
  const ModelFolder newer(
      {{"tokenizer.json", tiny_byte_level_json()},
       {"tokenizer_config.json", R"({"added_tokens_decoder": {"300": {"content": "<new>"}}})"},
       {"special_tokens_map.json", map},
       {"added_tokens.json", added}});
  EXPECT_EQ(load_tokenizer(newer.path())->token_to_id("<tool>"), -1);
}

// The error of a load for so many rows; "" when it loads. `said`: what was logged.
std::string load_for_rows(const ModelFolder& folder, int num_rows, std::unique_ptr<Tokenizer>& tokenizer,
                          std::string& said) {
  testing::internal::CaptureStderr();
  std::string error;
  try {
    tokenizer = load_tokenizer(folder.path(), num_rows);
  } catch (const std::runtime_error& refused) {
    error = refused.what();
  }
  flush_log();
  said = testing::internal::GetCapturedStderr();
  return error;
}

TEST(TokenizerFolder, ReadsAddedTokensBeyondTheModelsRowsAsText) {
  const int rows =
      load_tokenizer(ModelFolder({{"tokenizer.json", tiny_byte_level_json()}}).path())->vocab_size();
  const auto numbered = [&](int more) { return std::to_string(rows + more); };
  // One in tokenizer.json's list, two in the configuration's, and one of them an ordinary name of the
  // vocabulary as well.
  json::object file = json::parse(tiny_byte_level_json()).as_object();
  json::object added = file["added_tokens"].as_array()[0].as_object();
  added["id"] = rows;
  added["content"] = "[PAD]";
  file["added_tokens"].as_array().push_back(added);
  file["model"].as_object()["vocab"].as_object()["[MASK]"] = rows + 1;
  const ModelFolder folder({{"tokenizer.json", json::serialize(file)},
                            {"tokenizer_config.json",
                             R"({"pad_token": "[PAD]", "mask_token": "[MASK]", "added_tokens_decoder": {")" +
                                 numbered(2) + R"(": {"content": "<tool>", "special": true}}})"}});
  std::unique_ptr<Tokenizer> tokenizer;
  std::string said;
  ASSERT_EQ(load_for_rows(folder, rows, tokenizer, said), "");
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_THAT(said, AllOf(HasSubstr("'[PAD]' = " + numbered(0)), HasSubstr("'<tool>' = " + numbered(2)),
                          HasSubstr("rows=" + std::to_string(rows))));
  EXPECT_LE(tokenizer->vocab_size(), rows);
  for (const char* name : {"[PAD]", "<tool>", "[MASK]", "<|end|>"}) {
    for (const bool special : {false, true}) {
      const std::string text = std::string("a") + name + "b";
      const std::vector<TokenId> ids = tokenizer->encode(text, true, special);
      EXPECT_LT(*std::max_element(ids.begin(), ids.end()), rows) << name;
      EXPECT_EQ(tokenizer->decode(ids, false), text);
    }
  }
  // With rows for all of them they are what they were.
  ASSERT_EQ(load_for_rows(folder, rows + 3, tokenizer, said), "");
  EXPECT_EQ(said, "");
  EXPECT_EQ(tokenizer->encode("[PAD]", false), std::vector<TokenId>{rows});
  EXPECT_EQ(tokenizer->encode("<tool>", false), std::vector<TokenId>{rows + 2});
}

TEST(TokenizerFolder, IsRefusedWhenOrdinaryTokensLieBeyondTheModelsRows) {
  std::unique_ptr<Tokenizer> tokenizer;
  std::string said;
  const ModelFolder bytes({{"tokenizer.json", tiny_byte_level_json()}});
  EXPECT_THAT(load_for_rows(bytes, 257, tokenizer, said),
              AllOf(HasSubstr("tokenizer.json: token "), HasSubstr("rows for 257 tokens only")));
  EXPECT_THAT(load_for_rows(bytes, 1, tokenizer, said), HasSubstr("rows for 1 tokens only"));
  json::object vocab;
  for (int byte = 0; byte < 256; ++byte) vocab[byte_character(static_cast<unsigned char>(byte))] = byte;
  const ModelFolder gpt2({{"vocab.json", json::serialize(vocab)}, {"merges.txt", "#version: 0.2\n"}});
  EXPECT_EQ(load_for_rows(gpt2, 256, tokenizer, said), "");
  EXPECT_THAT(load_for_rows(gpt2, 255, tokenizer, said), HasSubstr("has the id 255"));
  // A template that puts such an id around a text cannot be obeyed.
  json::value file = json::parse(tiny_byte_fallback_json());
  const int rows =
      load_tokenizer(ModelFolder({{"tokenizer.json", json::serialize(file)}}).path())->vocab_size();
  file.at_pointer("/post_processor/special_tokens/<s>/ids/0") = rows;
  EXPECT_THAT(load_for_rows(ModelFolder({{"tokenizer.json", json::serialize(file)}}), rows, tokenizer, said),
              HasSubstr("which no token has"));
}

TEST(TokenizerFolder, ReadsVocabularyAndMergesOfGpt2) {
  json::object vocab;
  for (int byte = 0; byte < 256; ++byte) vocab[byte_character(static_cast<unsigned char>(byte))] = byte;
  vocab["he"] = 256;
  vocab["<|endoftext|>"] = 257;
  const ModelFolder folder(
      {{"vocab.json", json::serialize(vocab)}, {"merges.txt", "#version: 0.2\r\nh e\r\n"}});
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->encode("he<|endoftext|>", true), (std::vector<TokenId>{256, 257}));
  EXPECT_EQ(tokenizer->eos_id(), 257);
  EXPECT_TRUE(tokenizer->is_special(257));
  EXPECT_THAT(load_error({{"vocab.json", json::serialize(vocab)},
                          {"merges.txt", "h e\n"},
                          {"tokenizer_config.json", R"({"tokenizer_class": "CLIPTokenizer"})"}}),
              HasSubstr("a CLIPTokenizer cuts text"));
}

TEST(TokenizerFolder, SaysWhatIsMissingOrUnreadable) {
  EXPECT_THAT(load_error({}), HasSubstr("has no tokenizer"));
  EXPECT_THAT(load_error({{"tokenizer.json", "{"}}),
              AllOf(HasSubstr("tokenizer.json: "), HasSubstr("not valid JSON")));
  EXPECT_THAT(load_error({{"tokenizer.json", tiny_byte_level_json()}, {"tokenizer_config.json", "[]"}}),
              AllOf(HasSubstr("tokenizer_config.json: "), HasSubstr("must hold a JSON object")));
  EXPECT_THAT(load_error({{"tokenizer.json", tiny_byte_level_json()},
                          {"tokenizer_config.json", R"({"add_bos_token": true})"}}),
              HasSubstr("asks for a BOS token"));
  EXPECT_THAT(load_error({{"vocab.json", R"({"a": 0})"}, {"merges.txt", "a b c\n"}}),
              HasSubstr("not two tokens"));
}

TEST(TokenizerJson, RefusesByNameWhatItDoesNotSupport) {
  const auto type = [](const char* name) { return json::object{{"type", name}}; };
  EXPECT_THAT(error_of(with("/model/type", "WordPiece")), HasSubstr("unk_token '[UNK]' is not in the vocabulary"));
  EXPECT_THAT(error_of(with("/model/type", "WordLevel")), HasSubstr("'WordLevel' is not supported"));
  EXPECT_THAT(error_of(with("/normalizer", type("Nobody"))), HasSubstr("'Nobody' is not supported"));
  EXPECT_THAT(error_of(with("/pre_tokenizer", type("Nobody"))), HasSubstr("'Nobody' is not supported"));
  EXPECT_THAT(error_of(with("/post_processor", type("Nobody"))), HasSubstr("'Nobody' is not supported"));
  EXPECT_THAT(error_of(with("/decoder", type("CTC"))), HasSubstr("'CTC' is not supported"));
  EXPECT_THAT(error_of(with("/decoder", nullptr)), HasSubstr("no decoder"));
  EXPECT_THAT(error_of(with("/model/dropout", 0.1)), HasSubstr("dropout"));
}

TEST(TokenizerJson, NamesWhatIsWrongInside) {
  EXPECT_THAT(error_of(with("/model/merges/0", "h zz")),
              HasSubstr("merge 0 uses 'zz', which is not in the vocabulary"));
  EXPECT_THAT(error_of(with("/model/merges/0", "x y")),
              HasSubstr("makes 'xy', which is not in the vocabulary"));
  EXPECT_THAT(error_of(with("/model/merges/0", "h")), HasSubstr("not two tokens"));
  EXPECT_THAT(error_of(with("/model/merges/0", json::array{"h"})), HasSubstr("not a pair"));
  EXPECT_THAT(error_of(with("/model/vocab/a", -1)), HasSubstr("not a token id"));
  EXPECT_THAT(error_of(with("/model/vocab/a", 9'000'000'000)), HasSubstr("not a token id"));
  EXPECT_THAT(error_of(with("/model/vocab/a", 2'000'000'000)), HasSubstr("out of place"));
  EXPECT_THAT(error_of(with("/model/vocab/a", 98)), HasSubstr("share the id 98"));
  EXPECT_THAT(error_of(with("/model/vocab/a", 1.5)), HasSubstr("not a token id"));
  EXPECT_THAT(error_of(with("/added_tokens/0/id", 5)), HasSubstr("share the id 5"));
  EXPECT_THAT(error_of(with("/added_tokens/0/id", 1'000'000)), HasSubstr("out of place"));
  EXPECT_THAT(error_of(with("/added_tokens/0/content", json::string(5000, 'x'))), HasSubstr("5000 bytes"));
  EXPECT_THAT(error_of(with("/model/unk_token", "nobody")), HasSubstr("'nobody' is not in the vocabulary"));
  EXPECT_THAT(error_of("{}"), HasSubstr("model is missing"));
}

TEST(TokenizerJson, RefusesChainsThatWouldBlowTextUp) {
  const json::object doubles = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
  EXPECT_THAT(
      error_of(with("/normalizer", {{"type", "Sequence"}, {"normalizers", json::array(10, doubles)}})),
      HasSubstr("64 times longer"));
  EXPECT_THAT(
      error_of(with("/normalizer", {{"type", "Sequence"},
                                    {"normalizers", json::array(100, json::object{{"type", "NFC"}})}})),
      HasSubstr("more than 64 parts"));
  const json::object byte_level = {{"type", "ByteLevel"}};
  EXPECT_THAT(
      error_of(with("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", json::array(2, byte_level)}})),
      HasSubstr("more than one ByteLevel"));
}

TEST(TokenizerJson, RefusesFilesThatAreDeepOrManyValued) {
  EXPECT_THAT(error_of(std::string(100'000'000, '[')), HasSubstr("100000000 bytes"));
  EXPECT_THAT(error_of(std::string(10'000'000, '[')), HasSubstr("nests deeper"));
  EXPECT_THAT(error_of("{\"model\":" + std::string(1000, '[')), HasSubstr("not valid JSON"));
  std::string zeros = "[0";
  for (int i = 0; i < 2'000'000; ++i) zeros += ",0";
  EXPECT_THAT(error_of(zeros + "]"), HasSubstr("more values"));
}

TEST(TokenizerJson, SurvivesTruncationAnywhere) {
  const std::string whole = tiny_byte_level_json();
  for (size_t size = 0; size < whole.size(); size += 7) EXPECT_NE(error_of(whole.substr(0, size)), "");
}

// Changes bytes, cuts and doubles ranges of a real file; what still loads must still encode and decode
// without harm.
void expect_survival(const std::string& whole,
                     const std::function<std::unique_ptr<Tokenizer>(const std::string&)>& load,
                     int num_rounds, int least_loaded) {
  std::mt19937 random(5);
  int num_loaded = 0;
  for (int round = 0; round < num_rounds; ++round) {
    std::string file = whole;
    for (int n = 1 + static_cast<int>(random() % 3); n > 0; --n) {
      const size_t at = random() % file.size();
      switch (random() % 4) {
        case 0:
          file[at] = static_cast<char>(random());
          break;
        case 1:
          file[at] = "0123456789{}[],:\"\\"[random() % 18];
          break;
        case 2:
          file.erase(at, random() % 20);
          break;
        case 3:
          file.insert(at, file.substr(random() % file.size(), random() % 20));
          break;
      }
    }
    try {
      const auto tokenizer = load(file);
      ++num_loaded;
      const std::vector<TokenId> ids = tokenizer->encode("hello wörld ﬁ e\u0301 ① <|end|></s>\n 12345", true);
      for (const TokenId id : ids) ASSERT_LT(id, tokenizer->vocab_size());
      ASSERT_TRUE(is_valid_utf8(tokenizer->decode(ids, false)));
    } catch (const std::runtime_error& error) {
      ASSERT_STRNE(error.what(), "");
    }
  }
  EXPECT_GT(num_loaded, least_loaded);
}

std::unique_ptr<Tokenizer> load_json(const std::string& file) {
  return tokenizer_from_json(file, TokenizerConfig{});
}

TEST(TokenizerJson, SurvivesRandomDamage) {
  expect_survival(tiny_byte_level_json(), load_json, 1500, 50);
  expect_survival(tiny_byte_fallback_json(), load_json, 1500, 50);
}

TEST(TokenizerJson, SurvivesRandomDamageOfAUnigramModelAndOfItsNormalisation) {
  const json::value golden = json::parse(
      read_text(std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/tokenizers/components.json"));
  for (const json::value& row : golden.at("tokenizers").as_array()) {
    if (row.at("name") == "t5") expect_survival(json::serialize(row.at("json")), load_json, 1500, 50);
  }
}

TEST(RankFiles, SurviveRandomDamage) {
  const json::value golden = json::parse(
      read_text(std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/tokenizers/ranks.json"));
  const TokenizerConfig none;
  expect_survival(
      std::string(golden.at("ranks").as_string()),
      [&](const std::string& file) { return tokenizer_from_ranks(file, "qwen.tiktoken", none); }, 1500, 20);
  expect_survival(
      json::serialize(golden.at("tekken").at("json")),
      [&](const std::string& file) { return tokenizer_from_tekken(file, none); }, 1500, 20);
}

}  // namespace
}  // namespace serval::test
