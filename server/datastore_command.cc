#include "server/datastore_command.h"

#include <fstream>
#include <iostream>
#include <stdexcept>

#include "engine/runner/speculators/token_store.h"
#include "engine/text/tokenizer/load_tokenizer.h"
#include "kernels/base/option_table.h"
#include "kernels/base/usage.h"

namespace serval {
namespace {

struct Asked {
  std::string model, texts, out;
};

std::vector<OptionRow> rows_of(Asked& asked) {
  return {
      {"--model", "FOLDER", "whose tokenizer reads the texts", kAnyForm, set_text(asked.model)},
      {"--texts", "FILE", "texts, one behind another with an empty line between", kAnyForm, set_text(asked.texts)},
      {"--out", "FILE", "what is written, for speculation_datastore", kAnyForm, set_text(asked.out)},
  };
}

}  // namespace

std::string datastore_help() {
  Asked asked;
  return options_help(rows_of(asked));
}

int run_datastore(const std::vector<std::string>& arguments) {
  Asked asked;
  take_options(rows_of(asked), {"serval datastore"}, arguments);
  if (asked.model.empty() || asked.texts.empty() || asked.out.empty())
    throw UsageError("serval datastore takes --model, --texts and --out; serval datastore --help shows how");
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(asked.model);
  std::ifstream lines(asked.texts, std::ios::binary);
  if (!lines) throw std::runtime_error("cannot read " + asked.texts);
  std::vector<std::vector<TokenId>> texts;
  size_t num_tokens = 0;
  std::string text;
  const auto add = [&] {
    if (!text.empty()) num_tokens += texts.emplace_back(tokenizer->encode(text, false)).size();
    text.clear();
  };
  for (std::string line; std::getline(lines, line);) {
    if (line.empty()) {
      add();
    } else {
      text += (text.empty() ? "" : "\n") + line;
    }
  }
  add();
  TokenStore::write(asked.out, texts);
  std::cout << texts.size() << " texts, " << num_tokens << " tokens\n";
  return 0;
}

}  // namespace serval
