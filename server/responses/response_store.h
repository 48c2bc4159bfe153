// Responses that clients may come back to, by id: the newest ones, as many as fit. Any thread.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "server/service/chat.h"

namespace serval {

struct StoredResponse {
  // Which API key asked, and alone may see it; 0: none is needed.
  int key = 0;
  // As it was answered.
  boost::json::object response;
  // What it was asked with, as items.
  boost::json::array input;
  // What was said until then and by it, without instructions: what a next one goes on from.
  std::vector<ChatMessage> conversation;
};

class ResponseStore {
 public:
  explicit ResponseStore(size_t max_bytes) : max_bytes_(max_bytes) {}

  // The oldest make room; what is larger than the whole store is not kept.
  void put(const std::string& id, std::shared_ptr<const StoredResponse> stored);
  // Null: there is none, or it is another key's.
  std::shared_ptr<const StoredResponse> find(std::string_view id, int key) const;
  bool erase(std::string_view id, int key);
  size_t bytes() const;

 private:
  struct Entry {
    std::string id;
    size_t bytes;
    std::shared_ptr<const StoredResponse> stored;
  };
  using Entries = std::list<Entry>;
  void drop(Entries::iterator entry);

  const size_t max_bytes_;
  mutable std::mutex mutex_;
  Entries entries_;  // oldest first
  std::unordered_map<std::string, Entries::iterator> by_id_;
  size_t bytes_ = 0;
};

}  // namespace serval
