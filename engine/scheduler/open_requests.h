// The requests that are not over, by id: a hash table whose links the requests bring with them.
#pragma once

#include <bit>
#include <memory>
#include <vector>

#include "engine/scheduler/sequence.h"

namespace serval {

class OpenRequests {
 public:
  explicit OpenRequests(size_t most) : buckets_(std::bit_ceil(most + 1), nullptr) {}
  static size_t planned_bytes(size_t most) { return std::bit_ceil(most + 1) * sizeof(RequestState*); }
  ~OpenRequests() {
    for (RequestState* head : buckets_) {
      while (head) delete std::exchange(head, head->next_in_bucket);
    }
  }
  OpenRequests(const OpenRequests&) = delete;
  OpenRequests& operator=(const OpenRequests&) = delete;

  RequestState* find(RequestId id) const {
    RequestState* at = *bucket(id);
    while (at && at->request.id != id) at = at->next_in_bucket;
    return at;
  }
  void insert(std::unique_ptr<RequestState> request_state) {
    RequestState*& head = *bucket(request_state->request.id);
    request_state->next_in_bucket = head;
    head = request_state.release();
  }
  std::unique_ptr<RequestState> remove(RequestState& request_state) {
    RequestState** link = bucket(request_state.request.id);
    while (*link != &request_state) link = &(*link)->next_in_bucket;
    *link = request_state.next_in_bucket;
    return std::unique_ptr<RequestState>(&request_state);
  }
  template <class Visit>
  void for_each(Visit visit) const {
    for (RequestState* at : buckets_) {
      for (; at; at = at->next_in_bucket) visit(*at);
    }
  }

 private:
  // Ids are given in turn, so their low bits spread them.
  RequestState** bucket(RequestId id) const { return &buckets_[id & (buckets_.size() - 1)]; }

  mutable std::vector<RequestState*> buckets_;
};

}  // namespace serval
