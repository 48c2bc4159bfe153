#include "engine/grammar/token_mask.h"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/grammar/machine.h"
#include "engine/grammar/matcher_state.h"
#include "engine/grammar/text_bytes.h"

namespace serval {

using grammar::Dfa;
using grammar::Frame;
using grammar::FrameRef;
using grammar::Places;

namespace {

constexpr int kMaxKeptFrames = 6;    // from the top of a stack, that a kept mask may depend on
constexpr int kMaxTextSymbols = 32;  // a token of more bytes is tried for itself, unless no text of any length tells the states apart
constexpr uint64_t kLikeNone = 0x9d5c0f2be1a38467;  // the hash of an item that is no text's
constexpr uint32_t kDeepest = grammar::kMaxStack - 48;  // nearer the end of the stack nothing is kept

struct Key {
  uint64_t hash;
  uint32_t num_frames;
  bool operator==(const Key&) const = default;
};
struct KeyHash {
  size_t operator()(const Key& key) const { return key.hash ^ key.num_frames; }
};

}  // namespace

struct TokenMasks::Impl {
  Impl(std::shared_ptr<const Grammar> of, std::shared_ptr<const TokenTrie> vocabulary, size_t most)
      : grammar(std::move(of)),
        trie(std::move(vocabulary)),
        max_bytes(most),
        machine(grammar->program()),
        levels(static_cast<size_t>(trie->max_depth()) + 1),
        decoded(levels.size()) {}

  using Bits = std::vector<uint32_t>;

  // Nodes to be tried, and the bytes on the way to each of them, one after another.
  struct Paths {
    std::vector<int32_t> nodes;
    std::vector<uint8_t> bytes;
    size_t num_bytes() const { return nodes.size() * sizeof(int32_t) + bytes.size(); }
  };
  // What a text allows that goes on as it is, and where in the trie it may be over.
  struct TextEntry {
    Bits inside;
    Paths ends;                   // of a closing quote, or behind an end
    Paths deep;                   // too deep to be kept
    bool is_nearly_over = false;  // `ends` has nodes behind which few texts are left, too
  };
  struct Mask {
    Bits bits;
    grammar::Machine::Lookups lookups;  // of an item that stands apart; sorted
  };
  using MaskRef = std::shared_ptr<const Mask>;

  void fill(const Places& places, std::span<uint32_t> mask) {
    std::fill(mask.begin(), mask.end(), 0u);
    for (const FrameRef& place : places) {
      if (place) fill(place, mask);
    }
    for (Places& level : levels) level.clear();  // frames belong to the matcher's thread
  }

  void fill(const FrameRef& place, std::span<uint32_t> mask) {
    MaskRef found = may_stand_apart(*place) ? apart_from_others(*place, mask) : nullptr;
    if (!found) found = mask_of(place, /*is_apart=*/false);
    for (size_t i = 0; i < mask.size(); ++i) mask[i] |= found->bits[i];
  }

  // is_apart: without the tokens that are too deep.
  MaskRef mask_of(const FrameRef& place, bool is_apart) {
    // Shallow first: what was found out with less of the stack holds for more of it.
    uint64_t hash = 0;
    uint32_t num_frames = 0;
    bool may_keep = place->depth < kDeepest;
    std::vector<Key> keys;
    for (const Frame* frame = place.get(); frame && may_keep && num_frames < kMaxKeptFrames; frame = frame->parent) {
      if (frame->seen) break;  // told apart by address only
      hash = (hash ^ frame->own_hash()) * 0x9e3779b97f4a7c15ull;
      hash ^= hash >> 30;
      keys.push_back({hash, ++num_frames});
      if (const auto found = kept.find(keys.back()); found != kept.end()) return found->second;
      if (!frame->parent) keys.push_back({hash + 1, num_frames + 1000});  // and nothing is below
    }
    if (!keys.empty() && keys.back().num_frames > 1000) {
      if (const auto found = kept.find(keys.back()); found != kept.end()) return found->second;
    }
    auto mask = std::make_shared<Mask>();
    mask->bits.assign(trie->num_words(), 0);
    machine.lowest = place->depth;
    machine.lookups = is_apart ? &mask->lookups : nullptr;
    walk(place, is_apart, mask->bits);
    std::vector<uint64_t>& hashes = mask->lookups.hashes;
    std::ranges::sort(hashes);
    hashes.erase(std::unique(hashes.begin(), hashes.end()), hashes.end());
    // As many frames as the machine has looked at, and the end of the stack where it looked behind it.
    const uint32_t num_seen = place->depth - std::max(machine.lowest, 1u) + 1;
    const uint32_t wanted = machine.lowest == 0 ? num_seen + 1000 : num_seen;
    const auto key = std::find_if(keys.begin(), keys.end(), [&](const Key& k) { return k.num_frames == wanted; });
    if (key == keys.end()) return mask;
    make_room(bytes_of(*mask));
    kept.emplace(*key, mask);
    return mask;
  }
  static size_t bytes_of(const Mask& mask) { return mask.bits.size() * sizeof(uint32_t) + mask.lookups.hashes.size() * sizeof(uint64_t) + 64; }

  // --- items of an array of distinct strings: most are like none of those before them, and then it does not matter which those are ---

  static bool may_stand_apart(const Frame& place) {
    const Frame* const parent = place.parent;
    if (place.kind != Frame::Kind::kString || !parent || parent->kind != Frame::Kind::kArray || parent->hashing || !is_inside_text(place)) return false;
    const auto& rule = *static_cast<const grammar::ArrayRule*>(parent->rule);
    const auto is_endless = [](const grammar::Choice& choice) { return choice.value->num_values == grammar::kNoLimit; };
    return rule.distinct && std::ranges::all_of(rule.rest, is_endless);
  }

  // Null: it does matter. Tokens that are too deep to be kept are put into the mask.
  MaskRef apart_from_others(const Frame& place, std::span<uint32_t> mask) {
    if (text_of(place).is_nearly_over) return nullptr;
    auto* const array = new Frame(*place.parent);
    const FrameRef holder(array);
    array->seen = nullptr;
    auto* const item = new Frame(place);
    const FrameRef alone(item);
    FrameRef::release(item->parent);
    item->parent = array;
    ++array->num_refs;
    item->hash = kLikeNone;
    const Dfa& dfa = grammar::text_of(place);
    item->state = like(dfa, place.state);
    const MaskRef found = mask_of(alone, /*is_apart=*/true);
    return meets_others(place, *found, mask) ? nullptr : found;
  }

  // The item, or one that its token begins behind it, could be one of those before it, or each other.
  bool meets_others(const Frame& place, const Mask& alone, std::span<uint32_t> mask) {
    const grammar::SeenHash* const others = place.parent->seen.get();
    if (alone.lookups.fewest_texts <= (others ? others->size : 0) + static_cast<size_t>(trie->max_depth())) return true;
    seen.clear();
    for (const auto* other = others; other; other = other->next.get()) seen.push_back(other->hash);
    std::ranges::sort(seen);
    const auto is_seen = [&](uint64_t hash) { return std::ranges::binary_search(seen, hash); };
    if (std::ranges::any_of(alone.lookups.hashes, is_seen)) return true;

    const TextEntry& text = text_of(place);
    const bool differs = for_each_text(place, text.ends, [&](int32_t node) {
      const uint64_t hash = grammar::Machine::item_hash(decoded[before(node)]);
      return !is_seen(hash) && !std::ranges::binary_search(alone.lookups.hashes, hash);
    });
    if (!differs) return true;
    const DeepTokens& deep = deep_of(place, text);
    for (const int32_t node : deep.nodes) trie->allow(node, mask.data());
    return deep.may_end;
  }

  // Tokens that are too deep and stay inside a text; and whether there are some that may leave it, or leave few texts.
  struct DeepTokens {
    std::vector<int32_t> nodes;
    bool may_end = false;
  };
  const DeepTokens& deep_of(const Frame& place, const TextEntry& text) {
    const Dfa& dfa = grammar::text_of(place);
    const auto [entry, is_new] = deep_tokens.try_emplace({&dfa, place.state});
    if (!is_new) return entry->second;
    DeepTokens& deep = entry->second;
    const auto& nodes = trie->nodes();
    for_each_text(place, text.deep, [&](int32_t node) {
      for (int32_t i = node; i < nodes[node].end;) {
        const size_t depth = before(i);
        const bool is_quote = nodes[i].byte == '"' && decoded[depth].decoder == Frame::Decoder::kPlain;
        deep.may_end |= is_quote && dfa.accepts(decoded[depth].state);
        if (is_quote || !take(dfa, depth, nodes[i].byte)) {
          i = nodes[i].end;
          continue;
        }
        deep.may_end |= dfa.count(decoded[depth + 1].state) < Dfa::kManyTexts;
        deep.nodes.push_back(i++);
      }
      return true;
    });
    num_bytes += deep.nodes.size() * sizeof(int32_t) + 64;
    return deep;
  }

  // decoded[depth + 1] behind decoded[depth].
  bool take(const Dfa& dfa, size_t depth, uint8_t byte) {
    Frame& behind = decoded[depth + 1];
    grammar::copy_decoder(decoded[depth], behind);
    behind.hashing = true;
    behind.hash = decoded[depth].hash;
    return grammar::take_string_byte(behind, dfa, byte);
  }
  // The depth of what stands before a node's byte.
  size_t before(int32_t node) const { return static_cast<size_t>(trie->nodes()[node].depth) - 1; }

  // Of an item of an array of distinct ones: visits the nodes whose text may stand there without its last byte, with that text decoded.
  template <class Visit>
  bool for_each_text(const Frame& place, const Paths& paths, Visit visit) {
    const Dfa& dfa = grammar::text_of(place);
    grammar::copy_decoder(place, decoded[0]);
    decoded[0].hash = place.hash;
    return for_each_path(paths, /*num_left=*/1, [&](size_t depth, uint8_t byte) { return take(dfa, depth, byte); }, visit);
  }

  // Takes the bytes on the way to each node but the last `num_left`: take(depth, byte); those beside each other begin alike, and what was taken for one
  // stays for the next. Where all could be taken: visit(node). Ends with its first false, and returns that.
  template <class Take, class Visit>
  bool for_each_path(const Paths& paths, int num_left, Take take, Visit visit) const {
    std::span<const uint8_t> last;
    const uint8_t* next = paths.bytes.data();
    size_t known = 0;
    for (const int32_t node : paths.nodes) {
      const auto length = static_cast<size_t>(trie->nodes()[node].depth), end = length - static_cast<size_t>(num_left);
      const std::span path(std::exchange(next, next + length), length);
      const auto alike = static_cast<size_t>(std::mismatch(path.begin(), path.end(), last.begin(), last.end()).first - path.begin());
      known = std::min({known, alike, end});
      last = path;
      while (known < end && take(known, path[known])) ++known;
      if (known == end && !visit(node)) return false;
    }
    return true;
  }

  void make_room(size_t bytes) {
    if (num_bytes + bytes > max_bytes) {
      kept.clear();
      texts.clear();
      deep_tokens.clear();
      num_bytes = 0;
    }
    num_bytes += bytes;
  }

  void walk(const FrameRef& place, bool is_apart, Bits& bits) {
    if (!grammar::is_inside_text(*place)) {
      levels[0].clear();
      levels[0].push_back(place);
      return walk(0, static_cast<int32_t>(trie->nodes().size()) - 1, bits);
    }
    const TextEntry& text = text_of(*place);
    if (place->hashing && place->parent) machine.lowest = std::min(machine.lowest, place->parent->depth);
    for (size_t i = 0; i < bits.size(); ++i) bits[i] |= text.inside[i];
    try_paths(place, text.ends, bits);
    if (!is_apart) try_paths(place, text.deep, bits);
  }

  // The nodes of [begin, end); levels[depth] has the places behind the nodes above them.
  void walk(int32_t begin, int32_t end, Bits& bits) {
    for (int32_t i = begin; i < end;) {
      const TokenTrie::Node& node = trie->nodes()[i];
      machine.step(levels[node.depth - 1], node.byte, levels[node.depth]);
      if (levels[node.depth].empty()) {
        i = node.end;
        continue;
      }
      trie->allow(i, bits.data());
      ++i;
    }
  }

  // Nodes and what is below them, from the start of their tokens on.
  void try_paths(const FrameRef& place, const Paths& paths, Bits& bits) {
    levels[0].clear();
    levels[0].push_back(place);
    const auto step = [&](size_t depth, uint8_t byte) {
      machine.step(levels[depth], byte, levels[depth + 1]);
      return !levels[depth + 1].empty();
    };
    for_each_path(paths, /*num_left=*/0, step, [&](int32_t node) {
      trie->allow(node, bits.data());
      walk(node + 1, trie->nodes()[node].end, bits);
      return true;
    });
  }

  // States that no text of kMaxTextSymbols symbols tells apart, nor by whether few texts are left, share their entry: a text of at most a
  // thousand characters is, far from its end, one of any length.
  struct Classes {
    std::vector<int32_t> of;  // by state
    bool are_final = false;   // nor does a longer one
  };
  const Classes& classes_of(const Dfa& dfa) {
    Classes& known = state_classes[&dfa];
    std::vector<int32_t>& classes = known.of;
    if (!classes.empty()) return known;
    for (int i = 0; i < dfa.size(); ++i) classes.push_back(dfa.count(i) < Dfa::kManyTexts);
    size_t num_classes = 0;
    for (int round = 0; round <= kMaxTextSymbols; ++round) {
      std::map<std::vector<int64_t>, int32_t> seen;
      std::vector<int32_t> refined(classes.size());
      for (int i = 0; i < dfa.size(); ++i) {
        std::vector<int64_t> signature = {dfa.accepts(i), classes[i]};
        for (const Dfa::Edge* edge = dfa.begin(i); edge != dfa.end(i); ++edge)
          signature.insert(signature.end(), {edge->low, edge->high, classes[edge->to]});
        refined[i] = seen.try_emplace(std::move(signature), static_cast<int32_t>(seen.size())).first->second;
      }
      classes = std::move(refined);
      known.are_final = seen.size() == num_classes;
      if (known.are_final) break;
      num_classes = seen.size();
    }
    return known;
  }

  int32_t like(const Dfa& dfa, int32_t state) {
    const std::vector<int32_t>& classes = classes_of(dfa).of;
    return static_cast<int32_t>(std::ranges::find(classes, classes[state]) - classes.begin());
  }

  const TextEntry& text_of(const Frame& place) {
    const Dfa& dfa = grammar::text_of(place);
    const bool is_quoted = place.kind != Frame::Kind::kText;
    const bool is_counted = place.hashing;  // it must not become one of those before it
    const bool is_called = !is_quoted && place.parent != nullptr;  // where it may be over, its caller goes on
    const Classes& classes = classes_of(dfa);
    const auto [entry, is_new] = texts.try_emplace(
        {&dfa, static_cast<int64_t>(classes.of[place.state]) * 8 + is_called * 4 + is_counted * 2 + is_quoted});
    if (!is_new) return entry->second;
    TextEntry& text = entry->second;
    const int longest = classes.are_final ? trie->max_depth() : kMaxTextSymbols;
    text.inside.assign(trie->num_words(), 0);
    std::vector<Frame> stack(static_cast<size_t>(longest) + 1);
    stack[0].kind = place.kind;
    stack[0].state = place.state;
    const auto& nodes = trie->nodes();
    std::vector<uint8_t> path(static_cast<size_t>(trie->max_depth()));
    const auto try_later = [&](int32_t node, Paths& paths) {
      paths.nodes.push_back(node);
      paths.bytes.insert(paths.bytes.end(), path.begin(), path.begin() + nodes[node].depth);
    };
    for (int32_t i = 0; i + 1 < static_cast<int32_t>(nodes.size());) {
      const TokenTrie::Node& node = nodes[i];
      path[static_cast<size_t>(node.depth) - 1] = node.byte;
      if (node.depth > longest) {
        try_later(i, text.deep);
        i = node.end;
        continue;
      }
      const Frame& before = stack[node.depth - 1];
      if (is_quoted && node.byte == '"' && before.decoder == Frame::Decoder::kPlain) {
        if (dfa.accepts(before.state)) try_later(i, text.ends);
        i = node.end;
        continue;
      }
      if (is_called && before.decoder == Frame::Decoder::kPlain && dfa.accepts(before.state)) try_later(i, text.ends);
      Frame& behind = stack[node.depth];
      grammar::copy_decoder(before, behind);
      if (!(is_quoted ? grammar::take_string_byte(behind, dfa, node.byte)
                      : grammar::take_utf8(behind, dfa, node.byte))) {
        i = node.end;
        continue;
      }
      if (is_counted && dfa.count(behind.state) < Dfa::kManyTexts) {
        text.is_nearly_over = true;
        try_later(i, text.ends);
        i = node.end;
        continue;
      }
      trie->allow(i, text.inside.data());
      ++i;
    }
    make_room_for_text(text);
    return text;
  }
  void make_room_for_text(const TextEntry& text) {
    num_bytes += text.inside.size() * sizeof(uint32_t) + text.ends.num_bytes() + text.deep.num_bytes() + 64;
    if (num_bytes <= max_bytes) return;
    // The entry itself is about to be used.
    for (const auto& [key, mask] : kept) num_bytes -= std::min(num_bytes, bytes_of(*mask));
    kept.clear();
  }

  const std::shared_ptr<const Grammar> grammar;
  const std::shared_ptr<const TokenTrie> trie;
  const size_t max_bytes;
  size_t num_bytes = 0;
  grammar::Machine machine;
  std::vector<Places> levels;
  std::map<std::pair<const Dfa*, int32_t>, DeepTokens> deep_tokens;  // by the state that the text is in
  std::vector<Frame> decoded;  // of for_each_text
  std::vector<uint64_t> seen;
  std::unordered_map<Key, MaskRef, KeyHash> kept;
  std::map<std::pair<const Dfa*, int64_t>, TextEntry> texts;
  std::unordered_map<const Dfa*, Classes> state_classes;
};

TokenMasks::TokenMasks(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie,
                       size_t max_bytes)
    : impl_(std::make_unique<Impl>(std::move(grammar), std::move(trie), max_bytes)) {}
TokenMasks::~TokenMasks() = default;

void TokenMasks::fill(const GrammarMatcher& matcher, std::span<uint32_t> mask) {
  impl_->fill(matcher.state().places, mask);
}
size_t TokenMasks::kept_bytes() const { return impl_->num_bytes; }

}  // namespace serval
