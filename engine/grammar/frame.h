// Where a text stands in a program: a stack of frames, each immutable once it is shared, so that remembering a
// place, forking from it and going back to it are copies of a pointer. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "engine/grammar/program.h"

namespace serval::grammar {

class FrameRef;

inline uint64_t mixed(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15ull;
  return hash ^ hash >> 29;
}

struct SeenHash {
  uint64_t hash;
  size_t size;  // of the list from here on
  std::shared_ptr<const SeenHash> next;
  SeenHash(uint64_t hash, std::shared_ptr<const SeenHash> rest)
      : hash(hash), size(rest ? rest->size + 1 : 1), next(std::move(rest)) {}
  ~SeenHash();
};

struct Frame {
  enum class Kind : uint8_t {
    kValue,    // before a value; `rule` a ValueRule
    kString,   // in one; `rule` a Dfa
    kKey,      // in one; `rule` a Dfa, the parent its object
    kNumber,   // in one; `rule` a Dfa
    kLiteral,  // in null, true, false; `state` characters of it are read
    kObject,
    kArray,
    kText,  // `rule` a TextRule
  };
  enum class Phase : uint8_t { kFirst, kNextKey, kColon, kComma, kNull, kTrue, kFalse };
  enum class Decoder : uint8_t { kPlain, kUtf8, kEscape, kHex, kLowEscape, kLowLetter, kLowHex };

  uint32_t num_refs = 0;
  uint32_t depth = 1;  // frames of the stack, this one included
  Kind kind = Kind::kValue;
  Phase phase = Phase::kFirst;
  Decoder decoder = Decoder::kPlain;
  uint8_t digits = 0;    // that the decoder waits for
  bool hashing = false;  // some array above must know equal values
  int32_t state = 0;     // of an automaton; kColon: the key's place in its rule
  uint32_t partial = 0;  // the decoder's code point so far; elsewhere spaces in a row
  uint32_t high = 0;     // the first half of a surrogate pair
  uint32_t count = 0;    // keys, items; of a number the digits before its point
  uint64_t claims = 0;   // kObject: bits; kArray: 16 bits for each obligation
  uint64_t hash = 0, key_hash = 0;
  const void* rule = nullptr;
  Frame* parent = nullptr;  // counted
  std::shared_ptr<const std::vector<uint64_t>> names;  // kObject: those that were there
  std::shared_ptr<const SeenHash> seen;                // kObject, kArray: keys or items, where all must differ

  Frame() = default;
  Frame(const Frame& other);
  Frame& operator=(const Frame&) = delete;
  ~Frame() = default;

  // All but the counts and the parent.
  bool same_place(const Frame& other) const;
  uint64_t own_hash() const;
};

class FrameRef {
 public:
  FrameRef() = default;
  explicit FrameRef(Frame* frame) : frame_(frame) {
    if (frame_) ++frame_->num_refs;
  }
  FrameRef(const FrameRef& other) : FrameRef(other.frame_) {}
  FrameRef(FrameRef&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}
  FrameRef& operator=(FrameRef other) noexcept {
    std::swap(frame_, other.frame_);
    return *this;
  }
  ~FrameRef() { release(frame_); }

  const Frame* get() const { return frame_; }
  const Frame* operator->() const { return frame_; }
  const Frame& operator*() const { return *frame_; }
  explicit operator bool() const { return frame_ != nullptr; }

  static void release(Frame* frame);

 private:
  Frame* frame_ = nullptr;
};

// The places that a text can be at: several where the program is ambiguous. Null: behind its end.
using Places = std::vector<FrameRef>;
bool same_stack(const Frame* a, const Frame* b);

}  // namespace serval::grammar
