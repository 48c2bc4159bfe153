// The tokeniser of the model that ships, against ids that the `tokenizers` library gave when it was made
// (tests/golden/make_nano_golden.py).
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <sstream>

#include "engine/text/tokenizer/load_tokenizer.h"
#include "engine/text/tokenizer/tokenizer.h"
#include "tests/engine/text/tokenizer/tokenizer_data.h"

namespace serval::test {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

TEST(ServalNanoTokenizer, GivesTheExpectedIdsAndDecodesThemBack) {
  const auto tokenizer = load_tokenizer(fs::path(SERVAL_SOURCE_DIR) / "deploy/models/serval-nano");
  std::istringstream lines(
      read_text(fs::path(SERVAL_SOURCE_DIR) / "tests/fixtures/serval-nano/tokenizer_cases.jsonl"));
  int num_cases = 0;
  for (std::string line; std::getline(lines, line); ++num_cases) {
    const json::value row = json::parse(line);
    const std::string text(row.at("text").as_string());
    const auto expected = json::value_to<std::vector<TokenId>>(row.at("ids"));
    EXPECT_EQ(tokenizer->encode(text, false), expected) << text;
    EXPECT_EQ(tokenizer->decode(expected, false), text);
  }
  EXPECT_GE(num_cases, 20);
  EXPECT_GE(tokenizer->eos_id(), 0);
}

}  // namespace
}  // namespace serval::test
