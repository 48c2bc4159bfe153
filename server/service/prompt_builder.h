// From what the client sent to the text and ids the model is fed: chat template and tokenizer, and the checks
// of their inputs. Immutable after construction; any thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/text/message/message_format.h"
#include "engine/text/template/chat_template.h"
#include "engine/text/tokenizer/tokenizer.h"
#include "server/service/inference_service.h"
#include "server/service/name_breaker.h"
#include "server/service/template_messages.h"
#include "server/service/validator.h"

namespace serval {

// What a prompt must be for what it is built for.
struct PromptRules {
  bool must_fit = false;  // one that cannot fit in the context is refused, if possible before it is tokenised
  bool with_text = false;     // PromptInfo::text, of prompts given as ids too
  bool may_be_empty = false;  // no ids for an empty text; otherwise the BOS, or an error without one
};

struct PromptSettings {
  // What strftime_now reads in templates (--template-time); the clock when absent.
  std::optional<int64_t> template_time;
  // parse: the name of a special token in a client's text is that token, as it is to transformers and vLLM.
  // text: it is text like any other, and nobody can forge a turn.
  std::string special_tokens_in_content = "parse";
  // How the model writes calls of tools: auto, or the name of a row of message_formats().
  std::string tool_call_format = "auto";
};

class PromptBuilder {
 public:
  PromptBuilder(std::shared_ptr<const Tokenizer> tokenizer, ChatTemplates chat_templates,
                ServiceLimits limits, PromptSettings settings);

  // One PromptInfo per prompt (a chat is one). Takes the prompts out of the request when they are good.
  // Errors name the field.
  Result<std::vector<PromptInfo>> build(GenerateRequest& request, const PromptRules& rules) const;

  // The ids of a text that follows others: nothing is put before it, and no special token is made of it. Of a longer
  // one than the context, those of its beginning.
  std::vector<TokenId> tokens_of(std::string_view text) const;
  ModelDescription description() const;
  // As which tokens a word comes: at the beginning of a text, and behind another word where that is one token or more
  // alike in number.
  void add_spellings(std::string_view word, std::vector<std::vector<TokenId>>& out) const;

 private:
  struct Template {
    ChatTemplate chat_template;
    ToolCallStyle tool_call_style;
    // How its models answer; the marks of it that are tokens with a role.
    const MessageFormat* format;
    ReasoningMarks reasoning;
    std::vector<TokenId> mark_tokens;
  };

  Result<const Template*> choose_template(const Chat& chat) const;
  Result<boost::json::object> template_context(const Chat& chat, const Template& chosen) const;
  std::vector<TokenId> mark_tokens(const MessageFormat* format, const ReasoningMarks& reasoning) const;
  FreeText free_text(const Template& chosen, std::string_view prompt) const;
  // before_form: of an answer that is held to a form, else null.
  std::shared_ptr<AnswerReading> reading_of(const Chat& chat, const Template& chosen, std::string_view prompt,
                                            const FreeText* before_form) const;
  // Makes the answer one call: the prompt ends with the beginning of one, and the rest is held to a schema.
  Result<void> force_call(const Chat& chat, const Template& chosen, GenerateRequest& request, std::string& prompt, AnswerReading& reading) const;
  std::optional<OutputFormat> strict_calls(const Chat& chat, const Template& chosen) const;
  Result<PromptInfo> build_chat(GenerateRequest& request, const PromptRules& rules) const;
  Result<PromptInfo> build_completion(PromptInput& input, const GenerateRequest& request,
                                      const PromptRules& rules) const;
  // A completion between two texts, in the order that the model was trained on.
  Result<void> fill_in(const GenerateRequest& request, std::vector<TokenId>& ids) const;
  Result<void> check_fit(size_t least_tokens, const std::string& param) const;

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::map<std::string, Template, std::less<>> templates_;
  ServiceLimits limits_;
  PromptSettings settings_;
  NameBreaker name_breaker_;
};

}  // namespace serval
