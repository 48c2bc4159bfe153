#include "engine/text/tokenizer/load_tokenizer.h"

#include <stdexcept>

#include "engine/text/tokenizer/rank_files.h"
#include "engine/text/tokenizer/sentence_config.h"
#include "engine/text/tokenizer/sentencepiece_tokenizer.h"
#include "engine/text/tokenizer/tokenizer_config.h"
#include "engine/text/tokenizer/tokenizer_json.h"
#include "engine/text/tokenizer/word_piece_vocabulary.h"
#include "engine/text/tokenizer/world_vocabulary.h"
#include "kernels/base/regular_file.h"

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

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& model_dir, int num_rows) {
  const auto has = [&](std::string_view name) { return std::filesystem::exists(model_dir / name); };
  const auto text_of = [&](std::string_view name) {
    return read_regular_file(model_dir / name, kMaxFileBytes);
  };

  TokenizerConfig config;
  const std::string config_text = has("tokenizer_config.json") ? text_of("tokenizer_config.json") : "";
  if (!config_text.empty()) config = reading(model_dir / "tokenizer_config.json", [&] { return TokenizerConfig::parse(config_text); });
  const auto read_older = [&](const char* name, void (TokenizerConfig::*read)(std::string_view)) {
    if (!has(name)) return;
    const std::string text = text_of(name);
    reading(model_dir / name, [&] { return (config.*read)(text); });
  };
  read_older("special_tokens_map.json", &TokenizerConfig::read_special_tokens_map);
  read_older("added_tokens.json", &TokenizerConfig::read_added_tokens);
  config.num_rows = num_rows;
  config.lowers_text = read_sentence_config(model_dir).do_lower_case;
  if (has("tokenizer.json")) {
    const std::string text = text_of("tokenizer.json");
    return reading(model_dir / "tokenizer.json", [&] { return tokenizer_from_json(text, config); });
  }
  if (config.lowers_text && !has(kWordPieceFile))
    throw std::runtime_error(model_dir.string() + ": do_lower_case of its sentence_bert_config.json is supported beside a tokenizer.json or a vocab.txt alone");
  if (has("tokenizer.model")) {
    const std::string text = text_of("tokenizer.model");
    return reading(model_dir / "tokenizer.model", [&] {
      return is_rank_file(text) ? tokenizer_from_ranks(text, "tokenizer.model", config)
                                : tokenizer_from_sentencepiece(text, config);
    });
  }
  if (has("tekken.json")) {
    const std::string text = text_of("tekken.json");
    return reading(model_dir / "tekken.json", [&] { return tokenizer_from_tekken(text, config); });
  }
  for (const std::string_view name : rank_file_names()) {
    if (!has(name)) continue;
    const std::string text = text_of(name);
    return reading(model_dir / name, [&] { return tokenizer_from_ranks(text, name, config); });
  }
  if (has(kWorldVocabularyFile)) {
    const std::string text = text_of(kWorldVocabularyFile);
    return reading(model_dir / kWorldVocabularyFile, [&] { return tokenizer_from_world(text, config); });
  }
  if (has(kWordPieceFile)) {
    const std::string text = text_of(kWordPieceFile);
    return reading(model_dir / kWordPieceFile, [&] { return tokenizer_from_word_pieces(text, config_text, config); });
  }
  if (has("vocab.json") && has("merges.txt")) {
    const std::string vocab = text_of("vocab.json"), merges = text_of("merges.txt");
    return reading(model_dir / "vocab.json",
                   [&] { return tokenizer_from_vocab_and_merges(vocab, merges, config); });
  }
  throw std::runtime_error(model_dir.string() +
                           " has no tokenizer: neither tokenizer.json nor tokenizer.model, tekken.json, "
                           "qwen.tiktoken or its like, rwkv_vocab_v20230424.txt, vocab.txt, nor "
                           "vocab.json with merges.txt");
}

}  // namespace serval
