// The Responses dialect over a scripted service: items of every kind, what is kept and for whom.
#include <regex>

#include "server/responses/response_store.h"
#include "tests/server/http/http_fixture.h"

namespace serval::testing {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;

class ResponsesHttp : public HttpTest {
 protected:
  static Script called() {
    return {.deltas = {parts({{PartKind::kReasoning, "Hm.", ""}}), parts({{PartKind::kContent, "So", ""}, {PartKind::kCall, "f", "call_1"}}),
                       parts({{PartKind::kArguments, "{\"a\":", ""}}), parts({{PartKind::kArguments, " 1}", ""}}, FinishReason::kStop)},
            .usage = {.prompt_tokens = 5, .completion_tokens = 4, .cached_tokens = 2, .reasoning_tokens = 1}};
  }
  // Ids of items replaced.
  static std::string without_ids(std::string text) { return std::regex_replace(text, std::regex("(resp|rs|fc|msg)_[0-9a-f]{32}"), "$1_ID"); }
};

constexpr const char* kOutput = R"([
    {"id":"rs_ID","type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"Hm."}],"status":"completed"},
    {"id":"msg_ID","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"So","annotations":[],"logprobs":[]}]},
    {"id":"fc_ID","type":"function_call","status":"completed","call_id":"call_1","name":"f","arguments":"{\"a\": 1}"}])";

TEST_F(ResponsesHttp, AResponseHasAnItemForEachPart) {
  service.set_script(called());
  start();
  const RawResponse answer = ask(post("/v1/responses", R"({"input":"hi","instructions":"be kind"})"));
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json::value response = json::parse(without_ids(answer.body));
  EXPECT_EQ(response.at("output"), json::parse(kOutput));
  EXPECT_EQ(response.at("status"), "completed");
  EXPECT_EQ(response.at("instructions"), "be kind");
  EXPECT_EQ(response.at("usage"), json::parse(R"({"input_tokens":5,"input_tokens_details":{"cached_tokens":2},"output_tokens":4,
      "output_tokens_details":{"reasoning_tokens":1},"total_tokens":9})"));
  const Chat chat = *service.last_request().chat;
  ASSERT_EQ(chat.messages.size(), 2u);
  EXPECT_EQ(chat.messages[0].role + chat.messages[0].content.value(), "systembe kind");
}

TEST_F(ResponsesHttp, AStreamsLastEventHasWhatAWholeAnswerHas) {
  service.set_script(called());
  start();
  const RawResponse answer = ask(post("/v1/responses", R"({"input":"hi","stream":true})"));
  std::vector<std::string> kinds;
  json::value last;
  const std::regex pattern("event: ([a-z_.]+)\ndata: (.*)\n\n");
  for (std::sregex_iterator at(answer.body.begin(), answer.body.end(), pattern), end; at != end; ++at) {
    last = json::parse((*at)[2].str());
    EXPECT_EQ(last.at("type").as_string(), (*at)[1].str());
    EXPECT_EQ(last.at("sequence_number"), static_cast<int64_t>(kinds.size()));
    kinds.push_back((*at)[1].str().substr(9));
  }
  EXPECT_EQ(kinds, (std::vector<std::string>{
                       "created", "in_progress", "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done",
                       "content_part.done", "output_item.done", "output_item.added", "content_part.added", "output_text.delta", "output_text.done",
                       "content_part.done", "output_item.done", "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
                       "function_call_arguments.done", "output_item.done", "completed"}));
  EXPECT_EQ(json::parse(without_ids(json::serialize(last.at("response").at("output")))), json::parse(kOutput));
}

TEST_F(ResponsesHttp, TheNextOneHasTheWholeConversation) {
  service.set_script(called());
  start();
  const json::value first = json::parse(ask(post("/v1/responses", R"({"input":"hi","instructions":"be kind"})")).body);
  const std::string next = R"({"previous_response_id":")" + std::string(first.at("id").as_string()) +
                           R"(","input":[{"type":"function_call_output","call_id":"call_1","output":"7"},{"role":"user","content":"and?"}]})";
  ASSERT_EQ(ask(post("/v1/responses", next)).status, 200);
  const Chat chat = *service.last_request().chat;
  ASSERT_EQ(chat.messages.size(), 4u);
  EXPECT_EQ(chat.messages[1].content, "So");
  EXPECT_EQ(chat.messages[1].tool_calls, (std::vector<ToolCall>{{"call_1", "f", "{\"a\": 1}"}}));
  EXPECT_EQ(chat.messages[1].fields, (TemplateFields{{"reasoning_content", std::string("Hm.")}}));
  EXPECT_EQ(chat.messages[2].role + chat.messages[2].content.value(), "tool7");
  EXPECT_EQ(chat.messages[3].content, "and?");
}

TEST_F(ResponsesHttp, AKeyFindsOnlyItsOwn) {
  HttpConfig config;
  config.api_keys = {"one", "two"};
  service.set_script(called());
  start(std::move(config));
  const auto with_key = [&](std::string request, const char* key) {
    return ask(request.insert(request.find("\r\n") + 2, "Authorization: Bearer " + std::string(key) + "\r\n"));
  };
  const json::value made = json::parse(with_key(post("/v1/responses", R"({"input":"hi"})"), "one").body);
  const std::string id(made.at("id").as_string());
  const std::string show = "GET /v1/responses/" + id + " HTTP/1.1\r\nHost: a\r\n\r\n";
  EXPECT_EQ(with_key(show, "two").status, 404);
  EXPECT_EQ(with_key(show, "one").status, 200);
}

std::shared_ptr<StoredResponse> stored(size_t bytes) {
  auto result = std::make_shared<StoredResponse>();
  result->conversation.push_back({.role = "user", .content = std::string(bytes, 'x')});
  return result;
}

TEST(ResponseStoreTest, HoldsTheNewestThatFit) {
  ResponseStore store(10'000);
  for (const char* id : {"a", "b", "c"}) store.put(id, stored(4000));
  EXPECT_EQ(store.find("a", 0), nullptr);
  EXPECT_NE(store.find("b", 0), nullptr);
  EXPECT_NE(store.find("c", 0), nullptr);
  EXPECT_EQ(store.find("c", 1), nullptr);
  EXPECT_FALSE(store.erase("c", 1));
  store.put("d", stored(10'000));  // more than all of it: nobody goes for it
  EXPECT_EQ(store.find("d", 0), nullptr);
  EXPECT_TRUE(store.erase("b", 0) && store.erase("c", 0));
  EXPECT_EQ(store.bytes(), 0u);
}

}  // namespace
}  // namespace serval::testing
