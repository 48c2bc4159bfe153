#include "server/http/text_lane.h"

#include <pthread.h>

#include <utility>

namespace serval {

TextLane::TextLane(int threads, size_t max_waiting, size_t max_waiting_bytes)
    : max_waiting_(max_waiting), max_waiting_bytes_(max_waiting_bytes) {
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { run(); });
    pthread_setname_np(threads_.back().native_handle(), "serval-text");
  }
}

TextLane::~TextLane() {
  join();
}

bool TextLane::submit(size_t bytes, std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    if (line_.size() >= max_waiting_ || bytes > max_waiting_bytes_ - waiting_bytes_) return false;
    line_.push({taken_bytes_ + bytes, num_submitted_++, bytes, std::move(task)});
    waiting_bytes_ += bytes;
  }
  arrived_.notify_one();
  return true;
}

size_t TextLane::num_waiting() const {
  std::lock_guard lock(mutex_);
  return line_.size();
}

void TextLane::run() {
  for (;;) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex_);
      arrived_.wait(lock, [this] { return ending_ || !line_.empty(); });
      if (line_.empty()) return;
      Waiting& next = const_cast<Waiting&>(line_.top());  // its place does not depend on the task
      task = std::move(next.task);
      taken_bytes_ += next.bytes;
      waiting_bytes_ -= next.bytes;
      line_.pop();
    }
    task();
  }
}

void TextLane::join() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
  }
  arrived_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

}  // namespace serval
