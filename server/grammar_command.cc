#include "server/grammar_command.h"

#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>

#include "engine/grammar/grammar.h"
#include "engine/json/json_reader.h"
#include "kernels/base/option_table.h"
#include "kernels/base/usage.h"

namespace serval {
namespace {

struct Asked {
  std::string schema, regex, ebnf, structural_tag, instances;
};

std::vector<OptionRow> rows_of(Asked& asked) {
  return {
      {"--schema", "FILE", "a JSON Schema; instances are JSON texts", kAnyForm, set_text(asked.schema)},
      {"--regex", "FILE", "a regular expression that a whole text must match", kAnyForm, set_text(asked.regex)},
      {"--ebnf", "FILE", "a grammar, as GBNF or as Lark", kAnyForm, set_text(asked.ebnf)},
      {"--structural-tag", "FILE", "a structural tag, as JSON", kAnyForm, set_text(asked.structural_tag)},
      {"--instances", "FILE",
       "an instance a line; for all but --schema a JSON string, or else the line as it is", kAnyForm,
       set_text(asked.instances)},
  };
}

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Without the line's own end.
std::string trimmed(std::string text) {
  text.erase(text.find_last_not_of("\r\n") + 1);
  return text;
}

Result<std::shared_ptr<const Grammar>> compiled(const Asked& asked) {
  const int num_given = !asked.schema.empty() + !asked.regex.empty() + !asked.ebnf.empty() + !asked.structural_tag.empty();
  if (num_given != 1 || asked.instances.empty())
    throw UsageError("serval grammar takes one of --schema, --regex, --ebnf and --structural-tag, and --instances; serval grammar "
                     "--help shows how");
  if (!asked.schema.empty()) return Grammar::json_schema(content_of(asked.schema));
  if (!asked.regex.empty()) return Grammar::regex(trimmed(content_of(asked.regex)));
  if (!asked.ebnf.empty()) return Grammar::ebnf(content_of(asked.ebnf));
  return Grammar::structural_tag(content_of(asked.structural_tag));
}

// What a line stands for.
std::string instance_of(std::string line, bool is_json) {
  if (is_json || !line.starts_with('"')) return line;
  const auto read = read_json(line);
  return read.ok() && read.value().is_string() ? std::string(read.value().get_string()) : line;
}

}  // namespace

std::string grammar_help() {
  Asked asked;
  return options_help(rows_of(asked)) +
         "\nPrints `accepted` or `rejected` for each line, or once `refused: KEYWORD` where it cannot be enforced.\n";
}

int run_grammar(const std::vector<std::string>& arguments) {
  Asked asked;
  take_options(rows_of(asked), {"serval grammar"}, arguments);
  const auto grammar = compiled(asked);
  if (!grammar.ok()) {
    std::cout << "refused: " << grammar.error().param << "\n" << std::flush;
    std::cerr << grammar.error().message << "\n";
    return 1;
  }
  std::ifstream lines(asked.instances, std::ios::binary);
  if (!lines) throw std::runtime_error("cannot read " + asked.instances);
  const GrammarMatcher start(grammar.value());
  for (std::string line; std::getline(lines, line);) {
    GrammarMatcher matcher = start;
    const bool accepted =
        matcher.advance(instance_of(trimmed(std::move(line)), !asked.schema.empty())) && matcher.accepting();
    std::cout << (accepted ? "accepted\n" : "rejected\n");
  }
  return 0;
}

}  // namespace serval
