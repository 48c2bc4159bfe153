#include "engine/runner/hidden_trace.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "kernels/base/log.h"

namespace serval {

HiddenTrace::HiddenTrace(const std::string& path, size_t max_bytes) : path_(path), max_bytes_(max_bytes) {
  file_ = std::fopen(path.c_str(), "wb");
  if (file_ == nullptr) throw std::runtime_error("speculation_trace: " + path + " cannot be written: " + std::strerror(errno));
  std::setvbuf(file_, nullptr, _IONBF, 0);
}

HiddenTrace::~HiddenTrace() {
  if (writer_.joinable()) {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    arrived_.notify_one();
    writer_.join();
  }
  std::fclose(file_);
}

void HiddenTrace::start(const DraftHost& host) {
  backend_ = &host.backend;
  const ModelSpec& spec = host.transformer.spec();
  const DType type = host.backend.activation_dtype(spec.weight_dtype);
  SERVAL_CHECK(type == DType::kF32 || type == DType::kBF16, dtype_name(type));
  kept_.start(1, host.steps.max_rows, spec.hidden_size, type, host.backend);
  row_bytes_ = static_cast<size_t>(spec.hidden_size) * dtype_bytes(type);
  ring_.resize(kRingBytes);
  const uint32_t head[] = {static_cast<uint32_t>(spec.hidden_size), type == DType::kBF16 ? 1u : 0u};
  put("svtrace1", 8);
  put(head, sizeof head);
  num_taken_ = put_;
  filled_ = put_;
  writer_ = std::thread([this] { drain(); });
}

void HiddenTrace::keep(const Tensor& hidden) {
  kept_.keep({&hidden, 1});
}

void HiddenTrace::write(std::span<const DraftTask> tasks) {
  const Tensor rows = kept_.next();
  for (const DraftTask& task : tasks) {
    const int count = task.num_computed, known = static_cast<int>(task.known.size());
    const size_t bytes = sizeof(uint64_t) + (3 + count) * sizeof(int32_t) + count * row_bytes_;
    const bool has_room = num_taken_ + bytes <= max_bytes_ && put_ - drained_.load() + bytes <= kRingBytes;
    if (count <= 0 || !has_room) continue;
    const uint64_t seq = task.seq;
    const int32_t place[] = {task.first_computed, count};
    const int last = task.first_computed + count;
    const int32_t behind = last < known ? task.known[last] : -1;
    put(&seq, sizeof seq);
    put(place, sizeof place);
    put(task.known.data() + task.first_computed, count * sizeof(TokenId));
    put(&behind, sizeof behind);
    for (int i = 0; i < count; ++i) {
      const size_t at = put_ % kRingBytes, first = std::min(row_bytes_, kRingBytes - at);
      const auto* const row = static_cast<const std::byte*>(rows.at(kept_.row_of(0, task.row_of(i)) * rows.dim(1)));
      backend_->download(ring_.data() + at, row, first);
      if (first < row_bytes_) backend_->download(ring_.data(), row + first, row_bytes_ - first);
      put_ += row_bytes_;
    }
    num_taken_ += bytes;
    filled_ = put_;
  }
  if (filled_.load() != drained_.load()) arrived_.notify_one();
}

void HiddenTrace::put(const void* data, size_t bytes) {
  const size_t at = put_ % kRingBytes, first = std::min(bytes, kRingBytes - at);
  std::memcpy(ring_.data() + at, data, first);
  std::memcpy(ring_.data(), static_cast<const std::byte*>(data) + first, bytes - first);
  put_ += bytes;
}

// Of the writing thread.
void HiddenTrace::drain() {
  bool is_lost = false;
  for (;;) {
    const size_t begin = drained_.load(), end = filled_.load();
    if (begin == end) {
      std::unique_lock lock(mutex_);
      if (stopping_) return;
      arrived_.wait_for(lock, std::chrono::milliseconds(50));
      continue;
    }
    const size_t at = begin % kRingBytes, count = std::min(end - begin, kRingBytes - at);
    if (!is_lost && std::fwrite(ring_.data() + at, 1, count, file_) != count) {
      is_lost = true;
      log_warn("the trace ends here", {{"file", path_}, {"why", std::strerror(errno)}});
    }
    drained_ = begin + count;
  }
}

}  // namespace serval
