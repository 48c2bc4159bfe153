// The tokenizer in a GGUF file's metadata as the file that the folder has: tokenizer.model of sentencepiece for "llama",
// tokenizer.json of a byte-level BPE for "gpt2".
#include <boost/json.hpp>
#include <cstring>
#include <stdexcept>

#include "engine/model/gguf_model.h"
#include "kernels/base/shown.h"
#include "kernels/base/utf8.h"

namespace serval {
namespace {

namespace json = boost::json;

// How text is cut before merging, by the name that the converter gave it.
struct Cut {
  std::string_view name;
  const char* pattern;  // null: GPT-2's, which is part of the byte level
  bool has_single_digits = false;
  bool composes = false;       // NFC before
  bool ignores_merges = false;  // a piece that is a token is that token
  bool adds_bos = false;       // where the file does not say
};
constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr Cut kCuts[] = {
    {"llama-bpe", kLlama3, false, false, true, true},
    {"llama3", kLlama3, false, false, true, true},
    {"llama-v3", kLlama3, false, false, true, true},
    {"qwen2", kQwen2, false, true},
    {"deepseek-r1-qwen", kQwen2},
    {"gpt-4o", kGpt4o},
    {"tekken", kTekken, false, false, true, true},
    {"gpt-2", nullptr},
    {"smollm", nullptr, true},
};

class Vocabulary {
 public:
  explicit Vocabulary(const GgufFile& gguf) : gguf_(gguf), tokens_(array("tokens")) {
    for (const json::value& token : tokens_)
      if (!token.is_string() || !is_valid_utf8(token.get_string())) refuse("tokenizer.ggml.tokens has a token that is not UTF-8");
    types_ = find("token_type") == nullptr ? nullptr : &array("token_type");
    if (types_ != nullptr && types_->size() != tokens_.size()) refuse("tokenizer.ggml.token_type has another length than tokens");
  }
  [[noreturn]] void refuse(const std::string& why) const { throw std::runtime_error(gguf_.file().path().string() + ": " + why); }

  const json::value* find(const char* key) const { return gguf_.metadata().if_contains(std::string("tokenizer.ggml.") + key); }
  const json::array& array(const char* key) const {
    const json::value* value = find(key);
    if (value == nullptr || !value->is_array()) refuse(std::string("tokenizer.ggml.") + key + " is missing, or no array");
    return value->get_array();
  }
  std::string text(const char* key) const {
    const json::value* value = find(key);
    return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
  }
  bool is_set(const char* key, bool fallback) const {
    const json::value* value = find(key);
    return value != nullptr && value->is_bool() ? value->get_bool() : fallback;
  }
  size_t size() const { return tokens_.size(); }
  std::string_view token(size_t id) const { return tokens_[id].get_string(); }
  int64_t type(size_t id) const {
    return types_ != nullptr && (*types_)[id].is_int64() ? (*types_)[id].get_int64() : 1;
  }
  // The token that a key names by its id, where there is one.
  void add_role(const char* key, const char* role, json::object& config) const {
    const json::value* id = find(key);
    if (id == nullptr || !id->is_int64()) return;
    if (id->get_int64() < 0 || static_cast<size_t>(id->get_int64()) >= size()) refuse(std::string("tokenizer.ggml.") + key + " is no token");
    config[role] = token(static_cast<size_t>(id->get_int64()));
  }

 private:
  const GgufFile& gguf_;
  const json::array& tokens_;
  const json::array* types_ = nullptr;
};

constexpr int64_t kControl = 3, kUserDefined = 4, kByte = 6;

// Fields of protocol buffers.
void add_varint(std::string& to, uint64_t value) {
  for (; value >= 0x80; value >>= 7) to.push_back(static_cast<char>(value | 0x80));
  to.push_back(static_cast<char>(value));
}
void add_number(std::string& to, int field, uint64_t value) {
  add_varint(to, static_cast<uint64_t>(field) << 3);
  add_varint(to, value);
}
void add_bytes(std::string& to, int field, std::string_view bytes) {
  add_varint(to, static_cast<uint64_t>(field) << 3 | 2);
  add_varint(to, bytes.size());
  to += bytes;
}
void add_real(std::string& to, int field, float value) {
  add_varint(to, static_cast<uint64_t>(field) << 3 | 5);
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  to.append(bytes, sizeof bytes);
}

std::string sentencepiece_of(const Vocabulary& vocabulary) {
  const json::array& scores = vocabulary.array("scores");
  if (scores.size() != vocabulary.size()) vocabulary.refuse("tokenizer.ggml.scores has another length than tokens");
  std::string model;
  for (size_t i = 0; i < vocabulary.size(); ++i) {
    std::string piece;
    add_bytes(piece, 1, vocabulary.token(i));
    if (!scores[i].is_number()) vocabulary.refuse("tokenizer.ggml.scores has what is no number");
    add_real(piece, 2, scores[i].to_number<float>());
    add_number(piece, 3, static_cast<uint64_t>(vocabulary.type(i)));
    add_bytes(model, 1, piece);
  }
  std::string trainer, normaliser;
  add_number(trainer, 3, 2);   // BPE
  int num_bytes = 0;
  for (size_t i = 0; i < vocabulary.size(); ++i) num_bytes += vocabulary.type(i) == kByte;
  add_number(trainer, 35, num_bytes == 256 ? 1 : 0);  // bytes for what there is no piece for
  add_bytes(normaliser, 1, "identity");
  add_number(normaliser, 3, vocabulary.is_set("add_space_prefix", true) ? 1 : 0);
  add_number(normaliser, 4, vocabulary.is_set("remove_extra_whitespaces", false) ? 1 : 0);
  add_number(normaliser, 5, 1);
  add_bytes(model, 2, trainer);
  add_bytes(model, 3, normaliser);
  return model;
}

std::string byte_level_of(const Vocabulary& vocabulary, const Cut& cut) {
  json::object vocab;
  json::array added;
  for (size_t i = 0; i < vocabulary.size(); ++i) {
    if (vocab.contains(vocabulary.token(i))) continue;  // the first counts
    vocab.emplace(vocabulary.token(i), i);
    if (vocabulary.type(i) != kControl && vocabulary.type(i) != kUserDefined) continue;
    added.push_back({{"id", i},
                     {"content", vocabulary.token(i)},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", vocabulary.type(i) == kControl}});
  }
  json::array steps;
  if (cut.has_single_digits) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
  if (cut.pattern != nullptr)
    steps.push_back({{"type", "Split"}, {"pattern", {{"Regex", cut.pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", cut.pattern == nullptr}});
  const json::object byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  json::object file = {
      {"version", "1.0"},
      {"added_tokens", std::move(added)},
      {"normalizer", cut.composes ? json::value{{"type", "NFC"}} : json::value()},
      {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}}},
      {"decoder", byte_level},
      {"model",
       {{"type", "BPE"}, {"vocab", std::move(vocab)}, {"merges", vocabulary.array("merges")}, {"ignore_merges", cut.ignores_merges}}}};
  return json::serialize(file);
}

}  // namespace

GgufTokenizer tokenizer_of_gguf(const GgufFile& gguf) {
  const Vocabulary vocabulary(gguf);
  const std::string kind = vocabulary.text("model");
  GgufTokenizer tokenizer;
  json::object config;
  vocabulary.add_role("bos_token_id", "bos_token", config);
  vocabulary.add_role("eos_token_id", "eos_token", config);
  bool adds_bos = true;
  if (kind == "llama") {
    vocabulary.add_role("unknown_token_id", "unk_token", config);
    tokenizer.tokenizer_model = sentencepiece_of(vocabulary);
  } else if (kind == "gpt2") {
    const std::string pre = vocabulary.text("pre");
    const Cut* cut = nullptr;
    std::string supported;
    for (const Cut& known : kCuts) {
      if (known.name == pre) cut = &known;
      supported += (supported.empty() ? "" : ", ") + std::string(known.name);
    }
    if (cut == nullptr)
      vocabulary.refuse("tokenizer.ggml.pre is " + in_quotes(pre) + ", which is not supported; supported are " + supported);
    adds_bos = cut->adds_bos;
    tokenizer.tokenizer_json = byte_level_of(vocabulary, *cut);
  } else {
    vocabulary.refuse("tokenizer.ggml.model is " + in_quotes(kind) + ", which is not supported; supported are llama, gpt2");
  }
  config["add_bos_token"] = vocabulary.is_set("add_bos_token", adds_bos) && config.contains("bos_token");
  config["add_eos_token"] = vocabulary.is_set("add_eos_token", false) && config.contains("eos_token");
  tokenizer.config_json = json::serialize(config);
  if (const json::value* chat = gguf.metadata().if_contains("tokenizer.chat_template"); chat != nullptr && chat->is_string())
    tokenizer.chat_template = std::string(chat->get_string());
  return tokenizer;
}

}  // namespace serval
