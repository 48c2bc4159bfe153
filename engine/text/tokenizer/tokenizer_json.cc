#include "engine/text/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>
#include <vector>

#include "engine/json/json_reader.h"
#include "engine/text/tokenizer/model_rows.h"
#include "engine/text/tokenizer/pipeline_tokenizer.h"
#include "engine/text/tokenizer/post_processor.h"
#include "engine/text/tokenizer/tokenizer_parts.h"
#include "kernels/base/shown.h"

namespace serval {
namespace json = boost::json;
namespace {

using Merges = std::vector<std::pair<TokenId, TokenId>>;

constexpr size_t kMaxTokens = 1 << 19;  // the largest published vocabularies have half of that
constexpr std::string_view kGpt2EndOfText = "<|endoftext|>";

[[noreturn]] void refuse(const std::string& what) {
  throw std::runtime_error(what + " is not supported");
}

Vocabulary read_vocabulary(const json::object& vocab, const ModelRows& rows) {
  if (vocab.size() > kMaxTokens) refuse("a vocabulary of " + std::to_string(vocab.size()) + " tokens");
  std::vector<std::pair<std::string, TokenId>> entries;
  entries.reserve(vocab.size());
  for (const auto& [name, value] : vocab) {
    const TokenId id = as_token_id(value, "the id of a token in the vocabulary");
    if (rows.hold(name, id)) entries.emplace_back(name, id);
  }
  return Vocabulary(std::move(entries));
}

// Pairs of names to pairs of ids.
class MergeReader {
 public:
  explicit MergeReader(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}

  void add_line(std::string_view line) {
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      throw std::runtime_error(place() + " is " + in_quotes(line) + ", not two tokens with a space between");
    }
    add(line.substr(0, space), line.substr(space + 1));
  }
  void add(std::string_view left, std::string_view right) { merges_.emplace_back(find(left), find(right)); }
  std::string place() const { return "merge " + std::to_string(merges_.size()); }
  Merges take() { return std::move(merges_); }

 private:
  TokenId find(std::string_view name) const {
    const TokenId id = vocabulary_.find(name);
    if (id < 0) {
      throw std::runtime_error(place() + " uses " + in_quotes(name) + ", which is not in the vocabulary");
    }
    return id;
  }

  const Vocabulary& vocabulary_;
  Merges merges_;
};

Merges read_merges(const json::array& list, const Vocabulary& vocabulary) {
  MergeReader reader(vocabulary);
  for (const json::value& merge : list) {
    if (merge.is_string()) {
      reader.add_line(merge.get_string());
    } else {
      const json::array* pair = merge.if_array();
      if (pair == nullptr || pair->size() != 2 || !(*pair)[0].is_string() || !(*pair)[1].is_string())
        throw std::runtime_error(reader.place() + " is not a pair of tokens");
      reader.add((*pair)[0].get_string(), (*pair)[1].get_string());
    }
  }
  return reader.take();
}

BpeModel read_bpe(const Fields& model, const ModelRows& rows) {
  const json::value* dropout = model.find("dropout");
  if (dropout != nullptr && (!dropout->is_number() || dropout->to_number<double>() != 0))
    refuse("a model with dropout");

  Vocabulary vocabulary = read_vocabulary(model.get_object("vocab").object(), rows);
  const Merges merges = read_merges(model.get_array("merges"), vocabulary);
  BpeOptions options;
  options.fuse_unk = model.get_bool("fuse_unk", false);
  options.byte_fallback = model.get_bool("byte_fallback", false);
  options.ignore_merges = model.get_bool("ignore_merges", false);
  options.continuing_prefix = model.find_string("continuing_subword_prefix").value_or("");
  options.end_suffix = model.find_string("end_of_word_suffix").value_or("");
  if (const std::optional<std::string> unk = model.find_string("unk_token")) {
    options.unk_id = vocabulary.find(*unk);
    if (options.unk_id < 0) model.refuse("unk_token", in_quotes(*unk) + " is not in the vocabulary");
  }
  return BpeModel(std::move(vocabulary), merges, options);
}

// "vocab" is a list of names with their scores; an id is a place in it.
UnigramModel read_unigram(const Fields& model, const ModelRows& rows) {
  const json::array& list = model.get_array("vocab");
  if (list.size() > kMaxTokens) refuse("a vocabulary of " + std::to_string(list.size()) + " tokens");
  std::vector<std::pair<std::string, TokenId>> entries;
  std::vector<double> scores;
  for (const json::value& value : list) {
    const json::array* pair = value.if_array();
    if (pair == nullptr || pair->size() != 2 || !(*pair)[0].is_string() || !(*pair)[1].is_number())
      model.refuse("vocab", "has an element that is not a name with a score");
    const auto id = static_cast<TokenId>(scores.size());
    const std::string name((*pair)[0].get_string());
    scores.push_back((*pair)[1].to_number<double>());
    if (!std::isfinite(scores.back())) model.refuse("vocab", "has a score that is not finite");
    if (rows.hold(name, id)) entries.emplace_back(name, id);
  }
  const int last = std::max(0, static_cast<int>(scores.size()) - 1);
  const TokenId unk_id = model.find_int("unk_id", 0, last).value_or(-1);
  return UnigramModel(Vocabulary(std::move(entries)), std::move(scores), unk_id,
                      model.get_bool("byte_fallback", false));
}

WordPieceModel read_word_piece(const Fields& model, const ModelRows& rows) {
  constexpr int kMostCharacters = 1 << 12;
  Vocabulary vocabulary = read_vocabulary(model.get_object("vocab").object(), rows);
  const std::string unk = model.find_string("unk_token").value_or("[UNK]");
  const TokenId unk_id = vocabulary.find(unk);
  if (unk_id < 0) model.refuse("unk_token", in_quotes(unk) + " is not in the vocabulary");
  return WordPieceModel(std::move(vocabulary), unk_id, model.find_string("continuing_subword_prefix").value_or("##"),
                        model.find_int("max_input_chars_per_word", 0, kMostCharacters).value_or(100));
}

PipelineTokenizer::Model read_model(const Fields& model, const ModelRows& rows) {
  // Old files have no type.
  const bool has_scores = model.find("vocab") != nullptr && model.find("vocab")->is_array();
  const std::string type = model.find_string("type").value_or(has_scores ? "Unigram" : "BPE");
  if (type == "BPE") return read_bpe(model, rows);
  if (type == "Unigram") return read_unigram(model, rows);
  if (type == "WordPiece") return read_word_piece(model, rows);
  refuse("the model type " + in_quotes(type));
}

std::vector<AddedToken> read_added_tokens(const Fields& file) {
  std::vector<AddedToken> tokens;
  const json::array* list = file.find_array("added_tokens");
  if (list == nullptr) return tokens;
  for (const json::value& value : *list) {
    const Fields fields = file.inside(value, "added_tokens[" + std::to_string(tokens.size()) + "]");
    AddedToken token = read_added_token(fields);
    token.id = as_token_id(fields.get("id"), "the id of an added token");
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace

std::unique_ptr<Tokenizer> tokenizer_from_json(std::string_view tokenizer_json,
                                               const TokenizerConfig& config) {
  const json::object object = parse_json_file(tokenizer_json, "it");
  const Fields file(object);
  std::vector<AddedToken> added = read_added_tokens(file);
  PipelineTokenizer::Parts parts{
      .model = read_model(file.get_object("model"), ModelRows(config, added)),
      .normalizer = Normalizer::from_json(file.find("normalizer"), config.lowers_text),
      .pretokenizer = PreTokenizer::from_json(file.find("pre_tokenizer")),
      .decoder = TokenDecoder::from_json(file.find("decoder")),
  };
  read_post_processor(file.find("post_processor"), parts.prefix, parts.suffix, parts.pair);
  return assemble_tokenizer(std::move(parts), std::move(added), config);
}

std::unique_ptr<Tokenizer> tokenizer_from_vocab_and_merges(std::string_view vocab_json,
                                                           std::string_view merges_text,
                                                           const TokenizerConfig& config) {
  const bool is_qwen = config.tokenizer_class.starts_with("Qwen2Tokenizer");
  if (!config.tokenizer_class.empty() && !is_qwen && !config.tokenizer_class.starts_with("GPT2Tokenizer")) {
    throw std::runtime_error("vocab.json and merges.txt alone do not say how a " + config.tokenizer_class +
                             " cuts text; a tokenizer.json is needed");
  }
  Vocabulary vocabulary = read_vocabulary(parse_json_file(vocab_json, "it"), ModelRows(config, {}));
  MergeReader reader(vocabulary);
  while (!merges_text.empty()) {
    const size_t end = std::min(merges_text.find('\n'), merges_text.size());
    std::string_view line = merges_text.substr(0, end);
    merges_text.remove_prefix(std::min(end + 1, merges_text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && !line.starts_with("#version")) reader.add_line(line);
  }
  const Merges merges = reader.take();

  TokenizerConfig with_defaults = config;  // the class names one token for every role
  for (std::string* name : {&with_defaults.bos_token, &with_defaults.eos_token}) {
    if (name->empty() && !is_qwen) *name = kGpt2EndOfText;
    if (!name->empty()) with_defaults.special_names.push_back(*name);
  }
  return assemble_tokenizer(
      PipelineTokenizer::Parts{
          .model = BpeModel(std::move(vocabulary), merges, BpeOptions{}),
          .normalizer = is_qwen ? Normalizer::of_type("NFC") : Normalizer(),
          .pretokenizer =
              is_qwen ? PreTokenizer::byte_level(kQwenPattern) : PreTokenizer::gpt2(config.add_prefix_space),
          .decoder = TokenDecoder::byte_level(),
      },
      {}, with_defaults);
}

}  // namespace serval
