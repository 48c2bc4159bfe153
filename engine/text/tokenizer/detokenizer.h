// Token ids, one by one, to text that is safe to send: never a broken UTF-8 sequence, never a byte lost or
// doubled, and nothing that may turn out to be the beginning of a stop string. One instance per output
// sequence; one thread at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer/tokenizer.h"

namespace serval {

struct DetokenizerOptions {
  std::vector<std::string> stop;  // stop strings, each not empty
  bool include_stop = false;      // keep the matched stop string in the text
  bool skip_special = true;       // special tokens give no text ...
  std::vector<TokenId> shown_special;  // ... but for these
  int min_tokens = 0;             // no stop string matches before this many tokens
  bool continues_text = false;    // the tokens follow others (a prompt): a tokenizer's leading space stays
};

class Detokenizer {
 public:
  Detokenizer(const Tokenizer& tokenizer, DetokenizerOptions options);

  // Appends the text that became certain with this token to `out`. Returns false once a stop string has
  // matched: text after it is dropped, and further calls append nothing. The stop string whose last byte
  // comes first wins, of several the longest, so the outcome does not depend on how tokens cut the text.
  // Work: one step per byte and stop string.
  bool push(TokenId token, std::string& out);
  // The sequence ended without a stop string: appends what was held back (an incomplete character becomes
  // U+FFFD, and a stop string may match it).
  void finish(std::string& out);

  bool stopped() const { return stopped_; }
  const std::string& matched_stop() const { return matched_stop_; }

 private:
  // Knuth, Morris, Pratt 1977: how much of a stop string the text so far ends with.
  struct StopMatcher {
    std::string text;
    std::vector<uint32_t> failure;  // [i]: longest proper prefix of text that ends text[0..i]
    uint32_t matched = 0;           // below text.size() between bytes

    explicit StopMatcher(std::string stop);
    bool step(char byte);  // true when `byte` completes the stop string
  };

  void take_characters(std::string& out);
  void take_text(std::string_view text);
  void release(std::string& out);

  const Tokenizer& tokenizer_;
  DetokenizerOptions options_;
  std::vector<StopMatcher> stops_;
  std::string pending_bytes_;  // an incomplete UTF-8 character
  bool holds_space_ = false;   // that goes when nothing follows it
  std::string held_;           // complete text that may begin a stop string
  std::string matched_stop_;
  int num_tokens_ = 0;
  bool stopped_ = false;
  bool at_start_ = true;
};

}  // namespace serval
