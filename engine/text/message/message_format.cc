#include "engine/text/message/message_format.h"

#include <algorithm>
#include <array>

namespace serval {
namespace {

using std::string_view;

constexpr Tags kFunctionTags{"<function=", ">", "<parameter=", ">", "", "</parameter>", "</function>"};
constexpr Tags kInvokeTags{"<invoke name=\"", "\">", "<parameter name=\"", "\">", "", "</parameter>", "</invoke>"};
constexpr Tags kArgTags{"", "", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", ""};

constexpr CallShape kHermes{.begin = "<tool_call>", .end = "</tool_call>"};

constexpr string_view kHarmonySigns[] = {"<|channel|>", "<|message|>"};

constexpr string_view kCohereSigns[] = {"<|START_ACTION|>"};
constexpr CallShape kCohereCalls[] = {{.begin = "<|START_ACTION|>", .end = "<|END_ACTION|>"}};
constexpr string_view kCohereSilent[] = {"<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"};

constexpr string_view kSeedSigns[] = {"<seed:tool_call>"};
constexpr CallShape kSeedCalls[] = {
    {.begin = "<seed:tool_call>", .end = "</seed:tool_call>", .body = CallBody::kTags, .tags = &kFunctionTags}};

constexpr string_view kMiniMaxSigns[] = {"<minimax:tool_call>"};
constexpr CallShape kMiniMaxCalls[] = {
    {.begin = "<minimax:tool_call>", .end = "</minimax:tool_call>", .body = CallBody::kTags, .tags = &kInvokeTags}};

constexpr string_view kKimiSigns[] = {"<|tool_call_argument_begin|>"};
constexpr CallShape kKimiCalls[] = {{.begin = "<|tool_call_begin|>",
                                     .end = "<|tool_call_end|>",
                                     .body = CallBody::kNamed,
                                     .name_end = "<|tool_call_argument_begin|>"}};
constexpr string_view kKimiSilent[] = {"<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"};

constexpr string_view kDeepSeekSigns[] = {"<｜tool▁call▁begin｜>"};
constexpr CallShape kDeepSeekCalls[] = {{.begin = "<｜tool▁call▁begin｜>",
                                         .end = "<｜tool▁call▁end｜>",
                                         .body = CallBody::kNamed,
                                         .name_end = "<｜tool▁sep｜>"},
                                        kHermes};
constexpr string_view kDeepSeekSilent[] = {"<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"};

constexpr string_view kMistralSigns[] = {"[TOOL_CALLS]"};
constexpr CallShape kMistralCalls[] = {
    {.begin = "[TOOL_CALLS]", .end = "", .body = CallBody::kNamed, .name_end = "[ARGS]", .id_comes_last = true}};

constexpr string_view kGigaChatSigns[] = {"function call", "<|role_sep|>"};
constexpr CallShape kGigaChatCalls[] = {{.begin = "<|message_sep|>\n\nfunction call<|role_sep|>\n", .end = ""}};

constexpr string_view kLfm2Signs[] = {"<|tool_list_start|>"};
constexpr CallShape kLfm2Calls[] = {
    {.begin = "<|tool_call_start|>", .end = "<|tool_call_end|>", .body = CallBody::kPythonic}};

constexpr string_view kListSigns[] = {"<|tool_call|>"};
constexpr CallShape kListCalls[] = {{.begin = "<|tool_call|>", .end = "<|/tool_call|>"}};

constexpr string_view kNemotronSigns[] = {"<TOOLCALL>"};
constexpr CallShape kNemotronCalls[] = {{.begin = "<TOOLCALL>", .end = "</TOOLCALL>"}};

constexpr string_view kGlmSigns[] = {"<arg_key>"};
constexpr CallShape kGlmCalls[] = {{.begin = "<tool_call>", .end = "</tool_call>", .body = CallBody::kTags, .tags = &kArgTags}};

constexpr string_view kFunctionSigns[] = {"<tool_call>", "<function="};
constexpr CallShape kFunctionCalls[] = {
    {.begin = "<tool_call>", .end = "</tool_call>", .body = CallBody::kTags, .tags = &kFunctionTags},
    // Some answers leave the outer mark out.
    {.begin = "<function=", .end = "</tool_call>", .body = CallBody::kTags, .tags = &kFunctionTags}};

constexpr string_view kHermesSigns[] = {"<tool_call>"};
constexpr CallShape kHermesCalls[] = {kHermes};

constexpr string_view kFunctionarySigns[] = {"<function="};
constexpr CallShape kFunctionaryCalls[] = {
    {.begin = "<function=", .end = "</function>", .body = CallBody::kNamed, .name_end = ">"}};

// Llama 3 writes {"name": …, "parameters": …} where the answer begins, Llama 3.2 and 4 also [name(key=value)].
constexpr string_view kLlamaSigns[] = {"\"parameters\": ", "<|start_header_id|>"};
constexpr string_view kLlama4Signs[] = {"\"parameters\": ", "<|header_start|>"};
constexpr CallShape kLlamaCalls[] = {{.begin = "<|python_tag|>", .end = ""},
                                     {.begin = "{", .end = "", .only_first = true},
                                     {.begin = "[", .end = "", .body = CallBody::kPythonic, .only_first = true}};
constexpr string_view kLlamaSilent[] = {"<|python_start|>", "<|python_end|>"};

constexpr MessageFormat kFormats[] = {
    {.name = "harmony", .signs = kHarmonySigns, .calls = {}, .is_harmony = true},
    {.name = "cohere",
     .signs = kCohereSigns,
     .calls = kCohereCalls,
     .reasoning_begin = "<|START_THINKING|>",
     .reasoning_end = "<|END_THINKING|>",
     .silent = kCohereSilent,
     .name_key = "tool_name",
     .arguments_key = "parameters"},
    {.name = "seed",
     .signs = kSeedSigns,
     .calls = kSeedCalls,
     .reasoning_begin = "<seed:think>",
     .reasoning_end = "</seed:think>"},
    {.name = "minimax", .signs = kMiniMaxSigns, .calls = kMiniMaxCalls},
    {.name = "kimi", .signs = kKimiSigns, .calls = kKimiCalls, .silent = kKimiSilent},
    {.name = "deepseek", .signs = kDeepSeekSigns, .calls = kDeepSeekCalls, .silent = kDeepSeekSilent},
    {.name = "mistral", .signs = kMistralSigns, .calls = kMistralCalls, .has_short_ids = true},
    {.name = "gigachat", .signs = kGigaChatSigns, .calls = kGigaChatCalls},
    {.name = "lfm2", .signs = kLfm2Signs, .calls = kLfm2Calls, .reasoning_begin = "<think>", .reasoning_end = "</think>"},
    // Granite 3 and Phi-4.
    {.name = "list", .signs = kListSigns, .calls = kListCalls},
    {.name = "nemotron", .signs = kNemotronSigns, .calls = kNemotronCalls},
    {.name = "glm", .signs = kGlmSigns, .calls = kGlmCalls},
    // Qwen3-Coder, Qwen3.5, Nemotron 3.
    {.name = "qwen3_coder", .signs = kFunctionSigns, .calls = kFunctionCalls},
    // Hermes, Qwen2.5, Qwen3, Granite 4.
    {.name = "hermes", .signs = kHermesSigns, .calls = kHermesCalls},
    {.name = "functionary", .signs = kFunctionarySigns, .calls = kFunctionaryCalls},
    {.name = "llama", .signs = kLlamaSigns, .calls = kLlamaCalls, .arguments_key = "parameters"},
    {.name = "llama4", .signs = kLlama4Signs, .calls = kLlamaCalls, .silent = kLlamaSilent, .arguments_key = "parameters"},
};

constexpr ReasoningMarks kReasoning[] = {
    {"<think>", "</think>"},           {"<seed:think>", "</seed:think>"},  {"<|START_THINKING|>", "<|END_THINKING|>"},
    {"[THINK]", "[/THINK]"},           {"<|channel>thought", "<channel|>"}, {"<thinking>", "</thinking>"},
    {"<reasoning>", "</reasoning>"},
};

}  // namespace

std::span<const MessageFormat> message_formats() {
  return kFormats;
}

const MessageFormat* find_message_format(string_view template_source) {
  const auto is_there = [&](string_view sign) { return template_source.find(sign) != string_view::npos; };
  const auto* const found = std::ranges::find_if(
      kFormats, [&](const MessageFormat& format) { return std::ranges::all_of(format.signs, is_there); });
  return found == std::end(kFormats) ? nullptr : found;
}

const MessageFormat* message_format_named(string_view name) {
  const auto* const found = std::ranges::find(kFormats, name, &MessageFormat::name);
  return found == std::end(kFormats) ? nullptr : found;
}

ReasoningMarks reasoning_marks(const MessageFormat* format, string_view template_source) {
  if (format != nullptr && !format->reasoning_end.empty()) return {format->reasoning_begin, format->reasoning_end};
  for (const ReasoningMarks& marks : kReasoning) {
    if (template_source.find(marks.end) != string_view::npos) return marks;
  }
  return {};
}

std::vector<string_view> all_marks(const MessageFormat* format, const ReasoningMarks& reasoning) {
  constexpr string_view kHarmonyMarks[] = {"<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|call|>", "<|return|>", "<|constrain|>"};
  std::vector<string_view> marks{reasoning.begin, reasoning.end};
  if (format == nullptr) return marks;
  if (format->is_harmony) marks.insert(marks.end(), std::begin(kHarmonyMarks), std::end(kHarmonyMarks));
  marks.insert(marks.end(), format->silent.begin(), format->silent.end());
  for (const CallShape& shape : format->calls) {
    marks.insert(marks.end(), {shape.begin, shape.end, shape.name_end});
    if (const Tags* const tags = shape.tags) {
      marks.insert(marks.end(), {tags->call, tags->name_end, tags->argument, tags->key_end, tags->value, tags->argument_end, tags->call_end});
    }
  }
  if (format->name == "mistral") marks.push_back("[CALL_ID]");
  return marks;
}

string_view json_call_mark(const MessageFormat& format) {
  for (const CallShape& shape : format.calls) {
    if (shape.body != CallBody::kPythonic && !shape.only_first) return shape.begin;
  }
  return {};
}

string_view opened_reasoning(const ReasoningMarks& marks, string_view prompt) {
  const size_t at = marks.begin.empty() ? string_view::npos : prompt.rfind(marks.begin);
  if (at == string_view::npos) return {};
  const string_view tail = prompt.substr(at);
  return tail.find_first_not_of(" \n\t\r", marks.begin.size()) == string_view::npos ? tail : string_view();
}

}  // namespace serval
