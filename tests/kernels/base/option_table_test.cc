// One parser for every program's command line.
#include "kernels/base/option_table.h"

#include <gtest/gtest.h>

#include "kernels/base/usage.h"

namespace serval {
namespace {

constexpr unsigned kGo = 1, kStay = 2;

struct Settings {
  int count = 1;
  std::string name;
  std::vector<std::string> list;
  bool loud = false, cached = true;
};

std::vector<OptionRow> rows_of(Settings& s) {
  return {
      {"--max-count", "N", "how many", kGo, set_number(s.count, 1, 9)},
      {"--name", "TEXT", "who", kGo | kStay, set_text(s.name)},
      {"--item", "TEXT", "any number of times", kGo, add_text(s.list)},
      {"--loud", "", "a flag", kStay | kGo, set_flag(s.loud)},
      {"--cache", "VALUE", "yes or no", kGo, [&s](const std::string& text) { s.cached = text == "true"; }, true},
  };
}

// What is wrong with a line: "usage: ..." or "value: ..."; "" when nothing is.
std::string complaint(const std::vector<std::string>& arguments, const CommandForm& form = {"prog go", kGo}) {
  Settings settings;
  try {
    take_options(rows_of(settings), form, arguments);
  } catch (const UsageError& wrong) {
    return std::string("usage: ") + wrong.what();
  } catch (const std::runtime_error& wrong) {
    return std::string("value: ") + wrong.what();
  }
  return "";
}

TEST(OptionTable, TakesEverySpelling) {
  Settings s;
  const std::vector<OptionRow> rows = rows_of(s);
  const GivenOptions given =
      read_options(rows, {"prog go", kGo, true},
                   {"MODEL", "--max-count=3", "--name", "--loud", "--item", "a", "--item=b", "--loud", "--no-cache", "--max_count", "4"});
  EXPECT_EQ(s.count, 1) << "reading sets nothing";
  EXPECT_EQ(given.value_of("--max-count"), "3");
  EXPECT_EQ(given.value_of("--nothing"), std::nullopt);
  set_options(given);
  EXPECT_EQ(given.words, std::vector<std::string>{"MODEL"});
  EXPECT_EQ(s.count, 4) << "the last counts";
  EXPECT_EQ(s.name, "--loud") << "what follows an option that takes a value is its value";
  EXPECT_EQ(s.list, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(s.loud);
  EXPECT_FALSE(s.cached);
  take_options(rows, {"prog go", kGo}, {"--cache"});
  EXPECT_TRUE(s.cached);
}

TEST(OptionTable, SaysWhatItDoesNotUnderstandAndWhatWasMeant) {
  const std::pair<std::vector<std::string>, std::string> lines[] = {
      {{"--max-cuont", "1"}, "usage: unknown option --max-cuont (did you mean --max-count?); --help lists them"},
      {{"--zzzzzzzzz"}, "usage: unknown option --zzzzzzzzz; --help lists them"},
      {{"-z"}, "usage: unknown option -z; --help lists them"},
      {{"--max-count"}, "usage: --max-count needs a value"},
      {{"--loud=yes"}, "usage: --loud takes no value"},
      {{"--no-loud"}, "usage: unknown option --no-loud (did you mean --loud?); --help lists them"},
      {{"loose"}, "usage: prog go cannot use 'loose'; options begin with --"},
      {{"--max-count", "0"}, "value: --max-count is '0'; it must be a whole number from 1 to 9"},
      {{"--max-count", "1.5"}, "value: --max-count is '1.5'; it must be a whole number from 1 to 9"},
  };
  for (const auto& [arguments, expected] : lines) EXPECT_EQ(complaint(arguments), expected);
  EXPECT_EQ(complaint({"--item", "x"}, {"prog stay", kStay}), "usage: --item does not go with prog stay");
}

TEST(OptionTable, ListsWhatAFormHonours) {
  Settings s;
  EXPECT_EQ(options_help(rows_of(s), kStay), "  --name TEXT                   who\n  --loud                        a flag\n");
}

}  // namespace
}  // namespace serval
