// Readers written as straight lines that stop wherever the text so far ends, and go on when more is there. What they decide
// depends on bytes alone, never on how those were cut into pieces.
#pragma once

#include <coroutine>
#include <cstddef>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace serval {

// A coroutine that is awaited by another, or is the outermost. Runs from its first await on; T is not void.
template <class T>
class [[nodiscard]] Task {
 public:
  struct promise_type;
  using Handle = std::coroutine_handle<promise_type>;

  struct promise_type {
    struct Final {
      bool await_ready() noexcept { return false; }
      std::coroutine_handle<> await_suspend(Handle done) noexcept {
        const std::coroutine_handle<> next = done.promise().awaiting;
        return next ? next : std::noop_coroutine();
      }
      void await_resume() noexcept {}
    };
    Task get_return_object() { return Task(Handle::from_promise(*this)); }
    std::suspend_always initial_suspend() noexcept { return {}; }
    Final final_suspend() noexcept { return {}; }
    void return_value(T result) { value = std::move(result); }
    void unhandled_exception() { failure = std::current_exception(); }

    std::optional<T> value;
    std::exception_ptr failure;
    std::coroutine_handle<> awaiting;
  };

  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Task() {
    if (handle_) handle_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> awaiting) noexcept {
    handle_.promise().awaiting = awaiting;
    return handle_;
  }
  T await_resume() {
    rethrow();
    return std::move(*handle_.promise().value);
  }

  // Of the outermost: runs until it lacks a byte, or has ended.
  void start() { handle_.resume(); }
  bool done() const { return handle_.done(); }
  void rethrow() const {
    if (handle_.promise().failure) std::rethrow_exception(handle_.promise().failure);
  }

 private:
  explicit Task(Handle handle) : handle_(handle) {}
  Handle handle_;
};

// Bytes as they come. One reader at a time awaits them; what was read can be read again until it is forgotten.
class ByteStream {
 public:
  static constexpr int kEnd = -1;

  // The writer's side: more bytes, or no more. Runs the reader that waits.
  void push(std::string_view bytes) {
    if (bytes.empty()) return;  // whoever is resumed without a byte takes that for the end
    text_ += bytes;
    resume();
  }
  void end() {
    ended_ = true;
    resume();
  }

  // co_await peek(): the next byte, which is not taken, or kEnd.
  auto peek() {
    struct Awaiter {
      ByteStream& stream;
      bool await_ready() const noexcept { return stream.at_ < stream.text_.size() || stream.ended_; }
      void await_suspend(std::coroutine_handle<> waiting) noexcept { stream.waiting_ = waiting; }
      int await_resume() const noexcept {
        return stream.at_ < stream.text_.size() ? static_cast<unsigned char>(stream.text_[stream.at_]) : kEnd;
      }
    };
    return Awaiter{*this};
  }
  void take() { ++at_; }

  // A place to come back to, and what was read since. Valid until forget().
  size_t place() const { return at_; }
  void go_back(size_t place) { at_ = place; }
  std::string since(size_t place) const { return text_.substr(place, at_ - place); }
  // What was read is needed no more.
  void forget() {
    constexpr size_t kWorthMoving = 1024;
    if (at_ < kWorthMoving && at_ < text_.size()) return;
    text_.erase(0, at_);
    at_ = 0;
  }

 private:
  void resume() {
    if (waiting_) std::exchange(waiting_, nullptr).resume();
  }

  std::string text_;
  size_t at_ = 0;
  bool ended_ = false;
  std::coroutine_handle<> waiting_;
};

}  // namespace serval
