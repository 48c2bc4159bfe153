// A long text written by a coroutine: it appends to a string and yields whenever enough is there to be sent.
#pragma once

#include <coroutine>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "server/http/http_types.h"

namespace serval {

// From this size on what was written is worth sending.
constexpr size_t kPieceBytes = 32 << 10;

// The coroutine says `co_yield PieceEnd{}`. What its parameters refer to must outlive it.
struct PieceEnd {};

class [[nodiscard]] Pieces {
 public:
  struct promise_type {
    Pieces get_return_object() { return Pieces(Handle::from_promise(*this)); }
    std::suspend_always initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    std::suspend_always yield_value(PieceEnd) noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() { failure = std::current_exception(); }
    std::exception_ptr failure;
  };
  using Handle = std::coroutine_handle<promise_type>;

  Pieces(Pieces&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Pieces& operator=(Pieces&&) = delete;
  ~Pieces() {
    if (handle_) handle_.destroy();
  }

  // Writes on. False: that was the end.
  bool next() {
    handle_.resume();
    if (handle_.promise().failure) std::rethrow_exception(handle_.promise().failure);
    return !handle_.done();
  }

 private:
  explicit Pieces(Handle handle) : handle_(handle) {}
  Handle handle_;
};

// A coroutine as the body of an answer. `owner` is what it refers to.
class PiecesBody final : public BodySource {
 public:
  PiecesBody(std::shared_ptr<const void> owner, size_t held_bytes,
             const std::function<Pieces(std::string& out)>& write)
      : owner_(std::move(owner)), held_bytes_(held_bytes), pieces_(write(written_)) {}

  bool next(std::string& out) override {
    const bool more = pieces_.next();
    out += written_;
    written_.clear();
    return more;
  }
  size_t held_bytes() const override { return held_bytes_; }

 private:
  const std::shared_ptr<const void> owner_;
  const size_t held_bytes_;
  std::string written_;
  Pieces pieces_;
};

}  // namespace serval
