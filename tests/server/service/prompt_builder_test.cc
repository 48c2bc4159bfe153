// Chats and prompts to ids with the tokenizer and template of the model that ships.

#include "engine/text/tokenizer/load_tokenizer.h"
#include "server/service/prompt_builder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <sstream>

#include "server/openai/openai_request.h"

namespace serval {
namespace {

class PromptBuilderTest : public testing::Test {
 protected:
  PromptBuilderTest() {
    tokenizer_ = load_tokenizer(std::string(SERVAL_SOURCE_DIR) + "/deploy/models/serval-nano");
    limits_.vocab_size = tokenizer_->vocab_size();
    limits_.max_model_len = 2048;
    limits_.max_messages = 4;
    limits_.max_prompts = 3;
  }
  PromptBuilder builder(const char* source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}") {
    return builder(std::map<std::string, std::string>{{"default", source}});
  }
  PromptBuilder builder(const std::map<std::string, std::string>& sources) {
    ChatTemplates templates;
    for (const auto& [name, source] : sources) templates.emplace(name, std::move(*ChatTemplate::parse(source)));
    return PromptBuilder(tokenizer_, std::move(templates), limits_, settings_);
  }
  // Of a chat as an OpenAI client writes it.
  static Result<std::vector<PromptInfo>> render(const PromptBuilder& builder, const std::string& chat,
                                                const PromptRules& rules = {.with_text = true}) {
    Result<OpenAiRequest> parsed = parse_chat_request(chat, {});
    if (!parsed) return parsed.error();
    return builder.build(parsed->generate, rules);
  }
  static Error error_of(const Result<std::vector<PromptInfo>>& result) { return result.ok() ? Error{} : result.error(); }

  std::shared_ptr<const Tokenizer> tokenizer_;
  ServiceLimits limits_;
  PromptSettings settings_{.template_time = 0};
};

TEST_F(PromptBuilderTest, RendersRolesPartsAndTheGenerationPrompt) {
  const std::string chat = R"({"messages": [
    {"role": "developer", "content": "be kind"},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    {"role": "assistant", "content": null}])";
  auto prompts = render(builder(), chat + "}");
  ASSERT_TRUE(prompts.ok()) << prompts.error().message;
  EXPECT_EQ((*prompts)[0].text, "[system]be kind[user]a\nb[assistant]>");
  EXPECT_EQ(tokenizer_->decode((*prompts)[0].token_ids, false), (*prompts)[0].text);
  EXPECT_EQ((*render(builder(), chat + R"(, "add_generation_prompt": false})"))[0].text.back(), ']');
}

TEST_F(PromptBuilderTest, NamesWhatIsWrongWithMessages) {
  const char* cases[] = {
      R"({})",
      R"({"messages": "hello"})",
      R"({"messages": []})",
      R"({"messages": [1]})",
      R"({"messages": [{"role": "Wizard", "content": "x"}]})",
      R"({"messages": [{"role": "", "content": "x"}]})",
      R"({"messages": [{"role": "a|b", "content": "x"}]})",
      R"({"messages": [{"role": "user"}]})",
      R"({"messages": [{"role": "user", "content": null}]})",
      R"({"messages": [{"role": "user", "content": 1}]})",
      R"({"messages": [{"role": "user", "content": [{"type": "poem", "text": "x"}]}]})",
      R"({"messages": [{"role": "user", "content": [{"type": "text"}]}]})",
      R"({"messages": [{"role": "user", "content": ["x"]}]})",
      R"({"messages": [{"role": "user", "content": [{"type": "refusal", "refusal": "x"}]}]})",
      R"({"messages": [{"role": "assistant", "content": [{"type": "refusal", "text": "x"}]}]})",
      R"({"messages": [{"role": "user", "content": "1"}, {"role": "user", "content": "2"}, {"role": "user", "content": "3"},
                       {"role": "user", "content": "4"}, {"role": "user", "content": "5"}]})",
  };
  for (const char* text : cases) {
    const Error error = error_of(render(builder(), text));
    EXPECT_EQ(error.code, "invalid_messages") << text;
    EXPECT_EQ(error.param, "messages") << text;
  }
}

TEST_F(PromptBuilderTest, TakesEveryFormOfContentThatIsText) {
  limits_.max_messages = 16;
  const char* parts = R"([{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {}}])";
  std::string messages;
  std::string wanted;
  for (const char* role : {"system", "developer", "user", "assistant", "tool", "function"}) {
    messages += std::string(R"({"role": ")") + role + R"(", "content": )" + parts + "}, ";
    const std::string_view name = role;
    wanted += "[" + std::string(name == "developer" ? "system" : name == "function" ? "tool" : name) + "]a\nb";
  }
  messages += R"({"role": "function", "name": "f", "content": null},
                 {"role": "assistant", "content": [{"type": "text", "text": "I"}, {"type": "refusal", "refusal": "won't"}]},
                 {"role": "assistant", "content": null, "refusal": "no", "audio": null},
                 {"role": "assistant", "content": "said", "refusal": null},
                 {"role": "assistant"}])";
  wanted += "[tool][assistant]I\nwon't[assistant]no[assistant]said[assistant]>";
  const auto prompts = render(builder(), "{\"messages\": [" + messages + "}");
  ASSERT_TRUE(prompts.ok()) << prompts.error().message;
  EXPECT_EQ((*prompts)[0].text, wanted);
}

TEST_F(PromptBuilderTest, RefusesWhatIsNoTextByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "data:,"}}]})",
       "messages[0].content[1] is of type \"image_url\"; this server takes text only."},
      {R"({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]})",
       "messages[0].content[0] is of type \"input_audio\"; this server takes text only."},
      {R"({"role": "user", "content": [{"type": "file", "file": {}}]})",
       "messages[0].content[0] is of type \"file\"; this server takes text only."},
      {R"({"role": "assistant", "content": null, "audio": {"id": "a1"}})",
       "messages[0].audio refers to an answer in sound; this server takes text only."},
  };
  for (const auto& [message, sentence] : cases) {
    const Error error = error_of(render(builder(), "{\"messages\": [" + std::string(message) + "]}"));
    EXPECT_EQ(error.code, "not_supported");
    EXPECT_EQ(error.param, "messages");
    EXPECT_EQ(error.message, sentence);
  }
}

TEST_F(PromptBuilderTest, TheOlderFunctionCallIsAToolCall) {
  auto with = builder(
      "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
      "{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}");
  const auto prompts = render(with, R"({"messages": [
      {"role": "assistant", "content": null, "function_call": {"name": "weather", "arguments": "{\"city\": \"Ulm\"}"}},
      {"role": "function", "name": "weather", "content": "sun"}]})");
  ASSERT_TRUE(prompts.ok()) << prompts.error().message;
  EXPECT_EQ((*prompts)[0].text, R"([assistant]weather{"city": "Ulm"}[tool]sun)");
}

// One chat with a tool call as every OpenAI client sends it, through the ways published templates write one.
TEST_F(PromptBuilderTest, AToolCallReachesTheTemplateTheWayItTakesOne) {
  const std::string call = R"({"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function",
      "function": {"name": "weather", "arguments": "{\"city\": \"Ulm\"}"}}]})";
  const std::string text = R"({"messages": [{"role": "user", "content": "x"}, )" + call +
                           R"(, {"role": "tool", "tool_call_id": "c1", "content": "sun"}]})";
  const std::pair<const char*, const char*> templates[] = {
      // Knows no tools and adds content to a text: the call is lost, the chat is not.
      {"{% for m in messages %}{{ '[' + m.role + ']' + m.content }}{% endfor %}", "[user]x[assistant][tool]sun"},
      // Writes null as it writes any value.
      {"{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}", "[user]x[assistant][tool]sun"},
      // Writes the arguments with tojson.
      {"{% for m in messages %}[{{ m.role }}]{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
       "{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}",
       "[user]x[assistant]weather{\"city\": \"Ulm\"}[tool]sun"},
      // Walks through them.
      {"{% for m in messages %}[{{ m.role }}]{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
       "{{ c.function.name }}{% for k, v in c.function.arguments | items %}({{ k }}={{ v }}){% endfor %}"
       "{% endfor %}{% endfor %}",
       "[user]x[assistant]weather(city=Ulm)[tool]sun"},
      // Takes them for a text, and content none for the sign of a call.
      {"{% for m in messages %}[{{ m.role }}]{% if m.content is none %}{% for c in m.tool_calls %}"
       "{{ c['function']['name'] + c['function']['arguments'] }}{% endfor %}{% else %}{{ m.content }}{% endif %}"
       "{% endfor %}",
       "[user]x[assistant]weather{\"city\": \"Ulm\"}[tool]sun"},
      // Prints them, whatever they are.
      {"{% for m in messages %}[{{ m.role }}]{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
       "{{ c.function.name }}{{ c.function.arguments }}{% endfor %}{% endfor %}",
       "[user]x[assistant]weather{\"city\": \"Ulm\"}[tool]sun"},
      // As above, but adds the content before it.
      {"{% for m in messages %}{{ '[' + m.role + ']' + m.content }}{% for c in m.tool_calls or [] %}"
       "{{ c['function']['name'] + c['function']['arguments'] }}{% endfor %}{% endfor %}",
       "[user]x[assistant]weather{\"city\": \"Ulm\"}[tool]sun"},
  };
  for (const auto& [source, expected] : templates) {
    const auto prompts = render(builder(source), text);
    ASSERT_TRUE(prompts.ok()) << source << prompts.error().message;
    EXPECT_EQ((*prompts)[0].text, expected) << source;
  }
}

TEST_F(PromptBuilderTest, ArgumentsThatAreNoJsonStayWhatTheModelWrote) {
  auto with = builder(
      "{% for m in messages %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
      "{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}");
  const auto rendered = [&](const std::string& calls) {
    return render(with, R"({"messages": [{"role": "assistant", "tool_calls": [)" + calls + "]}]}");
  };
  EXPECT_EQ((*rendered(R"({"function": {"name": "f", "arguments": "{\"a\": "}})"))[0].text, R"(f"{\"a\": ")");
  EXPECT_EQ((*rendered(R"({"function": {"name": "g", "arguments": {"b": 1}}})"))[0].text, R"(g{"b": 1})");
  for (const char* misshapen : {R"("i")", R"({"function": "h"})", R"({"function": {"name": "j"}})", "{}"})
    EXPECT_EQ(error_of(rendered(misshapen)).code, "invalid_messages") << misshapen;
}

TEST_F(PromptBuilderTest, VariablesOfAnyOtherNameReachTheTemplate) {
  auto with = builder("{{ enable_thinking }}{{ messages[0].content }}");
  const std::string head = R"({"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": )";
  EXPECT_EQ((*render(with, head + R"({"enable_thinking": false}})"))[0].text, "Falsex");
  auto nested = builder("{{ xml.tags[1] }}{{ xml.on }}");
  EXPECT_EQ((*render(nested, head + R"({"xml": {"tags": ["a", "b"], "on": true}}})"))[0].text, "bTrue");
  for (const char* kwargs : {R"({"messages": "y"}})", R"({"chat_template": "y"}})", R"({"tools": [1]}})", R"(3})"}) {
    EXPECT_EQ(error_of(render(with, head + kwargs)).param, "chat_template_kwargs") << kwargs;
  }
}

TEST_F(PromptBuilderTest, ATemplateThatRefusesIsThisRequestsError) {
  const Error error = error_of(render(builder("{{ raise_exception('no system role here') }}"), R"({"messages": [{"role": "user", "content": "x"}]})"));
  EXPECT_EQ(error.kind, ErrorKind::kInvalidRequest);
  EXPECT_EQ(error.code, "template_raised");
  EXPECT_NE(error.message.find("no system role here"), std::string::npos);
}

TEST_F(PromptBuilderTest, AModelWithoutTemplateSaysSo) {
  PromptBuilder without(tokenizer_, {}, limits_, settings_);
  EXPECT_EQ(error_of(render(without, R"({"messages": [{"role": "user", "content": "x"}]})")).code, "no_chat_template");
}

TEST_F(PromptBuilderTest, AnyRoleOfLettersIsTheTemplatesToJudge) {
  const std::string chat = R"({"messages": [{"role": "ipython", "content": "3"}, {"role": "tool_response", "content": "4"}]})";
  EXPECT_EQ((*render(builder(), chat))[0].text, "[ipython]3[tool_response]4>");
}

TEST_F(PromptBuilderTest, ReasoningHasTheNamesThatTemplatesRead) {
  const auto with = builder("{{ messages[0].reasoning_content }}/{{ messages[0].thinking }}");
  for (const char* name : {"reasoning_content", "reasoning", "thinking"}) {
    EXPECT_EQ((*render(with, R"({"messages": [{"role": "assistant", "content": "x", ")" + std::string(name) + R"(": "hm"}]})"))[0].text,
              "hm/hm") << name;
  }
  EXPECT_EQ((*render(with, R"({"messages": [{"role": "assistant", "content": "x", "reasoning": "a", "thinking": "b"}]})"))[0].text, "b/b");
}

TEST_F(PromptBuilderTest, ToolsAndDocumentsReachTheTemplate) {
  auto with = builder("{{ tools | tojson }}{% for d in documents or [] %}{{ d.title }}: {{ d.text }};{% endfor %}");
  const std::string head = R"({"messages": [{"role": "user", "content": "x"}])";
  EXPECT_EQ((*render(with, head + R"(, "documents": [{"title": "A", "text": "b"}, {"title": "C", "text": "d"}]})"))[0].text,
            "nullA: b;C: d;");
  Result<TokenizeRequest> parsed = parse_tokenize_request(head + R"(, "tools": [{"type": "function", "function": {"name": "f"}}]})", {});
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ((*with.build(parsed->generate, {.with_text = true}))[0].text, R"([{"type": "function", "function": {"name": "f"}}])");
}

TEST_F(PromptBuilderTest, AnAnswerIsReadAsTheTemplateSaysItsModelsWrite) {
  const std::string head = R"({"messages": [{"role": "user", "content": "x"}])", tools = R"(, "tools": [{"type": "function", "function": {"name": "f"}}]})";
  const auto plain = builder(), hermes = builder("<tool_call>{{ tools | tojson }}"), thinks = builder("{{ '<think>\\n' if true else '</think>' }}");
  EXPECT_EQ((*render(plain, head + "}"))[0].reading, nullptr);
  const Error refused = error_of(render(plain, head + tools));
  EXPECT_EQ(refused.code + " " + refused.param, "not_supported tools");
  EXPECT_EQ((*render(hermes, head + "}"))[0].reading, nullptr);
  const auto reading = (*render(hermes, head + tools))[0].reading;
  ASSERT_NE(reading, nullptr);
  EXPECT_EQ(reading->rules.format->name, "hermes");
  EXPECT_TRUE(reading->rules.has_tools && reading->rules.text_arguments->contains("f"));
  const auto opened = (*render(thinks, head + "}"))[0].reading;
  ASSERT_NE(opened, nullptr);
  EXPECT_EQ(opened->rules.opened_reasoning, "<think>\n");
  EXPECT_TRUE(opened->rules.splits_reasoning);
  EXPECT_FALSE((*render(thinks, head + R"(, "separate_reasoning": false})"))[0].reading->rules.splits_reasoning);
  settings_.tool_call_format = "llama";
  EXPECT_EQ((*render(builder(), head + tools))[0].reading->rules.format->name, "llama");
}

TEST_F(PromptBuilderTest, AForcedCallBeginsInThePromptAndIsHeldToItsSchema) {
  const std::string chat = R"({"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function", "function": {"name": "f", "parameters":
      {"type": "object", "properties": {"a": {"type": "integer"}}}}}, {"type": "function", "function": {"name": "g"}}], "tool_choice": )";
  const auto build = [&](const char* source, const std::string& choice) {
    Result<OpenAiRequest> parsed = parse_chat_request(chat + choice + "}", {});
    Result<std::vector<PromptInfo>> built = builder(source).build(parsed->generate, {.with_text = true});
    return std::pair(built.ok() ? (*built)[0].text : built.error().code, parsed->generate.format ? parsed->generate.format->text : "");
  };
  const std::string f = R"({"type":"object","properties":{"name":{"const":"f"},"arguments":{"type":"object","properties":{"a":{"type":"integer"}}}},"required":["name","arguments"],"additionalProperties":false})",
                    g = R"({"type":"object","properties":{"name":{"const":"g"},"arguments":{"type":"object"}},"required":["name","arguments"],"additionalProperties":false})";
  EXPECT_EQ(build("<tool_call>", R"("auto")"), std::pair(std::string("<tool_call>"), std::string()));
  EXPECT_EQ(build("A<tool_call>B", R"("required")"), std::pair(std::string("A<tool_call>B<tool_call>\n"), R"({"anyOf":[)" + f + "," + g + "]}"));
  EXPECT_EQ(build("<tool_call></think>{{ '<think>\n' }}", R"({"type": "function", "function": {"name": "g"}})"),
            std::pair(std::string("<tool_call></think><think>\n</think>\n\n<tool_call>\n"), g));
  EXPECT_EQ(build("<tool_call>", R"({"type": "function", "function": {"name": "h"}})").first, "invalid_value");
  EXPECT_EQ(build("<|tool_list_start|>", R"("required")").first, "<|tool_list_start|><|tool_call_start|>");
  EXPECT_EQ(build("<|channel|><|message|>", R"("required")").first, "<|channel|><|message|><|channel|>commentary to=functions.");
}

TEST_F(PromptBuilderTest, ATemplateIsChosenByNameOrByTools) {
  const auto with = builder({{"default", "plain"}, {"tool_use", "tools"}, {"rag", "quotes"}});
  const std::string head = R"({"messages": [{"role": "user", "content": "x"}])";
  EXPECT_EQ((*render(with, head + "}"))[0].text, "plain");
  EXPECT_EQ((*render(with, head + R"(, "chat_template": "rag"})"))[0].text, "quotes");
  const Error unknown = error_of(render(with, head + R"(, "chat_template": "{{ x }}"})"));
  EXPECT_EQ(unknown.code + " " + unknown.param, "not_allowed chat_template");
  Result<TokenizeRequest> parsed = parse_tokenize_request(head + R"(, "tools": [{"type": "function"}]})", {});
  EXPECT_EQ((*with.build(parsed->generate, {.with_text = true}))[0].text, "tools");
  parsed->generate.chat->template_name = "default";
  EXPECT_EQ((*with.build(parsed->generate, {.with_text = true}))[0].text, "plain");
}

TEST_F(PromptBuilderTest, GoesOnWithTheFinalMessage) {
  const auto chat = [](const std::string& last) {
    return R"({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": ")" + last +
           R"("}], "continue_final_message": true})";
  };
  const char* const kept = "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>\n{% endfor %}";
  EXPECT_EQ((*render(builder(kept), chat("It is ")))[0].text, "[user]x</s>\n[assistant]It is ");
  const char* const trimmed = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}</s>\n{% endfor %}";
  EXPECT_EQ((*render(builder(trimmed), chat("It is ")))[0].text, "[user]x</s>\n[assistant]It is");
  // What stands before the text is found by its end.
  EXPECT_EQ((*render(builder(kept), chat("x")))[0].text, "[user]x</s>\n[assistant]x");
  EXPECT_EQ(error_of(render(builder("{{ messages[0].content }}"), chat("y"))).param, "continue_final_message");
  EXPECT_EQ(error_of(render(builder("nothing"), chat("y"))).param, "continue_final_message");
}

// The names of special tokens in what a client says: as transformers reads them, and as text.
class SpecialTokensInContent : public PromptBuilderTest {
 protected:
  SpecialTokensInContent() {
    name_ = tokenizer_->special_names().front();
    id_ = tokenizer_->token_to_id(name_);
  }
  // The ids of a chat whose template puts a special token before each message.
  std::vector<TokenId> ids_of(const std::string& setting, const std::string& content, std::string* text = nullptr) {
    settings_.special_tokens_in_content = setting;
    const std::string source = "{% for m in messages %}" + name_ + "{{ m.content | trim }}{{ m.content | length }}{% endfor %}";
    auto prompts = render(builder(source.c_str()), R"({"messages": [{"role": "user", "content": ")" + content + R"("}]})");
    EXPECT_TRUE(prompts.ok()) << prompts.error().message;
    if (text != nullptr) *text = (*prompts)[0].text;
    return (*prompts)[0].token_ids;
  }
  ptrdiff_t count(const std::vector<TokenId>& ids) const { return std::count(ids.begin(), ids.end(), id_); }

  std::string name_;
  TokenId id_;
};

TEST_F(SpecialTokensInContent, AreTokensByDefault) {
  std::string text;
  const std::vector<TokenId> ids = ids_of("parse", "a " + name_ + " b", &text);
  EXPECT_EQ(count(ids), 2);
  EXPECT_EQ(ids, tokenizer_->encode(text, false));
  EXPECT_EQ(ids_of(PromptSettings().special_tokens_in_content, "a " + name_ + " b"), ids);
}

TEST_F(SpecialTokensInContent, AreTextWhereThatIsSet) {
  const std::string half = name_.substr(0, name_.size() / 2);
  for (const std::string& content : {"a " + name_ + " b", name_ + name_, half, half + name_, name_ + half, std::string("plain <")}) {
    std::string text;
    const std::vector<TokenId> ids = ids_of("text", content, &text);
    EXPECT_EQ(count(ids), 1) << content;
    EXPECT_TRUE(text.starts_with(name_ + content)) << text;
    // The template's own token, and then all as text without one.
    std::vector<TokenId> expected = tokenizer_->encode(text.substr(name_.size()), false, /*parse_special=*/false);
    expected.insert(expected.begin(), id_);
    EXPECT_EQ(ids, expected) << content;
    EXPECT_EQ(tokenizer_->decode(ids, false), text);
  }
  // Nothing to break, nothing changed.
  EXPECT_EQ(ids_of("text", "a plain text"), ids_of("parse", "a plain text"));
}

TEST_F(SpecialTokensInContent, CannotBeJoinedOutOfSeveralTexts) {
  settings_.special_tokens_in_content = "text";
  const size_t half = name_.size() / 2;
  const auto prompts = render(builder("{% for m in messages %}{{ m.content }}{% endfor %}"),
                              R"({"messages": [{"role": "user", "content": ")" + name_.substr(0, half) +
                                  R"("}, {"role": "user", "content": ")" + name_.substr(half) + R"("}]})");
  ASSERT_TRUE(prompts.ok());
  EXPECT_EQ((*prompts)[0].text, name_);
  EXPECT_EQ(count((*prompts)[0].token_ids), 0);
}

TEST_F(SpecialTokensInContent, AreBrokenWithACharacterThatNoTextHas) {
  std::string all;
  for (char32_t c = 0xFDD0; c < 0xFDEF; ++c) all += {'\xEF', '\xB7', static_cast<char>(0x80 | (c & 0x3F))};
  std::string text;
  EXPECT_EQ(count(ids_of("text", name_ + all, &text)), 1);
  EXPECT_TRUE(text.starts_with(name_ + name_ + all));
  settings_.special_tokens_in_content = "text";
  const Error error = error_of(render(builder(), R"({"messages": [{"role": "user", "content": ")" + name_ + all +
                                                     "\xEF\xB7\xAF" + R"("}]})"));
  EXPECT_EQ(error.code + " " + error.param, "invalid_messages messages");
}

TEST_F(PromptBuilderTest, PromptIdsAndCountsAreBounded) {
  GenerateRequest request;
  const int vocab = limits_.vocab_size;
  request.prompts = {std::vector<TokenId>{0, vocab - 1}};
  EXPECT_TRUE(builder().build(request, {}).ok());
  request.prompts = {std::vector<TokenId>{vocab}};
  EXPECT_EQ(error_of(builder().build(request, {})).code, "invalid_token_id");
  request.prompts = {std::vector<TokenId>{-1}};
  EXPECT_EQ(error_of(builder().build(request, {})).code, "invalid_token_id");
  request.prompts.assign(3, "a");
  EXPECT_TRUE(builder().build(request, {}).ok());
  request.prompts.assign(4, "a");
  EXPECT_EQ(error_of(builder().build(request, {})).code, "invalid_prompt");
  request.prompts.clear();
  EXPECT_EQ(error_of(builder().build(request, {})).code, "invalid_prompt");
}

// The tokenizer gives no such id for a model that it was loaded for; this is what would still stand before the
// embedding's memory.
TEST_F(PromptBuilderTest, ATextThatBecomesAnIdBeyondTheModelIsRefused) {
  GenerateRequest request;
  request.prompts = {"Once upon a time"};
  const std::vector<TokenId> ids = (*builder().build(request, {}))[0].token_ids;
  const TokenId largest = *std::max_element(ids.begin(), ids.end());
  limits_.vocab_size = largest + 1;
  EXPECT_TRUE(builder().build(request, {}).ok());
  limits_.vocab_size = largest;
  Error refused = error_of(builder().build(request, {}));
  EXPECT_EQ(refused.code, "invalid_prompt");
  EXPECT_EQ(refused.param, "prompt");
  refused = error_of(render(builder("Once upon a time"), R"({"messages": [{"role": "user", "content": "x"}]})"));
  EXPECT_EQ(refused.code, "invalid_prompt");
  EXPECT_EQ(refused.param, "messages");
}

TEST_F(PromptBuilderTest, AFloodOfTextIsRefusedFromItsSizeWhenItMustFit) {
  const std::string flood(4'000'000, 'a');
  GenerateRequest request;
  request.prompts = {flood};
  const Error refused = error_of(builder().build(request, {.must_fit = true}));
  EXPECT_EQ(refused.code, "context_length_exceeded");
  EXPECT_EQ(refused.param, "prompt");
  EXPECT_EQ(refused.message.rfind("This model's maximum context length is 2048 tokens. However, you requested at least ", 0), 0u)
      << refused.message;
  EXPECT_EQ(error_of(render(builder(), R"({"messages": [{"role": "user", "content": ")" + flood + R"("}]})", {.must_fit = true})).param,
            "messages");
  request.prompts = {std::vector<TokenId>(limits_.max_model_len + 1, 5)};
  EXPECT_EQ(error_of(builder().build(request, {.must_fit = true})).code, "context_length_exceeded");
  EXPECT_TRUE(builder().build(request, {}).ok());
  request.prompts = {std::vector<TokenId>(limits_.max_model_len, 5)};
  EXPECT_TRUE(builder().build(request, {.must_fit = true}).ok());
  // As many long tokens as the context takes are no flood, whatever their bytes.
  const std::string fits = tokenizer_->decode(std::vector<TokenId>(limits_.max_model_len, 5), false);
  request.prompts = {fits};
  EXPECT_TRUE(builder().build(request, {.must_fit = true}).ok());
}

TEST_F(PromptBuilderTest, AnEmptyTextHasNoIdsWhereItMayBeEmpty) {
  GenerateRequest request;
  request.prompts = {std::string()};
  EXPECT_TRUE((*builder().build(request, {.may_be_empty = true}))[0].token_ids.empty());
}

TEST_F(PromptBuilderTest, AnEmptyPromptBecomesBosOrAnError) {
  GenerateRequest request;
  request.prompts = {std::string()};
  const auto prompts = builder().build(request, {});
  if (tokenizer_->bos_id() >= 0) {
    EXPECT_EQ((*prompts)[0].token_ids, std::vector<TokenId>{tokenizer_->bos_id()});
  } else {
    EXPECT_EQ(error_of(prompts).code, "empty_prompt");
  }
}

}  // namespace
}  // namespace serval
