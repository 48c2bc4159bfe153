#include "engine/text/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <stdexcept>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/text/tokenizer/bpe_tokenizer.h"
#include "engine/json/json_reader.h"
#include "engine/text/tokenizer/tokenizer_parts.h"
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

void refuse_unless_empty(const Fields& model, std::string_view key) {
  if (!model.find_string(key).value_or("").empty()) refuse("a model with " + std::string(key));
}

BpeModel read_model(const Fields& model, const Rows& rows) {
  const std::string type = model.find_string("type").value_or("BPE");  // old files have no type
  if (type != "BPE") refuse("the model type " + in_quotes(type));
  refuse_unless_empty(model, "continuing_subword_prefix");
  refuse_unless_empty(model, "end_of_word_suffix");
  const json::value* dropout = model.find("dropout");
  if (dropout != nullptr && (!dropout->is_number() || dropout->to_number<double>() != 0))
    refuse("a model with dropout");

  Vocabulary vocabulary = read_vocabulary(model.get_object("vocab").object(), rows);
  const Merges merges = read_merges(model.get_array("merges"), vocabulary);
  BpeOptions options;
  options.fuse_unk = model.get_bool("fuse_unk", false);
  options.byte_fallback = model.get_bool("byte_fallback", false);
  options.ignore_merges = model.get_bool("ignore_merges", false);
  if (const std::optional<std::string> unk = model.find_string("unk_token")) {
    options.unk_id = vocabulary.find(*unk);
    if (options.unk_id < 0) model.refuse("unk_token", in_quotes(*unk) + " is not in the vocabulary");
  }
  return BpeModel(std::move(vocabulary), merges, options);
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

// Of a TemplateProcessing: what "single" puts before and after the text "A".
void read_template(const Fields& processor, std::vector<TokenId>& prefix, std::vector<TokenId>& suffix) {
  const std::optional<Fields> special_tokens = processor.find_object("special_tokens");
  bool seen_text = false;
  for (const json::value& value : processor.get_array("single")) {
    const Fields part = processor.inside(value, "single");
    if (const std::optional<Fields> sequence = part.find_object("Sequence")) {
      if (sequence->get_string("id") != "A" || std::exchange(seen_text, true))
        processor.refuse("single", "with a text that is not A, or twice, is not supported");
      continue;
    }
    const std::string name = part.get_object("SpecialToken").get_string("id");
    if (!special_tokens) processor.refuse("special_tokens", "is missing");
    std::vector<TokenId>& inserted = seen_text ? suffix : prefix;
    for (const json::value& id : special_tokens->get_object(name).get_array("ids"))
      inserted.push_back(as_token_id(id, "an id of the post_processor's special_tokens"));
    if (inserted.size() > kMaxInserted)
      processor.refuse("single", "with more than " + std::to_string(kMaxInserted) +
                                     " tokens on a side is not supported");
  }
  if (!seen_text) processor.refuse("single", "leaves the text out");
}

void read_post_processor(const json::value* value, std::vector<TokenId>& prefix,
                         std::vector<TokenId>& suffix) {
  bool seen_template = false;
  for (const Fields& processor : flatten_sequence(value, "processors", "post_processor")) {
    const std::string type = processor.get_string("type");
    if (type == "ByteLevel") continue;  // about offsets, not ids
    if (type != "TemplateProcessing") refuse("the post_processor type " + in_quotes(type));
    if (std::exchange(seen_template, true)) refuse("a post_processor with two templates");
    read_template(processor, prefix, suffix);
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
  const json::object object = parse_json_file(tokenizer_json, "it");
  const Fields file(object);
  std::vector<AddedToken> added = read_added_tokens(file);
  BpeTokenizer::Parts parts{
      .model = read_model(file.get_object("model"), Rows(config, added)),
      .normalizer = Normalizer::from_json(file.find("normalizer")),
      .pretokenizer = PreTokenizer::from_json(file.find("pre_tokenizer")),
      .decoder = TokenDecoder::from_json(file.find("decoder")),
  };
  read_post_processor(file.find("post_processor"), parts.prefix, parts.suffix);
  return assemble(std::move(parts), std::move(added), config);
}

std::unique_ptr<Tokenizer> tokenizer_from_vocab_and_merges(std::string_view vocab_json,
                                                           std::string_view merges_text,
                                                           const TokenizerConfig& config) {
  if (!config.tokenizer_class.empty() && !config.tokenizer_class.starts_with("GPT2Tokenizer")) {
    throw std::runtime_error("vocab.json and merges.txt alone do not say how a " + config.tokenizer_class +
                             " cuts text; a tokenizer.json is needed");
  }
  Vocabulary vocabulary = read_vocabulary(parse_json_file(vocab_json, "it"), Rows(config, {}));
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
