#include "engine/text/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <stdexcept>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/text/tokenizer/bpe_tokenizer.h"
#include "engine/text/tokenizer/model_json.h"
#include "kernels/base/shown.h"

namespace serval {
namespace json = boost::json;
namespace {

using Merges = std::vector<std::pair<TokenId, TokenId>>;

constexpr size_t kMaxTokens = 1 << 19;  // the largest published vocabularies have half of that
constexpr size_t kMaxInserted = 64;     // tokens before or after a text
constexpr std::string_view kGpt2EndOfText = "<|endoftext|>";

[[noreturn]] void refuse(const std::string& what) {
  throw std::runtime_error(what + " is not supported");
}

// Which names of the vocabulary are tokens of the model. One that is an added token too may lie behind the
// model's rows: it is left out here and, with a line in the log, there (join_added_tokens). An ordinary one
// may not, because any text could become it.
class Rows {
 public:
  Rows(const TokenizerConfig& config, const std::vector<AddedToken>& listed) : num_rows_(config.num_rows) {
    for (const auto* tokens : {&listed, &config.added_tokens}) {
      for (const AddedToken& token : *tokens) added_.insert(token.content);
    }
    added_.insert(config.special_names.begin(), config.special_names.end());
  }

  bool hold(std::string_view name, TokenId id) const {
    if (id < num_rows_) return true;
    if (added_.contains(name)) return false;
    throw std::runtime_error("token " + in_quotes(name) + " has the id " + std::to_string(id) +
                             ", but the model has rows for " + std::to_string(num_rows_) +
                             " tokens only: the tokenizer is another model's");
  }

 private:
  int num_rows_;
  std::unordered_set<std::string_view> added_;  // views of the two lists
};

Vocabulary read_vocabulary(const json::object& vocab, const Rows& rows) {
  if (vocab.size() > kMaxTokens) refuse("a vocabulary of " + std::to_string(vocab.size()) + " tokens");
  std::vector<std::pair<std::string, TokenId>> entries;
  entries.reserve(vocab.size());
  for (const auto& [name, value] : vocab) {
    const TokenId id = as_id(value, "the id of a token in the vocabulary");
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
      const json::array& pair = as_array(merge, reader.place());
      if (pair.size() != 2) throw std::runtime_error(reader.place() + " is not a pair");
      reader.add(as_string(pair[0], reader.place()), as_string(pair[1], reader.place()));
    }
  }
  return reader.take();
}

void refuse_unless_empty(const json::object& model, std::string_view key) {
  if (find_member(model, key) != nullptr && !get_string(model, key, "model").empty())
    refuse("a model with " + std::string(key));
}

BpeModel read_model(const json::object& model, const Rows& rows) {
  const bool typed = find_member(model, "type") != nullptr;  // old files have no type
  if (typed && get_string(model, "type", "model") != "BPE") {
    refuse("the model type " + in_quotes(get_string(model, "type", "model")));
  }
  refuse_unless_empty(model, "continuing_subword_prefix");
  refuse_unless_empty(model, "end_of_word_suffix");
  const json::value* dropout = find_member(model, "dropout");
  if (dropout != nullptr && (!dropout->is_number() || dropout->to_number<double>() != 0))
    refuse("a model with dropout");

  Vocabulary vocabulary =
      read_vocabulary(as_object(get_member(model, "vocab", "model"), "model.vocab"), rows);
  const Merges merges =
      read_merges(as_array(get_member(model, "merges", "model"), "model.merges"), vocabulary);
  BpeOptions options;
  options.fuse_unk = get_bool(model, "fuse_unk", false, "model");
  options.byte_fallback = get_bool(model, "byte_fallback", false, "model");
  options.ignore_merges = get_bool(model, "ignore_merges", false, "model");
  if (find_member(model, "unk_token") != nullptr) {
    const std::string_view unk = get_string(model, "unk_token", "model");
    options.unk_id = vocabulary.find(unk);
    if (options.unk_id < 0)
      throw std::runtime_error("model.unk_token " + in_quotes(unk) + " is not in the vocabulary");
  }
  return BpeModel(std::move(vocabulary), merges, options);
}

std::vector<AddedToken> read_added_tokens(const json::value* list) {
  std::vector<AddedToken> tokens;
  if (list == nullptr) return tokens;
  for (const json::value& value : as_array(*list, "added_tokens")) {
    const std::string where = "added_tokens[" + std::to_string(tokens.size()) + "]";
    const json::object& object = as_object(value, where);
    AddedToken token = read_added_token(object, where);
    token.id = as_id(get_member(object, "id", where), where + ".id");
    tokens.push_back(std::move(token));
  }
  return tokens;
}

// Of a TemplateProcessing: what "single" puts before and after the text "A".
void read_template(const json::object& processor, std::vector<TokenId>& prefix,
                   std::vector<TokenId>& suffix) {
  const std::string where = "post_processor TemplateProcessing";
  const json::object no_tokens;
  const json::value* listed = find_member(processor, "special_tokens");
  const json::object& special_tokens =
      listed != nullptr ? as_object(*listed, where + ".special_tokens") : no_tokens;
  bool seen_text = false;
  for (const json::value& value : as_array(get_member(processor, "single", where), where + ".single")) {
    const json::object& part = as_object(value, where + ".single");
    if (const json::value* sequence = find_member(part, "Sequence")) {
      if (get_string(as_object(*sequence, where), "id", where) != "A" || std::exchange(seen_text, true)) {
        refuse(where + " with a text that is not A, or twice");
      }
      continue;
    }
    const std::string_view name =
        get_string(as_object(get_member(part, "SpecialToken", where), where), "id", where);
    const json::object& token = as_object(get_member(special_tokens, name, where + ".special_tokens"), where);
    std::vector<TokenId>& inserted = seen_text ? suffix : prefix;
    for (const json::value& id : as_array(get_member(token, "ids", where), where))
      inserted.push_back(as_id(id, where + ".ids"));
    if (inserted.size() > kMaxInserted)
      refuse(where + " with more than " + std::to_string(kMaxInserted) + " tokens on a side");
  }
  if (!seen_text) throw std::runtime_error(where + ".single leaves the text out");
}

void read_post_processor(const json::value* value, std::vector<TokenId>& prefix,
                         std::vector<TokenId>& suffix) {
  bool seen_template = false;
  for (const json::object* processor : flatten_sequence(value, "processors", "post_processor")) {
    const std::string_view type = get_string(*processor, "type", "post_processor");
    if (type == "ByteLevel") continue;  // about offsets, not ids
    if (type != "TemplateProcessing") refuse("the post_processor type " + in_quotes(type));
    if (std::exchange(seen_template, true)) refuse("a post_processor with two templates");
    read_template(*processor, prefix, suffix);
  }
}

// The part that both kinds of folder share.
std::unique_ptr<Tokenizer> assemble(BpeTokenizer::Parts parts, std::vector<AddedToken> listed,
                                    const TokenizerConfig& config) {
  const Vocabulary& vocabulary = parts.model.vocabulary();
  parts.added = join_added_tokens(std::move(listed), config,
                                  [&](std::string_view name) { return vocabulary.find(name); });
  const auto id_of = [&](const std::string& name) -> TokenId {
    for (const AddedToken& token : parts.added) {
      if (token.content == name) return token.id;
    }
    return -1;
  };
  parts.bos_id = id_of(config.bos_token);
  parts.eos_id = id_of(config.eos_token);
  apply_bos_eos(config, parts.bos_id, parts.eos_id, parts.prefix, parts.suffix);
  return std::make_unique<BpeTokenizer>(std::move(parts));
}

}  // namespace

std::unique_ptr<Tokenizer> tokenizer_from_json(std::string_view tokenizer_json,
                                               const TokenizerConfig& config) {
  const json::object file = parse_model_json(tokenizer_json);
  std::vector<AddedToken> added = read_added_tokens(find_member(file, "added_tokens"));
  BpeTokenizer::Parts parts{
      .model = read_model(as_object(get_member(file, "model", "the file"), "model"), Rows(config, added)),
      .normalizer = Normalizer::from_json(find_member(file, "normalizer")),
      .pretokenizer = PreTokenizer::from_json(find_member(file, "pre_tokenizer")),
      .decoder = TokenDecoder::from_json(find_member(file, "decoder")),
  };
  read_post_processor(find_member(file, "post_processor"), parts.prefix, parts.suffix);
  return assemble(std::move(parts), std::move(added), config);
}

std::unique_ptr<Tokenizer> tokenizer_from_vocab_and_merges(std::string_view vocab_json,
                                                           std::string_view merges_text,
                                                           const TokenizerConfig& config) {
  if (!config.tokenizer_class.empty() && !config.tokenizer_class.starts_with("GPT2Tokenizer")) {
    throw std::runtime_error("vocab.json and merges.txt alone do not say how a " + config.tokenizer_class +
                             " cuts text; a tokenizer.json is needed");
  }
  Vocabulary vocabulary = read_vocabulary(parse_model_json(vocab_json), Rows(config, {}));
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
    if (name->empty()) *name = kGpt2EndOfText;
    with_defaults.special_names.push_back(*name);
  }
  return assemble(
      BpeTokenizer::Parts{
          .model = BpeModel(std::move(vocabulary), merges, BpeOptions{}),
          .normalizer = Normalizer::from_json(nullptr),
          .pretokenizer = PreTokenizer::byte_level(config.add_prefix_space),
          .decoder = TokenDecoder::byte_level(),
      },
      {}, with_defaults);
}

}  // namespace serval
