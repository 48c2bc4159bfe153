#include "engine/text/tokenizer/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <map>
#include <stdexcept>

#include "engine/text/tokenizer/added_tokens.h"
#include "engine/text/tokenizer/sentencepiece_model.h"
#include "engine/text/tokenizer/token_bound.h"
#include "engine/text/tokenizer/token_table.h"
#include "kernels/base/shown.h"
#include "kernels/base/utf8.h"

namespace serval {
namespace {

constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // ▁

using Piece = SentencePieceModel::Piece;

// What a piece stands for when it follows other text.
std::string bytes_of(const Piece& piece) {
  if (piece.type == SentencePieceModel::kControl || piece.type == SentencePieceModel::kUnknown)
    return piece.text;
  if (piece.type == SentencePieceModel::kByte && piece.text.size() == 6) {  // <0x0A>
    int byte = 0;
    const char* digits = piece.text.data() + 3;
    if (std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2)
      return std::string(1, static_cast<char>(byte));
  }
  std::string out;
  std::string_view rest = piece.text;
  while (!rest.empty()) {
    const bool space = rest.starts_with(kSpaceSymbol);
    out += space ? ' ' : rest.front();
    rest.remove_prefix(space ? kSpaceSymbol.size() : 1);
  }
  return out;
}

void load(sentencepiece::SentencePieceProcessor& processor, std::string_view proto) {
  const auto status = processor.LoadFromSerializedProto(proto);
  if (!status.ok())
    throw std::runtime_error(std::string("the sentencepiece library refuses it: ") + status.error_message());
}

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string_view proto, const TokenizerConfig& config)
      : SentencePieceTokenizer(proto, SentencePieceModel::parse(proto), config) {}

  std::vector<TokenId> encode(std::string_view text, bool add_special, bool parse_special,
                              std::string_view breaker) const override {
    std::string repaired;
    if (!is_valid_utf8(text)) {
      repaired = repair_utf8(text);
      text = repaired;
    }
    std::vector<TokenId> ids;
    if (add_special) ids = prefix_;
    std::vector<TextSegment> segments;
    matcher_.split(text, parse_special, segments);
    for (const TextSegment& segment : segments) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
      } else {
        const bool is_start = segment.text.data() == text.data();
        append_plain(!is_start && continuation_ != nullptr ? *continuation_ : processor_, segment.text,
                     breaker, ids);
      }
    }
    if (add_special) ids.insert(ids.end(), suffix_.begin(), suffix_.end());
    return ids;
  }

  size_t least_tokens(std::string_view text) const override {
    return is_valid_utf8(text) ? bound_.least_tokens(text) : 0;
  }

  std::vector<std::string> special_names() const override { return matcher_.special_names(); }
  std::string_view token_bytes(TokenId id) const override { return table_.bytes(id); }
  bool is_special(TokenId id) const override { return table_.is_special(id); }
  bool strips_leading_space() const override { return strips_leading_space_; }
  int vocab_size() const override { return table_.size(); }
  TokenId token_to_id(std::string_view token) const override {
    const auto it = ids_.find(token);
    return it == ids_.end() ? -1 : it->second;
  }
  TokenId bos_id() const override { return bos_id_; }
  TokenId eos_id() const override { return eos_id_; }

 private:
  SentencePieceTokenizer(std::string_view proto, const SentencePieceModel& model,
                         const TokenizerConfig& config)
      : num_pieces_(static_cast<TokenId>(model.pieces.size())),
        unk_id_(model.unk_id),
        strips_leading_space_(model.add_dummy_prefix || model.remove_extra_whitespaces) {
    if (num_pieces_ > config.num_rows) {
      throw std::runtime_error("the model file has " + std::to_string(num_pieces_) +
                               " pieces, but the model has rows for " + std::to_string(config.num_rows) +
                               " tokens only: the tokenizer is another model's");
    }
    std::string extended;
    const auto names_a_byte = [](const Piece& piece) { return piece.text.starts_with("<0x"); };
    if (!model.byte_fallback && std::none_of(model.pieces.begin(), model.pieces.end(), names_a_byte)) {
      extended = with_byte_pieces(proto);
      proto = extended;
    }
    load(processor_, proto);
    if (!config.legacy && model.add_dummy_prefix) {
      continuation_ = std::make_unique<sentencepiece::SentencePieceProcessor>();
      load(*continuation_, without_dummy_prefix(proto));
    }
    for (const Piece& piece : model.pieces) ids_.emplace(piece.text, static_cast<TokenId>(ids_.size()));
    add_special_tokens(model, config);

    const auto role = [&](const std::string& name, TokenId of_model) {
      return name.empty() ? of_model : token_to_id(name);
    };
    bos_id_ = role(config.bos_token, processor_.bos_id());
    eos_id_ = role(config.eos_token, processor_.eos_id());
    find_bound(model);
    if (bos_id_ >= 0) prefix_.push_back(bos_id_);
    apply_bos_eos(config, bos_id_, eos_id_, prefix_, suffix_);
  }

  void add_special_tokens(const SentencePieceModel& model, const TokenizerConfig& config) {
    std::vector<AddedToken> listed;
    for (const Piece& piece : model.pieces) {
      if (piece.type == SentencePieceModel::kControl || piece.type == SentencePieceModel::kUnknown) {
        listed.push_back({.content = piece.text, .special = true});
      }
    }
    std::vector<AddedToken> added = join_added_tokens(
        std::move(listed), config, [&](std::string_view name) { return token_to_id(name); });
    std::sort(added.begin(), added.end(),
              [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
    const size_t num_pieces = model.pieces.size();
    auto next = added.begin();
    for (TokenId id = 0; next != added.end() || static_cast<size_t>(id) < num_pieces; ++id) {
      const bool is_piece = static_cast<size_t>(id) < num_pieces;
      if (next == added.end() || next->id != id) {
        table_.add(is_piece ? bytes_of(model.pieces[id]) : std::string(), false);
        if (static_cast<size_t>(id) > 2 * num_pieces + 65'536) {
          throw std::runtime_error("the added token " + in_quotes(next->content) + " has the id " +
                                   std::to_string(next->id) + ", which is out of place in a vocabulary of " +
                                   std::to_string(num_pieces));
        }
        continue;
      }
      if (is_piece && model.pieces[id].text != next->content) fail_shared(model.pieces[id].text, *next);
      table_.add(is_piece && !next->special ? bytes_of(model.pieces[id]) : next->content, next->special);
      ids_.emplace(next->content, id);
      const AddedToken& placed = *next++;
      if (next != added.end() && next->id == id) fail_shared(placed.content, *next);
    }
    matcher_ = AddedTokenMatcher(std::move(added));
  }

  // Without byte pieces a run of unknown characters is one token, and a table of characters may map any to
  // nothing: then there is no bound.
  void find_bound(const SentencePieceModel& model) {
    if (!model.byte_fallback || model.maps_characters) return;
    bound_.loss = model.remove_extra_whitespaces || matcher_.strips() ? Loss::kWhiteSpace : Loss::kNothing;
    for (TokenId id = 0; id < table_.size(); ++id)
      bound_.max_bytes = std::max(bound_.max_bytes, table_.bytes(id).size());
    for (const Piece& piece : model.pieces) bound_.max_bytes = std::max(bound_.max_bytes, piece.text.size());
  }

  [[noreturn]] static void fail_shared(const std::string& name, const AddedToken& token) {
    throw std::runtime_error("tokens " + in_quotes(name) + " and " + in_quotes(token.content) +
                             " share the id " + std::to_string(token.id));
  }

  // The text of a segment, in which `breaker` may stand.
  void append_plain(const sentencepiece::SentencePieceProcessor& processor, std::string_view text,
                    std::string_view breaker, std::vector<TokenId>& ids) const {
    if (breaker.empty() || text.find(breaker) == std::string_view::npos)
      return append_encoded(processor, text, {}, ids);
    const size_t num_before = ids.size();
    append_encoded(processor, without(text, breaker), {}, ids);
    const auto is_special = [&](TokenId id) { return id != unk_id_ && table_.is_special(id); };
    if (std::none_of(ids.begin() + static_cast<std::ptrdiff_t>(num_before), ids.end(), is_special)) return;
    // The library finds the names of user-defined pieces itself, but not across a character of other bytes.
    ids.resize(num_before);
    append_encoded(processor, text, breaker, ids);
  }

  // Without the tokens of the bytes of `left_out`.
  void append_encoded(const sentencepiece::SentencePieceProcessor& processor, std::string_view text,
                      std::string_view left_out, std::vector<TokenId>& ids) const {
    std::vector<int> encoded;
    if (!processor.Encode(text, &encoded).ok()) encoded = {unk_id_};
    if (!left_out.empty()) {
      std::vector<int> bytes;
      for (const char byte : left_out) {
        char name[8];
        std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned char>(byte));
        bytes.push_back(processor.PieceToId(name));
      }
      auto at = encoded.begin();
      while ((at = std::search(at, encoded.end(), bytes.begin(), bytes.end())) != encoded.end())
        at = encoded.erase(at, at + static_cast<std::ptrdiff_t>(bytes.size()));
    }
    bool after_unk = false;
    for (const int id : encoded) {
      const bool is_unk = id >= num_pieces_;  // a byte of an unknown character, see with_byte_pieces
      if (!is_unk) {
        ids.push_back(id);
      } else if (!after_unk) {
        ids.push_back(unk_id_);
      }
      after_unk = is_unk;
    }
  }

  sentencepiece::SentencePieceProcessor processor_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor>
      continuation_;  // for text after a special token, when that differs
  AddedTokenMatcher matcher_;
  std::map<std::string, TokenId, std::less<>> ids_;
  TokenTable table_;
  TokenBound bound_;
  std::vector<TokenId> prefix_, suffix_;
  TokenId num_pieces_;  // of the model itself
  TokenId unk_id_;
  bool strips_leading_space_;
  TokenId bos_id_ = -1, eos_id_ = -1;
};

}  // namespace

std::unique_ptr<Tokenizer> tokenizer_from_sentencepiece(std::string_view model_proto,
                                                        const TokenizerConfig& config) {
  return std::make_unique<SentencePieceTokenizer>(model_proto, config);
}

}  // namespace serval
