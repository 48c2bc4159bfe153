#include "engine/text/tokenizer/post_processor.h"

#include <boost/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>

#include "engine/text/tokenizer/tokenizer_parts.h"
#include "kernels/base/shown.h"

namespace serval {
namespace json = boost::json;
namespace {

constexpr size_t kMaxInserted = 64;  // tokens before or after a text

struct Around {
  std::vector<TokenId> prefix, suffix;
  std::optional<PairTemplate> pair;
};

// The ids of a template's special token.
std::vector<TokenId> ids_of(const Fields& processor, const std::string& name) {
  const std::optional<Fields> special_tokens = processor.find_object("special_tokens");
  if (!special_tokens) processor.refuse("special_tokens", "is missing");
  std::vector<TokenId> ids;
  for (const json::value& id : special_tokens->get_object(name).get_array("ids"))
    ids.push_back(as_token_id(id, "an id of the post_processor's special_tokens"));
  return ids;
}

// Of a TemplateProcessing's "pair": its texts A, then B, and kinds that only go from 0 to 1. Nothing where it is otherwise.
std::optional<PairTemplate> read_pair_template(const Fields& processor) {
  constexpr int kMostKinds = 1 << 10;
  const json::array* const parts = processor.find_array("pair");
  if (parts == nullptr) return std::nullopt;
  PairTemplate pair;
  std::vector<TokenId>* const sides[] = {&pair.prefix, &pair.middle, &pair.suffix};
  size_t num_texts = 0;
  int last_kind = 0;
  for (const json::value& value : *parts) {
    const Fields part = processor.inside(value, "pair");
    const bool is_text = part.find("Sequence") != nullptr;
    const Fields piece = part.get_object(is_text ? "Sequence" : "SpecialToken");
    const std::string id = piece.get_string("id");
    const int kind = piece.find_int("type_id", 0, kMostKinds).value_or(0);
    if (kind < last_kind || kind > 1 || (kind != last_kind && num_texts != 1)) return std::nullopt;
    if (kind != last_kind) pair.num_of_first = pair.middle.size();
    last_kind = kind;
    if (is_text) {
      if (num_texts == 2 || id != (num_texts == 0 ? "A" : "B")) return std::nullopt;
      ++num_texts;
      continue;
    }
    const std::vector<TokenId> ids = ids_of(processor, id);
    sides[num_texts]->insert(sides[num_texts]->end(), ids.begin(), ids.end());
  }
  return num_texts == 2 ? std::optional(std::move(pair)) : std::nullopt;
}

// Of a TemplateProcessing: what "single" puts before and after the text "A".
Around read_template(const Fields& processor) {
  Around around;
  bool seen_text = false;
  for (const json::value& value : processor.get_array("single")) {
    const Fields part = processor.inside(value, "single");
    if (const std::optional<Fields> sequence = part.find_object("Sequence")) {
      if (sequence->get_string("id") != "A" || std::exchange(seen_text, true))
        processor.refuse("single", "with a text that is not A, or twice, is not supported");
      continue;
    }
    const std::string name = part.get_object("SpecialToken").get_string("id");
    const std::vector<TokenId> ids = ids_of(processor, name);
    std::vector<TokenId>& side = seen_text ? around.suffix : around.prefix;
    side.insert(side.end(), ids.begin(), ids.end());
  }
  if (!seen_text) processor.refuse("single", "leaves the text out");
  around.pair = read_pair_template(processor);
  return around;
}

// Of a BertProcessing or RobertaProcessing: a field is the token's name and its id.
TokenId read_pair(const Fields& processor, const char* field) {
  const json::array& pair = processor.get_array(field);
  if (pair.size() != 2) processor.refuse(field, "is not a name with an id");
  return as_token_id(pair[1], std::string("the id of the post_processor's ") + field);
}

}  // namespace

void read_post_processor(const json::value* value, std::vector<TokenId>& prefix,
                         std::vector<TokenId>& suffix, std::optional<PairTemplate>& pair) {
  int num_processors = 0;
  for (const Fields& processor : flatten_sequence(value, "processors", "post_processor")) {
    const std::string type = processor.get_string("type");
    if (type == "ByteLevel") continue;  // about offsets, not ids
    Around around;
    if (type == "TemplateProcessing") {
      around = read_template(processor);
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      const std::vector<TokenId> cls = {read_pair(processor, "cls")}, sep = {read_pair(processor, "sep")};
      around = {cls, sep, PairTemplate{.prefix = cls, .middle = sep, .suffix = sep, .num_of_first = 1}};
      if (type == "RobertaProcessing") around.pair = PairTemplate{.prefix = cls, .middle = {sep[0], sep[0]}, .suffix = sep, .num_of_first = {}};
    } else {
      throw std::runtime_error("the post_processor type " + in_quotes(type) + " is not supported");
    }
    pair = num_processors++ == 0 ? std::move(around.pair) : std::nullopt;
    // Each is put around what those before it have made.
    prefix.insert(prefix.begin(), around.prefix.begin(), around.prefix.end());
    suffix.insert(suffix.end(), around.suffix.begin(), around.suffix.end());
    if (std::max(prefix.size(), suffix.size()) > kMaxInserted) {
      throw std::runtime_error("a post_processor with more than " + std::to_string(kMaxInserted) +
                               " tokens on a side is not supported");
    }
  }
}

}  // namespace serval
