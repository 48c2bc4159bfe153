// What the target computes for its requests, written to a file from which heads are trained: tokens, and the hidden rows
// behind the final norm. The engine thread copies what a step has computed into a ring; a thread of its own writes it. What
// has no room there, or in the file, is left out. Nothing in it says who asked.
//
// The file: "svtrace1", uint32 hidden size, uint32 type of a row's numbers (0 f32, 1 bf16); then pieces of texts: uint64
// sequence, int32 position of the first row, int32 rows, the rows' tokens and the one behind the last (int32, -1: not known
// yet), and the rows. All little-endian.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "engine/runner/speculators/draft_host.h"
#include "engine/runner/speculators/kept_rows.h"
#include "engine/runner/speculators/speculator.h"

namespace serval {

class HiddenTrace {
 public:
  // Begins the file anew; at most max_bytes of it. Throws std::runtime_error with a sentence where it cannot be written.
  HiddenTrace(const std::string& path, size_t max_bytes);
  ~HiddenTrace();
  // Beside what it keeps of the device's.
  static size_t planned_bytes(const StepLimits& steps, int64_t hidden_size, DType type) {
    return KeptRows::planned_bytes(1, steps.max_rows, hidden_size, type) + kRingBytes;
  }

  // Before all else, once.
  void start(const DraftHost& host);
  // A step was begun; see Speculator::keep.
  void keep(const Tensor& hidden);
  // Steps are over, in their order: what they computed of these sequences.
  void write(std::span<const DraftTask> tasks);

 private:
  static constexpr size_t kRingBytes = size_t{8} << 20;
  void put(const void* data, size_t bytes);
  void drain();

  const std::string path_;
  const size_t max_bytes_;
  std::FILE* file_ = nullptr;
  Backend* backend_ = nullptr;
  KeptRows kept_;
  size_t row_bytes_ = 0;
  size_t num_taken_ = 0;  // bytes of the file that are written or in the ring; the engine thread's

  std::vector<std::byte> ring_;
  size_t put_ = 0;  // bytes that were ever put there; of a piece that is not whole yet
  std::atomic<size_t> filled_ = 0, drained_ = 0;
  std::mutex mutex_;
  std::condition_variable arrived_;
  bool stopping_ = false;
  std::thread writer_;
};

}  // namespace serval
