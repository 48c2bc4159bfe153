#include "engine/text/tokenizer/tokenizer_config.h"

#include <charconv>
#include <stdexcept>
#include <unordered_set>

#include "engine/text/tokenizer/model_json.h"
#include "kernels/base/log.h"
#include "kernels/base/shown.h"

namespace serval {
namespace json = boost::json;
namespace {

// A token's name: a string, or an object with its content; "" for null and absent.
std::string name_of(const json::object& config, std::string_view key) {
  const json::value* value = find_member(config, key);
  if (value == nullptr) return "";
  if (value->is_object()) return std::string(get_string(value->get_object(), "content", key));
  return std::string(as_string(*value, key));
}

std::optional<bool> optional_bool(const json::object& config, std::string_view key) {
  if (find_member(config, key) == nullptr) return std::nullopt;
  return get_bool(config, key, false, "the configuration");
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
  constexpr int kMostNamed = 8;
  int num_left_out = 0;
  std::string names;
  std::erase_if(tokens, [&](const AddedToken& token) {
    if (token.id < num_rows) return false;
    if (num_left_out++ < kMostNamed)
      names += (names.empty() ? "" : ", ") + in_quotes(token.content) + " = " + std::to_string(token.id);
    return true;
  });
  if (num_left_out == 0) return;
  log_warn("added tokens that the model has no rows for are read as text",
           {{"count", num_left_out}, {"tokens", names}, {"rows", num_rows}});
}

}  // namespace

TokenizerConfig TokenizerConfig::parse(std::string_view json_text) {
  const json::object object = parse_model_json(json_text);
  TokenizerConfig config;
  if (find_member(object, "tokenizer_class") != nullptr) {
    config.tokenizer_class = get_string(object, "tokenizer_class", "the configuration");
  }
  config.bos_token = name_of(object, "bos_token");
  config.eos_token = name_of(object, "eos_token");
  for (const char* key :
       {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"}) {
    if (std::string name = name_of(object, key); !name.empty())
      config.special_names.push_back(std::move(name));
  }
  const json::value* others = find_member(object, "additional_special_tokens");
  if (others != nullptr && others->is_array()) {
    for (const json::value& other : others->get_array()) {
      const bool nested = other.is_object();
      config.special_names.emplace_back(
          nested ? get_string(other.get_object(), "content", "additional_special_tokens")
                 : as_string(other, "additional_special_tokens"));
    }
  }
  if (const json::value* added = find_member(object, "added_tokens_decoder")) {
    for (const auto& [key, value] : as_object(*added, "added_tokens_decoder")) {
      AddedToken token = read_added_token(as_object(value, "added_tokens_decoder"), "added_tokens_decoder");
      token.id = id_of_key(key);
      config.added_tokens.push_back(std::move(token));
    }
  }
  config.add_bos_token = optional_bool(object, "add_bos_token");
  config.add_eos_token = optional_bool(object, "add_eos_token");
  config.add_prefix_space = optional_bool(object, "add_prefix_space").value_or(false);
  config.legacy = optional_bool(object, "legacy").value_or(true);
  return config;
}

AddedToken read_added_token(const json::object& object, std::string_view where) {
  AddedToken token;
  token.content = get_string(object, "content", where);
  token.special = get_bool(object, "special", false, where);
  token.lstrip = get_bool(object, "lstrip", false, where);
  token.rstrip = get_bool(object, "rstrip", false, where);
  token.single_word = get_bool(object, "single_word", false, where);
  token.normalized = get_bool(object, "normalized", !token.special, where);
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
