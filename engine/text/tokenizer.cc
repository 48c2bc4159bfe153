#include "engine/text/tokenizer.h"

#include <stdexcept>

#include "engine/text/detokenizer.h"
#include "engine/text/model_json.h"
#include "engine/text/sentencepiece_tokenizer.h"
#include "engine/text/tokenizer_config.h"
#include "engine/text/tokenizer_json.h"

namespace serval {
namespace {

constexpr size_t kMaxFileBytes = 64 << 20;

// Runs `read`; whatever it throws becomes a sentence that begins with the file.
template <class Read>
auto reading(const std::filesystem::path& file, Read read) {
  try {
    return read();
  } catch (const std::exception& error) {
    throw std::runtime_error(file.string() + ": " + error.what());
  }
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& model_dir) {
  const auto has = [&](const char* name) { return std::filesystem::is_regular_file(model_dir / name); };
  const auto text_of = [&](const char* name) { return read_model_file(model_dir / name, kMaxFileBytes); };

  TokenizerConfig config;
  if (has("tokenizer_config.json")) {
    config = reading(model_dir / "tokenizer_config.json",
                     [&] { return TokenizerConfig::parse(text_of("tokenizer_config.json")); });
  }
  if (has("tokenizer.json")) {
    return reading(model_dir / "tokenizer.json",
                   [&] { return tokenizer_from_json(text_of("tokenizer.json"), config); });
  }
  if (has("tokenizer.model")) {
    return reading(model_dir / "tokenizer.model",
                   [&] { return tokenizer_from_sentencepiece(text_of("tokenizer.model"), config); });
  }
  if (has("vocab.json") && has("merges.txt")) {
    return reading(model_dir / "vocab.json", [&] {
      return tokenizer_from_vocab_and_merges(text_of("vocab.json"), text_of("merges.txt"), config);
    });
  }
  throw std::runtime_error(
      model_dir.string() +
      " has no tokenizer: neither tokenizer.json nor tokenizer.model nor vocab.json with merges.txt");
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
  Detokenizer detokenizer(*this, {.skip_special = skip_special});
  std::string text;
  for (const TokenId id : ids) detokenizer.push(id, text);
  detokenizer.finish(text);
  return text;
}

}  // namespace serval
