// Bytes of a text against an automaton over its code points: UTF-8 as it is, or with the escapes of a JSON string.
#pragma once

#include <cstdint>

#include "engine/grammar/frame.h"

namespace serval::grammar {

// One byte further; false: nothing that the automaton accepts goes on so. Of `frame` they use the state, the decoder
// and the hash.
bool take_utf8(Frame& frame, const Dfa& text, uint8_t byte);
bool take_string_byte(Frame& frame, const Dfa& text, uint8_t byte);  // no closing quote
// In the middle of a character: the code points it may become, one interval for those written as they are or by one
// escape, one for pairs of escapes. An empty interval has its low end above its high end.
struct Pending {
  Symbol low = 0, high = kLastCodePoint;
  Symbol pair_low = 0x10000, pair_high = kLastCodePoint;
};
Pending pending_of(const Frame& frame);
inline void copy_decoder(const Frame& from, Frame& to) {
  to.kind = from.kind;
  to.decoder = from.decoder;
  to.digits = from.digits;
  to.state = from.state;
  to.partial = from.partial;
  to.high = from.high;
}

const Dfa& text_of(const Frame& frame);  // of kString, kKey, kNumber, kText
// Between two characters of a text of which every further character is decided by its automaton alone, as long as that
// may still become many different texts.
bool is_inside_text(const Frame& frame);

}  // namespace serval::grammar
