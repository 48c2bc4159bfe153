// Small host arrays on their way to the device: copied into pinned memory at once, so that the caller may
// reuse them, and from there in the order of the stream. A ring of regions, one a step, each reused when its
// copies are done.
#pragma once

#include <array>
#include <cstring>

#include "kernels/base/check.h"
#include "kernels/cuda/runtime.h"

namespace serval::cuda {

class Staging {
 public:
  static constexpr size_t kAlignment = 16;  // each copy begins at a multiple of it

  explicit Staging(Stream stream) : stream_(stream) {
    for (Event& event : done_) event = create_event();
  }
  ~Staging() {
    for (Event event : done_) destroy_event(event);
    if (memory_) free_pinned(memory_);
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // At start-up: room for this many bytes a step.
  void reserve(size_t bytes) {
    if (bytes <= region_bytes_) return;
    if (memory_) free_pinned(memory_);
    region_bytes_ = bytes;
    memory_ = static_cast<std::byte*>(allocate_pinned(bytes * kRegions));
    SERVAL_CHECK(memory_ != nullptr, bytes);
  }

  // A step begins: waits until the region's copies of kRegions steps ago are done.
  void begin_step() {
    region_ = (region_ + 1) % kRegions;
    if (is_used_[region_]) wait(done_[region_]);
    is_used_[region_] = false;
    used_ = 0;
  }
  void copy(void* to, const void* from, size_t bytes) {
    if (bytes == 0) return;
    SERVAL_CHECK(used_ + bytes <= region_bytes_, used_, bytes, region_bytes_);
    std::byte* const pinned = memory_ + region_ * region_bytes_ + used_;
    used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    std::memcpy(pinned, from, bytes);
    copy_to_device(stream_, to, pinned, bytes);
    record(done_[region_], stream_);
    is_used_[region_] = true;
  }

 private:
  static constexpr int kRegions = 3;
  Stream stream_;
  std::byte* memory_ = nullptr;
  size_t region_bytes_ = 0, used_ = 0;
  int region_ = 0;
  std::array<Event, kRegions> done_{};
  std::array<bool, kRegions> is_used_{};
};

}  // namespace serval::cuda
