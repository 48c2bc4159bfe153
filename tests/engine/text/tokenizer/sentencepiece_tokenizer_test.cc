// Sentencepiece models written field by field here, whole and damaged.
#include "engine/text/tokenizer/sentencepiece_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <stdexcept>

#include "engine/text/tokenizer/sentencepiece_model.h"
#include "kernels/base/utf8.h"
#include "tests/engine/text/tokenizer/tokenizer_data.h"

namespace serval::test {
namespace {

using testing::HasSubstr;

// Protocol buffer wire format.
std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out += static_cast<char>(value);
}
std::string number_field(int field, uint64_t value) {
  return varint(static_cast<uint64_t>(field) << 3) + varint(value);
}
std::string bytes_field(int field, std::string_view bytes) {
  return varint(static_cast<uint64_t>(field) << 3 | 2) + varint(bytes.size()) + std::string(bytes);
}
std::string float_field(int field, float value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return varint(static_cast<uint64_t>(field) << 3 | 5) + bytes;
}
std::string piece(std::string_view text, float score, int type = SentencePieceModel::kNormal) {
  return bytes_field(1, bytes_field(1, text) + float_field(2, score) + number_field(3, type));
}

constexpr int kBpe = 2;

// <unk> <s> </s> <user> <0x00>..<0xFF> ▁ a..z ▁h el lo ▁hel ▁hello
std::string tiny_model(std::string_view normalizer = {}) {
  std::string proto =
      piece("<unk>", 0, SentencePieceModel::kUnknown) + piece("<s>", 0, SentencePieceModel::kControl) +
      piece("</s>", 0, SentencePieceModel::kControl) + piece("<user>", 0, SentencePieceModel::kUserDefined);
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    proto += piece(name, 0, SentencePieceModel::kByte);
  }
  float score = 0;
  for (const char* merged : {"▁h", "el", "lo", "▁hel", "▁hello"}) proto += piece(merged, score -= 1);
  proto += piece("▁", score -= 1);
  for (char c = 'a'; c <= 'z'; ++c) proto += piece(std::string(1, c), score -= 1);
  return proto + bytes_field(2, number_field(3, kBpe) + number_field(35, 1)) +
         bytes_field(3, std::string(normalizer) + number_field(4, 0));
}

std::string error_of(std::string_view proto, const TokenizerConfig& config = {}) {
  try {
    tokenizer_from_sentencepiece(proto, config);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(SentencePieceTokenizer, EncodesAndDecodes) {
  const auto tokenizer = tokenizer_from_sentencepiece(tiny_model(), {});
  const TokenId hello = tokenizer->token_to_id("▁hello");
  EXPECT_EQ(tokenizer->encode("hello", false), std::vector<TokenId>{hello});
  EXPECT_EQ(tokenizer->encode("hello", true), (std::vector<TokenId>{1, hello}));
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_EQ(tokenizer->token_bytes(hello), " hello");
  EXPECT_EQ(tokenizer->token_bytes(4 + 0xE9), "\xE9");
  EXPECT_EQ(tokenizer->token_to_id("nothing"), -1);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("hello wörld  日本 \n", true), true), "hello wörld  日本 \n");
}

TEST(SentencePieceTokenizer, TakesNamesOfControlPiecesOnlyWhenAskedTo) {
  const auto tokenizer = tokenizer_from_sentencepiece(tiny_model(), {});
  EXPECT_TRUE(tokenizer->is_special(2));
  EXPECT_FALSE(tokenizer->is_special(3));
  const TokenId space = tokenizer->token_to_id("▁"), a = tokenizer->token_to_id("a");
  EXPECT_EQ(tokenizer->encode("a</s>", false), (std::vector<TokenId>{space, a, 2}));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("a</s>", false, false), true), "a</s>");
  // A user-defined piece is text with an id of its own, asked for or not.
  EXPECT_EQ(tokenizer->encode("a<user>", false, false), (std::vector<TokenId>{space, a, 3}));
}

TEST(SentencePieceTokenizer, PutsASpaceBeforeTextAfterASpecialTokenUnlessTheModelIsNotLegacy) {
  const auto legacy = tokenizer_from_sentencepiece(tiny_model(), {});
  const TokenId space = legacy->token_to_id("▁"), a = legacy->token_to_id("a");
  EXPECT_EQ(legacy->encode("a</s>a", false), (std::vector<TokenId>{space, a, 2, space, a}));
  const auto modern =
      tokenizer_from_sentencepiece(tiny_model(), TokenizerConfig::parse(R"({"legacy": false})"));
  EXPECT_EQ(modern->encode("a</s>a", false), (std::vector<TokenId>{space, a, 2, a}));
  EXPECT_EQ(modern->encode("</s>a", false), (std::vector<TokenId>{2, a}));
}

TEST(SentencePieceTokenizer, FollowsTheConfiguration) {
  const auto tokenizer = tokenizer_from_sentencepiece(
      tiny_model(),
      TokenizerConfig::parse(R"({"add_bos_token": false, "add_eos_token": true, "eos_token": "<end>",
                                               "added_tokens_decoder": {"400": {"content": "<end>", "special": true}}})"));
  EXPECT_EQ(tokenizer->eos_id(), 400);
  EXPECT_EQ(tokenizer->vocab_size(), 401);
  EXPECT_EQ(tokenizer->encode("hello", true), (std::vector<TokenId>{tokenizer->token_to_id("▁hello"), 400}));
  EXPECT_EQ(tokenizer->encode("<end>", false), std::vector<TokenId>{400});
  EXPECT_EQ(tokenizer->token_bytes(399), "");
}

// <unk> <s> </s> ▁ a ab b, unigram, nothing to fall back to.
std::string model_without_bytes() {
  return piece("<unk>", 0, SentencePieceModel::kUnknown) + piece("<s>", 0, SentencePieceModel::kControl) +
         piece("</s>", 0, SentencePieceModel::kControl) + piece("▁", -3) + piece("a", -2) + piece("ab", -1) +
         piece("b", -2) + bytes_field(2, number_field(3, 1)) + bytes_field(3, number_field(4, 0));
}

TEST(SentencePieceTokenizer, GivesOneUnknownTokenForARunWithoutBytes) {
  const auto tokenizer = tokenizer_from_sentencepiece(model_without_bytes(), {});
  EXPECT_EQ(tokenizer->encode("abéèaxyz日b", false), (std::vector<TokenId>{3, 5, 0, 4, 0, 6}));
  EXPECT_EQ(tokenizer->vocab_size(), 7);
  std::string run;
  while (run.size() < 1 << 20) run += "é";  // the library alone would copy all of it for every character
  EXPECT_EQ(tokenizer->encode(run + "a" + run, false), (std::vector<TokenId>{3, 0, 4, 0}));
}

TEST(SentencePieceTokenizer, SaysWhatIsWrongWithAModel) {
  EXPECT_THAT(error_of(""), HasSubstr("no unknown piece"));
  EXPECT_THAT(error_of("IQ== 0\nIg== 1\n"),
              HasSubstr("not a sentencepiece model"));  // the base64 ranks of another format
  EXPECT_THAT(error_of(tiny_model() + piece("a", 0)), HasSubstr("'a' is there twice"));
  EXPECT_THAT(error_of(tiny_model() + piece("<unk2>", 0, SentencePieceModel::kUnknown)),
              HasSubstr("two unknown"));
  EXPECT_THAT(error_of(tiny_model() + piece("new", NAN)), HasSubstr("no finite score"));
  EXPECT_THAT(error_of(tiny_model() + piece("new", 0, 17)), HasSubstr("unknown type"));
  EXPECT_THAT(error_of(tiny_model() + piece("\xFF", 0)), HasSubstr("no valid text"));
  EXPECT_THAT(error_of(tiny_model() + bytes_field(2, number_field(3, 4))),
              HasSubstr("other than unigram and BPE"));
  EXPECT_THAT(error_of(tiny_model() + bytes_field(2, number_field(24, 1))),
              HasSubstr("treat_whitespace_as_suffix"));
  const std::string config = R"({"added_tokens_decoder": {"90000000": {"content": "<far>"}}})";
  EXPECT_THAT(error_of(tiny_model(), TokenizerConfig::parse(config)), HasSubstr("out of place"));
}

TEST(SentencePieceTokenizer, RefusesANormalisationMapThatPointsOutsideItself) {
  // A trie of 256 units of which the root jumps far away.
  std::string trie(1024, '\0');
  const uint32_t root = 0xFFFFu << 10;
  std::memcpy(trie.data(), &root, sizeof root);
  const auto map = [](std::string_view units) {
    const uint32_t size = static_cast<uint32_t>(units.size());
    return std::string(reinterpret_cast<const char*>(&size), 4) + std::string(units) + std::string(1, '\0');
  };
  EXPECT_THAT(error_of(tiny_model(bytes_field(2, map(trie)))), HasSubstr("outside its trie"));
  const uint32_t far_value = 1u << 31 | 1000;
  const uint32_t leaf_at_zero = 1u << 8 | 1u << 10;  // of unit 1: its replacement's place is in unit 0
  std::memcpy(trie.data(), &far_value, sizeof far_value);
  std::memcpy(trie.data() + 4, &leaf_at_zero, sizeof leaf_at_zero);
  EXPECT_THAT(error_of(tiny_model(bytes_field(2, map(trie)))), HasSubstr("outside its replacements"));
  EXPECT_THAT(error_of(tiny_model(bytes_field(2, "abc"))), HasSubstr("cut off"));
}

TEST(SentencePieceTokenizer, SurvivesRandomDamage) {
  std::mt19937 random(9);
  const std::string whole = tiny_model();
  int num_loaded = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string proto = whole;
    for (int n = 1 + static_cast<int>(random() % 3); n > 0; --n) {
      const size_t at = random() % proto.size();
      if (random() % 3 == 0) proto.erase(at, random() % 20);
      if (random() % 3 == 0) proto.insert(at, proto.substr(random() % proto.size(), random() % 20));
      if (at < proto.size()) proto[at] = static_cast<char>(random());
    }
    try {
      const auto tokenizer = tokenizer_from_sentencepiece(proto, {});
      ++num_loaded;
      const std::vector<TokenId> ids = tokenizer->encode("hello wörld </s><user>\n 12345", true);
      for (const TokenId id : ids) ASSERT_LT(id, tokenizer->vocab_size());
      ASSERT_TRUE(is_valid_utf8(tokenizer->decode(ids, false)));
    } catch (const std::runtime_error& error) {
      ASSERT_STRNE(error.what(), "");
    }
  }
  EXPECT_GT(num_loaded, 50);
}

}  // namespace
}  // namespace serval::test
