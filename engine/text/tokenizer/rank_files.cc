#include "engine/text/tokenizer/rank_files.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <optional>
#include <stdexcept>
#include <string>
#include <unordered_set>
#include <utility>

#include "engine/json/json_reader.h"
#include "engine/text/tokenizer/base64.h"
#include "engine/text/tokenizer/byte_alphabet.h"
#include "engine/text/tokenizer/model_rows.h"
#include "engine/text/tokenizer/pipeline_tokenizer.h"
#include "engine/text/tokenizer/tokenizer_parts.h"
#include "kernels/base/shown.h"

namespace serval {
namespace json = boost::json;
namespace {

constexpr size_t kMaxTokens = 1 << 19;
constexpr size_t kMaxTokenBytes = 1024;  // a token is looked at in all ways to cut it in two

// Numbers of a family's special tokens behind the ranks: those that have names, then as many
// "beforeNUMBERafter"s.
struct Numbered {
  std::string_view before, after;
  int count = 0;
  bool by_id = false;  // NUMBER is the id, and not a count from 0
};

struct Family {
  std::string_view file_name;
  std::string_view pattern;
  bool composes = false;  // text is brought to NFC
  std::vector<std::string_view> special = {};
  Numbered numbered = {};
  TextCut cut = {};
  std::string_view eos = {};                  // unless the configuration says otherwise
  std::vector<std::string_view> prefix = {};  // what add_special puts before a text
};

// The published patterns; those of one letter's case apart differ in how many digits a token has.
constexpr std::string_view kGlmPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kCl100kPattern =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++\z|\s*[\r\n]|\s+(?!\S)|\s)";
constexpr std::string_view kO200kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kKimiPattern =
    R"([\p{Han}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

const std::vector<Family>& families() {
  static const std::vector<Family> table = {
      // Qwen 1: 151,643 ranks and 208 special tokens behind them.
      {.file_name = "qwen.tiktoken",
       .pattern = kQwenPattern,
       .composes = true,
       .special = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"},
       .numbered = {"<|extra_", "|>", 205},
       .eos = "<|endoftext|>"},
      {.file_name = "hy.tiktoken",  // Hunyuan
       .pattern = kQwenPattern,
       .composes = true,
       .special = {"<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>"},
       .numbered = {"<|extra_", "|>", 205},
       .eos = "<|eos|>"},
      {.file_name = "tiktoken.model",  // Kimi, Moonlight
       .pattern = kKimiPattern,
       .numbered = {"<|reserved_token_", "|>", 258, /*by_id=*/true},
       .cut = {.max_run = 25'000, .max_text = 400'000},
       .eos = "[EOS]"},
      {.file_name = "tokenizer.model",  // GLM-4, whose configuration lists its special tokens
       .pattern = kGlmPattern,
       .eos = "<|endoftext|>",
       .prefix = {"[gMASK]", "<sop>"}},
      {.file_name = "cl100k_base.tiktoken", .pattern = kCl100kPattern, .eos = "<|endoftext|>"},
      {.file_name = "o200k_base.tiktoken", .pattern = kO200kPattern, .eos = "<|endoftext|>"},
  };
  return table;
}

std::string in_byte_alphabet(std::string_view bytes) {
  std::string name;
  for (const char byte : bytes) name += byte_character(static_cast<unsigned char>(byte));
  return name;
}

// Collects tokens, which are refused when they cannot be a vocabulary of ranks.
class RankReader {
 public:
  explicit RankReader(const ModelRows& rows) : rows_(rows) {}

  void add(std::string_view base64, TokenId id) {
    const std::optional<std::string> bytes = decode_base64(base64);
    if (!bytes || bytes->empty() || bytes->size() > kMaxTokenBytes)
      throw std::runtime_error("token " + std::to_string(id) + " is " + in_quotes(base64) +
                               ", which is not 1 to " + std::to_string(kMaxTokenBytes) + " bytes in base64");
    if (entries_.size() == kMaxTokens)
      throw std::runtime_error("it has more than " + std::to_string(kMaxTokens) + " tokens");
    std::string name = in_byte_alphabet(*bytes);
    if (rows_.hold(*bytes, id)) entries_.emplace_back(std::move(name), id);
    end_ = std::max(end_, id + 1);
  }

  TokenId end() const { return end_; }  // 1 + the largest id
  Vocabulary take() {
    Vocabulary vocabulary(std::move(entries_));
    if (!vocabulary.has_byte_alphabet()) throw std::runtime_error("it has no token for each byte");
    return vocabulary;
  }

 private:
  const ModelRows& rows_;
  std::vector<std::pair<std::string, TokenId>> entries_;
  TokenId end_ = 0;
};

struct RankLine {
  std::string_view base64;
  TokenId rank;
};

// The first line of `text`, which is taken off it; none: it is not one of a rank file.
std::optional<RankLine> take_line(std::string_view& text) {
  const size_t end = std::min(text.find('\n'), text.size());
  std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  if (line.ends_with('\r')) line.remove_suffix(1);
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  RankLine result{line.substr(0, space), -1};
  const std::string_view digits = line.substr(space + 1);
  const auto [rest, error] = std::from_chars(digits.data(), digits.data() + digits.size(), result.rank);
  if (error != std::errc() || rest != digits.data() + digits.size() || result.rank < 0) return std::nullopt;
  return result;
}

std::vector<AddedToken> special_tokens(const Family& family, const TokenizerConfig& config, TokenId first) {
  std::unordered_set<TokenId> taken;
  for (const AddedToken& token : config.added_tokens) taken.insert(token.id);
  std::vector<AddedToken> tokens;
  TokenId id = first;
  const auto add = [&](std::string name) {
    if (!taken.contains(id))
      tokens.push_back({.content = std::move(name), .id = id, .special = true, .normalized = false});
    ++id;
  };
  for (const std::string_view name : family.special) add(std::string(name));
  for (int i = 0; i < family.numbered.count; ++i) {
    const int number = family.numbered.by_id ? id : i;
    add(std::string(family.numbered.before) + std::to_string(number) + std::string(family.numbered.after));
  }
  return tokens;
}

}  // namespace

std::vector<std::string_view> rank_file_names() {
  std::vector<std::string_view> names;
  for (const Family& family : families()) names.push_back(family.file_name);
  return names;
}

bool is_rank_file(std::string_view text) {
  const std::optional<RankLine> line = take_line(text);
  return line && decode_base64(line->base64);
}

std::unique_ptr<Tokenizer> tokenizer_from_ranks(std::string_view text, std::string_view file_name,
                                                const TokenizerConfig& config) {
  const auto family = std::find_if(families().begin(), families().end(),
                                   [&](const Family& row) { return row.file_name == file_name; });
  if (family == families().end())
    throw std::runtime_error("how " + in_quotes(file_name) + " cuts text is not known");
  const ModelRows rows(config, {});
  RankReader reader(rows);
  for (int number = 1; !text.empty(); ++number) {
    if (text.starts_with('\n')) {
      text.remove_prefix(1);
      continue;
    }
    const std::optional<RankLine> line = take_line(text);
    if (!line)
      throw std::runtime_error("line " + std::to_string(number) + " is not a token in base64 and its rank");
    reader.add(line->base64, line->rank);
  }
  const TokenId end = reader.end();
  PipelineTokenizer::Parts parts{.model = BpeModel::from_ranks(reader.take()),
                                 .normalizer = family->composes ? Normalizer::of_type("NFC") : Normalizer(),
                                 .pretokenizer = PreTokenizer::byte_level(family->pattern),
                                 .decoder = TokenDecoder::byte_level(),
                                 .cut = family->cut};
  std::vector<AddedToken> listed = special_tokens(*family, config, end);
  for (const std::string_view name : family->prefix) {
    for (const AddedToken& token : config.added_tokens) {
      if (token.content == name && token.id < config.num_rows) parts.prefix.push_back(token.id);
    }
  }
  TokenizerConfig with_defaults = config;
  if (with_defaults.eos_token.empty()) with_defaults.eos_token = family->eos;
  return assemble_tokenizer(std::move(parts), std::move(listed), with_defaults);
}

// Special tokens come first and ranks are counted behind them. Of the ranks only so many are used that the
// whole is as large as the configuration says.
std::unique_ptr<Tokenizer> tokenizer_from_tekken(std::string_view json_text, const TokenizerConfig& config) {
  constexpr int kMost = kMaxTokens;
  const json::object object = parse_json_file(json_text, "it");
  const Fields file(object);
  const Fields settings = file.get_object("config");
  const int num_special = settings.get_int("default_num_special_tokens", 0, kMost);
  const int size = settings.get_int("default_vocab_size", num_special, kMost);

  std::vector<AddedToken> special(num_special);
  for (TokenId id = 0; id < num_special; ++id)
    special[id] = {
        .content = "<SPECIAL_" + std::to_string(id) + ">", .id = id, .special = true, .normalized = false};
  // Files of 2024 leave out what all of them have.
  constexpr std::string_view kOlder[] = {"<unk>",
                                         "<s>",
                                         "</s>",
                                         "[INST]",
                                         "[/INST]",
                                         "[AVAILABLE_TOOLS]",
                                         "[/AVAILABLE_TOOLS]",
                                         "[TOOL_RESULTS]",
                                         "[/TOOL_RESULTS]",
                                         "[TOOL_CALLS]",
                                         "[IMG]",
                                         "<pad>",
                                         "[IMG_BREAK]",
                                         "[IMG_END]",
                                         "[PREFIX]",
                                         "[MIDDLE]",
                                         "[SUFFIX]",
                                         "[SYSTEM_PROMPT]",
                                         "[/SYSTEM_PROMPT]",
                                         "[TOOL_CONTENT]"};
  if (const json::array* listed = file.find_array("special_tokens")) {
    for (const json::value& value : *listed) {
      const Fields token = file.inside(value, "special_tokens");
      special.at(token.get_int("rank", 0, num_special - 1)).content = token.get_string("token_str");
    }
  } else {
    for (size_t id = 0; id < std::min(special.size(), std::size(kOlder)); ++id)
      special[id].content = kOlder[id];
  }

  TokenizerConfig with_defaults = config;
  if (with_defaults.bos_token.empty()) with_defaults.bos_token = "<s>";
  if (with_defaults.eos_token.empty()) with_defaults.eos_token = "</s>";
  const ModelRows rows(with_defaults, special);
  RankReader reader(rows);
  for (const json::value& value : file.get_array("vocab")) {
    const Fields token = file.inside(value, "vocab");
    const int rank = token.get_int("rank", 0, kMost);
    if (rank < size - num_special) reader.add(token.get_string("token_bytes"), num_special + rank);
  }
  PipelineTokenizer::Parts parts{.model = BpeModel::from_ranks(reader.take()),
                                 .normalizer = Normalizer(),
                                 .pretokenizer = PreTokenizer::byte_level(settings.get_string("pattern")),
                                 .decoder = TokenDecoder::byte_level()};
  for (const AddedToken& token : special) {
    if (token.content == with_defaults.bos_token && token.id < config.num_rows) parts.prefix = {token.id};
  }
  return assemble_tokenizer(std::move(parts), std::move(special), with_defaults);
}

}  // namespace serval
