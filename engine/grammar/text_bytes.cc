#include "engine/grammar/text_bytes.h"

#include <algorithm>
#include <string_view>

namespace serval::grammar {
namespace {

using Kind = Frame::Kind;
using Decoder = Frame::Decoder;

// The code points that `text`'s state may go on with among [low, high], halves of surrogate pairs aside.
bool leads_on(const Dfa& text, int state, Symbol low, Symbol high) {
  if (low < 0xD800 && text.leads_on(state, low, std::min<Symbol>(high, 0xD7FF))) return true;
  return high > 0xDFFF && text.leads_on(state, std::max<Symbol>(low, 0xE000), high);
}
constexpr Symbol pair_of(Symbol high, Symbol low) { return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00); }

// A whole code point.
bool take_symbol(Frame& frame, const Dfa& text, Symbol symbol) {
  frame.state = text.next(frame.state, symbol);
  frame.decoder = Decoder::kPlain;
  frame.partial = frame.high = 0;
  frame.digits = 0;
  if (frame.hashing) frame.hash = mixed(frame.hash, symbol + 1);
  return frame.state != Dfa::kDead;
}

int hex_value(uint8_t byte) {
  if (byte >= '0' && byte <= '9') return byte - '0';
  const uint8_t lower = byte | 0x20;
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

}  // namespace

// A byte of UTF-8; false: nothing can follow.
bool take_utf8(Frame& frame, const Dfa& text, uint8_t byte) {
  if (frame.decoder != Decoder::kUtf8) {
    if (byte < 0x80) return take_symbol(frame, text, byte);
    if (byte < 0xC2 || byte > 0xF4) return false;
    frame.decoder = Decoder::kUtf8;
    frame.digits = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
    frame.partial = byte & (0x3F >> frame.digits);
    frame.high = frame.digits == 1 ? 0x80 : frame.digits == 2 ? 0x800 : 0x10000;  // the least of this length
  } else {
    if ((byte & 0xC0) != 0x80) return false;
    frame.partial = frame.partial << 6 | (byte & 0x3F);
    --frame.digits;
  }
  const uint32_t shift = 6u * frame.digits;
  const Symbol low = std::max<Symbol>(frame.partial << shift, frame.high);
  const Symbol high = std::min<Symbol>(frame.partial << shift | ((1u << shift) - 1), kLastCodePoint);
  if (low > high || !leads_on(text, frame.state, low, high)) return false;
  return frame.digits > 0 || take_symbol(frame, text, frame.partial);
}

// A byte inside of the quotes of a JSON string, RFC 8259 section 7.
bool take_string_byte(Frame& frame, const Dfa& text, uint8_t byte) {
  switch (frame.decoder) {
    case Decoder::kPlain:
      if (byte < 0x20) return false;
      if (byte == '\\') {
        frame.decoder = Decoder::kEscape;
        return text.leads_on(frame.state, 0, kLastCodePoint);
      }
      return take_utf8(frame, text, byte);
    case Decoder::kUtf8:
      return take_utf8(frame, text, byte);
    case Decoder::kEscape: {
      constexpr std::string_view kLetters = "\"\\/bfnrt", kMeant = "\"\\/\b\f\n\r\t";
      if (byte == 'u') {
        frame.decoder = Decoder::kHex;
        frame.digits = 4;
        return true;
      }
      const size_t letter = kLetters.find(static_cast<char>(byte));
      return letter != std::string_view::npos &&
             take_symbol(frame, text, static_cast<uint8_t>(kMeant[letter]));
    }
    case Decoder::kHex: {
      const int value = hex_value(byte);
      if (value < 0) return false;
      frame.partial = frame.partial * 16 + static_cast<uint32_t>(value);
      --frame.digits;
      const uint32_t shift = 4u * frame.digits;
      const Symbol low = frame.partial << shift, high = low | ((1u << shift) - 1);
      const Symbol first = std::max<Symbol>(low, 0xD800), last = std::min<Symbol>(high, 0xDBFF);
      const bool pairs =
          first <= last && text.leads_on(frame.state, pair_of(first, 0xDC00), pair_of(last, 0xDFFF));
      if (!pairs && !leads_on(text, frame.state, low, high)) return false;
      if (frame.digits > 0) return true;
      if (frame.partial < 0xD800 || frame.partial > 0xDFFF) return take_symbol(frame, text, frame.partial);
      frame.high = frame.partial;
      frame.partial = 0;
      frame.decoder = Decoder::kLowEscape;
      return true;
    }
    case Decoder::kLowEscape:
      frame.decoder = Decoder::kLowLetter;
      return byte == '\\';
    case Decoder::kLowLetter:
      frame.decoder = Decoder::kLowHex;
      frame.digits = 4;
      return byte == 'u';
    case Decoder::kLowHex: {
      const int value = hex_value(byte);
      if (value < 0) return false;
      frame.partial = frame.partial * 16 + static_cast<uint32_t>(value);
      --frame.digits;
      const uint32_t shift = 4u * frame.digits;
      const Symbol low = std::max<Symbol>(frame.partial << shift, 0xDC00);
      const Symbol high = std::min<Symbol>(frame.partial << shift | ((1u << shift) - 1), 0xDFFF);
      if (low > high || !text.leads_on(frame.state, pair_of(frame.high, low), pair_of(frame.high, high)))
        return false;
      return frame.digits > 0 || take_symbol(frame, text, pair_of(frame.high, frame.partial));
    }
  }
  return false;
}

Pending pending_of(const Frame& frame) {
  Pending pending;
  const uint32_t shift = (frame.decoder == Decoder::kUtf8 ? 6u : 4u) * frame.digits;
  const Symbol low = frame.partial << shift, high = low | ((1u << shift) - 1);
  const auto pairs = [&](Symbol high_low, Symbol high_high, Symbol low_low, Symbol low_high) {
    pending.pair_low = pair_of(std::max<Symbol>(high_low, 0xD800), std::max<Symbol>(low_low, 0xDC00));
    pending.pair_high = pair_of(std::min<Symbol>(high_high, 0xDBFF), std::min<Symbol>(low_high, 0xDFFF));
    if (high_low > 0xDBFF || high_high < 0xD800) pending.pair_high = 0;
  };
  switch (frame.decoder) {
    case Decoder::kPlain:
    case Decoder::kEscape:
      break;
    case Decoder::kUtf8:
      pending.low = std::max(low, frame.high);
      pending.high = high;
      pending.pair_high = 0;
      break;
    case Decoder::kHex:
      pending.low = low;
      pending.high = high;
      pairs(low, high, 0xDC00, 0xDFFF);
      break;
    case Decoder::kLowEscape:
    case Decoder::kLowLetter:
      pending.low = 1, pending.high = 0;
      pairs(frame.high, frame.high, 0xDC00, 0xDFFF);
      break;
    case Decoder::kLowHex:
      pending.low = 1, pending.high = 0;
      pairs(frame.high, frame.high, low, high);
      break;
  }
  return pending;
}

const Dfa& text_of(const Frame& frame) {
  return frame.kind == Kind::kText ? static_cast<const TextRule*>(frame.rule)->text
                                   : *static_cast<const Dfa*>(frame.rule);
}

bool is_inside_text(const Frame& frame) {
  if (frame.decoder != Decoder::kPlain) return false;
  if (frame.hashing && frame.parent && frame.parent->seen && frame.parent->seen->size >= Dfa::kManyTexts) return false;
  if (frame.kind == Kind::kString) return true;
  // Where the caller may go on at any place, the walk is with its frames.
  if (frame.kind == Kind::kText) {
    const auto& rule = *static_cast<const TextRule*>(frame.rule);
    return !rule.calls && (frame.parent == nullptr || rule.is_prefix_free);
  }
  // Any key may follow those that were there.
  return frame.kind == Kind::kKey && static_cast<const ObjectRule*>(frame.parent->rule)->is_open;
}

}  // namespace serval::grammar
