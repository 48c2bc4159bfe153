#include "server/config.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <set>
#include <sstream>

#include "kernels/base/usage.h"

namespace serval {
namespace {

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

std::vector<std::string> parse_arguments(const std::vector<std::string>& arguments, ServerConfig& config) {
  const std::vector<OptionRow> rows = setting_rows(config);
  const GivenOptions given = read_options(rows, {.name = "serval serve", .takes_words = true}, arguments);
  set_options(given);
  return given.words;
}

TEST(Config, YamlAndCommandLineSetTheSameFields) {
  ServerConfig yaml, line;
  load_yaml_text("port: 9000\npolicy: priority\nprefix_cache: false\napi_keys: [a, b]\n", "test", yaml);
  const auto rest = parse_arguments(
      {"--port", "9000", "MODEL", "--policy=priority", "--no-prefix-cache", "--api-keys", "a,b"}, line);
  EXPECT_EQ(rest, std::vector<std::string>{"MODEL"});
  EXPECT_EQ(dump_yaml(yaml), dump_yaml(line));
  EXPECT_EQ(line.http.port, 9000);
  EXPECT_FALSE(line.engine.scheduler.enable_prefix_cache);
  EXPECT_EQ(line.http.api_keys, (std::vector<std::string>{"a", "b"}));
}

TEST(Config, EveryNumberIsRefusedJustOutsideItsRange) {
  ServerConfig defaults;
  for (const Knob& knob : knobs(defaults)) {
    if (!is_number(knob)) continue;
    for (const auto& [value, good] :
         {std::pair{knob.min, true}, {knob.min - 1, false}, {knob.max, true}, {knob.max + 1, false}}) {
      ServerConfig config;
      const std::string text = knob.name + ": " + std::to_string(value) + "\n";
      const std::string error = error_of([&] { load_yaml_text(text, "test", config); });
      EXPECT_EQ(error.empty(), good) << text << error;
      if (!good) {
        EXPECT_NE(error.find(knob.name), std::string::npos) << error;
      }
    }
  }
}

TEST(Config, DefaultsAreInsideTheirRanges) {
  ServerConfig defaults, again;
  std::string text;
  std::set<std::string> names;
  for (const Knob& knob : knobs(defaults)) {
    EXPECT_TRUE(names.insert(knob.name).second) << knob.name << " is there twice";
    EXPECT_FALSE(knob.help.empty()) << knob.name;
  }
  load_yaml_text(dump_yaml(defaults), "defaults", again);
  EXPECT_EQ(dump_yaml(again), dump_yaml(defaults));
}

TEST(Config, MistakesAreSentencesThatNameTheSetting) {
  const std::pair<const char*, const char*> cases[] = {
      {"prot: 1", "unknown setting 'prot' (did you mean port?)"},
      {"max_tokens_of_a_day: 1", "unknown setting 'max_tokens_of_a_day'"},
      {"port: abc", "port is 'abc'"},
      {"port: 1.5", "port is '1.5'"},
      {"port: [1]", "port must be"},
      {"grpc: yes", "grpc is 'yes'"},
      {"policy: lifo", "policy is 'lifo'"},
      {"- port", "must be a map"},
      {"port: 1\nport: 2", "port is given twice"},
      {"api_keys: {a: b}", "api_keys must be"},
      {"port: 'x", "not valid YAML"},
  };
  for (const auto& [text, words] : cases) {
    ServerConfig config;
    const std::string error = error_of([&] { load_yaml_text(text, "test.yaml", config); });
    EXPECT_NE(error.find(words), std::string::npos) << text << " -> " << error;
    EXPECT_NE(error.find("test.yaml"), std::string::npos) << error;
  }
  ServerConfig config;
  EXPECT_NE(error_of([&] { parse_arguments({"--no-port"}, config); }).find("unknown option"),
            std::string::npos);
  EXPECT_NE(error_of([&] { parse_arguments({"--port"}, config); }).find("needs a value"), std::string::npos);
}

TEST(Config, TheEnvironmentSetsEverySetting) {
  ServerConfig defaults;
  for (const Knob& knob : knobs(defaults)) {
    std::string variable = "SERVAL_" + knob.name;
    for (char& c : variable) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    const std::string value = std::holds_alternative<bool*>(knob.field) ? "true"
                              : !knob.choices.empty()                   ? knob.choices.back()
                              : knob.max > 0                            ? std::to_string(knob.max)
                                                                        : "text";
    const std::string entry = variable + "=" + value;
    const char* const environment[] = {"PATH=/bin", entry.c_str(), nullptr};
    ServerConfig from_environment, from_line;
    EXPECT_TRUE(load_environment(environment, from_environment).empty()) << entry;
    parse_arguments({"--" + knob.name + "=" + value}, from_line);
    EXPECT_EQ(dump_yaml(from_environment), dump_yaml(from_line)) << entry;
  }
}

TEST(Config, ANameThatIsNearlyOneOfOursIsSuggested) {
  ServerConfig config;
  EXPECT_NE(error_of([&] { parse_arguments({"--max-num-seq", "1"}, config); }).find("did you mean --max-num-seqs?"),
            std::string::npos);
  EXPECT_EQ(error_of([&] { parse_arguments({"--zzz", "1"}, config); }).find("did you mean"), std::string::npos);
  EXPECT_EQ(error_of([&] { parse_arguments({"--" + std::string(9999, 'p')}, config); }).find("did you mean"),
            std::string::npos);
}

TEST(Config, ALineThatCannotBeUnderstoodIsNotAValueThatCannotBeUsed) {
  ServerConfig config;
  EXPECT_THROW(parse_arguments({"--prot", "1"}, config), UsageError);
  EXPECT_THROW(parse_arguments({"--port"}, config), UsageError);
  try {
    parse_arguments({"--port", "x"}, config);
    FAIL() << "x is a port";
  } catch (const UsageError&) {
    FAIL() << "the option was understood";
  } catch (const std::runtime_error&) {
  }
}

TEST(Config, KeysAreNotShown) {
  ServerConfig config;
  config.http.api_keys = {"very-secret"};
  EXPECT_EQ(dump_yaml(config).find("very-secret"), std::string::npos);
}

TEST(Config, TheDocumentationIsTheTable) {
  std::ifstream file(std::string(SERVAL_SOURCE_DIR) + "/docs/config.md");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(text.str(), knob_markdown()) << "run: serval config --markdown > docs/config.md";
}

}  // namespace
}  // namespace serval
