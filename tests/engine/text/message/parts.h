// What a parser made of a text, joined, and in any cut.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/text/message/message_parser.h"

namespace serval {

struct ParsedCall {
  std::string name, arguments, id;
  bool operator==(const ParsedCall&) const = default;
};

struct Parsed {
  std::string reasoning, content;
  std::vector<ParsedCall> calls;
  bool operator==(const Parsed&) const = default;

  void add(const std::vector<MessagePart>& parts) {
    for (const MessagePart& part : parts) {
      if (part.kind == PartKind::kReasoning) reasoning += part.text;
      if (part.kind == PartKind::kContent) content += part.text;
      if (part.kind == PartKind::kCall) calls.push_back({part.text, {}, part.id});
      if (part.kind == PartKind::kArguments) calls.at(calls.size() - 1).arguments += part.text;
    }
  }
};

// In one piece, where `cuts` is empty; else cut before each of those bytes, with pieces of nothing between. Each piece's parts go out by themselves.
inline Parsed parse_message(const MessageRules& rules, std::string_view text, const std::vector<size_t>& cuts = {}) {
  Parsed parsed;
  MessageParser parser(rules);
  const auto push = [&](std::string_view piece) {
    std::vector<MessagePart> parts;
    parser.push(piece, parts);
    parsed.add(parts);
  };
  size_t begin = 0;
  push({});
  for (const size_t cut : cuts) {
    push(text.substr(begin, cut - begin));
    push({});
    begin = cut;
  }
  push(text.substr(begin));
  std::vector<MessagePart> parts;
  parser.finish(parts);
  parsed.add(parts);
  return parsed;
}

// The cut into single bytes, and each into two pieces.
inline std::vector<std::vector<size_t>> all_cuts(size_t size) {
  std::vector<std::vector<size_t>> result(1);
  for (size_t i = 1; i < size; ++i) {
    result[0].push_back(i);
    result.push_back({i});
  }
  return result;
}

}  // namespace serval
