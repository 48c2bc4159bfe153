#include "server/api_keys.h"

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

bool ApiKeys::accepts(std::string_view key) const {
  const Digest digest = digest_of(key);
  int matches = 0;
  for (const Digest& known : digests_)
    matches |= CRYPTO_memcmp(digest.data(), known.data(), known.size()) == 0;
  return matches != 0;
}

std::optional<HttpError> ApiKeys::check(const HttpHead& head) const {
  if (empty()) return std::nullopt;
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
  return key && accepts(*key) ? std::nullopt : std::optional(refused);
}

}  // namespace serval
