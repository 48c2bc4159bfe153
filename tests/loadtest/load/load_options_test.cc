#include "loadtest/load/load_options.h"

#include <gtest/gtest.h>

#include "kernels/base/usage.h"

namespace serval::load {
namespace {

std::string complaint(Form form, const std::vector<std::string>& arguments) {
  LoadOptions options;
  try {
    take_options(load_rows(options), command_of(form), arguments);
    check_load_options(options);
  } catch (const UsageError& error) {
    return std::string("usage: ") + error.what();
  } catch (const std::runtime_error& error) {
    return std::string("value: ") + error.what();
  }
  return "";
}

TEST(LoadOptions, EveryOptionIsHonouredOrRefusedByNameInEveryForm) {
  LoadOptions options;
  for (const OptionRow& row : load_rows(options)) {
    for (const Form form : {kBench, kSearch, kPeers, kSimulate}) {
      std::vector<std::string> arguments{row.name};
      if (!row.value.empty())
        arguments.emplace_back(row.name == "--arrival"         ? "gamma"
                               : row.name == "--length-jitter" ? "0.5"
                                                                            : "2");
      const bool is_honoured = row.forms & form;
      LoadOptions taken;
      if (is_honoured) {
        EXPECT_NO_THROW(take_options(load_rows(taken), command_of(form), arguments)) << row.name;
      } else {
        EXPECT_NE(complaint(form, arguments).find(std::string("usage: ") + row.name + " does not go with"),
                  std::string::npos)
            << row.name;
      }
      const bool is_listed =
          options_help(load_rows(taken), form).find(std::string("  ") + row.name + " ") != std::string::npos;
      EXPECT_EQ(is_listed, is_honoured) << row.name;
    }
  }
}

TEST(LoadOptions, ALineThatCannotBeUnderstoodIsNotAValueThatCannotBeUsed) {
  const std::pair<std::vector<std::string>, std::string> lines[] = {
      {{"--rat", "1"}, "usage: unknown option --rat (did you mean --rate?); --help lists them"},
      {{"--zzzzzzzzz"}, "usage: unknown option --zzzzzzzzz; --help lists them"},
      {{"--rate"}, "usage: --rate needs a value"},
      {{"--chat=yes"}, "usage: --chat takes no value"},
      {{"loose"}, "usage: serval bench cannot use 'loose'; options begin with --"},
      {{"--rate", "1", "--concurrency", "1"},
       "usage: --rate and --concurrency exclude each other: a loop is open or closed"},
      {{"--keep-text"}, "usage: --keep-text keeps the texts in the file of --json, which is missing"},
      {{"--requests", "0"}, "value: --requests is '0'; it must be a whole number from 1 to 10000000"},
      {{"--requests=10000001"},
       "value: --requests is '10000001'; it must be a whole number from 1 to 10000000"},
      {{"--requests", "1.5"}, "value: --requests is '1.5'; it must be a whole number from 1 to 10000000"},
      {{"--rate", "fast"}, "value: --rate is 'fast'; it must be a number from 0 to 1000000"},
      {{"--arrival", "late"}, "value: --arrival is 'late'; it must be one of constant, poisson, gamma"},
      {{"--requests", "10000000", "--rate=1.5", "--arrival", "gamma"}, ""},
  };
  for (const auto& [arguments, expected] : lines) EXPECT_EQ(complaint(kBench, arguments), expected);
  EXPECT_EQ(complaint(kSearch, {"--search", "--rate", "1"}),
            "usage: --search needs --slo-ttft or --slo-tpot");
  EXPECT_EQ(complaint(kSearch, {"--search", "--rate", "1", "--slo-ttft", "1", "--requests", "1"}),
            "usage: --search needs --requests of at least 2: one request has no rate");
}

}  // namespace
}  // namespace serval::load
