#include "server/openai/read_request.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/value.hpp>
#include <limits>
#include <utility>

namespace serval {

namespace json = boost::json;

void pass_over_unknown(const Fields& fields, const RequestOptions& options, int& num_ignored) {
  const std::vector<std::string> unknown = fields.unknown();
  if (unknown.empty()) return;
  if (options.strict) {
    throw FieldError("", invalid(unknown.front(), "unknown_parameter",
                                 unknown.front() + " is not a parameter of this URL"));
  }
  num_ignored += static_cast<int>(unknown.size());
}

std::optional<std::string> find_name(const Fields& fields, std::string_view field) {
  std::optional<std::string> text = fields.find_string(field, kMaxShortStringBytes);
  if (text && std::any_of(text->begin(), text->end(),
                          [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }))
    fields.refuse(field, "has a control character");
  return text;
}

namespace {

[[noreturn]] void bad_prompt(const Fields& fields, std::string_view field) {
  fields.refuse(field, "must be a string, an array of strings, an array of token ids, or an array of those",
                "invalid_prompt");
}

std::vector<TokenId> read_token_ids(const Fields& fields, std::string_view field, const json::array& items) {
  std::vector<TokenId> ids;
  ids.reserve(items.size());
  for (const json::value& item : items) {
    if (!item.is_int64()) bad_prompt(fields, field);
    const int64_t id = item.get_int64();
    if (id < std::numeric_limits<TokenId>::min() || id > std::numeric_limits<TokenId>::max()) {
      fields.refuse(field, "has a token id that no model has", "invalid_token_id");
    }
    ids.push_back(static_cast<TokenId>(id));
  }
  return ids;
}

std::string to_string(const json::string& text) {
  return std::string(text.data(), text.size());
}

}  // namespace

std::vector<PromptInput> read_prompts(const Fields& fields, std::string_view field) {
  std::vector<PromptInput> prompts;
  const json::value* prompt = fields.find(field);
  if (prompt && prompt->is_string()) {
    prompts.emplace_back(to_string(prompt->get_string()));
    return prompts;
  }
  if (!prompt || !prompt->is_array()) bad_prompt(fields, field);
  const json::array& items = prompt->get_array();
  if (!items.empty() && items[0].is_number()) {
    prompts.emplace_back(read_token_ids(fields, field, items));
    return prompts;
  }
  for (const json::value& item : items) {
    if (item.kind() != items[0].kind() || !(item.is_string() || item.is_array())) {
      bad_prompt(fields, field);
    } else if (item.is_string()) {
      prompts.emplace_back(to_string(item.get_string()));
    } else {
      prompts.emplace_back(read_token_ids(fields, field, item.get_array()));
    }
  }
  return prompts;
}

}  // namespace serval
