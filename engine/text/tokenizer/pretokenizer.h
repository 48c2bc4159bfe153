// Cuts normalised text into the pieces within which tokens are formed: the "pre_tokenizer" of tokenizer.json.
// Every published type is made of a few primitive steps: add a prefix, replace spaces, split by a pattern,
// cut by scripts or lengths, write bytes in the byte alphabet.
#pragma once

#include <boost/json/fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer/split_regex.h"
#include "engine/text/tokenizer/token_bound.h"

namespace serval {

// Pieces of a text, in order; what lies between them was removed. Reused from segment to segment.
struct Pieces {
  std::string text;
  std::vector<Span> spans;
  bool starts_text = false;  // the first piece begins where the whole input begins

  std::string_view piece(size_t i) const {
    return std::string_view(text).substr(spans[i].begin, spans[i].end - spans[i].begin);
  }
};

// What happens to the matches of a Split, by the names of tokenizer.json.
enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

// Cuts `text` at the matches (which may be empty); with `invert` at what lies between them. No piece is
// empty.
std::vector<Span> split_at(std::string_view text, const std::vector<Span>& matches, SplitBehavior behavior,
                           bool invert);

// The pattern of Qwen 1 and 2, whose folders may not say it.
inline constexpr std::string_view kQwenPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

class PreTokenizer {
 public:
  // `value`: the "pre_tokenizer" of tokenizer.json; null or absent leaves every segment whole. Throws
  // std::runtime_error with a sentence for a type that is not supported.
  static PreTokenizer from_json(const boost::json::value* value);
  // The one of GPT-2, for folders with vocab.json and merges.txt only.
  static PreTokenizer gpt2(bool add_prefix_space);
  // Cuts by an Oniguruma pattern that every character is in a match of (tiktoken's).
  static PreTokenizer byte_level(std::string_view pattern);
  // Cuts nothing.
  static PreTokenizer whole_bytes();

  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;
  ~PreTokenizer();

  // `segment` is valid UTF-8 without added tokens; starts_text says that it begins where the input begins.
  // Replaces `pieces`. `budget`: of the whole text, charged for every segment. Any thread; linear.
  void split(std::string_view segment, bool starts_text, SplitBudget& budget, Pieces& pieces) const;

  // What lies between the pieces, at most.
  Loss loss() const { return loss_; }
  // Whether pieces are in the byte alphabet: a character for each byte of the text.
  bool writes_bytes() const { return writes_bytes_; }

 private:
  struct Step;
  class Builder;
  explicit PreTokenizer(std::vector<Step> steps);
  std::vector<Step> steps_;
  Loss loss_ = Loss::kNothing;
  bool writes_bytes_ = false;
};

}  // namespace serval
