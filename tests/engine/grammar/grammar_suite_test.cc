// The suite of the JSON Schema organisation and the schemas of schemastore.org.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>

#include "engine/json/json_reader.h"
#include "tests/engine/grammar/suite.h"

namespace serval {
namespace {

// SERVAL_GRAMMAR_VERBOSE=1 prints what is decided otherwise than the suite has it.
bool is_verbose() { return std::getenv("SERVAL_GRAMMAR_VERBOSE") != nullptr; }

std::string text_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(GrammarSuite, DecidesTheOfficialTestsAndLetsNothingInvalidPass) {
  const auto folder = test::grammar_data("json-schema-suite-2020-12") / "tests";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "../shared/data/json-schema-suite-2020-12 is absent";
  int total = 0, right = 0, refused = 0, let_pass = 0;
  std::map<std::string, int> refusals;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    const std::string name = entry.path().filename().string();
    const auto groups = read_json(text_of(entry.path()));
    ASSERT_TRUE(groups.ok()) << name;
    int file_total = 0, file_right = 0;
    for (const auto& group : groups.value().as_array()) {
      const auto grammar = Grammar::json_schema(test::json_text(group.at("schema")));
      for (const auto& test : group.at("tests").as_array()) {
        ++total;
        ++file_total;
        if (!grammar.ok()) {
          ++refused;
          ++refusals[grammar.error().param];
          if (is_verbose()) std::cout << "refused " << name << ": " << grammar.error().message << "\n";
          continue;
        }
        const bool accepted = test::accepts(*grammar.value(), test::json_text(test.at("data")));
        const bool valid = test.at("valid").as_bool();
        if (accepted == valid) {
          ++right;
          ++file_right;
          continue;
        }
        // Whether formats are asserted is for who reads them to say: here they are.
        if (accepted) ++let_pass;
        if (is_verbose() || accepted)
          std::cout << (accepted ? "LETS PASS " : "rejects ") << name << ": " << group.at("description") << ": "
                    << test.at("description") << ": " << test::json_text(test.at("data")) << "\n";
      }
    }
    if (is_verbose()) std::cout << name << " " << file_right << " of " << file_total << "\n";
  }
  std::cout << right << " of " << total << " right, " << refused << " refused:";
  for (const auto& [keyword, count] : refusals) std::cout << " " << keyword << " " << count;
  std::cout << "\n";
  EXPECT_EQ(let_pass, 0);
  EXPECT_GE(right, 1100);
}

TEST(GrammarSuite, CompilesMostSchemasOfTheStoreAndAcceptsTheirInstances) {
  const auto file = test::grammar_data("schemastore") / "cases.jsonl";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "../shared/data/schemastore is absent";
  std::ifstream lines(file);
  int total = 0, good = 0, let_pass = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto read = read_json(line);
    ASSERT_TRUE(read.ok());
    const auto& store_case = read.value();
    ++total;
    const auto grammar = Grammar::json_schema(test::json_text(store_case.at("schema")));
    if (!grammar.ok()) {
      if (is_verbose()) std::cout << "refused " << store_case.at("name") << ": " << grammar.error().message << "\n";
      continue;
    }
    bool all = true;
    for (const auto& instance : store_case.at("valid").as_array()) {
      if (test::accepts(*grammar.value(), test::json_text(instance.at("data")))) continue;
      all = false;
      if (is_verbose()) std::cout << "rejects " << store_case.at("name") << " " << instance.at("path") << "\n";
    }
    for (const auto& instance : store_case.at("invalid").as_array()) {
      if (!test::accepts(*grammar.value(), test::json_text(instance.at("data")))) continue;
      ++let_pass;
      std::cout << "LETS PASS " << store_case.at("name") << " " << instance.at("path") << "\n";
    }
    if (all) ++good;
  }
  std::cout << good << " of " << total << " schemas\n";
  EXPECT_EQ(let_pass, 0);
  EXPECT_GE(good * 10, total * 9);
}

}  // namespace
}  // namespace serval
