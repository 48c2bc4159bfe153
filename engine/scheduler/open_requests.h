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
  ~OpenRequests() {
    for (Submission* head : buckets_) {
      while (head) delete std::exchange(head, head->next_in_bucket);
    }
  }
  OpenRequests(const OpenRequests&) = delete;
  OpenRequests& operator=(const OpenRequests&) = delete;

  Submission* find(RequestId id) const {
    Submission* at = *bucket(id);
    while (at && at->request.id != id) at = at->next_in_bucket;
    return at;
  }
  void insert(std::unique_ptr<Submission> submission) {
    Submission*& head = *bucket(submission->request.id);
    submission->next_in_bucket = head;
    head = submission.release();
  }
  std::unique_ptr<Submission> remove(Submission& submission) {
    Submission** link = bucket(submission.request.id);
    while (*link != &submission) link = &(*link)->next_in_bucket;
    *link = submission.next_in_bucket;
    return std::unique_ptr<Submission>(&submission);
  }
  template <class Visit>
  void for_each(Visit visit) const {
    for (Submission* at : buckets_) {
      for (; at; at = at->next_in_bucket) visit(*at);
    }
  }

 private:
  // Ids are given in turn, so their low bits spread them.
  Submission** bucket(RequestId id) const { return &buckets_[id & (buckets_.size() - 1)]; }

  mutable std::vector<Submission*> buckets_;
};

}  // namespace serval
