#include "engine/text/tokenizer/post_processor.h"

#include <boost/json.hpp>
#include <iterator>
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
};

// Of a TemplateProcessing: what "single" puts before and after the text "A".
Around read_template(const Fields& processor) {
  Around around;
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
    for (const json::value& id : special_tokens->get_object(name).get_array("ids")) {
      (seen_text ? around.suffix : around.prefix)
          .push_back(as_token_id(id, "an id of the post_processor's special_tokens"));
    }
  }
  if (!seen_text) processor.refuse("single", "leaves the text out");
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
                         std::vector<TokenId>& suffix) {
  for (const Fields& processor : flatten_sequence(value, "processors", "post_processor")) {
    const std::string type = processor.get_string("type");
    if (type == "ByteLevel") continue;  // about offsets, not ids
    Around around;
    if (type == "TemplateProcessing") {
      around = read_template(processor);
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      around = {{read_pair(processor, "cls")}, {read_pair(processor, "sep")}};
    } else {
      throw std::runtime_error("the post_processor type " + in_quotes(type) + " is not supported");
    }
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
