// A heap of things that know their place in it, so that any of them can leave or move. Allocates in its
// constructor only.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/base/check.h"

namespace serval {

// Before: a strict order, whose first stands on top. `place` is -1 while a thing is in no heap.
template <class T, int32_t T::*place, class Before>
class IndexedHeap {
 public:
  explicit IndexedHeap(size_t most, Before before = {}) : before_(std::move(before)) { heap_.reserve(most); }
  static size_t planned_bytes(size_t most) { return most * sizeof(T*); }

  bool empty() const { return heap_.empty(); }
  size_t size() const { return heap_.size(); }
  T& top() const { return *heap_.front(); }
  static bool contains(const T& thing) { return thing.*place >= 0; }

  void push(T& thing) {
    SERVAL_CHECK(!contains(thing) && heap_.size() < heap_.capacity(), heap_.size());
    heap_.push_back(&thing);
    rise(heap_.size() - 1);
  }
  void erase(T& thing) {
    SERVAL_CHECK(contains(thing));
    const auto at = static_cast<size_t>(thing.*place);
    thing.*place = -1;
    T* const last = heap_.back();
    heap_.pop_back();
    if (last == &thing) return;
    put(at, last);
    update(*last);
  }
  // The thing's order has changed.
  void update(T& thing) {
    rise(static_cast<size_t>(thing.*place));
    sink(static_cast<size_t>(thing.*place));
  }
  void clear() {
    for (T* thing : heap_) thing->*place = -1;
    heap_.clear();
  }

 private:
  void put(size_t at, T* thing) {
    heap_[at] = thing;
    thing->*place = static_cast<int32_t>(at);
  }
  void rise(size_t at) {
    T* const thing = heap_[at];
    for (; at > 0 && before_(*thing, *heap_[(at - 1) / 2]); at = (at - 1) / 2) put(at, heap_[(at - 1) / 2]);
    put(at, thing);
  }
  void sink(size_t at) {
    T* const thing = heap_[at];
    for (size_t child = 2 * at + 1; child < heap_.size(); child = 2 * at + 1) {
      if (child + 1 < heap_.size() && before_(*heap_[child + 1], *heap_[child])) ++child;
      if (!before_(*heap_[child], *thing)) break;
      put(at, heap_[child]);
      at = child;
    }
    put(at, thing);
  }

  std::vector<T*> heap_;
  Before before_;
};

}  // namespace serval
