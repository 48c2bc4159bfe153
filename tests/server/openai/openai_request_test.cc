// Translation of requests: what each field becomes, and the type errors of matrices A2 and A3. Ranges are the
// validator's.
#include "server/openai/openai_request.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

namespace serval {
namespace {

// Code and param of the error, "" when there is none. The rest of the body is a good chat or completion.
std::string chat_error(const std::string& field, bool strict = false) {
  const auto result = parse_chat_request(
      "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]" + (field.empty() ? "" : "," + field) + "}",
      {.strict = strict});
  return result ? "" : result.error().code + " " + result.error().param;
}
std::string completion_error(const std::string& field, bool strict = false) {
  const auto result = parse_completion_request("{\"prompt\":\"x\"" + (field.empty() ? "" : "," + field) + "}",
                                               {.strict = strict});
  return result ? "" : result.error().code + " " + result.error().param;
}
void expect_both(const std::string& field, const std::string& error) {
  EXPECT_EQ(chat_error(field), error) << field;
  EXPECT_EQ(completion_error(field), error) << field;
}

TEST(OpenAiRequest, WhatIsIgnoredBecauseUnknownIsCounted) {
  int ignored = 0;
  const RequestOptions options{.on_ignored = [&](int count) { ignored += count; }};
  const auto chat = [&](const std::string& fields) {
    return parse_chat_request("{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]" + fields + "}", options).ok();
  };
  EXPECT_TRUE(chat(""));
  EXPECT_TRUE(chat(",\"store\":true,\"tool_choice\":\"none\",\"user\":\"me\",\"n\":1"));
  EXPECT_EQ(ignored, 0);
  EXPECT_TRUE(chat(",\"temprature\":1,\"x\":null,\"stream\":true,\"stream_options\":{\"include_usage\":true,\"y\":1}"));
  EXPECT_EQ(ignored, 3);
  EXPECT_TRUE(parse_completion_request("{\"prompt\":\"x\",\"messages\":[]}", options).ok());
  EXPECT_TRUE(parse_tokenize_request("{\"prompt\":\"x\",\"z\":[1,2]}", options).ok());
  EXPECT_TRUE(parse_detokenize_request("{\"tokens\":[1],\"z\":{\"a\":1}}", options).ok());
  EXPECT_EQ(ignored, 6);
  EXPECT_FALSE(chat(",\"temprature\":1,\"n\":\"x\""));  // refused: nothing was ignored
  EXPECT_EQ(ignored, 6);
}

TEST(OpenAiRequest, IntegersAreIntegers) {
  for (const std::string name : {"n", "max_tokens", "max_completion_tokens", "min_tokens", "top_k", "seed",
                                 "prompt_logprobs", "priority"}) {
    const auto with = [&](const std::string& value) { return "\"" + name + "\":" + value; };
    for (const char* good : {"1", "2.0", "1e2", "null", "-1", "-0", "-0.0"}) expect_both(with(good), "");
    for (const char* bad : {"true", "1.5", "\"1\"", "[]", "{}", "[1]"})
      expect_both(with(bad), "invalid_type " + name);
    for (const char* bad :
         {"9223372036854775808", "18446744073709551616", "1e400", "-1e400", "1e18"}) {
      expect_both(with(bad), "value_out_of_range " + name);
    }
  }
  expect_both("\"seed\":9223372036854775807", "");
  expect_both("\"seed\":-9223372036854775808", "");
}

TEST(OpenAiRequest, NumbersAreFiniteNumbers) {
  for (const std::string name :
       {"temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"}) {
    const auto with = [&](const std::string& value) { return "\"" + name + "\":" + value; };
    for (const char* good : {"0", "0.5", "1e-3", "null", "-2", "-0", "-0.0"}) expect_both(with(good), "");
    for (const char* bad : {"true", "\"1\"", "[]", "{}"}) expect_both(with(bad), "invalid_type " + name);
    for (const char* bad : {"1e400", "-1e400"})
      expect_both(with(bad), "value_out_of_range " + name);
  }
}

TEST(OpenAiRequest, BooleansAreBooleans) {
  for (const std::string name :
       {"stream", "ignore_eos", "include_stop_str_in_output", "skip_special_tokens", "return_token_ids",
        "return_tokens_as_token_ids"}) {
    for (const char* good : {"true", "false", "null"}) expect_both("\"" + name + "\":" + good, "");
    for (const char* bad : {"0", "1", "\"true\"", "[]", "{}"})
      expect_both("\"" + name + "\":" + bad, "invalid_type " + name);
  }
}

TEST(OpenAiRequest, StringsAreBoundedToTheByte) {
  const std::string most(1024, 'a');
  for (const std::string name : {"model", "user", "cache_salt", "stop"}) {
    for (const char* bad : {"1", "true", "{}"})
      expect_both("\"" + name + "\":" + bad, "invalid_type " + name);
    expect_both("\"" + name + "\":\"" + most + "\"", "");
    expect_both("\"" + name + "\":\"" + most + "a\"", "string_too_long " + name);
    expect_both("\"" + name + "\":\"" + std::string(1 << 20, 'a') + "\"", "string_too_long " + name);
  }
  for (const char* bad : {"a\\u0000", "\\n", "\\u001f", "\\u007f"})
    expect_both("\"model\":\"" + std::string(bad) + "\"", "invalid_value model");
  expect_both("\"cache_salt\":\"\\u0000\\n\"", "");
}

TEST(OpenAiRequest, StopAndTokenListsKeepTheirItems) {
  expect_both("\"stop\":[\"a\",1]", "invalid_type stop");
  expect_both("\"stop\":[null]", "invalid_type stop");
  expect_both("\"stop_token_ids\":5", "invalid_type stop_token_ids");
  expect_both("\"stop_token_ids\":[1,\"2\"]", "invalid_type stop_token_ids");
  expect_both("\"stop_token_ids\":[1,true]", "invalid_type stop_token_ids");
  expect_both("\"logit_bias\":[]", "invalid_type logit_bias");
  expect_both("\"logit_bias\":{\"5\":\"x\"}", "invalid_type logit_bias");
  expect_both("\"logit_bias\":{\"5\":true}", "invalid_type logit_bias");
  for (const char* key : {"", "x", "5x", " 5", "+5", "1.5", "9223372036854775808"}) {
    expect_both("\"logit_bias\":{\"" + std::string(key) + "\":1}", "invalid_token_id logit_bias");
  }
  const auto parsed = parse_completion_request(
      R"({"prompt":"x","stop":"end","stop_token_ids":[3,-1,5000000000],"logit_bias":{"7":-100,"8":0.5,"-9":1}})",
      {});
  ASSERT_TRUE(parsed.ok());
  const GenerateRequest& r = parsed.value().generate;
  EXPECT_EQ(r.stop, std::vector<std::string>{"end"});
  EXPECT_EQ(r.stop_token_ids, (std::vector<int64_t>{3, -1, 5000000000}));
  EXPECT_EQ(r.logit_bias, (std::vector<std::pair<int64_t, double>>{{7, -100}, {8, 0.5}, {-9, 1}}));
}

TEST(OpenAiRequest, PromptHasFourForms) {
  const auto prompts = [](const std::string& prompt) {
    const auto parsed = parse_completion_request("{\"prompt\":" + prompt + "}", {});
    EXPECT_TRUE(parsed.ok()) << prompt;
    return parsed.ok() ? parsed.value().generate.prompts : std::vector<PromptInput>{};
  };
  using Ids = std::vector<TokenId>;
  EXPECT_EQ(prompts("\"a\\u0000b\""), (std::vector<PromptInput>{std::string("a\0b", 3)}));
  EXPECT_EQ(prompts("[\"a\",\"\"]"), (std::vector<PromptInput>{"a", ""}));
  EXPECT_EQ(prompts("[1,-2,3]"), (std::vector<PromptInput>{Ids{1, -2, 3}}));
  EXPECT_EQ(prompts("[[1],[],[2,3]]"), (std::vector<PromptInput>{Ids{1}, Ids{}, Ids{2, 3}}));
  EXPECT_TRUE(prompts("[]").empty());  // the service refuses it
  for (const char* bad :
       {"null", "1", "true", "{}", "[true]", "[null]", "[{}]", "[\"a\",1]", "[1,\"a\"]", "[[1],2]",
        "[[1],\"a\"]", "[[[1]]]", "[1.5]", "[[true]]", "[1e400]", "[18446744073709551616]"}) {
    const auto result = parse_completion_request("{\"prompt\":" + std::string(bad) + "}", {});
    ASSERT_FALSE(result.ok()) << bad;
    EXPECT_EQ(result.error().code + " " + result.error().param, "invalid_prompt prompt") << bad;
  }
  EXPECT_EQ(parse_completion_request("{}", {}).error().code, "invalid_prompt");
  EXPECT_EQ(parse_completion_request("{\"prompt\":[2147483648]}", {}).error().code, "invalid_token_id");
  EXPECT_TRUE(parse_completion_request("{\"prompt\":[2147483647]}", {}).ok());
}

TEST(OpenAiRequest, MessagesMustBeAnArray) {
  for (const char* bad :
       {"{}", "{\"messages\":null}", "{\"messages\":\"hi\"}", "{\"messages\":{}}", "{\"messages\":1}"}) {
    const auto result = parse_chat_request(bad, {});
    ASSERT_FALSE(result.ok()) << bad;
    EXPECT_EQ(result.error().code + " " + result.error().param, "invalid_messages messages") << bad;
  }
  const auto parsed = parse_chat_request(
      R"({"messages":[{"role":"user","content":"hi"}],"chat_template_kwargs":{"a":1,"b":[2]},"documents":[{"c":3}],"continue_final_message":true})",
      {});
  ASSERT_TRUE(parsed.ok());
  const Chat& chat = *parsed.value().generate.chat;
  ASSERT_EQ(chat.messages.size(), 1u);
  EXPECT_EQ(chat.messages[0].role, "user");
  EXPECT_EQ(chat.messages[0].content, "hi");
  EXPECT_EQ(chat.template_variables, (TemplateFields{{"a", int64_t{1}}, {"b", JsonText{"[2]"}}}));
  EXPECT_EQ(chat.documents, (std::vector<JsonText>{{R"({"c":3})"}}));
  EXPECT_FALSE(chat.add_generation_prompt);
  EXPECT_TRUE(chat.continue_final_message);
  EXPECT_EQ(chat_error("\"chat_template_kwargs\":[]"), "invalid_type chat_template_kwargs");
  EXPECT_EQ(chat_error("\"documents\":[1]"), "invalid_type documents");
  EXPECT_EQ(chat_error("\"continue_final_message\":true,\"add_generation_prompt\":true"),
            "invalid_value continue_final_message");
}

TEST(OpenAiRequest, MessagesKeepWhatTemplatesRead) {
  const auto parsed = parse_chat_request(R"({"messages": [
      {"role": "assistant", "content": null, "reasoning_content": "hm", "prefix": true, "list": [1],
       "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {"a": 1}}}]},
      {"role": "tool", "tool_call_id": "c1", "name": "f", "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "2"}]}]})",
                                         {});
  ASSERT_TRUE(parsed.ok());
  const std::vector<ChatMessage>& messages = parsed.value().generate.chat->messages;
  EXPECT_EQ(messages[0].content, std::nullopt);
  EXPECT_EQ(messages[0].fields, (TemplateFields{{"reasoning_content", "hm"}, {"prefix", true}}));
  ASSERT_EQ(messages[0].tool_calls.size(), 1u);
  EXPECT_EQ(messages[0].tool_calls[0].id + messages[0].tool_calls[0].name, "c1f");
  EXPECT_EQ(messages[0].tool_calls[0].arguments, R"({"a":1})");
  EXPECT_EQ(messages[1].content, "1\n2");
  EXPECT_EQ(messages[1].fields, (TemplateFields{{"tool_call_id", "c1"}, {"name", "f"}}));
}

TEST(OpenAiRequest, TheNewerNameOfMaxTokensWins) {
  const auto parsed =
      parse_chat_request(R"({"messages":[],"max_tokens":5,"max_completion_tokens":7})", {}).value().generate;
  EXPECT_EQ(parsed.max_tokens, 7);
  EXPECT_EQ(parsed.max_tokens_param, "max_completion_tokens");
  const auto older = parse_chat_request(R"({"messages":[],"max_tokens":5,"max_completion_tokens":null})", {})
                         .value()
                         .generate;
  EXPECT_EQ(older.max_tokens, 5);
  EXPECT_EQ(older.max_tokens_param, "max_tokens");
  EXPECT_EQ(parse_chat_request(R"({"messages":[]})", {}).value().generate.max_tokens, std::nullopt);
}

TEST(OpenAiRequest, LogprobsOfAChatNeedTheirSwitch) {
  const auto logprobs = [](const std::string& fields) {
    return parse_chat_request("{\"messages\":[]," + fields + "}", {}).value().generate.logprobs;
  };
  EXPECT_EQ(logprobs("\"logprobs\":true"), 0);
  EXPECT_EQ(logprobs("\"logprobs\":true,\"top_logprobs\":5"), 5);
  EXPECT_EQ(logprobs("\"logprobs\":true,\"top_logprobs\":-1"), -1);  // the validator refuses it
  EXPECT_EQ(logprobs("\"logprobs\":false,\"top_logprobs\":0"), std::nullopt);
  EXPECT_EQ(chat_error("\"top_logprobs\":1"), "invalid_value top_logprobs");
  EXPECT_EQ(chat_error("\"logprobs\":false,\"top_logprobs\":1"), "invalid_value top_logprobs");
  EXPECT_EQ(chat_error("\"logprobs\":1"), "invalid_type logprobs");
  EXPECT_EQ(chat_error("\"logprobs\":true,\"top_logprobs\":true"), "invalid_type top_logprobs");
  EXPECT_EQ(completion_error("\"logprobs\":true"), "invalid_type logprobs");
  EXPECT_EQ(parse_completion_request(R"({"prompt":"x","logprobs":3})", {}).value().generate.logprobs, 3);
}

TEST(OpenAiRequest, StreamOptionsNeedAStream) {
  expect_both("\"stream_options\":{\"include_usage\":true}", "invalid_value stream_options");
  expect_both("\"stream\":false,\"stream_options\":{}", "invalid_value stream_options");
  expect_both("\"stream\":true,\"stream_options\":{\"include_usage\":1}",
              "invalid_type stream_options.include_usage");
  expect_both("\"stream\":true,\"stream_options\":{\"continuous_usage_stats\":1}",
              "invalid_type stream_options.continuous_usage_stats");
  expect_both("\"stream\":true,\"stream_options\":[]", "invalid_type stream_options");
  expect_both("\"stream\":true,\"stream_options\":{\"include_usage\":true,\"other\":1}", "");
  expect_both("\"stream_options\":null", "");
  EXPECT_TRUE(
      parse_chat_request(R"({"messages":[],"stream":true,"stream_options":{"include_usage":true}})", {})
          .value()
          .include_usage);
}

TEST(OpenAiRequest, OutputOfAFormIsAskedForByEachOfItsNames) {
  using Kind = OutputFormat::Kind;
  const auto format_of = [](const std::string& field) {
    const auto request = parse_chat_request(R"({"messages":[],)" + field + "}", {});
    return request.ok() && request.value().generate.format ? *request.value().generate.format : OutputFormat{.param = "none"};
  };
  const auto expect = [&](const std::string& field, Kind kind, const std::string& text, const std::string& param) {
    const OutputFormat format = format_of(field);
    EXPECT_EQ(format.kind, kind) << field;
    EXPECT_EQ(format.text, text) << field;
    EXPECT_EQ(format.param, param) << field;
  };
  expect(R"("response_format":{"type":"json_object"})", Kind::kJsonObject, "", "response_format");
  expect(R"("response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":{"type":"null"}}})",
         Kind::kJsonSchema, R"({"type":"null"})", "response_format");
  expect(R"("structured_outputs":{"json":{"type":"null"}})", Kind::kJsonSchema, R"({"type":"null"})", "structured_outputs");
  expect(R"("structured_outputs":{"grammar":"root ::= x"})", Kind::kGrammar, "root ::= x", "structured_outputs");
  expect(R"("response_format":{"type":"structural_tag","format":{"type":"any_text"}})", Kind::kStructuralTag,
         R"({"type":"structural_tag","format":{"type":"any_text"}})", "response_format");
  expect(R"("structured_outputs":{"structural_tag":"{}"})", Kind::kStructuralTag, "{}", "structured_outputs");
  expect(R"("guided_json":"{}")", Kind::kJsonSchema, "{}", "guided_json");
  expect(R"("guided_regex":"a+")", Kind::kRegex, "a+", "guided_regex");
  expect(R"("guided_grammar":"start: A")", Kind::kGrammar, "start: A", "guided_grammar");
  EXPECT_EQ(format_of(R"("guided_choice":["a","b"])").choices, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(format_of(R"("response_format":{"type":"text"})").param, "none");
  expect_both(R"("guided_regex":"a","guided_choice":["a"])", "invalid_value guided_choice");
  expect_both(R"("guided_json":3)", "invalid_type guided_json");
}

TEST(OpenAiRequest, FeaturesNotBuiltAreRefusedByName) {
  for (const auto& [field, name] : std::initializer_list<std::pair<const char*, const char*>>{
           {"\"logits_processors\":[\"x\"]", "logits_processors"},
           {"\"response_format\":{\"type\":\"other\"}", "response_format"},
           {"\"guided_whitespace_pattern\":\" \"", "guided_whitespace_pattern"},
           {"\"structured_outputs\":{\"whitespace_pattern\":\" \"}", "structured_outputs.whitespace_pattern"},
           {"\"structural_tag\":{}", "structural_tag"}}) {
    expect_both(field, "not_supported " + std::string(name));
  }
  for (const auto& [field, name] : std::initializer_list<std::pair<const char*, const char*>>{
           {"\"use_beam_search\":true", "use_beam_search"},
           {"\"best_of\":2", "best_of"},
           {"\"n\":2,\"best_of\":3", "best_of"},
           {"\"modalities\":[\"text\",\"audio\"]", "modalities"},
           {"\"echo\":true", "echo"}}) {
    EXPECT_EQ(chat_error(field), "not_supported " + std::string(name)) << field;
  }
  EXPECT_EQ(chat_error("\"tools\":{}"), "invalid_type tools");
  EXPECT_EQ(chat_error("\"tool_choice\":5"), "invalid_type tool_choice");
  EXPECT_EQ(chat_error("\"modalities\":\"text\""), "invalid_type modalities");
  expect_both("\"response_format\":\"text\"", "invalid_type response_format");
  expect_both("\"kv_transfer_params\":{}", "not_allowed kv_transfer_params");
  expect_both("\"bootstrap_host\":\"10.0.0.1\"", "not_allowed bootstrap_host");
}

TEST(OpenAiRequest, ToolsThatMayNotBeCalledLeaveTheAnswerAText) {
  const std::string tools = "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]";
  const std::string functions = "\"functions\":[{\"name\":\"f\"}]";
  for (const std::string& field :
       {tools + ",\"tool_choice\":\"none\"", functions + ",\"function_call\":\"none\"",
        std::string("\"tools\":[]"), std::string("\"tools\":null,\"tool_choice\":null"),
        std::string("\"tools\":[],\"tool_choice\":\"auto\""), std::string("\"tool_choice\":\"auto\"")}) {
    EXPECT_EQ(chat_error(field), "") << field;
    EXPECT_EQ(chat_error(field, /*strict=*/true), "") << field;
  }
}

TEST(OpenAiRequest, ToolsThatMayBeCalledAreShownToTheModel) {
  const std::string tools = "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\"}}}]";
  for (const std::string& field : {tools, tools + ",\"tool_choice\":null", tools + ",\"tool_choice\":\"auto\",\"parallel_tool_calls\":false"}) {
    const auto parsed = parse_chat_request("{\"messages\":[]," + field + "}", {});
    ASSERT_TRUE(parsed.ok()) << field;
    const Chat& chat = *parsed->generate.chat;
    ASSERT_EQ(chat.tools.size(), 1u);
    EXPECT_EQ(chat.tools[0].text, R"({"type":"function","function":{"name":"f","parameters":{"type":"object"}}})");
    EXPECT_TRUE(chat.in_parts);
    EXPECT_EQ(chat.only_one_call, field.ends_with("false"));
  }
  EXPECT_TRUE(parse_chat_request("{\"messages\":[]," + tools + ",\"tool_choice\":\"none\"}", {})->generate.chat->tools.empty());
}

TEST(OpenAiRequest, AToolThatIsNoneIsRefusedByItsField) {
  for (const auto& [tool, error] : std::initializer_list<std::pair<const char*, const char*>>{
           {"1", "invalid_type tools[0]"},
           {"{}", "invalid_value tools[0].type"},
           {"{\"type\":\"web_search\"}", "not_supported tools[0].type"},
           {"{\"type\":\"function\"}", "invalid_value tools[0].function"},
           {"{\"type\":\"function\",\"function\":{}}", "invalid_value tools[0].function.name"},
           {"{\"type\":\"function\",\"function\":{\"name\":\"a b\"}}", "invalid_value tools[0].function.name"},
           {"{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":[]}}", "invalid_type tools[0].function.parameters"}}) {
    EXPECT_EQ(chat_error("\"tools\":[" + std::string(tool) + "]"), error) << tool;
  }
}

TEST(OpenAiRequest, AChoiceOfToolsIsAutoRequiredOrOneByName) {
  const std::string tools = "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]";
  const auto chat = [&](const std::string& choice) { return *parse_chat_request("{\"messages\":[]," + tools + ",\"tool_choice\":" + choice + "}", {})->generate.chat; };
  EXPECT_FALSE(chat("\"auto\"").must_call);
  EXPECT_TRUE(chat("\"required\"").must_call && chat("\"required\"").tool_to_call.empty());
  const Chat named = chat("{\"type\":\"function\",\"function\":{\"name\":\"f\"}}");
  EXPECT_TRUE(named.must_call && named.tool_to_call == "f");
  for (const auto& [field, error] : std::initializer_list<std::pair<std::string, const char*>>{
           {tools + ",\"tool_choice\":\"maybe\"", "invalid_value tool_choice"},
           {tools + ",\"tool_choice\":{\"type\":\"allowed_tools\"}", "not_supported tool_choice.type"},
           {tools + ",\"tool_choice\":{\"type\":\"function\"}", "invalid_value tool_choice.function"},
           {"\"tool_choice\":\"required\"", "invalid_value tool_choice"},
           {"\"functions\":[{\"name\":\"f\"}]", "not_supported functions"},
           {"\"functions\":[{\"name\":\"f\"}],\"function_call\":{\"name\":\"f\"}", "not_supported functions"},
           {"\"function_call\":{\"name\":\"f\"}", "not_supported function_call"}}) {
    EXPECT_EQ(chat_error(field), error) << field;
  }
}

TEST(OpenAiRequest, HowLongToThinkReachesTheTemplate) {
  const auto variables = [](const std::string& fields) {
    return parse_chat_request("{\"messages\":[]," + fields + "}", {})->generate.chat->template_variables;
  };
  EXPECT_EQ(variables("\"reasoning_effort\":\"high\""), (TemplateFields{{"reasoning_effort", std::string("high")}}));
  EXPECT_EQ(variables("\"reasoning_effort\":\"none\""), (TemplateFields{{"enable_thinking", false}}));
  EXPECT_EQ(variables("\"reasoning_effort\":\"low\",\"chat_template_kwargs\":{\"reasoning_effort\":\"high\"}"),
            (TemplateFields{{"reasoning_effort", std::string("high")}}));
}

TEST(OpenAiRequest, TheirHarmlessValuesPass) {
  for (const char* field :
       {"\"functions\":[]", "\"suffix\":null", "\"suffix\":\"\"", "\"use_beam_search\":false",
        "\"best_of\":1", "\"n\":3,\"best_of\":3", "\"response_format\":{\"type\":\"text\"}",
        "\"guided_json\":null", "\"bad_words\":[]"}) {
    expect_both(field, "");
  }
  for (const char* field : {"\"tools\":null", "\"tool_choice\":\"none\"",
                            "\"modalities\":[\"text\"]", "\"function_call\":\"none\"", "\"echo\":false"}) {
    EXPECT_EQ(chat_error(field), "") << field;
  }
}

TEST(OpenAiRequest, FieldsWithoutMeaningAreAcceptedAndUnknownOnesIgnoredUnlessStrict) {
  for (const char* field :
       {"\"audio\":{}", "\"metadata\":{\"a\":\"b\"}", "\"prediction\":{}", "\"prompt_cache_key\":\"k\"",
        "\"service_tier\":\"auto\"", "\"store\":true", "\"user\":\"u\"", "\"verbosity\":\"low\"",
        "\"web_search_options\":{}", "\"reasoning_effort\":\"high\"", "\"parallel_tool_calls\":true",
        "\"safety_identifier\":\"s\"", "\"moderation\":{}"}) {
    EXPECT_EQ(chat_error(field), "") << field;
    EXPECT_EQ(chat_error(field, /*strict=*/true), "") << field;
  }
  expect_both("\"reasoning\":{\"effort\":\"high\"}", "");
  EXPECT_EQ(chat_error("\"reasoning\":{}", /*strict=*/true), "unknown_parameter reasoning");
  EXPECT_EQ(completion_error("\"temprature\":1", /*strict=*/true), "unknown_parameter temprature");
  EXPECT_EQ(chat_error("\"stream\":true,\"stream_options\":{\"x\":1}", /*strict=*/true),
            "unknown_parameter stream_options.x");
}

TEST(OpenAiRequest, APredictionIsATextOrPartsOfOne) {
  const auto prediction = [](const std::string& value) {
    const auto parsed = parse_completion_request(R"({"prompt":"p","prediction":)" + value + "}", {});
    return parsed ? parsed->generate.prediction.value_or("none") : parsed.error().param;
  };
  EXPECT_EQ(prediction("null"), "none");
  EXPECT_EQ(prediction(R"({"type":"content","content":"as before"})"), "as before");
  EXPECT_EQ(prediction(R"({"type":"content","content":[{"type":"text","text":"as "},{"type":"text","text":"before"}]})"),
            "as before");
  EXPECT_EQ(prediction(R"("as before")"), "prediction");
  EXPECT_EQ(prediction(R"({"type":"patch","content":"as before"})"), "prediction.type");
  EXPECT_EQ(prediction(R"({"content":[{"type":"text"}]})"), "prediction.content.text");
  EXPECT_EQ(prediction(R"({"content":["as before"]})"), "prediction.content");
  EXPECT_EQ(completion_error(R"("speculation":{"depth":"x"})"), "invalid_type speculation.depth");
}

TEST(OpenAiRequest, EveryMeaningfulFieldArrives) {
  const auto parsed = parse_completion_request(
      R"({"model":"m","prompt":"p","n":2,"max_tokens":9,"min_tokens":1,"temperature":0.5,"top_p":0.9,"min_p":0.1,"top_k":40,
          "presence_penalty":1,"frequency_penalty":-1,"repetition_penalty":1.1,"seed":-5,"stop":["a","b"],"echo":true,"logprobs":2,
          "prompt_logprobs":1,"ignore_eos":true,"include_stop_str_in_output":true,"skip_special_tokens":false,
          "add_special_tokens":false,"cache_salt":"s","priority":3,"stream":true,"return_token_ids":true})",
      {.strict = true});
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  const OpenAiRequest& whole = parsed.value();
  const GenerateRequest& r = whole.generate;
  EXPECT_TRUE(whole.stream && whole.return_token_ids && !whole.include_usage);
  EXPECT_EQ(r.model, "m");
  EXPECT_EQ(r.n, 2);
  EXPECT_EQ(r.max_tokens, 9);
  EXPECT_EQ(r.min_tokens, 1);
  EXPECT_EQ(r.temperature, 0.5);
  EXPECT_EQ(r.top_p, 0.9);
  EXPECT_EQ(r.min_p, 0.1);
  EXPECT_EQ(r.top_k, 40);
  EXPECT_EQ(r.presence_penalty, 1);
  EXPECT_EQ(r.frequency_penalty, -1);
  EXPECT_EQ(r.repetition_penalty, 1.1);
  EXPECT_EQ(r.seed, -5);
  EXPECT_EQ(r.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(r.echo && r.ignore_eos && r.include_stop_str_in_output && !r.skip_special_tokens &&
              !r.add_special_tokens);
  EXPECT_EQ(r.logprobs, 2);
  EXPECT_EQ(r.prompt_logprobs, 1);
  EXPECT_EQ(r.cache_salt, "s");
  EXPECT_EQ(r.priority, 3);
}

TEST(OpenAiRequest, TokenizeTakesAPromptOrMessages) {
  EXPECT_TRUE(parse_tokenize_request(R"({"prompt":"x","add_special_tokens":false})", {}).ok());
  EXPECT_FALSE(parse_tokenize_request(R"({"prompt":"x","add_special_tokens":false})", {})
                   .value()
                   .generate.add_special_tokens);
  EXPECT_TRUE(parse_tokenize_request(R"({"messages":[]})", {}).value().generate.chat.has_value());
  for (const char* bad : {"{}", "{\"prompt\":null}", "{\"prompt\":[\"a\"],\"messages\":[]}"}) {
    EXPECT_EQ(parse_tokenize_request(bad, {}).error().code, "invalid_prompt") << bad;
  }
  EXPECT_EQ(parse_tokenize_request("{\"prompt\":[\"a\"]}", {}).error().code, "invalid_type");
  EXPECT_EQ(parse_tokenize_request("{\"messages\":5}", {}).error().code, "invalid_messages");
  EXPECT_EQ(parse_tokenize_request("{\"messages\":[],\"tools\":[{}]}", {}).value().generate.chat->tools.size(), 1u);
  EXPECT_EQ(parse_tokenize_request("{\"messages\":[],\"tools\":[1]}", {}).error().param, "tools");
  EXPECT_EQ(parse_detokenize_request("{}", {}).error().code, "invalid_type");
  EXPECT_EQ(parse_detokenize_request("{\"tokens\":\"x\"}", {}).error().code, "invalid_type");
  EXPECT_EQ(parse_detokenize_request("{\"tokens\":[1.5]}", {}).error().param, "tokens");
  EXPECT_EQ(parse_detokenize_request("{\"tokens\":[]}", {}).value().tokens.size(), 0u);
}

}  // namespace
}  // namespace serval
