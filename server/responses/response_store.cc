#include "server/responses/response_store.h"

#include <boost/json/serialize.hpp>
#include <utility>

namespace serval {
namespace {

// About what it holds: its JSON twice over for the tree, and the texts.
size_t bytes_of(const StoredResponse& stored) {
  size_t bytes = sizeof(StoredResponse) + 2 * (boost::json::serialize(stored.response).size() + boost::json::serialize(stored.input).size());
  for (const ChatMessage& message : stored.conversation) {
    bytes += sizeof(ChatMessage) + message.content.value_or("").size();
    for (const ToolCall& call : message.tool_calls) bytes += sizeof(ToolCall) + call.name.size() + call.arguments.size();
    for (const auto& [name, value] : message.fields) {
      const auto* const text = std::get_if<std::string>(&value);
      bytes += sizeof(TemplateValue) + name.size() + (text != nullptr ? text->size() : 0);
    }
  }
  return bytes;
}

}  // namespace

void ResponseStore::put(const std::string& id, std::shared_ptr<const StoredResponse> stored) {
  const size_t bytes = bytes_of(*stored);
  if (bytes > max_bytes_) return;
  std::lock_guard lock(mutex_);
  while (bytes_ + bytes > max_bytes_) drop(entries_.begin());
  entries_.push_back({id, bytes, std::move(stored)});
  by_id_[id] = std::prev(entries_.end());
  bytes_ += bytes;
}

void ResponseStore::drop(Entries::iterator entry) {
  bytes_ -= entry->bytes;
  by_id_.erase(entry->id);
  entries_.erase(entry);
}

std::shared_ptr<const StoredResponse> ResponseStore::find(std::string_view id, int key) const {
  std::lock_guard lock(mutex_);
  const auto found = by_id_.find(std::string(id));
  return found == by_id_.end() || found->second->stored->key != key ? nullptr : found->second->stored;
}

bool ResponseStore::erase(std::string_view id, int key) {
  std::lock_guard lock(mutex_);
  const auto found = by_id_.find(std::string(id));
  if (found == by_id_.end() || found->second->stored->key != key) return false;
  drop(found->second);
  return true;
}

size_t ResponseStore::bytes() const {
  std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace serval
