// The Messages dialect over a scripted service: what a request becomes, whole answers and streams of events.
#include <regex>

#include "server/anthropic/messages_handlers.h"
#include "tests/server/http/http_fixture.h"

namespace serval::testing {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;

class MessagesHttp : public HttpTest {
 protected:
  RawResponse send(const std::string& fields) { return ask(post("/v1/messages", R"({"max_tokens":9,)" + fields + "}")); }
  static Script called() {
    return {.deltas = {parts({{PartKind::kReasoning, "Hm.", ""}}), parts({{PartKind::kContent, "So", ""}, {PartKind::kCall, "f", "call_1"}}),
                       parts({{PartKind::kArguments, "{\"a\":", ""}}), parts({{PartKind::kArguments, " 1}", ""}}, FinishReason::kStop)},
            .usage = {.prompt_tokens = 5, .completion_tokens = 4, .cached_tokens = 2}};
  }
};

TEST_F(MessagesHttp, AMessageHasABlockForEachPart) {
  service.set_script(called());
  start();
  const RawResponse answer = send(R"("messages":[{"role":"user","content":"hi"}])");
  ASSERT_EQ(answer.status, 200) << answer.body;
  json::object message = json::parse(answer.body).as_object();
  EXPECT_TRUE(std::regex_match(std::string(message["id"].as_string()), std::regex("msg_[0-9a-f]{32}")));
  message.erase("id");
  EXPECT_EQ(message, json::parse(R"({"type":"message","role":"assistant","model":"fake","content":[
      {"type":"thinking","thinking":"Hm.","signature":""},{"type":"text","text":"So"},{"type":"tool_use","id":"call_1","name":"f","input":{"a":1}}],
      "stop_reason":"tool_use","stop_sequence":null,
      "usage":{"input_tokens":3,"cache_creation_input_tokens":0,"cache_read_input_tokens":2,"output_tokens":4}})"));
}

TEST_F(MessagesHttp, AStreamOpensFillsAndClosesOneBlockAfterTheOther) {
  service.set_script(called());
  start();
  const RawResponse answer = send(R"("stream":true,"messages":[{"role":"user","content":"hi"}])");
  std::vector<std::string> events;
  const std::regex pattern("event: ([a-z_]+)\ndata: (.*)\n\n");
  for (std::sregex_iterator at(answer.body.begin(), answer.body.end(), pattern), end; at != end; ++at) {
    EXPECT_EQ(json::parse((*at)[2].str()).at("type").as_string(), (*at)[1].str());
    events.push_back((*at)[2]);
  }
  ASSERT_EQ(events.size(), 13u) << answer.body;
  EXPECT_THAT(events[0], HasSubstr(R"("content":[],"stop_reason":null)"));
  EXPECT_EQ(std::vector<std::string>(events.begin() + 1, events.end()),
            (std::vector<std::string>{
                R"({"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}})",
                R"({"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm."}})",
                R"({"type":"content_block_stop","index":0})",
                R"({"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}})",
                R"({"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"So"}})",
                R"({"type":"content_block_stop","index":1})",
                R"({"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"call_1","name":"f","input":{}}})",
                R"({"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}})",
                R"({"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":" 1}"}})",
                R"({"type":"content_block_stop","index":2})",
                R"({"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":3,"cache_creation_input_tokens":0,"cache_read_input_tokens":2,"output_tokens":4}})",
                R"({"type":"message_stop"})"}));
}

TEST_F(MessagesHttp, ATurnWithToolsBecomesWhatTemplatesKnow) {
  service.set_script(called());
  start();
  const RawResponse answer = send(R"("system":[{"type":"text","text":"be kind"}],"thinking":{"type":"disabled"},
      "tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}],"tool_choice":{"type":"auto","disable_parallel_tool_use":true},"messages":[
      {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"x"},{"type":"tool_use","id":"t1","name":"f","input":{"a":1}}]},
      {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"7"},{"type":"text","text":"and?"}]}])");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const Chat chat = *service.last_request().chat;
  ASSERT_EQ(chat.messages.size(), 4u);
  EXPECT_EQ(chat.messages[0].role + chat.messages[0].content.value(), "systembe kind");
  EXPECT_FALSE(chat.messages[1].content);
  EXPECT_EQ(chat.messages[1].tool_calls, (std::vector<ToolCall>{{"t1", "f", R"({"a":1})"}}));
  EXPECT_EQ(chat.messages[1].fields, (TemplateFields{{"reasoning_content", std::string("hm")}}));
  EXPECT_EQ(chat.messages[2].role + chat.messages[2].content.value(), "tool7");
  EXPECT_EQ(chat.messages[2].fields, (TemplateFields{{"tool_call_id", std::string("t1")}}));
  EXPECT_EQ(chat.messages[3].role + chat.messages[3].content.value(), "userand?");
  ASSERT_EQ(chat.tools.size(), 1u);
  EXPECT_EQ(chat.tools[0].text, R"({"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}})");
  EXPECT_EQ(chat.template_variables, (TemplateFields{{"enable_thinking", false}}));
  EXPECT_TRUE(chat.in_parts && chat.only_one_call && chat.add_generation_prompt);
}

TEST_F(MessagesHttp, ErrorsHaveTheDialectsForm) {
  service.set_script({.refusal = Error{ErrorKind::kOverloaded, "queue_full", "Full.", "", 3}});
  start();
  const RawResponse refused = send(R"("messages":[{"role":"user","content":"hi"}])");
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.body, R"({"type":"error","error":{"type":"overloaded_error","message":"Full."}})");
  EXPECT_EQ(refused.field("retry-after"), "3");
  const RawResponse bad = send(R"("messages":[{"role":"user"}])");
  EXPECT_EQ(bad.status, 400);
  EXPECT_THAT(bad.body, HasSubstr("messages[0].content is missing"));
  service.set_script({.deltas = {parts({{PartKind::kContent, "a", ""}})}, .error = Error{ErrorKind::kInternal, "x", "Lost.", ""}});
  EXPECT_THAT(send(R"("stream":true,"messages":[{"role":"user","content":"hi"}])").body,
              HasSubstr("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"Lost.\"}}\n\n"));
}

}  // namespace
}  // namespace serval::testing
