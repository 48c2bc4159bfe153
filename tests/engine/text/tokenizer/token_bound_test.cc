// The lower bound of a text's tokens against the tokens it has: never above, and where it is what refuses a
// flood of text, not far below.
#include "engine/text/tokenizer/token_bound.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <random>

#include "engine/text/tokenizer/load_tokenizer.h"
#include "engine/text/tokenizer/tokenizer_json.h"
#include "kernels/base/utf8.h"
#include "tests/engine/text/tokenizer/tokenizer_data.h"

namespace serval::test {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

// Texts that tokenizers shorten most: white space, characters that compose, fold or are dropped, long tokens.
std::string hostile_text(std::mt19937& random) {
  static const std::vector<std::string> parts = {" ",
                                                 "          ",
                                                 "\n\n\n\n",
                                                 "\t",
                                                 "\u3000",
                                                 "\u00a0",
                                                 "\u200b\u200b",
                                                 "\u00ad",
                                                 "a",
                                                 "aaaaaaaa",
                                                 "the the ",
                                                 "e\u0301",
                                                 "\u212a",
                                                 "\uff21\uff22",
                                                 "\U0001d400",
                                                 "\u1112\u1161\u11ab",
                                                 "\u03b1\u0313\u0300\u0345",
                                                 "\ufdfa",
                                                 "\U0001f600",
                                                 "\u65e5\u672c",
                                                 "<|end|>",
                                                 "</s>",
                                                 "<s>",
                                                 "\xff\xfe",
                                                 "========",
                                                 "--------",
                                                 "....",
                                                 "0000000000",
                                                 "\u0000",
                                                 "\u0130",
                                                 "\U0002f800",
                                                 "<|endoftext|>"};
  std::string text;
  for (int n = 1 + static_cast<int>(random() % 12); n > 0; --n) {
    const std::string& part = parts[random() % parts.size()];
    for (int repeat = 1 + static_cast<int>(random() % 40); repeat > 0; --repeat) text += part;
  }
  return text;
}

void expect_sound(const Tokenizer& tokenizer, const std::string& name, int num_rounds, unsigned seed) {
  std::mt19937 random(seed);
  for (int round = 0; round < num_rounds; ++round) {
    const std::string text = hostile_text(random);
    for (const bool parse_special : {false, true}) {
      ASSERT_LE(tokenizer.least_tokens(text), tokenizer.encode(text, false, parse_special).size())
          << name << ": " << json::serialize(json::value(repair_utf8(text)));
    }
  }
}

TEST(TokenBound, IsNeverAboveWhatTheTextHas) {
  const json::value golden =
      json::parse(read_text(fs::path(SERVAL_SOURCE_DIR) / "tests/fixtures/tokenizers/components.json"));
  for (const json::value& row : golden.at("tokenizers").as_array())
    expect_sound(*tokenizer_from_json(json::serialize(row.at("json")), {}), json::serialize(row.at("name")),
                 100, 1);
  expect_sound(*tokenizer_from_json(tiny_byte_level_json(), {}), "tiny byte level", 300, 2);
  expect_sound(*tokenizer_from_json(tiny_byte_fallback_json(), {}), "tiny byte fallback", 300, 3);
  expect_sound(*load_tokenizer(fs::path(SERVAL_SOURCE_DIR) / "deploy/models/serval-nano"), "serval-nano", 300,
               4);
}

TEST(TokenBound, IsNeverAboveForPublishedTokenizers) {
  for (const char* name : {"tok-gpt-neox-20b", "tok-gpt2", "tok-mistral-v1-spm", "tok-phi-3-mini",
                           "tok-qwen2", "tok-spm-unigram", "model-stories260K/hf"}) {
    if (!fs::exists(shared_data(name))) GTEST_SKIP() << "there is no " << shared_data(name);
    expect_sound(*load_tokenizer(shared_data(name)), name, 100, 5);
  }
}

// Each step that may lose text, alone in an otherwise lossless tokenizer of single bytes.
TEST(TokenBound, CountsWhatMayBeLost) {
  const auto with = [](const char* key, const char* step) {
    json::value file = json::parse(tiny_byte_level_json());
    json::value added = json::parse(step);
    if (std::string_view(key) == "pre_tokenizer")
      added = {{"type", "Sequence"},
               {"pretokenizers", json::array{std::move(added), file.at("pre_tokenizer")}}};
    file.as_object()[key] = std::move(added);
    return tokenizer_from_json(json::serialize(file), {});
  };
  const std::string text = std::string(7000, ' ') + std::string(7000, 'x');
  const size_t all = tokenizer_from_json(tiny_byte_level_json(), {})->least_tokens(text);
  EXPECT_GT(all, 1000u);
  EXPECT_GT(with("normalizer", R"({"type": "Prepend", "prepend": "y"})")->least_tokens(text), all * 3 / 4);
  EXPECT_LT(with("normalizer", R"({"type": "NFC"})")->least_tokens(text), all);
  EXPECT_GT(with("normalizer", R"({"type": "NFC"})")->least_tokens(text), all / 10);
  EXPECT_EQ(with("normalizer", R"({"type": "Strip"})")->least_tokens(text), all / 2);
  EXPECT_EQ(with("normalizer", R"({"type": "Replace", "pattern": {"String": "x"}, "content": "yy"})")
                ->least_tokens(text),
            all);
  EXPECT_EQ(with("normalizer", R"({"type": "Replace", "pattern": {"String": "x"}, "content": ""})")
                ->least_tokens(text),
            0u);
  EXPECT_EQ(with("normalizer", R"({"type": "Replace", "pattern": {"Regex": "x"}, "content": "yy"})")
                ->least_tokens(text),
            0u);
  EXPECT_EQ(with("pre_tokenizer", R"({"type": "WhitespaceSplit"})")->least_tokens(text), all / 2);
  EXPECT_EQ(with("pre_tokenizer", R"({"type": "Punctuation"})")->least_tokens(text), all);
  EXPECT_EQ(with("pre_tokenizer", R"({"type": "CharDelimiterSplit", "delimiter": "x"})")->least_tokens(text),
            0u);
}

TEST(TokenBound, SeesAFloodOfTextInATokenizerOfTheUsualKinds) {
  const std::string flood(1'000'000, 'a');
  EXPECT_GT(load_tokenizer(fs::path(SERVAL_SOURCE_DIR) / "deploy/models/serval-nano")->least_tokens(flood),
            10'000u);
  for (const char* name :
       {"tok-gpt-neox-20b", "tok-gpt2", "tok-mistral-v1-spm", "tok-phi-3-mini", "tok-qwen2"}) {
    if (!fs::exists(shared_data(name))) GTEST_SKIP() << "there is no " << shared_data(name);
    EXPECT_GT(load_tokenizer(shared_data(name))->least_tokens(flood), 200u) << name;
  }
}

TEST(TokenBound, CountsBytesBesideWhiteSpace) {
  EXPECT_EQ(bytes_without_white_space(""), 0u);
  EXPECT_EQ(bytes_without_white_space(" \t\r\n\u00a0\u2003\u3000"), 0u);
  EXPECT_EQ(bytes_without_white_space(" a \u00e4 \u200b"), 6u);
}

}  // namespace
}  // namespace serval::test
