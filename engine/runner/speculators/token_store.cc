#include "engine/runner/speculators/token_store.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <numeric>
#include <ranges>
#include <stdexcept>
#include <string>

#include "engine/model/mapped_file.h"

namespace serval {
namespace {

struct Head {
  char magic[8] = {'s', 'v', 't', 'o', 'k', 'e', 'n', '1'};
  uint64_t num_tokens = 0;  // ends of texts included
};
constexpr size_t kBytesOfToken = sizeof(TokenId) + sizeof(uint32_t);

[[noreturn]] void refuse(const std::filesystem::path& path, const char* why) {
  throw std::runtime_error("speculation_datastore: " + path.string() + " " + why);
}

}  // namespace

void TokenStore::write(const std::filesystem::path& path, std::span<const std::vector<TokenId>> texts) {
  std::vector<TokenId> tokens;
  for (const std::vector<TokenId>& text : texts) {
    tokens.insert(tokens.end(), text.begin(), text.end());
    tokens.push_back(kTextEnd);
  }
  if (tokens.size() > UINT32_MAX) refuse(path, "would have more than four billion tokens");
  std::vector<uint32_t> order(tokens.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, [&](uint32_t a, uint32_t b) {
    const auto from = [&](uint32_t place) { return std::span(tokens).subspan(place, std::min<size_t>(kMaxOrdered, tokens.size() - place)); };
    const auto [left, right] = std::ranges::mismatch(from(a), from(b));
    const bool a_ends = left == from(a).end(), b_ends = right == from(b).end();
    return a_ends || b_ends ? (a_ends != b_ends ? a_ends : a < b) : *left < *right;
  });
  Head head;
  head.num_tokens = tokens.size();
  std::ofstream file(path, std::ios::binary);
  const auto put = [&](const void* data, size_t bytes) { file.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes)); };
  put(&head, sizeof head);
  put(tokens.data(), tokens.size() * sizeof(TokenId));
  put(order.data(), order.size() * sizeof(uint32_t));
  if (!file.flush()) refuse(path, "cannot be written");
}

size_t TokenStore::planned_bytes(const std::filesystem::path& path) {
  std::error_code error;
  const uintmax_t bytes = std::filesystem::file_size(path, error);
  if (error) refuse(path, "cannot be read");
  return bytes;
}

TokenStore::TokenStore(const std::filesystem::path& path) {
  const MappedFile file(path);
  Head head;
  const Head expected;
  if (file.size() >= sizeof head) file.copy(0, sizeof head, &head);
  if (file.size() < sizeof head || std::memcmp(head.magic, expected.magic, sizeof head.magic) != 0 ||
      head.num_tokens > UINT32_MAX || file.size() != sizeof head + head.num_tokens * kBytesOfToken)
    refuse(path, "is not what serval datastore makes");
  tokens_.resize(head.num_tokens);
  order_.resize(head.num_tokens);
  const size_t half = head.num_tokens * sizeof(TokenId);
  file.take(sizeof head, half, tokens_.data());
  file.take(sizeof head + half, half, order_.data());
}

TokenStore::Range TokenStore::find(std::span<const TokenId> tokens) const {
  // Less, alike or more than those that are looked for.
  const auto compared = [&](uint32_t place) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      const TokenId token = size_t{place} + i < tokens_.size() ? tokens_[place + i] : kTextEnd;
      if (token != tokens[i]) return token < tokens[i] ? -1 : 1;
    }
    return 0;
  };
  const auto begin = std::ranges::partition_point(order_, [&](uint32_t place) { return compared(place) < 0; });
  const auto end = std::ranges::partition_point(std::ranges::subrange(begin, order_.end()), [&](uint32_t place) { return compared(place) == 0; });
  return {static_cast<uint32_t>(begin - order_.begin()), static_cast<uint32_t>(end - order_.begin())};
}

TokenStore::Range TokenStore::alike(Range range, uint32_t i, int depth) const {
  const TokenId wanted = token(i, depth);
  const auto first = [&](uint32_t from, uint32_t to, auto is_before) {
    const auto places = std::views::iota(from, to);
    return from + static_cast<uint32_t>(std::ranges::partition_point(places, is_before) - places.begin());
  };
  return {first(range.begin, i, [&](uint32_t at) { return token(at, depth) < wanted; }),
          first(i, range.end, [&](uint32_t at) { return token(at, depth) <= wanted; })};
}

}  // namespace serval
