// The long versions of the laws in tokenizer_json_test.cc, on whatever tokenisers are at hand. Seeded; label
// `long`.
#include <gtest/gtest.h>

#include <random>
#include <stdexcept>

#include "engine/text/tokenizer/detokenizer.h"
#include "engine/text/tokenizer/load_tokenizer.h"
#include "engine/text/tokenizer/sentencepiece_tokenizer.h"
#include "engine/text/tokenizer/tokenizer_json.h"
#include "kernels/base/utf8.h"
#include "tests/engine/text/tokenizer/tokenizer_data.h"

namespace serval::test {
namespace {

namespace fs = std::filesystem;

std::string random_bytes(std::mt19937& random, size_t longest) {
  std::string bytes(random() % (longest + 1), '\0');
  const bool mostly_text = random() % 2 == 0;
  for (char& byte : bytes)
    byte = mostly_text && random() % 8 != 0 ? " \n\tabcdefABC0123.,'<|>"[random() % 22]
                                            : static_cast<char>(random());
  return bytes;
}

// "▁" is how the sentencepiece family writes a space, so it comes back as one.
std::string with_plain_spaces(std::string text) {
  constexpr std::string_view kSymbol = "▁";
  for (size_t at; (at = text.find(kSymbol)) != std::string::npos;) text.replace(at, kSymbol.size(), " ");
  return text;
}

// Any bytes, made valid, come back exactly: at once, and id by id.
void expect_round_trips(const Tokenizer& tokenizer, int num_rounds, unsigned seed,
                        bool writes_spaces_as_symbols = false) {
  std::mt19937 random(seed);
  for (int round = 0; round < num_rounds; ++round) {
    const std::string bytes = random_bytes(random, 400);
    const std::vector<TokenId> ids = tokenizer.encode(bytes, false, false);
    std::string text = repair_utf8(bytes);
    if (writes_spaces_as_symbols) text = with_plain_spaces(std::move(text));
    ASSERT_EQ(tokenizer.decode(ids, false), text);
    Detokenizer detokenizer(tokenizer, {.skip_special = false});
    std::string joined;
    for (const TokenId id : ids) detokenizer.push(id, joined);
    detokenizer.finish(joined);
    ASSERT_EQ(joined, text);
  }
}

// Any ids at all decode to valid text, the same id by id as at once.
void expect_any_ids_decode(const Tokenizer& tokenizer, int num_rounds, unsigned seed) {
  std::mt19937 random(seed);
  for (int round = 0; round < num_rounds; ++round) {
    std::vector<TokenId> ids(random() % 50);
    for (TokenId& id : ids)
      id = static_cast<TokenId>(random() % static_cast<unsigned>(tokenizer.vocab_size() + 10)) - 5;
    ASSERT_TRUE(is_valid_utf8(tokenizer.decode(ids, random() % 2 == 0)));
  }
}

TEST(TokenizerFuzz, ByteLevelTokenisersGiveBackRandomBytes) {
  expect_round_trips(*tokenizer_from_json(tiny_byte_level_json(), {}), 50'000, 1);
  expect_round_trips(*tokenizer_from_json(tiny_byte_fallback_json(), {}), 50'000, 2, true);
  expect_round_trips(*load_tokenizer(fs::path(SERVAL_SOURCE_DIR) / "deploy/models/serval-nano"), 50'000, 3);
  if (!fs::exists(shared_data("tok-gpt2"))) GTEST_SKIP() << "there is no " << shared_data("tok-gpt2");
  expect_round_trips(*load_tokenizer(shared_data("tok-gpt2")), 50'000, 4);
  expect_round_trips(*load_tokenizer(shared_data("tok-phi-3-mini")), 50'000, 5, true);
}

TEST(TokenizerFuzz, AnyIdsDecodeToValidText) {
  expect_any_ids_decode(*tokenizer_from_json(tiny_byte_level_json(), {}), 100'000, 1);
  expect_any_ids_decode(*tokenizer_from_json(tiny_byte_fallback_json(), {}), 100'000, 2);
}

template <class Load>
void expect_damage_is_survived(const std::string& whole, int num_rounds, unsigned seed, Load load) {
  std::mt19937 random(seed);
  for (int round = 0; round < num_rounds; ++round) {
    std::string file = whole;
    for (int n = 1 + static_cast<int>(random() % 8); n > 0 && !file.empty(); --n) {
      const size_t at = random() % file.size();
      if (random() % 4 == 0) file.erase(at, random() % 64);
      if (random() % 4 == 0)
        file.insert(std::min(at, file.size()), file, random() % (file.size() + 1), random() % 64);
      if (at < file.size())
        file[at] = random() % 2 == 0 ? "0123456789{}[],:\"\\"[random() % 18] : static_cast<char>(random());
    }
    if (random() % 50 == 0) file.resize(random() % (file.size() + 1));
    try {
      const auto tokenizer = load(file);
      const std::vector<TokenId> ids =
          tokenizer->encode("hello wörld <|end|></s>\n 12345 日本 ﬁ e\u0301", true);
      for (const TokenId id : ids) ASSERT_LT(id, tokenizer->vocab_size());
      ASSERT_TRUE(is_valid_utf8(tokenizer->decode(ids, false)));
    } catch (const std::runtime_error& error) {
      ASSERT_STRNE(error.what(), "");
    }
  }
}

TEST(TokenizerFuzz, DamagedFilesAreRefusedOrHarmless) {
  const auto from_json = [](const std::string& file) { return tokenizer_from_json(file, {}); };
  const auto from_model = [](const std::string& file) { return tokenizer_from_sentencepiece(file, {}); };
  expect_damage_is_survived(tiny_byte_level_json(), 50'000, 1, from_json);
  expect_damage_is_survived(tiny_byte_fallback_json(), 50'000, 2, from_json);
  if (!fs::exists(shared_data("tok-spm-unigram")))
    GTEST_SKIP() << "there is no " << shared_data("tok-spm-unigram");
  expect_damage_is_survived(read_text(shared_data("tok-spm-unigram/tokenizer.model")), 3000, 3, from_model);
  expect_damage_is_survived(read_text(shared_data("model-stories260K/hf/tokenizer.model")), 20'000, 4,
                            from_model);
}

}  // namespace
}  // namespace serval::test
