// Threads for what thinks long (templates, tokenising), and the line before them: bounded, and in an order in
// which a small task is not behind large ones while a large one is not put off for ever.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <queue>
#include <thread>
#include <vector>

namespace serval {

class TextLane {
 public:
  // At most `max_waiting` tasks wait, and at most `max_waiting_bytes` of their sizes together.
  TextLane(int threads, size_t max_waiting, size_t max_waiting_bytes);
  ~TextLane();  // join()

  // Queues `task`, which must not throw. False: the line is full. Any thread. A task waits for at most as
  // many bytes of tasks that came after it as it has itself.
  bool submit(size_t bytes, std::function<void()> task);
  size_t num_waiting() const;
  // Ends the threads when all that waits has run. Nothing may be submitted any more. Idempotent.
  void join();

 private:
  struct Waiting {
    uint64_t due;  // bytes taken from the line before it came, plus its own
    uint64_t order;
    size_t bytes;
    std::function<void()> task;
    bool operator<(const Waiting& other) const {
      return due != other.due ? due > other.due : order > other.order;
    }
  };
  void run();

  const size_t max_waiting_, max_waiting_bytes_;
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::priority_queue<Waiting> line_;  // its top is due first
  size_t waiting_bytes_ = 0;
  uint64_t taken_bytes_ = 0;
  uint64_t num_submitted_ = 0;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace serval
