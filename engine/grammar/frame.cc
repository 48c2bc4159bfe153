#include "engine/grammar/frame.h"

namespace serval::grammar {

SeenHash::~SeenHash() {
  // One after the other: a long list must not nest as many destructors.
  std::shared_ptr<const SeenHash> rest = std::move(next);
  while (rest && rest.use_count() == 1) rest = std::move(const_cast<SeenHash&>(*rest).next);
}

Frame::Frame(const Frame& other)
    : depth(other.depth),
      kind(other.kind),
      phase(other.phase),
      decoder(other.decoder),
      digits(other.digits),
      hashing(other.hashing),
      state(other.state),
      partial(other.partial),
      high(other.high),
      count(other.count),
      claims(other.claims),
      hash(other.hash),
      key_hash(other.key_hash),
      rule(other.rule),
      parent(other.parent),
      names(other.names),
      seen(other.seen) {
  if (parent) ++parent->num_refs;
}

bool Frame::same_place(const Frame& other) const {
  return kind == other.kind && phase == other.phase && decoder == other.decoder && digits == other.digits &&
         hashing == other.hashing && state == other.state && partial == other.partial && high == other.high &&
         count == other.count && claims == other.claims && hash == other.hash && key_hash == other.key_hash &&
         rule == other.rule && seen == other.seen &&
         (names == other.names || (names && other.names && *names == *other.names));
}

uint64_t Frame::own_hash() const {
  uint64_t all = 0x9e3779b97f4a7c15ull;
  const auto mix = [&](uint64_t value) {
    all = (all ^ value) * 0xff51afd7ed558ccdull;
    all ^= all >> 32;
  };
  mix(static_cast<uint64_t>(kind) | static_cast<uint64_t>(phase) << 8 | static_cast<uint64_t>(decoder) << 16 |
      static_cast<uint64_t>(digits) << 24 | static_cast<uint64_t>(static_cast<uint32_t>(state)) << 32);
  mix(static_cast<uint64_t>(partial) | static_cast<uint64_t>(high) << 32);
  mix(count);
  mix(claims);
  mix(hash);
  mix(key_hash ^ static_cast<uint64_t>(hashing));
  mix(reinterpret_cast<uintptr_t>(rule));
  mix(reinterpret_cast<uintptr_t>(seen.get()));
  if (names) {
    for (const uint64_t word : *names) mix(word);
  }
  return all;
}

void FrameRef::release(Frame* frame) {
  while (frame != nullptr && --frame->num_refs == 0) {
    Frame* const parent = frame->parent;
    delete frame;
    frame = parent;
  }
}

bool same_stack(const Frame* a, const Frame* b) {
  for (; a != b; a = a->parent, b = b->parent) {
    if (a == nullptr || b == nullptr || !a->same_place(*b)) return false;
  }
  return true;
}

}  // namespace serval::grammar
