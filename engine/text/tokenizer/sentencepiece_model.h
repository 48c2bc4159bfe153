// The serialized ModelProto of a tokenizer.model, as far as it is needed beyond the sentencepiece library:
// piece types, switches, and proof that the library may be given the file (it trusts the tables inside).
// Encodes nothing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace serval {

struct SentencePieceModel {
  enum PieceType {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
  };  // of the proto
  struct Piece {
    std::string text;
    float score = 0;
    int type = kNormal;
  };

  std::vector<Piece> pieces;
  int unk_id = -1;  // of the one unknown piece
  bool byte_fallback = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  // The normalizer has a table of characters that it changes, perhaps to nothing.
  bool maps_characters = false;

  // Throws std::runtime_error with a sentence when this is no such file, when its tables point outside
  // themselves, or when it is of a kind that is not supported (only unigram and BPE models that write a space
  // as a prefix are).
  static SentencePieceModel parse(std::string_view proto);
};

// Both rest on a rule of protocol buffers: what is appended to a serialized message overrides or extends what
// is inside. The same model, but without a space put before every text.
std::string without_dummy_prefix(std::string_view proto);
// The same model with 256 byte pieces after its own and byte fallback on, for a model that has neither. The
// library joins a run of unknown characters by copying all of it for each one; bytes it does not join.
std::string with_byte_pieces(std::string_view proto);

}  // namespace serval
