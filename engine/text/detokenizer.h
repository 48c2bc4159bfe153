// Token ids, one by one, to text that is safe to send: never a broken UTF-8 sequence, never a byte lost or doubled, and nothing
// that may turn out to be the beginning of a stop string. One instance per output sequence; one thread at a time.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer.h"

namespace serval {

struct DetokenizerOptions {
  std::vector<std::string> stop;      // stop strings, each not empty
  bool include_stop = false;          // keep the matched stop string in the text
  bool skip_special = true;           // special tokens give no text
  int min_tokens = 0;                 // no stop string matches before this many tokens
};

class Detokenizer {
 public:
  Detokenizer(const Tokenizer& tokenizer, DetokenizerOptions options);

  // Appends the text that became certain with this token to `out`. Returns false once a stop string has matched: text after
  // it is dropped, and further calls append nothing.
  bool push(TokenId token, std::string& out);
  // The sequence ended without a stop string: appends what was held back (an incomplete character becomes U+FFFD).
  void finish(std::string& out);

  bool stopped() const { return stopped_; }
  const std::string& matched_stop() const { return matched_stop_; }

 private:
  const Tokenizer& tokenizer_;
  DetokenizerOptions options_;
  std::string pending_bytes_;  // an incomplete UTF-8 character
  std::string held_;           // complete text that may begin a stop string
  std::string matched_stop_;
  int num_tokens_ = 0;
  bool stopped_ = false;
  bool at_start_ = true;
};

}  // namespace serval
