// RWKV's World vocabulary: how its file is read, and that text is cut by longest match.
#include "engine/text/tokenizer/world_vocabulary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace serval::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A line for each byte, as the published file begins: ids 1 to 256.
std::string bytes_file() {
  std::string text;
  for (int byte = 0; byte < 256; ++byte) {
    char code[8];
    std::snprintf(code, sizeof code, "\\x%02x", byte);
    text += std::to_string(byte + 1) + (byte < 128 ? " '" : " b'") + code + "' 1\n";
  }
  return text;
}

std::vector<TokenId> encode(const Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.encode(text, /*add_special=*/true, /*parse_special=*/true, "");
}

std::string error_of(const std::string& text, const TokenizerConfig& config = {}) {
  try {
    tokenizer_from_world(text, config);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(WorldVocabulary, ReadsTokensAsPythonWritesThem) {
  const auto tokenizer = tokenizer_from_world(
      bytes_file() + "257 '\\n\\n' 2\n258 \"it's\" 4\n259 'say \"' 5\n260 '\\'\"\\\\' 3\n261 '\\u3000' 3\n262 '\\xe9' 2\n263 b'\\xe4\\xbd' 2\n"
                     "264 'a b' 3\n265 '\xC3\xBC' 2\r\n",
      {});
  EXPECT_EQ(tokenizer->token_bytes(257), "\n\n");
  EXPECT_EQ(tokenizer->token_bytes(258), "it's");
  EXPECT_EQ(tokenizer->token_bytes(259), "say \"");
  EXPECT_EQ(tokenizer->token_bytes(260), "'\"\\");
  EXPECT_EQ(tokenizer->token_bytes(261), "\xE3\x80\x80");
  EXPECT_EQ(tokenizer->token_bytes(262), "\xC3\xA9");
  EXPECT_EQ(tokenizer->token_bytes(263), "\xE4\xBD");
  EXPECT_EQ(tokenizer->token_bytes(264), "a b");
  EXPECT_EQ(tokenizer->token_bytes(265), "\xC3\xBC");
  EXPECT_EQ(tokenizer->token_bytes(256), "\xFF");
  EXPECT_TRUE(tokenizer->is_special(0));
  EXPECT_EQ(tokenizer->eos_id(), 0);
  EXPECT_EQ(tokenizer->vocab_size(), 266);
  // The first two bytes of a character, then its last.
  EXPECT_THAT(encode(*tokenizer, "a b\xE4\xBD\xA0<|endoftext|>\n\n"), ElementsAre(264, 263, 0xA0 + 1, 0, 257));
}

TEST(WorldVocabulary, CutsByLongestMatch) {
  std::string file = bytes_file();
  std::map<std::string, TokenId> names;
  for (int byte = 0; byte < 256; ++byte) names[std::string(1, static_cast<char>(byte))] = byte + 1;
  std::mt19937 random(5);
  const auto letters = [&](int most) {
    std::string text;
    for (int n = 1 + static_cast<int>(random() % most); n > 0; --n) text += "abc"[random() % 3];
    return text;
  };
  for (TokenId id = 257; id < 300; ++id) {
    const std::string name = letters(5);
    if (!names.try_emplace(name, id).second) continue;
    file += std::to_string(id) + " '" + name + "' " + std::to_string(name.size()) + "\n";
  }
  const auto tokenizer = tokenizer_from_world(file, {});
  for (int round = 0; round < 300; ++round) {
    const std::string text = letters(30);
    std::vector<TokenId> want;
    for (size_t at = 0; at < text.size();) {
      size_t length = text.size() - at;
      while (!names.contains(text.substr(at, length))) --length;
      want.push_back(names[text.substr(at, length)]);
      at += length;
    }
    EXPECT_EQ(encode(*tokenizer, text), want) << text;
  }
}

TEST(WorldVocabulary, TakesTheNameOfItsEndFromTheConfiguration) {
  TokenizerConfig config;
  config.added_tokens = {{.content = "<|rwkv_tokenizer_end_of_text|>", .id = 0, .special = true, .normalized = false}};
  const auto tokenizer = tokenizer_from_world(bytes_file(), config);
  EXPECT_THAT(encode(*tokenizer, "<|rwkv_tokenizer_end_of_text|>A"), ElementsAre(0, 'A' + 1));
  EXPECT_EQ(tokenizer->token_to_id("<|endoftext|>"), -1);
}

TEST(WorldVocabulary, SaysWhichLineItCannotRead) {
  for (const char* line : {"257 'ab' 3", "257 'ab'", "x 'ab' 2", "257 ab 2", "257 '\\q' 1", "257 '\\x4' 1", "257 '' 0", "257 '\\ud800' 3",
                           "257 b'\\u3000' 3", "257 'ab\" 2", "99999999999 'ab' 2", "", "257"})
    EXPECT_EQ(error_of(bytes_file() + line + "\n"), "line 257 is not an id, a token as Python writes it and its length") << line;
  EXPECT_THAT(error_of("1 'a' 1\n"), HasSubstr("it has no token for each byte"));
  EXPECT_NE(error_of(bytes_file() + "257 'a' 1\n"), "");  // a name twice
  EXPECT_NE(error_of(bytes_file() + "256 'ab' 2\n"), "");  // an id twice
  TokenizerConfig small;
  small.num_rows = 200;
  EXPECT_NE(error_of(bytes_file(), small), "");
}

}  // namespace
}  // namespace serval::test
