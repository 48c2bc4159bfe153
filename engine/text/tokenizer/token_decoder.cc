#include "engine/text/tokenizer/token_decoder.h"

#include <charconv>
#include <stdexcept>

#include "engine/text/tokenizer/byte_alphabet.h"
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
    add_replacement(part.get_object("pattern").get_string("String"), part.get_string("content"));
  } else if (type == "Metaspace") {
    add_replacement(part.get_string("replacement"), " ");
    const bool never = part.find_string("prepend_scheme") == "never";
    strips_leading_space_ = part.get_bool("add_prefix_space", true) && !never;
  } else {
    throw std::runtime_error("the decoder type " + in_quotes(type) + " is not supported");
  }
}

void TokenDecoder::add_strip(const Fields& part) {
  constexpr int kMost = std::numeric_limits<int>::max();
  const std::string content = part.get_string("content");
  const int start = part.get_int("start", 0, kMost);
  const int stop = part.get_int("stop", 0, kMost);
  if (start == 0 && stop == 0) return;
  if (!is_fused_ || content != " " || start != 1 || stop != 0) {
    throw std::runtime_error(
        "a decoder Strip of anything but one leading space of the whole text is not supported");
  }
  strips_leading_space_ = true;
}

void TokenDecoder::add_replacement(std::string_view from, std::string_view to) {
  if (from.empty() || to.size() > kMaxReplacementBytes * from.size() || !replaced_.empty()) {
    throw std::runtime_error("a decoder's replacement of " + in_quotes(from) + " is not supported");
  }
  replaced_ = from;
  replacement_ = to;
}

std::string TokenDecoder::decode(std::string_view name) const {
  const std::string out = replaced_.empty() ? std::string(name) : replace_all(name, replaced_, replacement_);
  if (has_byte_tokens_) {
    const int byte = byte_of_name(out);
    if (byte >= 0) return std::string(1, static_cast<char>(byte));
  }
  return is_byte_level_ ? bytes_of_alphabet(out) : out;
}

}  // namespace serval
