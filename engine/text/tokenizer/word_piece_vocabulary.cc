#include "engine/text/tokenizer/word_piece_vocabulary.h"

#include <algorithm>
#include <boost/json.hpp>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/json/fields.h"
#include "engine/json/json_reader.h"
#include "engine/text/tokenizer/model_rows.h"
#include "engine/text/tokenizer/pipeline_tokenizer.h"
#include "kernels/base/shown.h"
#include "kernels/base/utf8.h"

namespace serval {
namespace {

constexpr TokenId kMaxTokens = 1 << 19;
constexpr int kMaxCharacters = 100;  // of a word that is not unknown
constexpr std::string_view kContinuing = "##";
constexpr std::string_view kClasses[] = {"", "BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "DistilBertTokenizerFast"};
// The names that the class gives where the configuration gives none.
struct Roles {
  std::string unk = "[UNK]", sep = "[SEP]", pad = "[PAD]", cls = "[CLS]", mask = "[MASK]";
};
constexpr std::pair<const char*, std::string Roles::*> kRoles[] = {
    {"unk_token", &Roles::unk}, {"sep_token", &Roles::sep}, {"pad_token", &Roles::pad}, {"cls_token", &Roles::cls}, {"mask_token", &Roles::mask}};

Vocabulary read_vocabulary(std::string_view text, const ModelRows& rows) {
  if (!is_valid_utf8(text)) throw std::runtime_error("it is not UTF-8");
  std::vector<std::pair<std::string, TokenId>> entries;
  for (TokenId id = 0; !text.empty(); ++id) {
    if (id == kMaxTokens) throw std::runtime_error("it has more than " + std::to_string(kMaxTokens) + " tokens");
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view name = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (name.ends_with('\r')) name.remove_suffix(1);
    if (!name.empty() && rows.hold(name, id)) entries.emplace_back(name, id);
  }
  return Vocabulary(std::move(entries));
}

TokenId need(const Vocabulary& vocabulary, const std::string& name) {
  const TokenId id = vocabulary.find(name);
  if (id < 0) throw std::runtime_error("it has no token " + in_quotes(name));
  return id;
}

}  // namespace

std::unique_ptr<Tokenizer> tokenizer_from_word_pieces(std::string_view text, std::string_view config_json, const TokenizerConfig& config) {
  if (std::ranges::find(kClasses, config.tokenizer_class) == std::end(kClasses))
    throw std::runtime_error("it alone does not say how a " + config.tokenizer_class + " cuts text; a tokenizer.json is needed");
  const boost::json::object object = config_json.empty() ? boost::json::object() : parse_json_file(config_json, "tokenizer_config.json");
  const Fields fields(object);
  Roles roles;
  TokenizerConfig whole = config;
  for (const auto& [field, role] : kRoles) {
    if (std::string name = role_name(fields, field); !name.empty()) roles.*role = std::move(name);
    whole.special_names.push_back(roles.*role);
  }
  Vocabulary vocabulary = read_vocabulary(text, ModelRows(whole, {}));
  const TokenId unk = need(vocabulary, roles.unk), cls = need(vocabulary, roles.cls), sep = need(vocabulary, roles.sep);
  const bool lowers = fields.get_bool("do_lower_case", true);
  const boost::json::value normalizer = {{"type", "BertNormalizer"},
                                         {"lowercase", lowers},
                                         {"handle_chinese_chars", fields.get_bool("tokenize_chinese_chars", true)},
                                         {"strip_accents", fields.get_bool("strip_accents", lowers)}},
                           pretokenizer = {{"type", "BertPreTokenizer"}}, decoder = {{"type", "WordPiece"}};
  return assemble_tokenizer(
      PipelineTokenizer::Parts{
          .model = WordPieceModel(std::move(vocabulary), unk, kContinuing, kMaxCharacters),
          .normalizer = Normalizer::from_json(&normalizer, whole.lowers_text),
          .pretokenizer = PreTokenizer::from_json(&pretokenizer),
          .decoder = TokenDecoder::from_json(&decoder),
          .prefix = {cls},
          .suffix = {sep},
          .pair = PairTemplate{.prefix = {cls}, .middle = {sep}, .suffix = {sep}, .num_of_first = 1},
      },
      {}, whole);
}

}  // namespace serval
