// What one connection has to send: bytes in order, and bodies that are made piece by piece when what is
// before them has gone. Pure: no sockets.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include "server/http/http_types.h"

namespace serval {

class AnswerOutput {
 public:
  // As they are, or as one chunk of HTTP/1.1 (not empty).
  void append(std::string_view bytes);
  void append_chunk(std::string_view bytes);
  // All of what `source` gives, each piece a chunk when `chunked`; then whatever is appended after it.
  void append_source(std::shared_ptr<BodySource> source, bool chunked);

  // What to write now; valid until written(). Makes the next piece of a source. Empty: nothing is left.
  std::string_view front();
  void written(size_t n);  // of front()

  bool empty() const { return sources_.empty() && tail_.empty() && written_ == front_.size(); }
  // Memory: bytes that wait, and what sources hold.
  size_t held_bytes() const;
  // Of the bytes that wait, those that a reader of events could have taken: what belongs to a source or came
  // behind one is not its fault.
  size_t unread_bytes() const;
  void clear();  // allocates nothing
  // Gives memory beyond `bytes` back, when all was written.
  void shrink(size_t bytes);

 private:
  struct Source {
    std::shared_ptr<BodySource> body;
    bool chunked;
    std::string after;  // appended behind it
  };
  std::string& end() { return sources_.empty() ? tail_ : sources_.back().after; }

  std::string front_;  // being written, from written_ on
  size_t written_ = 0;
  bool front_is_exempt_ = false;  // not counted by unread_bytes()
  std::string tail_;              // next
  std::deque<Source> sources_;    // then
};

}  // namespace serval
