#include "server/service/prompt_builder.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <chrono>
#include <limits>
#include <string>

#include "engine/text/message/call_format.h"

namespace serval {
namespace {

namespace json = boost::json;

// What the server says to a template; a client's variable of that name would speak in its place.
constexpr std::array kServersVariables = {
    "messages",  "tools",         "documents",       "add_generation_prompt", "bos_token",
    "eos_token", "chat_template", "raise_exception", "strftime_now"};
// Behind the last text, so that it is found again in what a template made of it. The same as the reference's,
// because a template may trim its end, or look at it.
constexpr std::string_view kContinueTag = "CONTINUE_FINAL_MESSAGE_TAG ";

Result<void> add_template_variables(const TemplateFields& variables, json::object& context) {
  for (const auto& [name, value] : variables) {
    if (std::find(kServersVariables.begin(), kServersVariables.end(), name) != kServersVariables.end()) {
      return invalid("chat_template_kwargs", "not_allowed",
                     "chat_template_kwargs has a name that is not allowed: " + name + ".");
    }
    context[name] = template_value(value);
  }
  return {};
}

std::string_view without_white_space(std::string_view text, bool at_begin) {
  constexpr std::string_view kWhiteSpace = " \t\n\v\f\r";
  const size_t end = text.find_last_not_of(kWhiteSpace);
  if (end == std::string_view::npos) return {};
  text = text.substr(0, end + 1);
  return at_begin ? text.substr(text.find_first_not_of(kWhiteSpace)) : text;
}

// Ends `rendered` within the last message, where the tag stands.
Result<void> cut_at_tag(std::string_view message, std::string& rendered) {
  const std::string_view tag = without_white_space(kContinueTag, true);
  const size_t at = rendered.rfind(tag);
  if (at == std::string::npos || rendered.find(without_white_space(message, true)) == std::string::npos) {
    return invalid(
        "continue_final_message", "invalid_value",
        "continue_final_message is set, but the chat template leaves parts of the last message out.");
  }
  const bool keeps_space = std::string_view(rendered).substr(at).starts_with(kContinueTag);
  rendered.resize(at);
  if (!keeps_space) rendered.resize(without_white_space(rendered, false).size());
  return {};
}

// Last of all, whatever made the ids: one that the model has no row for would read another's memory.
Result<void> check_ids(const std::vector<TokenId>& ids, int vocab_size, const std::string& param) {
  const auto beyond =
      std::find_if(ids.begin(), ids.end(), [&](TokenId id) { return id < 0 || id >= vocab_size; });
  if (beyond == ids.end()) return {};
  return invalid(param, "invalid_prompt",
                 param + " has a text that becomes token id " + std::to_string(*beyond) +
                     "; this model's ids are 0 to " + std::to_string(vocab_size - 1) + ".");
}

// How many the client wants to be kept at most, where that is a number to go by.
size_t most_tokens(const GenerateRequest& request, const ServiceLimits& limits) {
  if (!request.truncate_prompt_tokens) return std::numeric_limits<size_t>::max();
  const int64_t wanted = *request.truncate_prompt_tokens;
  const int64_t room = limits.max_model_len - (request.pool ? 0 : 1);  // for a token of output
  return static_cast<size_t>(wanted < 0 ? room : wanted);
}

// Keeps as many tokens as the client wants, of whatever was longer: of the first and last `kept` ones all.
Result<void> truncate(const GenerateRequest& request, const ServiceLimits& limits, std::pair<size_t, size_t> kept, std::vector<TokenId>& ids) {
  if (!request.truncate_prompt_tokens) return {};
  const int64_t wanted = *request.truncate_prompt_tokens;
  if (wanted < -1 || wanted == 0 || wanted > limits.max_model_len) {
    return invalid("truncate_prompt_tokens", "value_out_of_range",
                   "truncate_prompt_tokens is " + std::to_string(wanted) + "; it must be -1, or between 1 and " +
                       std::to_string(limits.max_model_len) + ".");
  }
  const size_t most = most_tokens(request, limits);
  if (ids.size() <= most) return {};
  const size_t gone = ids.size() - most;
  if (kept.first + kept.second > most) kept = {0, 0};
  const auto first = request.keeps_end ? ids.begin() + static_cast<std::ptrdiff_t>(kept.first)
                                       : ids.end() - static_cast<std::ptrdiff_t>(kept.second + gone);
  ids.erase(first, first + static_cast<std::ptrdiff_t>(gone));
  return {};
}

// The tools of a chat that may be called.
std::vector<CallableTool> tools_of(const Chat& chat) {
  std::vector<std::string> texts;
  for (const JsonText& tool : chat.tools) texts.push_back(tool.text);
  std::vector<CallableTool> tools = callable_tools(texts);
  if (!chat.tool_to_call.empty()) std::erase_if(tools, [&](const CallableTool& tool) { return tool.name != chat.tool_to_call; });
  return tools;
}

std::string token_name(const Tokenizer& tokenizer, TokenId id) {
  return id < 0 ? std::string() : std::string(tokenizer.token_bytes(id));
}

}  // namespace

PromptBuilder::PromptBuilder(std::shared_ptr<const Tokenizer> tokenizer, ChatTemplates chat_templates,
                             ServiceLimits limits, PromptSettings settings)
    : tokenizer_(std::move(tokenizer)),
      limits_(limits),
      settings_(std::move(settings)),
      name_breaker_(settings_.special_tokens_in_content == "text" ? tokenizer_->special_names()
                                                                  : std::vector<std::string>()) {
  for (auto& [name, chat_template] : chat_templates) {
    const ToolCallStyle style = find_tool_call_style(chat_template);
    const MessageFormat* const format = settings_.tool_call_format == "auto" ? find_message_format(chat_template.source())
                                                                              : message_format_named(settings_.tool_call_format);
    const ReasoningMarks reasoning = reasoning_marks(format, chat_template.source());
    templates_.emplace(name, Template{std::move(chat_template), style, format, reasoning, mark_tokens(format, reasoning)});
  }
}

std::vector<TokenId> PromptBuilder::mark_tokens(const MessageFormat* format, const ReasoningMarks& reasoning) const {
  std::vector<TokenId> tokens;
  const std::vector<std::string> names = tokenizer_->special_names();
  for (const std::string_view mark : all_marks(format, reasoning)) {
    for (const std::string& name : names) {
      // A mark may be several, and one may be a mark with a line break behind it.
      if (name.empty() || mark.find(name) == std::string_view::npos) continue;
      if (const TokenId id = tokenizer_->token_to_id(name); id >= 0) tokens.push_back(id);
    }
  }
  std::ranges::sort(tokens);
  tokens.erase(std::ranges::unique(tokens).begin(), tokens.end());
  return tokens;
}

// Reasoning, unless the prompt has closed it. Channels are not free text.
FreeText PromptBuilder::free_text(const Template& chosen, std::string_view prompt) const {
  const ReasoningMarks& marks = chosen.reasoning;
  const bool is_harmony = chosen.format != nullptr && chosen.format->is_harmony;
  if (is_harmony || without_white_space(prompt, false).ends_with(marks.end)) return {};
  return {std::string(marks.begin), std::string(marks.end), !opened_reasoning(marks, prompt).empty()};
}

// Null where the model's text is all there is to say.
std::shared_ptr<AnswerReading> PromptBuilder::reading_of(const Chat& chat, const Template& chosen, std::string_view prompt,
                                                         const FreeText* before_form) const {
  const bool has_tools = !chat.tools.empty() && chosen.format != nullptr;
  // What looks like a part is text of the form, behind reasoning if there may be any.
  if (before_form && before_form->end.empty()) return nullptr;
  const bool has_marks = !before_form && chosen.format != nullptr && (chosen.format->is_harmony || !chosen.format->silent.empty());
  if (!chat.in_parts || (!has_tools && !has_marks && chosen.reasoning.end.empty())) return nullptr;
  auto reading = std::make_shared<AnswerReading>();
  MessageRules& rules = reading->rules;
  if (!before_form) rules.format = chosen.format;
  rules.reasoning = chosen.reasoning;
  rules.opened_reasoning = std::string(opened_reasoning(chosen.reasoning, prompt));
  rules.splits_reasoning = chat.splits_reasoning;
  rules.has_tools = has_tools;
  rules.only_one_call = chat.only_one_call;
  if (has_tools) {
    std::vector<std::string> tools;
    for (const JsonText& tool : chat.tools) tools.push_back(tool.text);
    rules.text_arguments = std::make_shared<TextArguments>(text_arguments(tools));
  }
  reading->shown_special = chosen.mark_tokens;
  return reading;
}

Result<std::vector<PromptInfo>> PromptBuilder::build(GenerateRequest& request,
                                                     const PromptRules& rules) const {
  std::vector<PromptInfo> prompts;
  if (request.chat) {
    const bool is_tag = request.format && request.format->kind == OutputFormat::Kind::kStructuralTag;
    if (request.format && !is_tag && !request.chat->must_call && !request.chat->tools.empty())
      return invalid("tools", "conflicting_parameters",
                     "tools cannot be combined with " + request.format->param +
                         " here: a form holds the whole output. Leave one out, or set tool_choice to \"none\".");
    Result<PromptInfo> prompt = build_chat(request, rules);
    if (!prompt) return prompt.error();
    prompts.push_back(std::move(*prompt));
    return prompts;
  }
  const int most = request.pool ? limits_.max_inputs : limits_.max_prompts;
  if (request.prompts.empty() || request.prompts.size() > static_cast<size_t>(most)) {
    const std::string& param = request.prompt_param;
    return invalid(param, "invalid_prompt",
                   param + " has " + std::to_string(request.prompts.size()) + " prompts; it must have 1 to " +
                       std::to_string(most) + ".");
  }
  for (PromptInput& input : request.prompts) {
    Result<PromptInfo> prompt = build_completion(input, request, rules);
    if (!prompt) return prompt.error();
    prompts.push_back(std::move(*prompt));
  }
  return prompts;
}

Result<void> PromptBuilder::check_fit(size_t least_tokens, const std::string& param) const {
  if (least_tokens <= static_cast<size_t>(limits_.max_model_len)) return {};
  return context_overflow(param, limits_.max_model_len, param, static_cast<int64_t>(least_tokens), 1,
                          /*at_least=*/true);
}

Result<const PromptBuilder::Template*> PromptBuilder::choose_template(const Chat& chat) const {
  if (templates_.empty())
    return invalid("messages", "no_chat_template", "This model has no chat template; use /v1/completions.");
  const auto find = [&](std::string_view name) {
    const auto it = templates_.find(name);
    return it == templates_.end() ? nullptr : &it->second;
  };
  if (!chat.template_name.empty()) {
    if (const Template* named = find(chat.template_name)) return named;
    return invalid("chat_template", "not_allowed",
                   "chat_template is not accepted from clients, but for the name of one of the model's.");
  }
  const Template* with_tools = chat.tools.empty() ? nullptr : find(kToolTemplate);
  return with_tools ? with_tools : find(kDefaultTemplate);
}

Result<json::object> PromptBuilder::template_context(const Chat& chat, const Template& chosen) const {
  Result<json::array> messages =
      template_messages(chat.messages, limits_.max_messages, chosen.tool_call_style);
  if (!messages) return messages.error();
  json::object context;
  if (Result<void> added = add_template_variables(chat.template_variables, context); !added)
    return added.error();
  context["messages"] = std::move(*messages);
  context["tools"] = template_list(chat.tools);
  context["documents"] = template_list(chat.documents);
  return context;
}

Result<void> PromptBuilder::force_call(const Chat& chat, const Template& chosen, GenerateRequest& request, std::string& prompt,
                                       AnswerReading& reading) const {
  if (request.format)
    return invalid("tool_choice", "invalid_value", "tool_choice makes the answer a call; it and another form of output exclude each other.");
  std::vector<CallableTool> tools = tools_of(chat);
  if (tools.empty()) return invalid("tool_choice", "invalid_value", "tool_choice names a function that is none of tools.");
  for (CallableTool& tool : tools) tool.is_strict = true;
  // Whoever must call has thought enough.
  if (!reading.rules.opened_reasoning.empty()) reading.begun = std::string(chosen.reasoning.end) + "\n\n";
  if (std::optional<ForcedCall> call = forced_call(*chosen.format, tools)) {
    request.format = OutputFormat{.kind = OutputFormat::Kind::kStructuralTag, .text = json::serialize(call->rest), .param = "tools", .marks = chosen.mark_tokens};
    reading.begun += call->begun;
  } else {
    const std::string_view mark = json_call_mark(*chosen.format);
    request.format = OutputFormat{.kind = OutputFormat::Kind::kJsonSchema, .text = json::serialize(call_schema(*chosen.format, tools)), .param = "tools"};
    ((reading.begun += mark) += mark.ends_with('>') ? "\n" : "");
  }
  prompt += reading.begun;
  return {};
}

// Where a tool is strict, calls that the model makes by itself are held to the tools; nothing for others.
std::optional<OutputFormat> PromptBuilder::strict_calls(const Chat& chat, const Template& chosen) const {
  if (!chat.in_parts || chat.tools.empty() || chat.must_call) return std::nullopt;
  const std::vector<CallableTool> tools = tools_of(chat);
  if (std::ranges::none_of(tools, &CallableTool::is_strict)) return std::nullopt;
  return OutputFormat{.kind = OutputFormat::Kind::kStructuralTag, .text = json::serialize(answer_with_calls(*chosen.format, tools, chat.only_one_call)), .param = "tools", .marks = chosen.mark_tokens};
}

Result<PromptInfo> PromptBuilder::build_chat(GenerateRequest& request, const PromptRules& rules) const {
  const Chat& chat = *request.chat;
  const Result<const Template*> chosen = choose_template(chat);
  if (!chosen) return chosen.error();
  if (chat.in_parts && !chat.tools.empty() && (*chosen)->format == nullptr) {
    return invalid("tools", "not_supported",
                   "tools: this model's chat template has no calls of tools that this server knows; leave them out, or set tool_choice to "
                   "\"none\" for an answer in text.");
  }
  Result<json::object> context = template_context(chat, **chosen);
  if (!context) return context.error();
  const Result<std::string> breaker = name_breaker_.break_names(*context);
  if (!breaker) return breaker.error();
  (*context)["add_generation_prompt"] = chat.add_generation_prompt;
  (*context)["bos_token"] = token_name(*tokenizer_, tokenizer_->bos_id());
  (*context)["eos_token"] = token_name(*tokenizer_, tokenizer_->eos_id());
  std::string last_message;
  if (chat.continue_final_message) {
    json::value& content = (*context)["messages"].as_array().back().as_object()["content"];
    if (!content.is_string()) {
      return invalid("continue_final_message", "invalid_value",
                     "continue_final_message is set, but the last message has no content to go on with.");
    }
    last_message = content.get_string();
    content.get_string() += kContinueTag;
  }

  const int64_t now = settings_.template_time.value_or(
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
          .count());
  Result<std::string> text = (*chosen)->chat_template.render(*context, now);
  if (!text) {
    Error error = text.error();
    error.param = "messages";
    if (!breaker->empty()) error.message = without(error.message, *breaker);
    return error;
  }
  if (chat.continue_final_message) {
    if (Result<void> cut = cut_at_tag(last_message, *text); !cut) return cut.error();
  }
  PromptInfo prompt;
  // A structural tag leaves calls what they are, and may speak of reasoning itself.
  const bool is_tag = request.format && request.format->kind == OutputFormat::Kind::kStructuralTag;
  const bool is_form = request.format.has_value() && !chat.must_call;
  if (!request.format) request.format = strict_calls(chat, **chosen);
  const std::string_view thought = (*chosen)->reasoning.end;
  const bool names_reasoning = is_tag && !thought.empty() && request.format->text.find(thought) != std::string::npos;
  if (request.format && !chat.must_call && !names_reasoning) prompt.before_form = free_text(**chosen, *text);
  const std::shared_ptr<AnswerReading> reading = reading_of(chat, **chosen, *text, is_form && !is_tag ? &prompt.before_form : nullptr);
  if (chat.must_call) {
    if (Result<void> forced = force_call(chat, **chosen, request, *text, *reading); !forced) return forced.error();
  }
  std::string plain = breaker->empty() ? std::string() : without(*text, *breaker);
  const std::string& shown = breaker->empty() ? *text : plain;
  if (rules.must_fit && !request.truncate_prompt_tokens) {
    if (Result<void> fits = check_fit(tokenizer_->least_tokens(shown), "messages"); !fits)
      return fits.error();
  }
  prompt.reading = reading;
  prompt.token_ids = tokenizer_->encode(*text, /*add_special=*/false, /*parse_special=*/true, *breaker);
  if (Result<void> cut = truncate(request, limits_, {0, 0}, prompt.token_ids); !cut) return cut.error();
  if (rules.with_text) prompt.text = shown;
  if (prompt.token_ids.empty() && !rules.may_be_empty)
    return invalid("messages", "empty_prompt", "The rendered chat has no tokens.");
  if (Result<void> fits = check_ids(prompt.token_ids, limits_.vocab_size, "messages"); !fits)
    return fits.error();
  return prompt;
}

Result<PromptInfo> PromptBuilder::build_completion(PromptInput& input, const GenerateRequest& request,
                                                   const PromptRules& rules) const {
  PromptInfo prompt;
  const std::string& param = request.prompt_param;
  const bool must_fit = rules.must_fit && !request.truncate_prompt_tokens;
  std::pair<size_t, size_t> kept = {0, 0};
  if (auto* text = std::get_if<std::string>(&input)) {
    if (must_fit) {
      if (Result<void> fits = check_fit(tokenizer_->least_tokens(*text), param); !fits)
        return fits.error();
    }
    prompt.token_ids = tokenizer_->encode(*text, request.add_special_tokens);
    // What a tokenizer puts around an encoder's text stays there.
    if (request.add_special_tokens && limits_.pooling.pair == PoolingInfo::Pair::kTwoTexts) kept = tokenizer_->num_around();
    if (Result<void> filled = fill_in(request, prompt.token_ids); !filled) return filled.error();
    if (rules.with_text) prompt.text = std::move(*text);
  } else if (const auto* texts = std::get_if<std::pair<std::string, std::string>>(&input)) {
    if (must_fit) {
      if (Result<void> fits = check_fit(tokenizer_->least_tokens(texts->first) + tokenizer_->least_tokens(texts->second), param); !fits)
        return fits.error();
    }
    TextPair both = tokenizer_->encode_pair(texts->first, texts->second, most_tokens(request, limits_));
    prompt.token_ids = std::move(both.ids);
    prompt.second_text = static_cast<int>(both.second);
  } else {
    std::vector<TokenId>& ids = std::get<std::vector<TokenId>>(input);
    if (request.suffix) return invalid("suffix", "conflicting_parameters", "suffix stands behind a text: give the prompt as one.");
    if (must_fit) {
      if (Result<void> fits = check_fit(ids.size(), param); !fits) return fits.error();
    }
    for (const TokenId id : ids) {
      if (id >= 0 && id < limits_.vocab_size) continue;
      Error error = no_such_token(param, id, limits_.vocab_size);
      if (request.pool)
        error.message += " Ids of another model's tokenizer fit no other: send texts (LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False).";
      return error;
    }
    prompt.token_ids = std::move(ids);
    if (rules.with_text) prompt.text = tokenizer_->decode(prompt.token_ids, /*skip_special=*/false);
  }
  if (Result<void> cut = truncate(request, limits_, kept, prompt.token_ids); !cut) return cut.error();
  if (prompt.token_ids.empty() && !rules.may_be_empty) {
    if (tokenizer_->bos_id() < 0)
      return invalid(param, "empty_prompt",
                     param + " has no tokens, and this model has no BOS to start from.");
    prompt.token_ids.push_back(tokenizer_->bos_id());
  }
  if (Result<void> fits = check_ids(prompt.token_ids, limits_.vocab_size, param); !fits)
    return fits.error();
  return prompt;
}

void PromptBuilder::add_spellings(std::string_view word, std::vector<std::vector<TokenId>>& out) const {
  const size_t first = word.find_first_not_of(' ');
  const std::string text(word.substr(first == word.npos ? 0 : first));
  std::vector<TokenId> bare = tokens_of(text), behind = tokens_of(" " + text);
  if (bare.empty()) return;
  if (behind.size() == bare.size() && behind.front() != bare.front()) out.push_back(std::move(behind));
  out.push_back(std::move(bare));
}

namespace {

// The marks of families that fill in, by the names of tokens.
struct FillMarks {
  std::string_view prefix, suffix, middle;
  bool suffix_first = false;
};
constexpr FillMarks kFillMarks[] = {
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},      // Qwen2.5-Coder, CodeGemma
    {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},            // StarCoder, Granite
    {"<fim-prefix>", "<fim-suffix>", "<fim-middle>"},            // SantaCoder
    {"<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"},   // CodeGeeX 4
    {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"},      // DeepSeek-Coder
    {"[PREFIX]", "[SUFFIX]", "", true},                          // Codestral
};

// Null where the model has none.
const FillMarks* find_fill_marks(const Tokenizer& tokenizer) {
  const auto has = [&](std::string_view name) { return name.empty() || tokenizer.token_to_id(name) >= 0; };
  for (const FillMarks& row : kFillMarks)
    if (has(row.prefix) && has(row.suffix) && has(row.middle)) return &row;
  return nullptr;
}

}  // namespace

ModelDescription PromptBuilder::description() const {
  ModelDescription about;
  about.bos_token = token_name(*tokenizer_, tokenizer_->bos_id());
  about.eos_token = token_name(*tokenizer_, tokenizer_->eos_id());
  about.special_tokens = tokenizer_->special_names();
  std::ranges::sort(about.special_tokens);
  about.vocab_size = limits_.vocab_size;
  about.fills_in = find_fill_marks(*tokenizer_) != nullptr;
  const auto usual = templates_.find(kDefaultTemplate);
  if (usual == templates_.end()) return about;
  about.chat_template = usual->second.chat_template.source();
  about.calls_tools = usual->second.format != nullptr;
  about.thinks = !usual->second.reasoning.end.empty();
  return about;
}

Result<void> PromptBuilder::fill_in(const GenerateRequest& request, std::vector<TokenId>& ids) const {
  if (!request.suffix) return {};
  const FillMarks* const marks = find_fill_marks(*tokenizer_);
  if (marks == nullptr)
    return invalid("suffix", "not_supported", "suffix: this model has no tokens for filling in between two texts.");
  std::vector<TokenId> beginning;  // what stands before every text
  if (!ids.empty() && ids.front() == tokenizer_->bos_id()) {
    beginning.push_back(ids.front());
    ids.erase(ids.begin());
  }
  const std::vector<TokenId> behind = tokenizer_->encode(*request.suffix, /*add_special=*/false, /*parse_special=*/false);
  std::vector<TokenId> all = std::move(beginning);
  const auto add = [&](std::string_view mark, const std::vector<TokenId>& tokens) {
    if (!mark.empty()) all.push_back(tokenizer_->token_to_id(mark));
    all.insert(all.end(), tokens.begin(), tokens.end());
  };
  if (!marks->suffix_first) add(marks->prefix, ids);
  add(marks->suffix, behind);
  if (marks->suffix_first) add(marks->prefix, ids);
  add(marks->middle, {});
  ids = std::move(all);
  return {};
}

std::vector<TokenId> PromptBuilder::tokens_of(std::string_view text) const {
  constexpr size_t kBytesPerToken = 64;  // few are longer
  text = text.substr(0, kBytesPerToken * limits_.max_model_len);
  std::vector<TokenId> ids = tokenizer_->encode(text, /*add_special=*/false, /*parse_special=*/false);
  // Nothing behind what the model has no row for.
  const auto beyond = std::ranges::find_if(ids, [&](TokenId id) { return id < 0 || id >= limits_.vocab_size; });
  ids.erase(beyond, ids.end());
  if (std::ssize(ids) > limits_.max_model_len) ids.resize(limits_.max_model_len);
  return ids;
}

}  // namespace serval
