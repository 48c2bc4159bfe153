#include "server/service/prompt_builder.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <chrono>
#include <string>

namespace serval {
namespace {

namespace json = boost::json;

// Variables a client may hand to the template: what published templates read. Anything else could shadow what
// the server sets.
constexpr std::array kTemplateVariables = {"enable_thinking",  "thinking",      "thinking_budget",
                                           "reasoning_effort", "date_string",   "preserve_thinking",
                                           "clear_thinking",   "model_identity"};

Result<void> add_template_variables(const TemplateFields& variables, json::object& context) {
  for (const auto& [name, value] : variables) {
    if (std::find(kTemplateVariables.begin(), kTemplateVariables.end(), name) == kTemplateVariables.end()) {
      return invalid("chat_template_kwargs", "not_allowed",
                     "chat_template_kwargs has a name that is not allowed: " + name.substr(0, 64) + ".");
    }
    context[name] = template_value(value);
  }
  return {};
}

// Last of all, whatever made the ids: one that the model has no row for would read another's memory.
Result<void> check_ids(const std::vector<TokenId>& ids, int vocab_size, const char* param) {
  const auto beyond =
      std::find_if(ids.begin(), ids.end(), [&](TokenId id) { return id < 0 || id >= vocab_size; });
  if (beyond == ids.end()) return {};
  return invalid(param, "invalid_prompt",
                 std::string(param) + " has a text that becomes token id " + std::to_string(*beyond) +
                     "; this model's ids are 0 to " + std::to_string(vocab_size - 1) + ".");
}

std::string token_name(const Tokenizer& tokenizer, TokenId id) {
  return id < 0 ? std::string() : std::string(tokenizer.token_bytes(id));
}

}  // namespace

PromptBuilder::PromptBuilder(std::shared_ptr<const Tokenizer> tokenizer,
                             std::optional<ChatTemplate> chat_template, ServiceLimits limits,
                             std::optional<int64_t> fixed_time)
    : tokenizer_(std::move(tokenizer)),
      chat_template_(std::move(chat_template)),
      limits_(limits),
      fixed_time_(fixed_time) {
  if (chat_template_) tool_call_style_ = find_tool_call_style(*chat_template_);
}

Result<std::vector<PromptInfo>> PromptBuilder::build(GenerateRequest& request,
                                                     const PromptRules& rules) const {
  std::vector<PromptInfo> prompts;
  if (request.chat) {
    Result<PromptInfo> prompt = build_chat(*request.chat, rules);
    if (!prompt) return prompt.error();
    prompts.push_back(std::move(*prompt));
    return prompts;
  }
  if (request.prompts.empty() || request.prompts.size() > static_cast<size_t>(limits_.max_prompts)) {
    return invalid("prompt", "invalid_prompt",
                   "prompt has " + std::to_string(request.prompts.size()) + " prompts; it must have 1 to " +
                       std::to_string(limits_.max_prompts) + ".");
  }
  for (PromptInput& input : request.prompts) {
    Result<PromptInfo> prompt = build_completion(input, request.add_special_tokens, rules);
    if (!prompt) return prompt.error();
    prompts.push_back(std::move(*prompt));
  }
  return prompts;
}

Result<void> PromptBuilder::check_fit(size_t least_tokens, const char* param) const {
  if (least_tokens <= static_cast<size_t>(limits_.max_model_len)) return {};
  return context_overflow(param, limits_.max_model_len, param, static_cast<int64_t>(least_tokens), 1, /*at_least=*/true);
}

Result<PromptInfo> PromptBuilder::build_chat(const Chat& chat, const PromptRules& rules) const {
  if (!chat_template_) {
    return invalid("messages", "no_chat_template", "This model has no chat template; use /v1/completions.");
  }
  Result<json::array> messages = template_messages(chat.messages, limits_.max_messages, tool_call_style_);
  if (!messages) return messages.error();
  json::object context;
  if (Result<void> added = add_template_variables(chat.template_variables, context); !added)
    return added.error();
  context["messages"] = std::move(*messages);
  context["tools"] = nullptr;
  context["documents"] = nullptr;
  context["add_generation_prompt"] = chat.add_generation_prompt;
  context["bos_token"] = token_name(*tokenizer_, tokenizer_->bos_id());
  context["eos_token"] = token_name(*tokenizer_, tokenizer_->eos_id());

  const int64_t now = fixed_time_.value_or(
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
          .count());
  Result<std::string> text = chat_template_->render(context, now);
  if (!text) {
    Error error = text.error();
    error.param = "messages";
    return error;
  }
  if (rules.must_fit) {
    if (Result<void> fits = check_fit(tokenizer_->least_tokens(*text), "messages"); !fits)
      return fits.error();
  }
  PromptInfo prompt;
  prompt.token_ids = tokenizer_->encode(*text, /*add_special=*/false);
  if (rules.with_text) prompt.text = std::move(*text);
  if (prompt.token_ids.empty() && !rules.may_be_empty)
    return invalid("messages", "empty_prompt", "The rendered chat has no tokens.");
  if (Result<void> fits = check_ids(prompt.token_ids, limits_.vocab_size, "messages"); !fits)
    return fits.error();
  return prompt;
}

Result<PromptInfo> PromptBuilder::build_completion(PromptInput& input, bool add_special_tokens,
                                                   const PromptRules& rules) const {
  PromptInfo prompt;
  if (auto* text = std::get_if<std::string>(&input)) {
    if (rules.must_fit) {
      if (Result<void> fits = check_fit(tokenizer_->least_tokens(*text), "prompt"); !fits)
        return fits.error();
    }
    prompt.token_ids = tokenizer_->encode(*text, add_special_tokens);
    if (rules.with_text) prompt.text = std::move(*text);
  } else {
    std::vector<TokenId>& ids = std::get<std::vector<TokenId>>(input);
    if (rules.must_fit) {
      if (Result<void> fits = check_fit(ids.size(), "prompt"); !fits) return fits.error();
    }
    for (const TokenId id : ids) {
      if (id >= 0 && id < limits_.vocab_size) continue;
      return no_such_token("prompt", id, limits_.vocab_size);
    }
    prompt.token_ids = std::move(ids);
    if (rules.with_text) prompt.text = tokenizer_->decode(prompt.token_ids, /*skip_special=*/false);
  }
  if (prompt.token_ids.empty() && !rules.may_be_empty) {
    if (tokenizer_->bos_id() < 0)
      return invalid("prompt", "empty_prompt",
                     "prompt has no tokens, and this model has no BOS to start from.");
    prompt.token_ids.push_back(tokenizer_->bos_id());
  }
  if (Result<void> fits = check_ids(prompt.token_ids, limits_.vocab_size, "prompt"); !fits)
    return fits.error();
  return prompt;
}

}  // namespace serval
