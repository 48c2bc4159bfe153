#include "engine/text/tokenizer/sentence_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

#include "engine/text/tokenizer/load_tokenizer.h"
#include "tests/engine/text/tokenizer/tokenizer_data.h"

namespace serval::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string error_of(const ModelFolder& folder) {
  try {
    read_sentence_config(folder.path());
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(SentenceConfig, SaysNothingOfAFolderWithoutIt) {
  const ModelFolder folder;
  folder.write("tokenizer_config.json", R"({"model_max_length": 256})");
  EXPECT_EQ(read_sentence_config(folder.path()).max_seq_length, std::nullopt);
  EXPECT_FALSE(read_sentence_config(folder.path()).do_lower_case);
}

TEST(SentenceConfig, HasHadManyNames) {
  const ModelFolder folder;
  folder.write("sentence_roberta_config.json", R"({"max_seq_length": 75, "do_lower_case": true})");
  EXPECT_EQ(read_sentence_config(folder.path()).max_seq_length, 75);
  EXPECT_TRUE(read_sentence_config(folder.path()).do_lower_case);
  folder.write("sentence_bert_config.json", R"({"max_seq_length": 128, "do_lower_case": false})");
  EXPECT_EQ(read_sentence_config(folder.path()).max_seq_length, 128);
  EXPECT_FALSE(read_sentence_config(folder.path()).do_lower_case);
}

TEST(SentenceConfig, LeavesTheLengthToTheTokenizerOfItsNewerFolders) {
  const ModelFolder folder;
  folder.write("modules.json", "[]");
  folder.write("sentence_bert_config.json", R"({"transformer_task": "feature-extraction", "max_seq_length": null})");
  EXPECT_EQ(read_sentence_config(folder.path()).max_seq_length, std::nullopt);
  folder.write("tokenizer_config.json", R"({"model_max_length": 256})");
  EXPECT_EQ(read_sentence_config(folder.path()).max_seq_length, 256);
  folder.write("tokenizer_config.json", R"({"model_max_length": 1000000000000000019884624838656})");
  EXPECT_EQ(read_sentence_config(folder.path()).max_seq_length, std::nullopt);
  folder.write("sentence_bert_config.json", R"({"max_seq_length": 64})");
  EXPECT_EQ(read_sentence_config(folder.path()).max_seq_length, 64);
}

TEST(SentenceConfig, NamesWhatIsWrong) {
  const ModelFolder folder;
  for (const char* text : {R"({"max_seq_length": 0})", R"({"max_seq_length": "256"})", R"({"max_seq_length": 1e30})"}) {
    folder.write("sentence_bert_config.json", text);
    EXPECT_THAT(error_of(folder), AllOf(HasSubstr("sentence_bert_config.json"), HasSubstr("max_seq_length"))) << text;
  }
  folder.write("sentence_bert_config.json", "[]");
  EXPECT_THAT(error_of(folder), HasSubstr("sentence_bert_config.json"));
}

TEST(SentenceConfig, LowersTextsBeforeTheTokenizerSeesThem) {
  const ModelFolder folder;
  folder.write("tokenizer.json", tiny_byte_level_json());
  const auto cased = load_tokenizer(folder.path());
  folder.write("sentence_bert_config.json", R"({"do_lower_case": true})");
  const auto lowers = load_tokenizer(folder.path());
  EXPECT_NE(cased->encode("HELLO Wor", false), cased->encode("hello wor", false));
  EXPECT_EQ(lowers->encode("HELLO Wor", false), cased->encode("hello wor", false));
  // Names of tokens are none of the text.
  EXPECT_EQ(lowers->encode("<|end|>A", false), cased->encode("<|end|>a", false));
  // U+212A, three bytes, is one token.
  EXPECT_LE(lowers->least_tokens("\u212A\u212A"), lowers->encode("\u212A\u212A", false).size());
  EXPECT_THAT(load_error({{"sentence_bert_config.json", R"({"do_lower_case": true})"}, {"tokenizer.model", ""}}), HasSubstr("do_lower_case"));
}

}  // namespace
}  // namespace serval::test
