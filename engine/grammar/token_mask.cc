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
constexpr int kMaxTextSymbols = 32;  // a token of more bytes is tried for itself
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
        levels(static_cast<size_t>(trie->max_depth()) + 1) {}

  using Bits = std::vector<uint32_t>;

  // What a text allows that goes on as it is, and where in the trie it may be over.
  struct TextEntry {
    Bits inside;
    std::vector<int32_t> to_try;  // nodes: of a closing quote, behind an end, or too deep to be kept
    std::vector<uint8_t> paths;   // the bytes on the way to each of them, one after another
  };

  void fill(const Places& places, std::span<uint32_t> mask) {
    std::fill(mask.begin(), mask.end(), 0u);
    for (const FrameRef& place : places) {
      if (place) fill(place, mask);
    }
    for (Places& level : levels) level.clear();  // frames belong to the matcher's thread
  }

  void fill(const FrameRef& place, std::span<uint32_t> mask) {
    const auto add = [&](const Bits& bits) {
      for (size_t i = 0; i < mask.size(); ++i) mask[i] |= bits[i];
    };
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
      if (const auto found = kept.find(keys.back()); found != kept.end()) return add(found->second);
      if (!frame->parent) keys.push_back({hash + 1, num_frames + 1000});  // and nothing is below
    }
    if (!keys.empty() && keys.back().num_frames > 1000) {
      if (const auto found = kept.find(keys.back()); found != kept.end()) return add(found->second);
    }
    Bits bits(trie->num_words(), 0);
    machine.lowest = place->depth;
    walk(place, bits);
    add(bits);
    // As many frames as the machine has looked at, and the end of the stack where it looked behind it.
    const uint32_t num_seen = place->depth - std::max(machine.lowest, 1u) + 1;
    const uint32_t wanted = machine.lowest == 0 ? num_seen + 1000 : num_seen;
    const auto key = std::find_if(keys.begin(), keys.end(), [&](const Key& k) { return k.num_frames == wanted; });
    if (key == keys.end()) return;
    make_room(bits.size() * sizeof(uint32_t) + 64);
    kept.emplace(*key, std::move(bits));
  }

  void make_room(size_t bytes) {
    if (num_bytes + bytes > max_bytes) {
      kept.clear();
      texts.clear();
      num_bytes = 0;
    }
    num_bytes += bytes;
  }

  void walk(const FrameRef& place, Bits& bits) {
    if (!grammar::is_inside_text(*place)) {
      levels[0].clear();
      levels[0].push_back(place);
      return walk(0, static_cast<int32_t>(trie->nodes().size()) - 1, bits);
    }
    const TextEntry& text = text_of(*place);
    if (place->hashing && place->parent) machine.lowest = std::min(machine.lowest, place->parent->depth);
    for (size_t i = 0; i < bits.size(); ++i) bits[i] |= text.inside[i];
    try_paths(place, text, bits);
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

  // Nodes and what is below them, from the start of their tokens on. Those beside each other begin alike: levels[0 .. known] stay.
  void try_paths(const FrameRef& place, const TextEntry& text, Bits& bits) {
    levels[0].clear();
    levels[0].push_back(place);
    std::span<const uint8_t> before;
    const uint8_t* next = text.paths.data();
    int known = 0;
    for (const int32_t node : text.to_try) {
      const int depth = trie->nodes()[node].depth;
      const std::span path(std::exchange(next, next + depth), static_cast<size_t>(depth));
      const auto alike = std::mismatch(path.begin(), path.end(), before.begin(), before.end()).first - path.begin();
      before = path;
      known = std::min(known, static_cast<int>(alike));
      for (bool goes_on = true; goes_on && known < depth; known += goes_on) {
        machine.step(levels[known], path[static_cast<size_t>(known)], levels[known + 1]);
        goes_on = !levels[known + 1].empty();
      }
      if (known < depth) continue;
      trie->allow(node, bits.data());
      walk(node + 1, trie->nodes()[node].end, bits);
    }
  }

  // States that no text of kMaxTextSymbols symbols tells apart share their entry: a text of at most a thousand
  // characters is, far from its end, one of any length.
  int32_t class_of(const Dfa& dfa, int32_t state) {
    auto& classes = state_classes[&dfa];
    if (!classes.empty()) return classes[state];
    classes.assign(static_cast<size_t>(dfa.size()), 0);
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
      if (seen.size() == num_classes) break;
      num_classes = seen.size();
    }
    return classes[state];
  }

  const TextEntry& text_of(const Frame& place) {
    const Dfa& dfa = grammar::text_of(place);
    const bool is_quoted = place.kind != Frame::Kind::kText;
    const bool is_counted = place.hashing;  // it must not become one of those before it
    const bool is_called = !is_quoted && place.parent != nullptr;  // where it may be over, its caller goes on
    const auto [entry, is_new] = texts.try_emplace(
        {&dfa, static_cast<int64_t>(is_counted ? place.state : class_of(dfa, place.state)) * 8 + is_called * 4 + is_counted * 2 +
                   is_quoted});
    if (!is_new) return entry->second;
    TextEntry& text = entry->second;
    text.inside.assign(trie->num_words(), 0);
    std::vector<Frame> stack(kMaxTextSymbols + 1);
    stack[0].kind = place.kind;
    stack[0].state = place.state;
    const auto& nodes = trie->nodes();
    std::vector<uint8_t> path(static_cast<size_t>(trie->max_depth()));
    const auto try_later = [&](int32_t node) {
      text.to_try.push_back(node);
      text.paths.insert(text.paths.end(), path.begin(), path.begin() + nodes[node].depth);
    };
    for (int32_t i = 0; i + 1 < static_cast<int32_t>(nodes.size());) {
      const TokenTrie::Node& node = nodes[i];
      path[static_cast<size_t>(node.depth) - 1] = node.byte;
      if (node.depth > kMaxTextSymbols) {
        try_later(i);
        i = node.end;
        continue;
      }
      const Frame& before = stack[node.depth - 1];
      if (is_quoted && node.byte == '"' && before.decoder == Frame::Decoder::kPlain) {
        if (dfa.accepts(before.state)) try_later(i);
        i = node.end;
        continue;
      }
      if (is_called && before.decoder == Frame::Decoder::kPlain && dfa.accepts(before.state)) try_later(i);
      Frame& behind = stack[node.depth];
      grammar::copy_decoder(before, behind);
      if (!(is_quoted ? grammar::take_string_byte(behind, dfa, node.byte)
                      : grammar::take_utf8(behind, dfa, node.byte))) {
        i = node.end;
        continue;
      }
      if (is_counted && dfa.count(behind.state) < Dfa::kManyTexts) {
        try_later(i);
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
    num_bytes += (text.inside.size() + text.to_try.size()) * 4 + text.paths.size() + 64;
    if (num_bytes <= max_bytes) return;
    // The entry itself is about to be used.
    for (const auto& [key, bits] : kept) num_bytes -= std::min(num_bytes, bits.size() * 4 + 64);
    kept.clear();
  }

  const std::shared_ptr<const Grammar> grammar;
  const std::shared_ptr<const TokenTrie> trie;
  const size_t max_bytes;
  size_t num_bytes = 0;
  grammar::Machine machine;
  std::vector<Places> levels;
  std::unordered_map<Key, Bits, KeyHash> kept;
  std::map<std::pair<const Dfa*, int64_t>, TextEntry> texts;
  std::unordered_map<const Dfa*, std::vector<int32_t>> state_classes;
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
