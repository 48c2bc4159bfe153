#include "engine/text/tokenizer/world_vocabulary.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/tokenizer/byte_alphabet.h"
#include "engine/text/tokenizer/longest_match_model.h"
#include "engine/text/tokenizer/model_rows.h"
#include "engine/text/tokenizer/pipeline_tokenizer.h"
#include "kernels/base/utf8.h"

namespace serval {
namespace {

constexpr size_t kMaxTokens = 1 << 19;

std::optional<uint32_t> number_in(std::string_view digits, int base) {
  uint32_t number = 0;
  const auto [rest, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
  if (error != std::errc() || rest != digits.data() + digits.size()) return std::nullopt;
  return number;
}

// The bytes of a literal: 'text' or b'bytes', in either kind of quotes.
std::optional<std::string> bytes_of(std::string_view literal) {
  const bool is_bytes = literal.starts_with('b');
  literal.remove_prefix(is_bytes ? 1 : 0);
  if (literal.size() < 2 || literal.front() != literal.back() || (literal[0] != '\'' && literal[0] != '"')) return std::nullopt;
  literal = literal.substr(1, literal.size() - 2);
  std::string bytes;
  while (!literal.empty()) {
    const char c = literal[0];
    literal.remove_prefix(1);
    if (c != '\\') {
      bytes += c;
      continue;
    }
    if (literal.empty()) return std::nullopt;
    const char kind = literal[0];
    literal.remove_prefix(1);
    if (kind == 'x' || kind == 'u') {
      const size_t digits = kind == 'x' ? 2 : 4;
      const std::optional<uint32_t> code = literal.size() < digits ? std::nullopt : number_in(literal.substr(0, digits), 16);
      if (!code || (kind == 'u' && is_bytes) || (*code >= 0xD800 && *code < 0xE000)) return std::nullopt;
      literal.remove_prefix(digits);
      if (is_bytes) {
        bytes += static_cast<char>(*code);
      } else {
        append_utf8(*code, bytes);
      }
      continue;
    }
    constexpr std::string_view kEscapes = "ntr\\'\"", kMeant = "\n\t\r\\'\"";
    const size_t known = kEscapes.find(kind);
    if (known == kEscapes.npos) return std::nullopt;
    bytes += kMeant[known];
  }
  return bytes;
}

struct Line {
  TokenId id;
  std::string bytes;
};

std::optional<Line> read_line(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  const size_t first = line.find(' '), last = line.rfind(' ');
  if (first == line.npos || last <= first) return std::nullopt;
  const std::optional<uint32_t> id = number_in(line.substr(0, first), 10), size = number_in(line.substr(last + 1), 10);
  std::optional<std::string> bytes = bytes_of(line.substr(first + 1, last - first - 1));
  if (!id || *id > 2 * kMaxTokens || !bytes || bytes->empty() || bytes->size() != size) return std::nullopt;
  return Line{static_cast<TokenId>(*id), *std::move(bytes)};
}

}  // namespace

std::unique_ptr<Tokenizer> tokenizer_from_world(std::string_view text, const TokenizerConfig& config) {
  const ModelRows rows(config, {});
  std::vector<std::pair<std::string, TokenId>> entries;
  bool has_end = std::any_of(config.added_tokens.begin(), config.added_tokens.end(), [](const AddedToken& token) { return token.id == 0; });
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::optional<Line> line = read_line(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!line) throw std::runtime_error("line " + std::to_string(number) + " is not an id, a token as Python writes it and its length");
    if (entries.size() == kMaxTokens) throw std::runtime_error("it has more than " + std::to_string(kMaxTokens) + " tokens");
    has_end |= line->id == 0;
    std::string name;
    for (const char byte : line->bytes) name += byte_character(static_cast<unsigned char>(byte));
    if (rows.hold(line->bytes, line->id)) entries.emplace_back(std::move(name), line->id);
  }
  PipelineTokenizer::Parts parts{.model = LongestMatchModel(Vocabulary(std::move(entries))),
                                 .normalizer = Normalizer(),
                                 .pretokenizer = PreTokenizer::whole_bytes(),
                                 .decoder = TokenDecoder::byte_level()};
  std::vector<AddedToken> listed;
  if (!has_end) listed.push_back({.content = "<|endoftext|>", .id = 0, .special = true, .normalized = false});
  TokenizerConfig with_defaults = config;
  if (with_defaults.eos_token.empty() && !has_end) with_defaults.eos_token = "<|endoftext|>";
  return assemble_tokenizer(std::move(parts), std::move(listed), with_defaults);
}

}  // namespace serval
