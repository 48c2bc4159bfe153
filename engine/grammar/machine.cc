#include "engine/grammar/machine.h"

#include <algorithm>
#include <bit>
#include <string_view>

#include "engine/grammar/text_bytes.h"

namespace serval::grammar {
namespace {

using Kind = Frame::Kind;
using Phase = Frame::Phase;
using Decoder = Frame::Decoder;

constexpr std::string_view kWords[] = {"null", "true", "false"};

enum HashTag : uint64_t { kOfLiteral = 1, kOfString, kOfNumber, kOfArray, kOfObject };

bool is_space(uint8_t byte) { return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t'; }

Frame* copy(const Frame& frame) { return new Frame(frame); }
Frame* child_of(Frame* parent, Kind kind, const void* rule) {
  auto* frame = new Frame;
  frame->kind = kind;
  frame->rule = rule;
  frame->parent = parent;
  if (parent) {
    ++parent->num_refs;
    frame->depth = parent->depth + 1;
    frame->hashing =
        parent->hashing || (parent->kind == Kind::kArray && static_cast<const ArrayRule*>(parent->rule)->distinct);
  }
  return frame;
}

// Spaces in a row; false: too many, or it is none.
bool take_space(const Frame& frame, uint8_t byte, Places& to) {
  if (!is_space(byte)) return false;
  if (frame.partial < kMaxSpacesInRow) {
    Frame* next = copy(frame);
    ++next->partial;
    to.emplace_back(next);
  }
  return true;
}

bool contains(const SeenHash* list, uint64_t hash) {
  for (; list != nullptr; list = list->next.get()) {
    if (list->hash == hash) return true;
  }
  return false;
}

// Some text that goes on from the state is none of the others: where there are more of them than others, or by looking at
// each of the few.
bool leads_to_another(const Dfa& text, int state, uint64_t hash, const SeenHash* others) {
  if (text.count(state) > others->size) return true;
  if (text.accepts(state) && !contains(others, mixed(kOfString, hash))) return true;
  for (const Dfa::Edge* edge = text.begin(state); edge != text.end(state); ++edge) {
    for (Symbol symbol = edge->low; symbol <= edge->high; ++symbol) {
      if (leads_to_another(text, edge->to, mixed(hash, symbol + 1), others)) return true;
    }
  }
  return false;
}

// The same of an item that has begun, which may be in the middle of a character.
bool leads_to_another(const Frame& item, const Dfa& text, const SeenHash* others) {
  if (item.decoder == Decoder::kPlain) return leads_to_another(text, item.state, item.hash, others);
  const auto [low, high, pair_low, pair_high] = pending_of(item);
  for (const Dfa::Edge* edge = text.begin(item.state); edge != text.end(item.state); ++edge) {
    for (const auto& [first, last] : {std::pair{low, high}, std::pair{pair_low, pair_high}}) {
      for (Symbol symbol = std::max(first, edge->low); symbol <= std::min(last, edge->high); ++symbol) {
        if (leads_to_another(text, edge->to, mixed(item.hash, symbol + 1), others)) return true;
      }
    }
  }
  return false;
}

// What an object still needs, and so which keys it may have next.
struct Room {
  std::vector<uint64_t> needed;  // names that must come
  bool only_needed = false;      // for others there is no place
  bool full = false;
  bool impossible = false;
};
bool has_bit(const std::vector<uint64_t>& words, int32_t bit) { return words[bit / 64] >> bit % 64 & 1; }

Room room_of(const ObjectRule& rule, const std::vector<uint64_t>& names, size_t count) {
  Room room;
  room.full = count >= rule.max_keys;
  if (rule.max_keys == kNoLimit && rule.implications.empty()) return room;
  room.needed = rule.required;
  for (bool more = true; more;) {
    more = false;
    for (const auto& [when, then] : rule.implications) {
      if (!(has_bit(names, when) || has_bit(room.needed, when)) || has_bit(room.needed, then)) continue;
      room.needed[then / 64] |= uint64_t{1} << then % 64;
      more = true;
    }
  }
  size_t num_needed = 0;
  for (size_t i = 0; i < room.needed.size(); ++i) {
    room.needed[i] &= ~names[i];
    num_needed += static_cast<size_t>(std::popcount(room.needed[i]));
    if (!rule.key_text.empty()) room.impossible |= (room.needed[i] & ~rule.reachable[i]) != 0;
  }
  room.impossible |= num_needed > 0 && rule.key_text.empty();
  if (rule.max_keys != kNoLimit) {
    room.impossible |= count + num_needed > rule.max_keys;
    room.only_needed = count + num_needed >= rule.max_keys;
  }
  return room;
}

// A key may become what this state of its text leads to.
bool may_become_key(const ObjectRule& rule, const Frame& object, int state) {
  if (state == Dfa::kDead) return false;
  const Room room = room_of(rule, *object.names, object.count);
  if (room.full) return false;
  if (!room.only_needed && rule.reaches_other[state]) return true;
  const uint64_t* const reachable = rule.reachable.data() + static_cast<size_t>(state) * rule.num_words;
  for (int32_t i = 0; i < rule.num_words; ++i) {
    const uint64_t free = room.only_needed ? room.needed[i] : ~(*object.names)[i];
    if (reachable[i] & free) return true;
  }
  return false;
}

// The same of a key that has begun, which may be in the middle of a character.
bool may_become_key(const Frame& key) {
  const Frame& object = *key.parent;
  const auto& rule = *static_cast<const ObjectRule*>(object.rule);
  if (rule.is_open) return true;
  if (key.decoder == Decoder::kPlain) return may_become_key(rule, object, key.state);
  const auto [low, high, pair_low, pair_high] = pending_of(key);
  for (const Dfa::Edge* edge = rule.key_text.begin(key.state); edge != rule.key_text.end(key.state); ++edge) {
    const bool fits = (edge->low <= high && low <= edge->high) || (edge->low <= pair_high && pair_low <= edge->high);
    if (fits && may_become_key(rule, object, edge->to)) return true;
  }
  return false;
}

bool may_close(const ObjectRule& rule, const Frame& object) {
  const std::vector<uint64_t>& names = *object.names;
  for (size_t i = 0; i < names.size(); ++i) {
    if (rule.required[i] & ~names[i]) return false;
  }
  for (const auto& [when, then] : rule.implications) {
    if (has_bit(names, when) && !has_bit(names, then)) return false;
  }
  return object.count >= rule.min_keys && (object.claims & rule.obligations) == rule.obligations;
}

uint64_t claims_of(uint64_t claims, size_t obligation) { return claims >> 16 * obligation & 0xFFFF; }

bool may_close(const ArrayRule& rule, const Frame& array) {
  if (array.count < rule.min_items) return false;
  for (size_t i = 0; i < rule.obligations.size(); ++i) {
    if (claims_of(array.claims, i) < rule.obligations[i].min) return false;
  }
  return true;
}

// Where an array's count of items makes no difference any more, it stays.
uint32_t next_count(const ArrayRule& rule, uint32_t count) {
  size_t most = std::max(rule.first.size(), rule.min_items);
  if (rule.max_items != kNoLimit) most = std::max(most, rule.max_items);
  if (rule.distinct) most = kNoLimit;
  return count < most ? count + 1 : count;
}

bool add_claims(const ArrayRule& rule, uint32_t claims, uint64_t& counts, size_t items_left) {
  for (size_t i = 0; i < rule.obligations.size(); ++i) {
    const auto [min, max] = rule.obligations[i];
    uint64_t count = claims_of(counts, i);
    if (claims >> i & 1) {
      if (max != 0xFFFF && count >= max) return false;
      if (max != 0xFFFF || count < min) ++count;
      counts = (counts & ~(uint64_t{0xFFFF} << 16 * i)) | count << 16 * i;
    }
    if (count < min && min - count > items_left) return false;
  }
  return true;
}

// A state that accepts, or does once calls that may be empty are left out.
bool may_be_over(const Program& program, const Dfa& text, int state, std::vector<int>& seen) {
  if (text.accepts(state)) return true;
  seen.push_back(state);
  for (const Dfa::Edge* edge = text.end(state); edge != text.begin(state) && (edge - 1)->high >= kFirstCall;) {
    --edge;
    for (Symbol call = std::max(edge->low, kFirstCall); call <= std::min(edge->high, kFirstValueCall - 1); ++call) {
      if (!program.text_rules[call - kFirstCall]->may_be_empty || std::find(seen.begin(), seen.end(), edge->to) != seen.end()) continue;
      if (may_be_over(program, text, edge->to, seen)) return true;
    }
  }
  return false;
}

}  // namespace

Places Machine::start() const {
  Places places;
  if (program_.value)
    places.emplace_back(child_of(nullptr, Kind::kValue, program_.value));
  else
    places.emplace_back(child_of(nullptr, Kind::kText, program_.text));
  return places;
}

void Machine::step(const FrameRef& from, uint8_t byte, Places& to) {
  to.clear();
  advance(from, byte, to);
}

void Machine::step(const Places& from, uint8_t byte, Places& to) {
  to.clear();
  for (const FrameRef& place : from) advance(place, byte, to);
  if (to.size() < 2) return;
  // Equal places are one.
  for (size_t i = 0; i < to.size(); ++i) {
    for (size_t j = i + 1; j < to.size();) {
      if (same_stack(to[i].get(), to[j].get())) {
        to[j] = std::move(to.back());
        to.pop_back();
      } else {
        ++j;
      }
    }
  }
  if (to.size() > kMaxPlaces) to.resize(kMaxPlaces);
}

void Machine::advance(const FrameRef& place, uint8_t byte, Places& to) {
  if (!place) {
    lowest = 0;
    return;
  }
  touch(place.get());
  switch (place->kind) {
    case Kind::kValue:
      return advance_value(place, byte, to);
    case Kind::kString:
    case Kind::kKey:
      return advance_string(place, byte, to);
    case Kind::kNumber:
      return advance_number(place, byte, to);
    case Kind::kLiteral:
      return advance_literal(place, byte, to);
    case Kind::kObject:
      return advance_object(place, byte, to);
    case Kind::kArray:
      return advance_array(place, byte, to);
    case Kind::kText:
      return advance_text(place, byte, to);
  }
}

// Where the item that is being written must not be equal to one before it: those. Null: there are none.
const SeenHash* Machine::others_of(const Frame& item) {
  const Frame* const parent = item.parent;
  if (item.kind == Kind::kKey || !parent || parent->kind != Kind::kArray ||
      !static_cast<const ArrayRule*>(parent->rule)->distinct)
    return nullptr;
  touch(parent);
  return parent->seen.get();
}

void Machine::advance_value(const FrameRef& place, uint8_t byte, Places& to) {
  const auto& rule = *static_cast<const ValueRule*>(place->rule);
  if (take_space(*place, byte, to)) return;
  // What begins takes the place of the frame that waited for it.
  const auto begin = [&](Kind kind, const void* what) {
    Frame* frame = copy(*place);
    frame->kind = kind;
    frame->rule = what;
    frame->state = 0;
    frame->partial = 0;
    return frame;
  };
  const auto literal = [&](Phase phase) {
    const uint64_t which = static_cast<uint64_t>(phase) - static_cast<uint64_t>(Phase::kNull);
    if (is_among(others_of(*place), mixed(kOfLiteral, which))) return;
    Frame* frame = begin(Kind::kLiteral, nullptr);
    frame->phase = phase;
    frame->state = 1;
    to.emplace_back(frame);
  };
  switch (byte) {
    case 'n':
      if (rule.null) literal(Phase::kNull);
      return;
    case 't':
      if (rule.yes) literal(Phase::kTrue);
      return;
    case 'f':
      if (rule.no) literal(Phase::kFalse);
      return;
    case '"':
      if (rule.string) to.emplace_back(begin(Kind::kString, rule.string.get()));
      return;
    case '{':
      if (place->depth >= kMaxStack) return;
      for (const ObjectRule* object : rule.objects) {
        Frame* frame = begin(Kind::kObject, object);
        frame->names = std::make_shared<const std::vector<uint64_t>>(static_cast<size_t>(object->num_words), 0);
        frame->hash = kOfObject;
        to.emplace_back(frame);
      }
      return;
    case '[':
      if (place->depth >= kMaxStack) return;
      for (const ArrayRule* array : rule.arrays) {
        Frame* frame = begin(Kind::kArray, array);
        frame->hash = kOfArray;
        to.emplace_back(frame);
      }
      return;
    default:
      if (rule.number && (byte == '-' || (byte >= '0' && byte <= '9')))
        advance_number(FrameRef(begin(Kind::kNumber, rule.number.get())), byte, to);
  }
}

uint64_t Machine::item_hash(const Frame& string) { return mixed(kOfString, string.hash); }

bool Machine::is_among(const SeenHash* others, uint64_t hash) {
  if (lookups && others) lookups->hashes.push_back(hash);
  return contains(others, hash);
}

bool Machine::may_be_another(const Frame& item, const Dfa& text, const SeenHash* others) {
  const auto note = [&](int state) { lookups->fewest_texts = std::min(lookups->fewest_texts, text.count(state)); };
  if (lookups && item.decoder == Decoder::kPlain) {
    note(item.state);
  } else if (lookups) {
    for (const Dfa::Edge* edge = text.begin(item.state); edge != text.end(item.state); ++edge) note(edge->to);
  }
  return leads_to_another(item, text, others);
}

void Machine::advance_string(const FrameRef& place, uint8_t byte, Places& to) {
  const auto& text = *static_cast<const Dfa*>(place->rule);
  const bool is_key = place->kind == Kind::kKey;
  if (is_key) touch(place->parent);
  if (byte == '"' && place->decoder == Decoder::kPlain) {
    if (!text.accepts(place->state)) return;
    if (is_key)
      end_key(*place, to);
    else
      finish(place->parent, item_hash(*place), to);
    return;
  }
  FrameRef next(copy(*place));
  Frame& frame = const_cast<Frame&>(*next);
  if (!take_string_byte(frame, text, byte)) return;
  if (const SeenHash* others = others_of(*place); others && !may_be_another(frame, text, others)) return;
  if (is_key && !may_become_key(frame)) return;
  to.push_back(std::move(next));
}

void Machine::end_key(const Frame& key, Places& to) {
  const Frame& object = *key.parent;
  const auto& rule = *static_cast<const ObjectRule*>(object.rule);
  const int32_t label = rule.key_text.label(key.state);
  const int32_t name = rule.keys[label].name;
  FrameRef next(copy(object));
  Frame& frame = const_cast<Frame&>(*next);
  if (name >= 0) {
    if (has_bit(*object.names, name)) return;
    auto names = *object.names;
    names[name / 64] |= uint64_t{1} << name % 64;
    frame.names = std::make_shared<const std::vector<uint64_t>>(std::move(names));
  } else if (rule.distinct || object.hashing) {
    if (contains(object.seen.get(), key.hash)) return;
    frame.seen = std::make_shared<const SeenHash>(key.hash, object.seen);
  }
  if (rule.min_keys > 0 || rule.max_keys != kNoLimit) {
    if (rule.max_keys != kNoLimit || object.count < rule.min_keys) ++frame.count;
  }
  const Room before = room_of(rule, *object.names, object.count);
  if (before.full || (before.only_needed && (name < 0 || !has_bit(before.needed, name)))) return;
  if (room_of(rule, *frame.names, frame.count).impossible) return;
  frame.phase = Phase::kColon;
  frame.state = label;
  frame.partial = 0;
  frame.key_hash = object.hashing ? key.hash : 0;
  to.push_back(std::move(next));
}

// Digits count without the zeros around them: 1, 1.0 and 10e-1 are equal, and the last is not accepted here.
void hash_digit(Frame& frame, uint8_t byte) {
  if (byte == '-') {
    frame.digits |= 1;
  } else if (byte == '.') {
    frame.digits |= 2;
  } else {
    const bool behind_point = frame.digits & 2;
    if (frame.hash == 0 && byte == '0') {
      if (behind_point) --frame.count;  // the first digit's place
      return;
    }
    if (!behind_point) ++frame.count;
    if (byte == '0') {
      ++frame.partial;
      return;
    }
    for (; frame.partial > 0; --frame.partial) frame.hash = mixed(frame.hash, '0');
    frame.hash = mixed(frame.hash, byte);
  }
}

void Machine::advance_number(const FrameRef& place, uint8_t byte, Places& to) {
  const auto& text = *static_cast<const Dfa*>(place->rule);
  if (const int state = text.next(place->state, byte); state != Dfa::kDead) {
    Frame* frame = copy(*place);
    FrameRef next(frame);
    frame->state = state;
    if (place->hashing) {
      if (byte == 'e' || byte == 'E') return;
      hash_digit(*frame, byte);
    }
    to.push_back(std::move(next));
    return;
  }
  if (!text.accepts(place->state)) return;
  const uint64_t sign = place->hash == 0 ? 0 : place->digits & 1;
  const uint64_t where = place->hash == 0 ? 0 : place->count;
  Places behind;
  finish(place->parent, mixed(mixed(mixed(kOfNumber, place->hash), where), sign), behind);
  for (const FrameRef& next : behind) advance(next, byte, to);
}

void Machine::advance_literal(const FrameRef& place, uint8_t byte, Places& to) {
  const auto which = static_cast<size_t>(place->phase) - static_cast<size_t>(Phase::kNull);
  const std::string_view word = kWords[which];
  if (static_cast<uint8_t>(word[place->state]) != byte) return;
  if (static_cast<size_t>(place->state) + 1 == word.size())
    return finish(place->parent, mixed(kOfLiteral, which), to);
  Frame* frame = copy(*place);
  ++frame->state;
  to.emplace_back(frame);
}

void Machine::finish(Frame* parent, uint64_t hash, Places& to) {
  touch(parent);
  FrameRef same(parent);
  if (!parent || parent->kind == Kind::kText) {
    to.push_back(std::move(same));
    return;
  }
  const bool is_array = parent->kind == Kind::kArray;
  const bool distinct = is_array && static_cast<const ArrayRule*>(parent->rule)->distinct;
  if (!parent->hashing && !distinct) {
    to.push_back(std::move(same));
    return;
  }
  FrameRef next(copy(*parent));
  Frame& frame = const_cast<Frame&>(*next);
  if (distinct) {
    if (is_among(parent->seen.get(), hash)) return;
    frame.seen = std::make_shared<const SeenHash>(hash, parent->seen);
  }
  if (parent->hashing) {
    if (is_array)
      frame.hash = mixed(frame.hash, hash);
    else
      frame.hash += mixed(mixed(kOfObject, frame.key_hash), hash);
    frame.key_hash = 0;
  }
  to.push_back(std::move(next));
}

void Machine::advance_object(const FrameRef& place, uint8_t byte, Places& to) {
  const auto& rule = *static_cast<const ObjectRule*>(place->rule);
  if (take_space(*place, byte, to)) return;
  const bool at_end = place->phase == Phase::kFirst || place->phase == Phase::kComma;
  if (byte == '}' && at_end) {
    if (may_close(rule, *place)) finish(place->parent, place->hash, to);
    return;
  }
  switch (place->phase) {
    case Phase::kFirst:
    case Phase::kNextKey:
      if (byte == '"' && may_become_key(rule, *place, rule.key_text.start())) {
        Frame* settled = copy(*place);
        settled->partial = 0;
        FrameRef holder(settled);
        Frame* key = child_of(settled, Kind::kKey, &rule.key_text);
        key->hashing = rule.distinct || place->hashing;
        to.emplace_back(key);
      }
      return;
    case Phase::kColon:
      if (byte != ':') return;
      for (const Choice& choice : rule.keys[place->state].choices) {
        Frame* object = copy(*place);
        FrameRef holder(object);
        object->phase = Phase::kComma;
        object->state = 0;
        object->partial = 0;
        object->claims |= choice.claims;
        to.emplace_back(child_of(object, Kind::kValue, choice.value));
      }
      return;
    case Phase::kComma:
      if (byte == ',' && may_become_key(rule, *place, rule.key_text.start())) {
        Frame* next = copy(*place);
        next->phase = Phase::kNextKey;
        next->partial = 0;
        to.emplace_back(next);
      }
      return;
    default:
      return;
  }
}

void Machine::start_items(const Frame& array, Places& to) {
  const auto& rule = *static_cast<const ArrayRule*>(array.rule);
  if (array.count >= rule.max_items) return;
  const auto& choices = array.count < rule.first.size() ? rule.first[array.count] : rule.rest;
  for (const Choice& choice : choices) {
    uint64_t claims = array.claims;
    const size_t left = rule.max_items == kNoLimit ? kNoLimit : rule.max_items - array.count - 1;
    if (!add_claims(rule, choice.claims, claims, left)) continue;
    if (rule.distinct && choice.value->num_values != kNoLimit && array.count >= rule.first.size()) {
      if (array.seen && array.seen->size >= choice.value->num_values) continue;
    }
    Frame* next = copy(array);
    FrameRef holder(next);
    next->phase = Phase::kComma;
    next->partial = 0;
    next->count = next_count(rule, array.count);
    next->claims = claims;
    to.emplace_back(child_of(next, Kind::kValue, choice.value));
  }
}

void Machine::advance_array(const FrameRef& place, uint8_t byte, Places& to) {
  const auto& rule = *static_cast<const ArrayRule*>(place->rule);
  if (take_space(*place, byte, to)) return;
  if (byte == ']') {
    if (may_close(rule, *place)) finish(place->parent, place->hash, to);
    return;
  }
  if (place->phase == Phase::kFirst) {
    Places items;
    start_items(*place, items);
    for (const FrameRef& item : items) advance(item, byte, to);
  } else if (byte == ',') {
    start_items(*place, to);
  }
}

void Machine::advance_text(const FrameRef& place, uint8_t byte, Places& to) {
  const Dfa& text = static_cast<const TextRule*>(place->rule)->text;
  FrameRef next(copy(*place));
  if (take_utf8(const_cast<Frame&>(*next), text, byte)) to.push_back(std::move(next));
  if (place->decoder != Decoder::kPlain || text.empty()) return;
  const Dfa::Edge* const end = text.end(place->state);
  for (const Dfa::Edge* edge = end; edge != text.begin(place->state) && (edge - 1)->high >= kFirstCall;) {
    --edge;
    for (Symbol call = std::max(edge->low, kFirstCall); call <= edge->high; ++call) {
      if (place->depth >= kMaxStack) return;
      // Nothing follows the call: its end is this one's.
      const bool is_last = text.accepts(edge->to) && text.begin(edge->to) == text.end(edge->to);
      FrameRef back;
      if (is_last) {
        back = FrameRef(place->parent);
      } else {
        Frame* after = copy(*place);
        after->state = edge->to;
        back = FrameRef(after);
      }
      const bool is_value = call >= kFirstValueCall;
      const void* const callee = is_value ? static_cast<const void*>(program_.called_values[call - kFirstValueCall]) : program_.text_rules[call - kFirstCall].get();
      advance(FrameRef(child_of(const_cast<Frame*>(back.get()), is_value ? Kind::kValue : Kind::kText, callee)), byte, to);
    }
  }
  if (text.accepts(place->state)) {
    touch(place->parent);
    if (place->parent) advance(FrameRef(place->parent), byte, to);
  }
}

bool Machine::may_end(const Places& places) const {
  return std::any_of(places.begin(), places.end(), [this](const FrameRef& place) {
    for (const Frame* frame = place.get(); frame != nullptr; frame = frame->parent) {
      if (frame->kind == Kind::kText) {
        const Dfa& text = static_cast<const TextRule*>(frame->rule)->text;
        std::vector<int> seen;
        if (frame->decoder != Decoder::kPlain || text.empty() || !may_be_over(program_, text, frame->state, seen)) return false;
      } else if (frame->kind == Kind::kNumber) {
        if (!static_cast<const Dfa*>(frame->rule)->accepts(frame->state)) return false;
      } else {
        return false;
      }
    }
    return true;
  });
}

}  // namespace serval::grammar
