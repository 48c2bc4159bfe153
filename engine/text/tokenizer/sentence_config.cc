#include "engine/text/tokenizer/sentence_config.h"

#include <string>

#include "engine/json/fields.h"
#include "engine/json/json_reader.h"

namespace serval {
namespace {

namespace fs = std::filesystem;

constexpr int kMostTokens = 1 << 24;
constexpr size_t kMaxFileBytes = size_t{64} << 20;  // added tokens are listed in tokenizer_config.json
// In the order of the reference.
constexpr const char* kNames[] = {"sentence_bert_config.json",    "sentence_roberta_config.json", "sentence_distilbert_config.json",
                                  "sentence_camembert_config.json", "sentence_albert_config.json",  "sentence_xlm-roberta_config.json",
                                  "sentence_xlnet_config.json"};

// Whoever knows no limit writes a number without end.
std::optional<int> read_tokenizer_length(const fs::path& path) {
  if (!fs::exists(path)) return std::nullopt;
  const boost::json::object file = read_json_file(path, kMaxFileBytes);
  const std::optional<double> length = Fields(file, path.string()).find_any_number("model_max_length");
  return length && *length >= 1 && *length <= kMostTokens ? std::optional(static_cast<int>(*length)) : std::nullopt;
}

}  // namespace

SentenceConfig read_sentence_config(const fs::path& model_dir) {
  SentenceConfig config;
  for (const char* const name : kNames) {
    const fs::path path = model_dir / name;
    if (!fs::exists(path)) continue;
    const boost::json::object file = read_json_file(path, kMaxFileBytes);
    const Fields fields(file, path.string());
    config.max_seq_length = fields.find_int("max_seq_length", 1, kMostTokens);
    config.do_lower_case = fields.get_bool("do_lower_case", false);
    break;
  }
  if (!config.max_seq_length && fs::exists(model_dir / "modules.json")) config.max_seq_length = read_tokenizer_length(model_dir / "tokenizer_config.json");
  return config;
}

}  // namespace serval
