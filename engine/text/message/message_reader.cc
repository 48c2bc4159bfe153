#include "engine/text/message/message_reader.h"

#include <span>
#include <utility>

namespace serval {

namespace {
// A name, an id or a key is no longer; what is longer is text.
constexpr size_t kMaxNameBytes = 512;
}  // namespace

MessageParser::MessageParser(MessageRules rules) : reader_(std::make_unique<Reader>(std::move(rules))) {}
MessageParser::~MessageParser() = default;
MessageParser::MessageParser(MessageParser&&) noexcept = default;
MessageParser& MessageParser::operator=(MessageParser&&) noexcept = default;

void MessageParser::push(std::string_view text, std::vector<MessagePart>& out) {
  reader_->push(text, out);
}
void MessageParser::finish(std::vector<MessagePart>& out) {
  reader_->finish(out);
}

void MessageParser::Reader::begin() {
  all_.start();
}

void MessageParser::Reader::push(std::string_view text, std::vector<MessagePart>& out) {
  out_ = &out;
  in_.push(text);
  all_.rethrow();
}

void MessageParser::Reader::finish(std::vector<MessagePart>& out) {
  out_ = &out;
  in_.end();
  all_.rethrow();
}

void MessageParser::Reader::emit(PartKind kind, std::string_view text) {
  if (text.empty()) return;
  if (out_->empty() || out_->back().kind != kind) out_->push_back({kind, {}, {}});
  out_->back().text += text;
}

void MessageParser::Reader::emit_text(PartKind kind, char byte) {
  if (is_space(byte)) {
    space_ += byte;
    return;
  }
  if (!std::exchange(after_block_, false)) emit(kind, space_);
  space_.clear();
  if (kind == PartKind::kContent) is_first_ = false;
  emit(kind, std::string_view(&byte, 1));
}

void MessageParser::Reader::drop_space() {
  space_.clear();
  after_block_ = true;
}

void MessageParser::Reader::begin_call(std::string name, std::string id) {
  drop_space();
  has_begun_ = true;
  out_->push_back({PartKind::kCall, std::move(name), std::move(id)});
}

// At the first byte that differs nothing was taken.
Task<bool> MessageParser::Reader::accept(std::string_view mark) {
  const size_t place = in_.place();
  for (const char expected : mark) {
    if (co_await in_.peek() != static_cast<unsigned char>(expected)) {
      in_.go_back(place);
      co_return false;
    }
    in_.take();
  }
  co_return true;
}

// False: the text ends.
Task<bool> MessageParser::Reader::skip_space() {
  for (;;) {
    const int byte = co_await in_.peek();
    if (!is_space(byte)) co_return byte != ByteStream::kEnd;
    in_.take();
  }
}

Task<bool> MessageParser::Reader::read_name(std::string_view end, std::string& name) {
  name.clear();
  while (name.size() < kMaxNameBytes) {
    const int byte = co_await in_.peek();
    if (byte == ByteStream::kEnd) co_return false;
    if (byte == static_cast<unsigned char>(end.front()) && co_await accept(end)) co_return true;
    name += static_cast<char>(byte);
    in_.take();
  }
  co_return false;
}

Task<bool> MessageParser::Reader::read() {
  if (rules.format != nullptr && rules.format->is_harmony) co_return co_await read_harmony();
  if (!rules.opened_reasoning.empty()) {
    co_await read_reasoning(rules.opened_reasoning);
  } else if (!rules.reasoning.begin.empty()) {
    co_await skip_space();
    const size_t text = in_.place();
    const bool reasons = co_await accept(rules.reasoning.begin);
    if (!reasons) in_.go_back(0);
    if (reasons) co_await read_reasoning(in_.since(text));
  }
  co_return co_await read_content();
}

// `before`: what it began with. The marks are not part of it, unless it stays in the text.
Task<bool> MessageParser::Reader::read_reasoning(std::string_view before) {
  const PartKind kind = rules.splits_reasoning ? PartKind::kReasoning : PartKind::kContent;
  const std::string opening(before);
  co_await in_.peek();  // nobody takes parts before the first text
  if (kind == PartKind::kContent) {
    for (const char byte : opening) emit_text(kind, byte);
  } else {
    after_block_ = true;
  }
  for (;;) {
    in_.forget();
    const int byte = co_await in_.peek();
    if (byte == ByteStream::kEnd) {
      if (!after_block_) emit(kind, space_);
      drop_space();
      co_return true;
    }
    if (byte == static_cast<unsigned char>(rules.reasoning.end.front()) && co_await accept(rules.reasoning.end)) break;
    emit_text(kind, static_cast<char>(byte));
    in_.take();
  }
  if (kind == PartKind::kContent) {
    for (const char byte : rules.reasoning.end) emit_text(kind, byte);
  } else {
    drop_space();
  }
  co_return true;
}

Task<bool> MessageParser::Reader::read_content() {
  const std::span<const CallShape> calls =
      rules.format != nullptr && rules.has_tools ? rules.format->calls : std::span<const CallShape>();
  const std::span<const std::string_view> silent =
      rules.format != nullptr ? rules.format->silent : std::span<const std::string_view>();
  for (;;) {
    in_.forget();
    const int byte = co_await in_.peek();
    if (byte == ByteStream::kEnd) break;
    const size_t place = in_.place();
    bool was_mark = false;
    const auto may_be = [&](std::string_view mark) { return static_cast<unsigned char>(mark.front()) == byte; };
    for (size_t i = 0; i < silent.size() && !was_mark; ++i) was_mark = may_be(silent[i]) && co_await accept(silent[i]);
    for (size_t i = 0; i < calls.size() && !was_mark; ++i) {
      const CallShape& shape = calls[i];
      if (!may_be(shape.begin) || (shape.only_first && !is_first_) || !co_await accept(shape.begin)) continue;
      if (shape.only_first) in_.go_back(place);
      has_begun_ = false;
      was_mark = co_await read_call(shape);
      if (!was_mark) in_.go_back(place);
    }
    if (has_begun_ && rules.only_one_call) {
      while (co_await in_.peek() != ByteStream::kEnd) in_.take();
    }
    if (was_mark) continue;
    emit_text(PartKind::kContent, static_cast<char>(byte));
    in_.take();
  }
  if (!after_block_) emit(PartKind::kContent, space_);
  co_return true;
}

void append_json_byte(std::string& out, char byte) {
  constexpr char kHex[] = "0123456789abcdef";
  switch (byte) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\t':
      out += "\\t";
      return;
    case '\r':
      out += "\\r";
      return;
    default:
      break;
  }
  if (static_cast<unsigned char>(byte) >= 0x20) {
    out += byte;
    return;
  }
  out += "\\u00";
  out += kHex[static_cast<unsigned char>(byte) >> 4];
  out += kHex[static_cast<unsigned char>(byte) & 15];
}

}  // namespace serval
