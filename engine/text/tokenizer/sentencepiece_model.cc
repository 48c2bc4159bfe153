#include "engine/text/tokenizer/sentencepiece_model.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <unordered_set>

#include "engine/text/tokenizer/character_map.h"
#include "kernels/base/shown.h"
#include "kernels/base/utf8.h"

namespace serval {
namespace {

constexpr size_t kMaxPieces = 1 << 21;
constexpr size_t kMaxPieceBytes = 1024;

[[noreturn]] void fail(const std::string& problem) {
  throw std::runtime_error(problem);
}

// The protocol buffer wire format: fields of one message, one after the other.
class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : bytes_(bytes) {}

  // Moves to the next field; false at the end.
  bool next() {
    if (bytes_.empty()) return false;
    const uint64_t key = varint();
    field_ = static_cast<int>(key >> 3 & 0x1FFFFFFF);
    switch (key & 7) {
      case 0:
        number_ = varint();
        break;
      case 1:
        data_ = take(8);
        break;
      case 2:
        data_ = take(varint());
        break;
      case 5:
        data_ = take(4);
        break;
      default:
        fail("it is not a sentencepiece model: a field of unknown wire type");
    }
    wire_type_ = static_cast<int>(key & 7);
    return true;
  }

  int field() const { return field_; }
  std::string_view data() const { return expect(2), data_; }
  uint64_t number() const { return expect(0), number_; }
  float real() const {
    expect(5);
    float value;
    std::memcpy(&value, data_.data(), sizeof value);
    return value;
  }

 private:
  void expect(int wire_type) const {
    if (wire_type_ != wire_type)
      fail("it is not a sentencepiece model: field " + std::to_string(field_) + " has the wrong type");
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70 && !bytes_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes_.front());
      bytes_.remove_prefix(1);
      value |= uint64_t{byte & 0x7Fu} << std::min(shift, 63);
      if (byte < 0x80) return value;
    }
    fail("it is not a sentencepiece model: a number is cut off");
  }
  std::string_view take(uint64_t size) {
    if (size > bytes_.size()) fail("it is not a sentencepiece model: a field is cut off");
    const std::string_view taken = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return taken;
  }

  std::string_view bytes_;
  int field_ = 0;
  int wire_type_ = 0;
  uint64_t number_ = 0;
  std::string_view data_;
};

SentencePieceModel::Piece read_piece(std::string_view bytes) {
  SentencePieceModel::Piece piece;
  for (WireReader reader(bytes); reader.next();) {
    if (reader.field() == 1) piece.text = reader.data();
    if (reader.field() == 2) piece.score = reader.real();
    if (reader.field() == 3) piece.type = static_cast<int>(std::min<uint64_t>(reader.number(), 99));
  }
  if (piece.text.empty() || piece.text.size() > kMaxPieceBytes || !is_valid_utf8(piece.text))
    fail("a piece has no valid text");
  if (!std::isfinite(piece.score)) fail("the piece " + in_quotes(piece.text) + " has no finite score");
  if (piece.type < SentencePieceModel::kNormal || piece.type > SentencePieceModel::kByte) {
    fail("the piece " + in_quotes(piece.text) + " has the unknown type " + std::to_string(piece.type));
  }
  return piece;
}

void read_trainer(std::string_view bytes, SentencePieceModel& model) {
  constexpr uint64_t kUnigram = 1, kBpe = 2;
  for (WireReader reader(bytes); reader.next();) {
    if (reader.field() == 3 && reader.number() != kUnigram && reader.number() != kBpe) {
      fail("sentencepiece models other than unigram and BPE are not supported");
    }
    if (reader.field() == 35) model.byte_fallback = reader.number() != 0;
    if (reader.field() == 24 && reader.number() != 0)
      fail("a model with treat_whitespace_as_suffix is not supported");
  }
}

void read_normalizer(std::string_view bytes, SentencePieceModel& model) {
  for (WireReader reader(bytes); reader.next();) {
    if (reader.field() == 2) {
      const CharacterMap checked(reader.data());
      model.maps_characters |= !reader.data().empty();
    }
    if (reader.field() == 3) model.add_dummy_prefix = reader.number() != 0;
    if (reader.field() == 4) model.remove_extra_whitespaces = reader.number() != 0;
  }
}

}  // namespace

SentencePieceModel SentencePieceModel::parse(std::string_view proto) {
  SentencePieceModel model;
  std::unordered_set<std::string> seen;
  int num_normalizers = 0;
  for (WireReader reader(proto); reader.next();) {
    switch (reader.field()) {
      case 1: {
        if (model.pieces.size() == kMaxPieces)
          fail("it has more than " + std::to_string(kMaxPieces) + " pieces");
        Piece piece = read_piece(reader.data());
        if (!seen.insert(piece.text).second) fail("the piece " + in_quotes(piece.text) + " is there twice");
        if (piece.type == kUnknown) {
          if (model.unk_id >= 0) fail("it has two unknown pieces");
          model.unk_id = static_cast<int>(model.pieces.size());
        }
        model.pieces.push_back(std::move(piece));
        break;
      }
      case 2:
        read_trainer(reader.data(), model);
        break;
      case 3:
        if (++num_normalizers > 1)
          fail("it has two normalisers");  // merged, their parts would escape the check
        read_normalizer(reader.data(), model);
        break;
      case 5: {
        SentencePieceModel unused;
        read_normalizer(reader.data(), unused);
        break;
      }
    }
  }
  if (model.unk_id < 0) fail("it is not a sentencepiece model: it has no unknown piece");
  return model;
}

std::string with_byte_pieces(std::string_view proto) {
  std::string out(proto);
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    // ModelProto.pieces (field 1, ten bytes long) { piece (field 1, six bytes long) = name, type (field 3) =
    // BYTE }
    out += std::string("\x0A\x0A\x0A\x06", 4) + name + std::string("\x18\x06", 2);
  }
  // ModelProto.trainer_spec (field 2, three bytes long) { byte_fallback (field 35) = 1 }
  return out += std::string("\x12\x03\x98\x02\x01", 5);
}

std::string without_dummy_prefix(std::string_view proto) {
  // ModelProto.normalizer_spec (field 3, two bytes long) { add_dummy_prefix (field 3) = 0 }
  return std::string(proto) + std::string("\x1A\x02\x18\x00", 4);
}

}  // namespace serval
