#include "server/http/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

namespace serval {
namespace {

std::array<unsigned char, 32> digest_of(std::string_view key) {
  std::array<unsigned char, 32> digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

}  // namespace

ApiKeys::ApiKeys(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) digests_.push_back(digest_of(key));
}

int ApiKeys::find(std::string_view key) const {
  const Digest digest = digest_of(key);
  int found = 0;
  for (size_t i = 0; i < digests_.size(); ++i) {
    const bool matches = CRYPTO_memcmp(digest.data(), digests_[i].data(), digest.size()) == 0;
    found += static_cast<int>(matches & (found == 0)) * static_cast<int>(i + 1);
  }
  return found;
}

std::string ApiKeys::name(int position) const {
  if (position == 0) return {};
  constexpr char kDigits[] = "0123456789abcdef";
  const Digest& digest = digests_[static_cast<size_t>(position - 1)];
  std::string out;
  for (size_t i = 0; i < digest.size() / 2; ++i) {
    out += kDigits[digest[i] >> 4];
    out += kDigits[digest[i] & 15];
  }
  return out;
}

std::optional<int> ApiKeys::position(std::string_view name) const {
  if (name.empty()) return empty() ? std::optional(0) : std::nullopt;
  for (int i = 1; i <= static_cast<int>(digests_.size()); ++i)
    if (this->name(i) == name) return i;
  return std::nullopt;
}

std::variant<int, HttpError> ApiKeys::check(const HttpHead& head) const {
  if (empty()) return 0;
  const HttpError refused{401, "invalid_api_key", "A valid API key is needed: Authorization: Bearer KEY.",
                          /*close=*/false};
  std::optional<std::string_view> key;
  for (const HttpField& field : head.fields) {
    std::string_view value = field.value;
    const bool is_bearer = equal_ignoring_case(field.name, "authorization");
    if (!is_bearer && !equal_ignoring_case(field.name, "x-api-key")) continue;
    if (key) return HttpError{400, "malformed_http", "A request may carry one key only.", /*close=*/true};
    if (is_bearer) {
      constexpr std::string_view kScheme = "bearer ";
      if (!equal_ignoring_case(value.substr(0, kScheme.size()), kScheme)) return refused;
      value.remove_prefix(kScheme.size());
    }
    key = value;
  }
  const int found = key ? find(*key) : 0;
  if (found == 0) return refused;
  return found;
}

}  // namespace serval
