#include "engine/text/tokenizer/tokenizer_config.h"

#include <algorithm>
#include <charconv>
#include <stdexcept>
#include <unordered_set>

#include "engine/json/fields.h"
#include "engine/json/json_reader.h"
#include "engine/text/tokenizer/tokenizer_parts.h"
#include "kernels/base/log.h"
#include "kernels/base/shown.h"

namespace serval {
namespace json = boost::json;

std::string role_name(const Fields& config, std::string_view key) {
  const json::value* value = config.find(key);
  if (value != nullptr && value->is_object()) return config.get_object(key).get_string("content");
  return config.find_string(key).value_or("");
}

namespace {

// The tokens with a role: each overrules what another file said of it.
void read_roles(const Fields& fields, TokenizerConfig& config) {
  for (const char* key :
       {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"}) {
    std::string name = role_name(fields, key);
    if (name.empty()) continue;
    if (std::string_view(key) == "bos_token") config.bos_token = name;
    if (std::string_view(key) == "eos_token") config.eos_token = name;
    config.special_names.push_back(std::move(name));
  }
  // A list, or since 2026 names for each. The older name comes first.
  for (const char* others : {"additional_special_tokens", "extra_special_tokens"}) {
    const auto add = [&](const json::value& other) {
      if (!other.is_object() && !other.is_string()) fields.refuse(others, "must hold strings or objects");
      config.special_names.push_back(other.is_string() ? std::string(other.get_string())
                                                       : fields.inside(other, others).get_string("content"));
    };
    const json::value* const value = fields.find(others);
    if (value != nullptr && value->is_array()) {
      for (const json::value& other : value->get_array()) add(other);
    } else if (value != nullptr && value->is_object()) {
      for (const auto& [role, other] : value->get_object()) add(other);
    }
  }
}

TokenId id_of_key(std::string_view key) {
  TokenId id = -1;
  const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
  if (error != std::errc() || end != key.data() + key.size() || id < 0) {
    throw std::runtime_error("added_tokens_decoder has the key " + in_quotes(key) +
                             ", which is not a token id");
  }
  return id;
}

void require(std::optional<bool> wanted, TokenId id, const char* what) {
  if (wanted.value_or(false) && id < 0) {
    throw std::runtime_error(std::string("tokenizer_config.json asks for a ") + what +
                             " token, but the vocabulary has none");
  }
}

void leave_out_without_row(int num_rows, std::vector<AddedToken>& tokens) {
  constexpr int kMaxNamed = 8;
  int num_left_out = 0;
  std::string names;
  std::erase_if(tokens, [&](const AddedToken& token) {
    if (token.id < num_rows) return false;
    if (num_left_out++ < kMaxNamed)
      names += (names.empty() ? "" : ", ") + in_quotes(token.content) + " = " + std::to_string(token.id);
    return true;
  });
  if (num_left_out == 0) return;
  log_warn("added tokens that the model has no rows for are read as text",
           {{"count", num_left_out}, {"tokens", names}, {"rows", num_rows}});
}

}  // namespace

TokenizerConfig TokenizerConfig::parse(std::string_view json_text) {
  const json::object object = parse_json_file(json_text, "it");
  const Fields fields(object);
  TokenizerConfig config;
  config.tokenizer_class = fields.find_string("tokenizer_class").value_or("");
  read_roles(fields, config);
  if (const std::optional<Fields> added = fields.find_object("added_tokens_decoder")) {
    for (const auto& [key, value] : added->object()) {
      AddedToken token = read_added_token(added->inside(value, std::string(key)));
      token.id = id_of_key(key);
      config.added_tokens.push_back(std::move(token));
    }
  }
  config.add_bos_token = fields.find_bool("add_bos_token");
  config.add_eos_token = fields.find_bool("add_eos_token");
  config.add_prefix_space = fields.get_bool("add_prefix_space", false);
  config.legacy = fields.get_bool("legacy", true);
  return config;
}

void TokenizerConfig::read_special_tokens_map(std::string_view json_text) {
  if (!added_tokens.empty()) return;
  const json::object object = parse_json_file(json_text, "it");
  read_roles(Fields(object), *this);
}

void TokenizerConfig::read_added_tokens(std::string_view json_text) {
  if (!added_tokens.empty()) return;
  for (const auto& [name, id] : parse_json_file(json_text, "it")) {
    const bool special =
        std::find(special_names.begin(), special_names.end(), std::string_view(name)) != special_names.end();
    added_tokens.push_back({.content = std::string(name),
                            .id = as_token_id(id, "the id of an added token"),
                            .special = special,
                            .normalized = !special});
  }
}

AddedToken read_added_token(const Fields& fields) {
  AddedToken token;
  token.content = fields.get_string("content");
  token.special = fields.get_bool("special", false);
  token.lstrip = fields.get_bool("lstrip", false);
  token.rstrip = fields.get_bool("rstrip", false);
  token.single_word = fields.get_bool("single_word", false);
  token.normalized = fields.get_bool("normalized", !token.special);
  return token;
}

std::vector<AddedToken> join_added_tokens(std::vector<AddedToken> listed, const TokenizerConfig& config,
                                          const std::function<TokenId(std::string_view)>& find) {
  std::vector<AddedToken> joined;
  std::unordered_set<std::string> seen;
  const auto add = [&](AddedToken token) {
    if (const TokenId id = find(token.content); id >= 0) token.id = id;
    if (token.content.empty() || token.id < 0 || !seen.insert(token.content).second) return;
    joined.push_back(std::move(token));
  };
  for (AddedToken& token : listed) add(std::move(token));
  for (const AddedToken& token : config.added_tokens) add(token);
  for (const std::string& name : config.special_names)
    add({.content = name, .special = true, .normalized = false});
  leave_out_without_row(config.num_rows, joined);
  return joined;
}

void apply_bos_eos(const TokenizerConfig& config, TokenId bos_id, TokenId eos_id,
                   std::vector<TokenId>& prefix, std::vector<TokenId>& suffix) {
  require(config.add_bos_token, bos_id, "BOS");
  require(config.add_eos_token, eos_id, "EOS");
  if (config.add_bos_token) {
    std::erase(prefix, bos_id);
    if (*config.add_bos_token) prefix.insert(prefix.begin(), bos_id);
  }
  if (config.add_eos_token) {
    std::erase(suffix, eos_id);
    if (*config.add_eos_token) suffix.push_back(eos_id);
  }
}

}  // namespace serval
