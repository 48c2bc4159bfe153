#include "server/http/answer_output.h"

#include <charconv>
#include <utility>

#include "kernels/base/check.h"

namespace serval {
namespace {

void append_framed(std::string& out, std::string_view bytes) {
  char size[16];
  out.append(size, std::to_chars(size, size + sizeof(size), bytes.size(), 16).ptr);
  out += "\r\n";
  out += bytes;
  out += "\r\n";
}

}  // namespace

void AnswerOutput::append(std::string_view bytes) {
  end() += bytes;
}

void AnswerOutput::append_chunk(std::string_view bytes) {
  append_framed(end(), bytes);
}

void AnswerOutput::append_source(std::shared_ptr<BodySource> source, bool chunked) {
  sources_.push_back({std::move(source), chunked, {}});
}

std::string_view AnswerOutput::front() {
  if (written_ < front_.size()) return std::string_view(front_).substr(written_);
  front_.clear();
  written_ = 0;
  front_is_exempt_ = false;
  std::swap(front_, tail_);
  while (front_.empty() && !sources_.empty()) {
    Source& source = sources_.front();
    front_is_exempt_ = true;
    std::string piece;
    const bool more = source.body->next(piece);
    if (!piece.empty()) source.chunked ? append_framed(front_, piece) : std::swap(front_, piece);
    if (more) continue;
    front_ += source.after;
    sources_.pop_front();
  }
  return front_;
}

void AnswerOutput::written(size_t n) {
  written_ += n;
}

size_t AnswerOutput::held_bytes() const {
  size_t held = front_.size() - written_ + tail_.size();
  for (const Source& source : sources_) held += source.body->held_bytes() + source.after.size();
  return held;
}

size_t AnswerOutput::unread_bytes() const {
  return (front_is_exempt_ ? 0 : front_.size() - written_) + tail_.size();
}

void AnswerOutput::clear() {
  std::string().swap(front_);
  std::string().swap(tail_);
  sources_.clear();
  written_ = 0;
}

void AnswerOutput::shrink(size_t bytes) {
  for (std::string* buffer : {&front_, &tail_}) {
    if (buffer->capacity() <= bytes) continue;
    SERVAL_DCHECK(empty());
    std::string().swap(*buffer);
  }
  if (front_.empty()) written_ = 0;
}

}  // namespace serval
