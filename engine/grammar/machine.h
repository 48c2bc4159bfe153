// One byte further: the places behind it, of every place before it.
#pragma once

#include <cstdint>

#include "engine/grammar/frame.h"

namespace serval::grammar {

inline constexpr uint32_t kMaxStack = 160;       // frames: a value nested deeper is not accepted
inline constexpr uint32_t kMaxSpacesInRow = 64;  // between the parts of a JSON text
inline constexpr size_t kMaxPlaces = 128;        // of one text; more are forgotten, so that less is accepted

class Machine {
 public:
  explicit Machine(const Program& program) : program_(program) {}

  Places start() const;
  // Replaces `to`.
  void step(const Places& from, uint8_t byte, Places& to);
  void step(const FrameRef& from, uint8_t byte, Places& to);
  bool may_end(const Places& places) const;

  // The lowest depth that a step has looked at since this was set: what it did is known from the frames above.
  uint32_t lowest = 0;
  // Of items behind others of an array of distinct ones: those that are looked for among them, and the fewest texts that one which has begun
  // may become.
  struct Lookups {
    std::vector<uint64_t> hashes;
    size_t fewest_texts = Dfa::kManyTexts;
  };
  Lookups* lookups = nullptr;  // null: nobody wants to know
  // What a string that ends here is looked for as.
  static uint64_t item_hash(const Frame& string);

 private:
  void advance(const FrameRef& place, uint8_t byte, Places& to);
  void advance_value(const FrameRef& place, uint8_t byte, Places& to);
  void advance_string(const FrameRef& place, uint8_t byte, Places& to);
  void advance_number(const FrameRef& place, uint8_t byte, Places& to);
  void advance_literal(const FrameRef& place, uint8_t byte, Places& to);
  void advance_object(const FrameRef& place, uint8_t byte, Places& to);
  void advance_array(const FrameRef& place, uint8_t byte, Places& to);
  void advance_text(const FrameRef& place, uint8_t byte, Places& to);
  void end_key(const Frame& key, Places& to);
  // The value on top of `parent` is over.
  void finish(Frame* parent, uint64_t hash, Places& to);
  void start_items(const Frame& array, Places& to);
  const SeenHash* others_of(const Frame& item);
  bool is_among(const SeenHash* others, uint64_t hash);
  bool may_be_another(const Frame& item, const Dfa& text, const SeenHash* others);
  void touch(const Frame* frame) { lowest = std::min(lowest, frame ? frame->depth : 0); }

  const Program& program_;
};

}  // namespace serval::grammar
