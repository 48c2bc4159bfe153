// Published tokenisers against expectations that other people's code made: the ids of every text in tok-pool
// (the `tokenizers` library, sentencepiece, tiktoken), the test vectors of llama.cpp and the test plans of
// gpt-tokenizer. Some are part of the repository, with a part of the texts; all lie beside it, or are
// skipped. See their SOURCE.md.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <sstream>

#include "engine/text/tokenizer/detokenizer.h"
#include "engine/text/tokenizer/load_tokenizer.h"
#include "engine/text/tokenizer/normalizer.h"
#include "engine/text/tokenizer/tokenizer.h"
#include "kernels/base/utf8.h"
#include "tests/engine/text/tokenizer/tokenizer_data.h"

namespace serval::test {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

using Data = fs::path (*)(std::string_view name);

struct Case {
  const char* name;
  Data data;  // where the folders are
  const char* folder;
  const char* pool_ids;
  bool parse_special;  // whether the expectation was made with the names of special tokens recognised
  bool lossless;       // decoding gives back the text
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

std::string nfc(const std::string& text) {
  static const json::value kForm = {{"type", "NFC"}};
  return Normalizer::from_json(&kForm).apply(text);
}

class PublishedTokenizer : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const fs::path folder = data(GetParam().folder);
    if (!fs::exists(folder)) GTEST_SKIP() << "there is no " << folder;
    tokenizer_ = load_tokenizer(folder);
  }

  static fs::path data(std::string_view name) { return GetParam().data(name); }

  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_P(PublishedTokenizer, GivesTheExpectedIdsOfThePool) {
  const auto expected = read_id_lines(data(GetParam().pool_ids));
  const std::vector<std::string> texts = pool_texts(data("tok-pool"));
  ASSERT_EQ(texts.size(), expected.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    ASSERT_EQ(tokenizer_->encode(texts[i], false, GetParam().parse_special), expected[i])
        << "text " << i << ": " << texts[i];
  }
}

// The vectors of llama.cpp: texts (.inp) and a line of ids for each (.out).
using Vectors = std::tuple<Data, const char*, const char*>;
class TokenizerVectors : public testing::TestWithParam<Vectors> {};

TEST_P(TokenizerVectors, GiveTheExpectedIds) {
  const auto [data, name, vectors] = GetParam();
  const fs::path folder = data(name);
  if (!fs::exists(folder)) GTEST_SKIP() << "there is no " << folder;
  const auto tokenizer = load_tokenizer(folder);
  const std::string inputs = read_text(folder / (std::string(vectors) + ".inp"));
  std::istringstream outputs(read_text(folder / (std::string(vectors) + ".out")));
  constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";
  size_t begin = 0;
  int num_vectors = 0;
  for (std::string line; std::getline(outputs, line); ++num_vectors) {
    const size_t end = std::min(inputs.find(kSeparator, begin), inputs.size());
    const std::string text = inputs.substr(begin, end - begin);
    begin = end + kSeparator.size();
    std::istringstream numbers(line);
    std::vector<TokenId> expected;
    for (TokenId id; numbers >> id;) expected.push_back(id);
    ASSERT_EQ(tokenizer->encode(text, false), expected) << "vector " << num_vectors << ": '" << text << "'";
  }
  EXPECT_GE(num_vectors, 40);
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerVectors,
                         testing::Values(Vectors(vendored_data, "tok-gpt2", "ggml-vocab-gpt-2.gguf"),
                                         Vectors(shared_data, "tok-qwen2", "ggml-vocab-qwen2.gguf"),
                                         Vectors(shared_data, "tok-phi-3-mini", "ggml-vocab-phi-3.gguf")));

TEST_P(PublishedTokenizer, GivesEveryPieceOfTextOnceWhenIdsComeOneByOne) {
  for (const std::string& text : pool_texts(data("tok-pool"))) {
    const std::vector<TokenId> ids = tokenizer_->encode(text, false);
    Detokenizer detokenizer(*tokenizer_, {});
    std::string joined;
    for (const TokenId id : ids) {
      std::string part;
      detokenizer.push(id, part);
      ASSERT_TRUE(is_valid_utf8(part)) << text;
      joined += part;
    }
    detokenizer.finish(joined);
    ASSERT_EQ(joined, tokenizer_->decode(ids, true));
    if (GetParam().lossless) {
      ASSERT_EQ(nfc(joined), nfc(text));  // some of them compose what they read
    }
  }
}

// A megabyte of what no pre-tokeniser cuts, or of what looks like the beginning of something everywhere.
// Quadratic work anywhere would take hours here.
TEST_P(PublishedTokenizer, EncodesAMegabyteOfOneWord) {
  if (GetParam().data == shared_data && fs::exists(vendored_data(GetParam().folder))) return;  // it did
  for (const char* unit : {"a", " ", " \n", "<|im_", "日", "\u0300\u0323"}) {
    std::string text;
    while (text.size() < 1 << 20) text += unit;
    const std::vector<TokenId> ids = tokenizer_->encode(text, false);
    ASSERT_LE(ids.size(), text.size() + 1);
    if (GetParam().lossless) {
      ASSERT_EQ(nfc(tokenizer_->decode(ids, true)), nfc(text)) << unit;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, PublishedTokenizer,
    testing::Values(Case{"VendoredGpt2", vendored_data, "tok-gpt2", "tok-gpt2/r50k_base.pool.ids.jsonl",
                         false, true},
                    Case{"VendoredMistralV1", vendored_data, "tok-mistral-v1-spm",
                         "tok-mistral-v1-spm/spm-mistral-v1.pool.ids.jsonl", false, true},
                    Case{"VendoredSpmUnigram", vendored_data, "tok-spm-unigram",
                         "tok-spm-unigram/spm-spm-unigram-test.pool.ids.jsonl", false, false},
                    Case{"Qwen2", shared_data, "tok-qwen2", "tok-qwen2/qwen2.pool.ids.jsonl", true, true},
                    Case{"Phi3Mini", shared_data, "tok-phi-3-mini",
                         "tok-phi-3-mini/phi-3-mini.pool.ids.jsonl", true, true},
                    Case{"MistralV1", shared_data, "tok-mistral-v1-spm",
                         "tok-mistral-v1-spm/spm-mistral-v1.pool.ids.jsonl", false, true},
                    Case{"Gpt2", shared_data, "tok-gpt2", "tok-gpt2/r50k_base.pool.ids.jsonl", false, true},
                    Case{"GptNeox", shared_data, "tok-gpt-neox-20b",
                         "tok-gpt-neox-20b/gpt-neox-20b.pool.ids.jsonl", true, true},
                    // This one folds compatibility characters and has no bytes to fall back to.
                    Case{"SpmUnigram", shared_data, "tok-spm-unigram",
                         "tok-spm-unigram/spm-spm-unigram-test.pool.ids.jsonl", false, false},
                    Case{"Stories260K", shared_data, "model-stories260K/hf",
                         "model-stories260K/stories260K.pool.ids.jsonl", true, true}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(Gpt2Tokenizer, GivesTheIdsOfTheTestPlans) {
  const fs::path plans = shared_data("tok-gpt2/TestPlans.r50k_base.json");
  if (!fs::exists(plans)) GTEST_SKIP() << "there is no " << plans;
  const auto tokenizer = load_tokenizer(shared_data("tok-gpt2"));
  const json::value list = json::parse(read_text(plans));
  EXPECT_GE(list.as_array().size(), 60u);
  for (const json::value& plan : list.as_array()) {
    const std::string text(plan.at("text").as_string());
    EXPECT_EQ(tokenizer->encode(text, false, false), json::value_to<std::vector<TokenId>>(plan.at("ids")))
        << text;
  }
}

// The same without its tokenizer.json.
TEST(Qwen2Tokenizer, SaysTheSameFromItsVocabularyAndMerges) {
  const fs::path folder = shared_data("tok-qwen2");
  if (!fs::exists(folder)) GTEST_SKIP() << "there is no " << folder;
  const ModelFolder copy;
  for (const char* name : {"vocab.json", "merges.txt", "tokenizer_config.json"})
    copy.write(name, read_text(folder / name));
  const auto from_json = load_tokenizer(folder);
  const auto from_merges = load_tokenizer(copy.path());
  EXPECT_EQ(from_json->vocab_size(), from_merges->vocab_size());
  for (const std::string& text : pool_texts(shared_data("tok-pool")))
    ASSERT_EQ(from_json->encode(text, true), from_merges->encode(text, true)) << text;
}

// A rank file, under the name by which its family is known.
TEST(Cl100kTokenizer, GivesTheIdsOfThePoolOfTheTestPlansAndOfALongFile) {
  const fs::path folder = shared_data("tok-cl100k");
  if (!fs::exists(folder)) GTEST_SKIP() << "there is no " << folder;
  const auto tokenizer = load_tokenizer(folder);
  const std::vector<std::string> texts = pool_texts(shared_data("tok-pool"));
  const auto expected = read_id_lines(folder / "cl100k_base.pool.ids.jsonl");
  ASSERT_EQ(texts.size(), expected.size());
  for (size_t i = 0; i < texts.size(); ++i)
    ASSERT_EQ(tokenizer->encode(texts[i], false, false), expected[i]) << texts[i];
  const json::value plans = json::parse(read_text(folder / "TestPlans.cl100k_base.json"));
  for (const json::value& plan : plans.as_array()) {
    const std::string text(plan.at("text").as_string());
    EXPECT_EQ(tokenizer->encode(text, false, false), json::value_to<std::vector<TokenId>>(plan.at("ids")))
        << text;
  }
  EXPECT_EQ(tokenizer->encode(read_text(folder / "lib.rs.txt"), false),
            json::value_to<std::vector<TokenId>>(json::parse(read_text(folder / "lib.rs.cl100k.ids.json"))));
}

// The folder has both files; each must say the same.
TEST(Stories260KTokenizer, SaysTheSameFromItsSentencepieceModel) {
  const fs::path folder = shared_data("model-stories260K/hf");
  if (!fs::exists(folder)) GTEST_SKIP() << "there is no " << folder;
  const auto from_json = load_tokenizer(folder);
  const ModelFolder copy;
  for (const char* name : {"tokenizer.model", "tokenizer_config.json"})
    copy.write(name, read_text(folder / name));
  const auto from_model = load_tokenizer(copy.path());
  EXPECT_EQ(from_json->vocab_size(), from_model->vocab_size());
  EXPECT_EQ(from_json->bos_id(), 1);
  EXPECT_EQ(from_model->bos_id(), 1);
  EXPECT_EQ(from_model->eos_id(), 2);
  for (const std::string& text : pool_texts(shared_data("tok-pool"))) {
    ASSERT_EQ(from_json->encode(text, true), from_model->encode(text, true)) << text;
  }
  for (TokenId id = 0; id < from_json->vocab_size(); ++id) {
    EXPECT_EQ(from_json->token_bytes(id), from_model->token_bytes(id)) << id;
    EXPECT_EQ(from_json->is_special(id), from_model->is_special(id)) << id;
  }
}

}  // namespace
}  // namespace serval::test
