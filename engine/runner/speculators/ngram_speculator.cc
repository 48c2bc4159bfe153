#include "engine/runner/speculators/ngram_speculator.h"

#include <algorithm>

namespace serval {

void NgramSpeculator::propose(std::span<const TokenId> known, int most, std::vector<Draft>& drafts) {
  constexpr int64_t kLeastMatch = 2;
  const int64_t longest = std::max<int64_t>(most, kLeastMatch), size = std::ssize(known);
  int64_t match = 0, match_end = 0;  // tokens [match_end - match, match_end) are the last ones
  for (int64_t end = size - 1; end >= kLeastMatch && match < longest; --end) {
    int64_t length = 0;
    while (length < std::min(longest, end) && known[end - 1 - length] == known[size - 1 - length]) ++length;
    if (length > match) {
      match = length;
      match_end = end;
    }
  }
  if (match < kLeastMatch) return;
  // What follows may reach the last tokens themselves: then it goes on as they would again.
  const auto begin = static_cast<int64_t>(drafts.size()), period = size - match_end;
  for (int64_t i = 0; i < std::min<int64_t>(match, most); ++i) {
    const TokenId token = i < period ? known[match_end + i] : drafts[begin + i - period].token;
    drafts.push_back({token, static_cast<int32_t>(i) - 1});
  }
}

}  // namespace serval
