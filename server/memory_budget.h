// Memory that many hold together, and how much of it there may be. Knows nothing of who holds it. Any thread.
#pragma once

#include <atomic>
#include <cstddef>

namespace serval {

class MemoryBudget {
 public:
  explicit MemoryBudget(size_t limit) : limit_(limit) {}
  size_t limit() const { return limit_; }
  size_t used() const { return used_.load(std::memory_order_relaxed); }

 private:
  friend class MemoryCharge;
  bool take(size_t bytes) {
    if (used_.fetch_add(bytes, std::memory_order_relaxed) + bytes <= limit_) return true;
    give(bytes);
    return false;
  }
  void give(size_t bytes) { used_.fetch_sub(bytes, std::memory_order_relaxed); }

  const size_t limit_;
  std::atomic<size_t> used_{0};
};

// What one holder has of a budget; given back when it goes. One thread at a time.
class MemoryCharge {
 public:
  // `free_bytes`: so much costs nothing and is never refused. The budget outlives the charge; none: no limit.
  explicit MemoryCharge(MemoryBudget* budget, size_t free_bytes = 0)
      : budget_(budget), free_bytes_(free_bytes) {}
  ~MemoryCharge() { set(0); }
  MemoryCharge(const MemoryCharge&) = delete;
  MemoryCharge& operator=(const MemoryCharge&) = delete;

  // The holder has `bytes` now. False: there is no room for that; what was charged stays charged. Less than
  // before always fits.
  [[nodiscard]] bool fits(size_t bytes) {
    const size_t charge = !budget_ || bytes <= free_bytes_ ? 0 : bytes - free_bytes_;
    if (charge > charged_ && !budget_->take(charge - charged_)) return false;
    if (charge < charged_) budget_->give(charged_ - charge);
    charged_ = charge;
    return true;
  }
  // The same, where it cannot be more than before.
  void set(size_t bytes) { static_cast<void>(fits(bytes)); }

 private:
  MemoryBudget* const budget_;
  const size_t free_bytes_;
  size_t charged_ = 0;
};

// An answer this small is not worth refusing: what all connections can hold in such is bounded by their
// number.
constexpr size_t kFreeAnswerBytes = 64 << 10;

}  // namespace serval
