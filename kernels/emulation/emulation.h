// The host side of kernels/cuda/simt.h: runs a kernel's blocks one after the other, a block's threads as
// fibers that change over at barriers and warp exchanges, in an order drawn from a seed. Shared memory has a
// shadow that knows who touched what since when; everything that CUDA leaves undefined is reported as a
// Violation: races, accesses out of bounds, reads of what nobody wrote, reads of an asynchronous copy that
// was not waited for, barriers that not every thread reaches, exchanges that not every lane joins.
//
// What it does not show: races through global memory, the memory model between blocks, the hardware's order
// of summation inside a matrix product, speed.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/cuda/launch_shape.h"

namespace serval::simt {

// A kernel did what CUDA does not define. Thrown by launch() on the host side of it.
struct Violation : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Order in which runnable threads and blocks go on: 0 is ascending, any other number seeds a random one.
// Applies to launches made after the call, on this host thread.
void set_schedule_seed(uint64_t seed);

namespace emulation {

inline constexpr int kMaxThreads = 1024;
inline constexpr int kGranule = 2;  // bytes that share a shadow cell: no kernel writes a smaller part of them

// When and by whom an access was made. Two accesses of different threads are in order when a block barrier
// lies between them, or, inside a warp, a warp barrier.
struct Stamp {
  int32_t thread = -1;
  uint32_t block_epoch = 0;
  uint32_t warp_epoch = 0;
};

struct ShadowCell {
  uint32_t block = 0;  // that the rest is about, by its number; another one finds it as it was made
  Stamp write;
  Stamp first_read, last_read;  // since the last write
  uint32_t reading_warps = 0;   // in last_read.block_epoch
  bool is_written = false;
  bool is_atomic = false;     // the last write was an atomic operation
  bool is_in_flight = false;  // an asynchronous copy will land here
};

struct PendingCopy {
  int shared_offset;
  const void* source;  // null: zeros
  int bytes;
};

struct Block;

struct Thread {
  int index = 0;
  Block* block = nullptr;
  std::vector<PendingCopy> open_copies;               // issued, not committed
  std::vector<std::vector<PendingCopy>> copy_groups;  // committed, oldest first
  size_t num_groups = 0;                              // live entries of copy_groups
};

// What the running thread of the running block can do. One block runs at a time on a host thread.
// constinit spares the wrapper around them, in which GCC 12 sees null pointers under -fsanitize=null.
extern constinit thread_local Thread* current;
extern constinit thread_local int current_block_x, current_block_y, current_grid_x, current_num_threads;

void barrier();
void warp_barrier();
// Every lane of the warp calls it with the same name; `body` runs once with all inputs, [32][in_bytes] to
// [32][out_bytes]. At most 64 bytes each way.
using ExchangeBody = void (*)(const std::byte* in, std::byte* out, int in_bytes, int out_bytes, int context);
void exchange(const char* name, const void* in, int in_bytes, void* out, int out_bytes, ExchangeBody body,
              int context = 0);
[[noreturn]] void violate(const std::string& what);

int take_shared(int bytes, int at);  // checks that the block has them; returns `at`
std::byte* shared_bytes();
void note_read(int offset, int bytes);
void note_write(int offset, int bytes);
void note_atomic(int offset, int bytes);

// Asynchronous copies (cp.async): poison lands at once, the bytes at the last moment that CUDA allows, when
// the thread waits for the group they were committed to. source null: zeros.
void copy_async(int offset, const void* source, int bytes);
void commit_copies();
void wait_copies(int max_pending);

void run_grid(int grid_x, int grid_y, int threads, size_t shared_bytes, const std::function<void()>& kernel);
// Runs now, or is recorded when the stream is being captured (kernels/emulation/runtime.cc).
void submit(void* stream, std::function<void()> work);
bool is_capturing(void* stream);

}  // namespace emulation

inline int thread() {
  return emulation::current->index;
}
inline int num_threads() {
  return emulation::current_num_threads;
}
inline int block_x() {
  return emulation::current_block_x;
}
inline int block_y() {
  return emulation::current_block_y;
}
inline int grid_x() {
  return emulation::current_grid_x;
}

inline void sync_block() {
  emulation::barrier();
}
inline void sync_warp() {
  emulation::warp_barrier();
}

template <class T>
T shuffle_xor(T value, int mask) {
  T result;
  emulation::exchange(
      "shuffle_xor", &value, sizeof(T), &result, sizeof(T),
      [](const std::byte* in, std::byte* out, int bytes, int, int xor_mask) {
        for (int lane = 0; lane < kWarp; ++lane)
          std::memcpy(out + lane * bytes, in + (lane ^ xor_mask) * bytes, bytes);
      },
      mask);
  return result;
}
template <class T>
T shuffle(T value, int lane) {
  struct In {
    T value;
    int from;
  } in{value, lane};
  T result;
  emulation::exchange("shuffle", &in, sizeof(In), &result, sizeof(T),
                      [](const std::byte* ins, std::byte* out, int, int, int) {
                        for (int i = 0; i < kWarp; ++i) {
                          In mine, theirs;
                          std::memcpy(&mine, ins + i * sizeof(In), sizeof(In));
                          std::memcpy(&theirs, ins + (mine.from & (kWarp - 1)) * sizeof(In), sizeof(In));
                          std::memcpy(out + i * sizeof(T), &theirs.value, sizeof(T));
                        }
                      });
  return result;
}
inline uint32_t ballot(bool value) {
  const uint32_t bit = value;
  uint32_t result;
  emulation::exchange("ballot", &bit, sizeof bit, &result, sizeof result,
                      [](const std::byte* in, std::byte* out, int, int, int) {
                        uint32_t votes = 0;
                        for (int lane = 0; lane < kWarp; ++lane) {
                          uint32_t vote;
                          std::memcpy(&vote, in + lane * sizeof vote, sizeof vote);
                          votes |= vote << lane;
                        }
                        for (int lane = 0; lane < kWarp; ++lane)
                          std::memcpy(out + lane * sizeof votes, &votes, sizeof votes);
                      });
  return result;
}

inline int popcount(uint32_t bits) {
  return std::popcount(bits);
}

// Threads change over at barriers and exchanges only, so that a plain addition is atomic.
template <class T>
T atomic_add(T* address, T value) {
  const T before = *address;
  *address = before + value;
  return before;
}

template <class T>
class Shared {
 public:
  static_assert(std::is_trivially_copyable_v<T>);
  Shared(int offset, int count) : offset_(offset), count_(count) {}

  T get(int i) const { return load<T>(i); }
  void set(int i, T value) const { store<T>(i, value); }
  template <class V>
  V load(int i) const {
    const int at = check<V>(i);
    emulation::note_read(at, sizeof(V));
    V value;
    std::memcpy(&value, emulation::shared_bytes() + at, sizeof(V));
    return value;
  }
  template <class V>
  void store(int i, const V& value) const {
    const int at = check<V>(i);
    emulation::note_write(at, sizeof(V));
    std::memcpy(emulation::shared_bytes() + at, &value, sizeof(V));
  }
  T atomic_add(int i, T value) const {
    const int at = check<T>(i);
    emulation::note_atomic(at, sizeof(T));
    T before;
    std::memcpy(&before, emulation::shared_bytes() + at, sizeof(T));
    const T after = before + value;
    std::memcpy(emulation::shared_bytes() + at, &after, sizeof(T));
    return before;
  }
  // A part of the run.
  Shared at(int offset, int count) const {
    if (offset < 0 || count < 0 || offset + count > count_) {
      emulation::violate("a part [" + std::to_string(offset) + ", " + std::to_string(offset + count) +
                         ") is taken of " + std::to_string(count_) + " shared elements");
    }
    return Shared(offset_ + offset * static_cast<int>(sizeof(T)), count);
  }
  // Byte offset in the block's shared memory of `bytes` bytes at element i.
  int checked_offset(int i, int bytes) const {
    if (i < 0 || i * static_cast<int>(sizeof(T)) + bytes > count_ * static_cast<int>(sizeof(T))) {
      emulation::violate("shared element " + std::to_string(i) + " (" + std::to_string(bytes) +
                         " bytes) of " + std::to_string(count_));
    }
    const int at = offset_ + i * static_cast<int>(sizeof(T));
    if (at % bytes != 0)
      emulation::violate("a shared access of " + std::to_string(bytes) + " bytes is not aligned");
    return at;
  }

 private:
  template <class V>
  int check(int i) const {
    return checked_offset(i, sizeof(V));
  }
  int offset_;
  int count_;
};

class SharedMemory {
 public:
  template <class T>
  Shared<T> take(int count) {
    const int bytes = (count * static_cast<int>(sizeof(T)) + 15) / 16 * 16;
    const int at = emulation::take_shared(bytes, used_);
    used_ += bytes;
    return Shared<T>(at, count);
  }

 private:
  int used_ = 0;
};

template <auto kernel, class... Args>
void launch(Stream stream, const LaunchShape& shape, Args... args) {
  // A device loads a kernel at its first launch, which a capture is no place for.
  static std::atomic<bool> is_loaded = false;
  if (!emulation::is_capturing(stream)) is_loaded = true;
  SERVAL_CHECK(is_loaded.load(), "a kernel's first launch was captured");
  emulation::submit(stream, [shape, arguments = std::make_tuple(args...)] {
    emulation::run_grid(shape.grid_x, shape.grid_y, shape.threads, shape.shared_bytes,
                        [&arguments] { std::apply(kernel, arguments); });
  });
}

}  // namespace serval::simt
