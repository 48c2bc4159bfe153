#include "engine/model/generation_defaults.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/base/log.h"
#include "tests/engine/model/test_files.h"

namespace serval::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kVocab = 128'256;

class GenerationDefaultsTest : public ::testing::Test {
 protected:
  GenerationDefaultsTest() {
    folder_.write("config.json", R"({"eos_token_id": [128001, 128009], "bos_token_id": 128000})");
  }

  // What the file gives, and what was said about it.
  GenerationDefaults read(std::string_view text) {
    folder_.write("generation_config.json", text);
    ::testing::internal::CaptureStderr();
    GenerationDefaults defaults = read_generation_defaults(folder_.path(), kVocab);
    flush_log();
    said_ = ::testing::internal::GetCapturedStderr();
    return defaults;
  }
  std::string complaint_of(std::string_view text) {
    folder_.write("generation_config.json", text);
    return complaint([&] { read_generation_defaults(folder_.path(), kVocab); });
  }

  TemporaryFolder folder_;
  std::string said_;
};

TEST_F(GenerationDefaultsTest, ComeFromTheGenerationConfigThenTheConfig) {
  GenerationDefaults defaults = read_generation_defaults(folder_.path(), kVocab);
  EXPECT_THAT(defaults.eos_token_ids, ElementsAre(128001, 128009));
  EXPECT_EQ(defaults.bos_token_id, 128000);
  EXPECT_FALSE(defaults.temperature || defaults.top_p || defaults.top_k || defaults.min_p ||
               defaults.repetition_penalty);

  defaults = read(
      R"({"eos_token_id": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.1, "min_p": 0.05})");
  EXPECT_THAT(defaults.eos_token_ids, ElementsAre(5));
  EXPECT_EQ(defaults.bos_token_id, 128000);
  EXPECT_EQ(defaults.temperature, 0.5f);
  EXPECT_EQ(defaults.top_p, 0.9f);
  EXPECT_EQ(defaults.top_k, 20);
  EXPECT_EQ(defaults.repetition_penalty, 1.1f);
  EXPECT_EQ(defaults.min_p, 0.05f);
  EXPECT_THAT(said_, IsEmpty());
}

TEST_F(GenerationDefaultsTest, TakeEveryValueThatARequestMayHave) {
  GenerationDefaults defaults = read(
      R"({"do_sample": true, "temperature": 0, "top_p": 0, "top_k": 0, "repetition_penalty": 1.0, "min_p": 0})");
  EXPECT_EQ(defaults.temperature, 0.0f);
  EXPECT_EQ(defaults.top_p, 0.0f);
  EXPECT_EQ(defaults.top_k, 0);
  EXPECT_EQ(defaults.repetition_penalty, 1.0f);
  EXPECT_EQ(defaults.min_p, 0.0f);
  EXPECT_EQ(read(R"({"top_k": -1})").top_k, 0);
  EXPECT_EQ(read(R"({"top_k": 50.0})").top_k, 50);
  EXPECT_EQ(read(R"({"top_k": 3000000000})").top_k, 0);
  EXPECT_EQ(read(R"({"do_sample": false, "temperature": 0.6})").temperature, 0.0f);
  EXPECT_EQ(read(R"({"temperature": 2, "repetition_penalty": 10})").temperature, 2.0f);
  EXPECT_THAT(said_, IsEmpty());
}

TEST_F(GenerationDefaultsTest, MoveWhatIsOutOfRangeToTheNearestEndAndSaySo) {
  EXPECT_EQ(read(R"({"temperature": 5})").temperature, 2.0f);
  EXPECT_THAT(said_, AllOf(HasSubstr("generation_config.json"), HasSubstr("temperature"), HasSubstr("=5 ")));
  EXPECT_EQ(std::count(said_.begin(), said_.end(), '\n'), 1);
  EXPECT_EQ(read(R"({"temperature": -1})").temperature, 0.0f);
  EXPECT_THAT(said_, HasSubstr("temperature"));
  EXPECT_EQ(read(R"({"repetition_penalty": 50})").repetition_penalty, 10.0f);
  EXPECT_THAT(said_, HasSubstr("repetition_penalty"));
  EXPECT_EQ(read(R"({"top_p": 1.5})").top_p, 1.0f);
  EXPECT_EQ(read(R"({"min_p": 1e400})").min_p, 1.0f);
  EXPECT_EQ(read(R"({"top_k": -2})").top_k, 0);
  EXPECT_THAT(said_, HasSubstr("top_k"));
}

TEST_F(GenerationDefaultsTest, LeaveOutIdsThatTheModelHasNoRowsForAndSaySo) {
  const std::string ids = "[5, 128256, 4000000, 99999999999]";
  GenerationDefaults defaults =
      read(R"({"eos_token_id": )" + ids + R"(, "bos_token_id": 128256, "pad_token_id": 128256})");
  EXPECT_THAT(defaults.eos_token_ids, ElementsAre(5));
  EXPECT_EQ(defaults.bos_token_id, 128000) << "the configuration's, which fits";
  EXPECT_THAT(said_, AllOf(HasSubstr("128256, 4000000, 99999999999"), HasSubstr("eos_token_id")));
  EXPECT_EQ(read(R"({"eos_token_id": 128255})").eos_token_ids.front(), 128255);
  EXPECT_THAT(said_, IsEmpty());
}

TEST_F(GenerationDefaultsTest, RefuseWhatMeansNothingByFileAndField) {
  const std::pair<const char*, const char*> kCases[] = {
      {R"({"repetition_penalty": 0})", "repetition_penalty must be above 0"},
      {R"({"repetition_penalty": -1})", "repetition_penalty must be above 0"},
      {R"({"temperature": "warm"})", "temperature must be a number"},
      {R"({"top_k": 1.5})", "top_k must be an integer"},
      {R"({"do_sample": "no"})", "do_sample must be true or false"},
      {R"({"eos_token_id": "x"})", "eos_token_id must be a token id"},
      {R"({"eos_token_id": [-1]})", "eos_token_id must be a token id"},
  };
  for (const auto& [text, words] : kCases) {
    EXPECT_THAT(complaint_of(text), AllOf(HasSubstr("generation_config.json: "), HasSubstr(words)));
  }
}

}  // namespace
}  // namespace serval::testing
