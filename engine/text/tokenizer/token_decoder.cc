#include "engine/text/tokenizer/token_decoder.h"

#include <charconv>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>

#include "engine/text/tokenizer/byte_alphabet.h"
#include "engine/text/tokenizer/split_regex.h"
#include "engine/text/tokenizer/tokenizer_parts.h"
#include "kernels/base/shown.h"
#include "kernels/base/utf8.h"

namespace serval {
namespace {

constexpr size_t kMaxReplacementBytes = 16;  // per byte of a name; real ones turn "▁" into a space

// The byte of "<0x0A>", -1 for any other name.
int byte_of_name(std::string_view name) {
  if (name.size() != 6 || !name.starts_with("<0x") || name.back() != '>') return -1;
  int byte = -1;
  const auto [end, error] = std::from_chars(name.data() + 3, name.data() + 5, byte, 16);
  return error == std::errc() && end == name.data() + 5 ? byte : -1;
}

// The bytes of a name in the byte alphabet; a name with any other character stands for itself.
std::string bytes_of_alphabet(std::string_view name) {
  std::string out;
  for (size_t pos = 0; pos < name.size();) {
    const int byte = character_byte(read_utf8(name, pos));
    if (byte < 0) return std::string(name);
    out += static_cast<char>(byte);
  }
  return out;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t copied = 0;
  for (size_t at; (at = text.find(from, copied)) != std::string_view::npos; copied = at + from.size()) {
    out += text.substr(copied, at - copied);
    out += to;
  }
  return out += text.substr(copied);
}

// What the reference does to BERT's English, in this order.
std::string clean_up(std::string text) {
  constexpr std::pair<std::string_view, std::string_view> kJoined[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kJoined) text = replace_all(text, from, to);
  return text;
}

}  // namespace

TokenDecoder TokenDecoder::byte_level() {
  TokenDecoder decoder;
  decoder.is_byte_level_ = true;
  return decoder;
}

TokenDecoder TokenDecoder::from_json(const boost::json::value* value) {
  if (value == nullptr) throw std::runtime_error("there is no decoder");
  TokenDecoder decoder;
  for (const Fields& part : flatten_sequence(value, "decoders", "decoder")) decoder.add(part);
  return decoder;
}

void TokenDecoder::add(const Fields& part) {
  const std::string type = part.get_string("type");
  if (type == "Strip") return add_strip(part);
  if (type == "Fuse") {
    is_fused_ = true;
  } else if (is_fused_) {
    throw std::runtime_error("decoder " + type + " after Fuse is not supported");
  } else if (type == "ByteLevel") {
    is_byte_level_ = true;
  } else if (type == "ByteFallback") {
    has_byte_tokens_ = true;
  } else if (type == "Replace") {
    add_replacement(part);
  } else if (type == "Metaspace") {
    replace_text(part.get_string("replacement"), " ");
    const bool never = part.find_string("prepend_scheme") == "never";
    strips_leading_space_ = part.get_bool("add_prefix_space", true) && !never;
  } else if (type == "BPEDecoder") {
    replace_text(part.find_string("suffix").value_or("</w>"), " ");
    strips_trailing_space_ = true;
  } else if (type == "WordPiece") {
    join_words(part.find_string("prefix").value_or("##"), part.get_bool("cleanup", true));
  } else if (type == "CTC") {
    throw std::runtime_error(
        "the decoder type 'CTC' is not supported: it joins equal neighbours, as speech needs it and text "
        "does not");
  } else {
    throw std::runtime_error("the decoder type " + in_quotes(type) + " is not supported");
  }
}

// Of a token alone, or of the whole text after Fuse.
void TokenDecoder::add_strip(const Fields& part) {
  constexpr int kMost = std::numeric_limits<int>::max();
  const std::string content = part.get_string("content");
  const int start = part.get_int("start", 0, kMost);
  const int stop = part.get_int("stop", 0, kMost);
  if (start == 0 && stop == 0) return;
  if (is_fused_) {
    if (content != " " || start != 1 || stop != 0) {
      throw std::runtime_error(
          "a decoder Strip of anything but one leading space of the whole text is not supported");
    }
    strips_leading_space_ = true;
    return;
  }
  if (content.empty()) part.refuse("content", "is empty");
  steps_.emplace_back([content, start, stop](std::string_view text) {
    for (int i = 0; i < start && text.starts_with(content); ++i) text.remove_prefix(content.size());
    for (int i = 0; i < stop && text.ends_with(content); ++i) text.remove_suffix(content.size());
    return std::string(text);
  });
}

void TokenDecoder::add_replacement(const Fields& part) {
  const Fields pattern = part.get_object("pattern");
  std::string content = part.get_string("content");
  if (std::optional<std::string> text = pattern.find_string("String"))
    return replace_text(std::move(*text), std::move(content));
  if (content.size() > kMaxReplacementBytes) part.refuse("content", "has more than 16 bytes");
  steps_.emplace_back(
      [regex = std::make_shared<SplitRegex>(pattern.get_string("Regex")), content](std::string_view text) {
        SplitBudget budget(text.size());
        return regex->replace_all(text, content, budget);
      });
}

void TokenDecoder::replace_text(std::string from, std::string to) {
  if (from.empty() || to.size() > kMaxReplacementBytes * from.size())
    throw std::runtime_error("a decoder's replacement of " + in_quotes(from) + " is not supported");
  steps_.emplace_back([from, to](std::string_view text) { return replace_all(text, from, to); });
}

// A space before each name but those that continue a word. The reference keeps the prefix of one that begins
// a text; which token that is a token alone cannot say.
void TokenDecoder::join_words(std::string continuing_prefix, bool cleans_up) {
  strips_leading_space_ = true;
  steps_.emplace_back([prefix = std::move(continuing_prefix), cleans_up](std::string_view name) {
    const bool continues = !prefix.empty() && name.starts_with(prefix);
    std::string text = continues ? std::string(name.substr(prefix.size())) : " " + std::string(name);
    return cleans_up ? clean_up(std::move(text)) : text;
  });
}

std::string TokenDecoder::decode(std::string_view name) const {
  std::string out(name);
  for (const Step& step : steps_) out = step(out);
  if (has_byte_tokens_) {
    const int byte = byte_of_name(out);
    if (byte >= 0) return std::string(1, static_cast<char>(byte));
  }
  return is_byte_level_ ? bytes_of_alphabet(out) : out;
}

}  // namespace serval
