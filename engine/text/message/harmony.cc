// gpt-oss: [<|start|>ROLE] HEADER <|message|> BODY, where the header has "<|channel|>NAME" and perhaps "to=RECIPIENT", and the body ends
// with <|end|>, <|call|> or <|return|>. The prompt ends behind a role.
#include <string>

#include "engine/text/message/message_reader.h"

namespace serval {
namespace {

constexpr std::string_view kChannel = "<|channel|>", kMessage = "<|message|>", kStart = "<|start|>", kTo = "to=",
                           kFunctions = "functions.", kAnalysis = "analysis";

// What stands behind the last `mark`, up to a space or another mark.
std::string_view word_behind(std::string_view header, std::string_view mark) {
  const size_t at = header.rfind(mark);
  if (at == std::string_view::npos) return {};
  header.remove_prefix(at + mark.size());
  return header.substr(0, header.find_first_of(" <\n"));
}

}  // namespace

Task<bool> MessageParser::Reader::read_harmony() {
  for (;;) {
    in_.forget();
    if (co_await in_.peek() == ByteStream::kEnd) break;
    std::string header;
    if (!co_await read_name(kMessage, header)) {
      // No message at all is a text like any other.
      const bool is_header = header.find(kChannel) != std::string::npos || header.find(kStart) != std::string::npos;
      if (!is_header) {
        for (const char byte : header) emit_text(PartKind::kContent, byte);
        while (co_await in_.peek() != ByteStream::kEnd) {
          emit_text(PartKind::kContent, static_cast<char>(co_await in_.peek()));
          in_.take();
        }
      }
      break;
    }
    const std::string recipient(word_behind(header, kTo));
    const bool is_analysis = word_behind(header, kChannel) == kAnalysis;
    if (recipient.starts_with(kFunctions) && rules.has_tools) {
      begin_call(recipient.substr(kFunctions.size()));
      co_await read_harmony_body(PartKind::kArguments, false);
      while (rules.only_one_call && co_await in_.peek() != ByteStream::kEnd) in_.take();
    } else if (!recipient.empty() && recipient != "assistant") {
      co_await read_harmony_body(PartKind::kContent, true);
    } else if (is_analysis && rules.splits_reasoning) {
      co_await read_harmony_body(PartKind::kReasoning, false);
    } else {
      // Reasoning that stays in the text keeps its marks.
      if (is_analysis) emit(PartKind::kContent, header + std::string(kMessage));
      co_await read_harmony_body(PartKind::kContent, false);
      if (is_analysis) emit(PartKind::kContent, "<|end|>");
    }
  }
  if (!after_block_) emit(PartKind::kContent, space_);
  co_return true;
}

Task<bool> MessageParser::Reader::read_harmony_body(PartKind kind, bool is_dropped) {
  after_block_ = kind != PartKind::kContent;
  for (;;) {
    in_.forget();
    const int byte = co_await in_.peek();
    if (byte == ByteStream::kEnd) break;
    if (byte == '<' && (co_await accept("<|end|>") || co_await accept("<|call|>") || co_await accept("<|return|>"))) break;
    in_.take();
    if (is_dropped) continue;
    const char taken = static_cast<char>(byte);
    if (kind == PartKind::kArguments) {
      emit(kind, std::string_view(&taken, 1));
    } else {
      emit_text(kind, taken);
    }
  }
  if (kind != PartKind::kContent) drop_space();
  co_return true;
}

}  // namespace serval
