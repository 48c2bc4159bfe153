// The keys that may use the API. Keeps only their digests, and compares digests in constant time.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "server/http/http_guard.h"

namespace serval {

class ApiKeys {
 public:
  // No keys: everybody may (the listener then refuses any address but loopback).
  explicit ApiKeys(const std::vector<std::string>& keys);

  bool empty() const { return digests_.empty(); }
  // The key's position, from 1; 0: it is none of ours.
  int find(std::string_view key) const;
  // What stands for the key at a position on a disk, where positions may change: the first half of its digest; "" for 0.
  std::string name(int position) const;
  // The position of the key of that name; nothing: there is none.
  std::optional<int> position(std::string_view name) const;
  // Reads `Authorization: Bearer` or x-api-key from the head. The key's position (0 when none is needed), or
  // why the caller may not go on.
  std::variant<int, HttpError> check(const HttpHead& head) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  std::vector<Digest> digests_;
};

}  // namespace serval
