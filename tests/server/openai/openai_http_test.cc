// The OpenAI endpoints over a scripted service: golden answers and streams, errors before and inside a
// stream, clients that leave or do not read. Ids and times are the only parts of an answer that are not
// compared.
#include <cmath>
#include <regex>
#include <thread>

#include "tests/server/http/http_fixture.h"

namespace serval::testing {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;

const std::string kChat = "/v1/chat/completions";
const std::string kCompletion = "/v1/completions";

// Ids and times replaced, so that the rest can be compared to the byte.
std::string without_ids(std::string text) {
  text = std::regex_replace(text, std::regex("(chatcmpl|cmpl)-[0-9a-f]{32}"), "$1-ID");
  return std::regex_replace(text, std::regex("\"created\":[0-9]+"), "\"created\":0");
}

class OpenAiHttp : public HttpTest {
 protected:
  std::string stream(const std::string& path, const std::string& body) {
    const RawResponse response = ask(post(path, body));
    EXPECT_EQ(response.status, 200) << response.body;
    EXPECT_EQ(response.field("content-type"), "text/event-stream; charset=utf-8");
    EXPECT_EQ(response.field("cache-control"), "no-cache");
    EXPECT_EQ(response.field("x-accel-buffering"), "no");
    return without_ids(response.body);
  }
  std::string whole(const std::string& path, const std::string& body) {
    const RawResponse response = ask(post(path, body));
    EXPECT_EQ(response.status, 200) << response.body;
    EXPECT_EQ(response.field("content-type"), "application/json");
    json::parse(response.body);  // throws when it is not JSON
    return without_ids(response.body);
  }

  static Script hello() {
    return {.deltas = {token(0, "Hel", 10), token(0, "lo", 11, FinishReason::kStop)},
            .usage = {.prompt_tokens = 3, .completion_tokens = 2, .cached_tokens = 1}};
  }
  const std::string usage_json =
      R"("usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1},)"
      R"("completion_tokens_details":{"reasoning_tokens":0}})";
};

// --- whole answers ---

TEST_F(OpenAiHttp, AnswersAChatWhole) {
  service.set_script(hello());
  start();
  EXPECT_EQ(
      whole(kChat, R"({"messages":[{"role":"user","content":"hi"}]})"),
      R"({"id":"chatcmpl-ID","object":"chat.completion","created":0,"model":"fake","choices":[{"index":0,)"
      R"("message":{"role":"assistant","content":"Hello","refusal":null},"logprobs":null,"finish_reason":"stop",)"
      R"("stop_reason":null}],)" +
          usage_json + "}");
  EXPECT_TRUE(service.last_request().chat.has_value());
  EXPECT_EQ(service.num_finished(), 1);
}

TEST_F(OpenAiHttp, AnswersACompletionWhole) {
  Script script = hello();
  script.deltas.back().finish = FinishReason::kStopString;
  script.deltas.back().stop_reason = std::string("###");
  service.set_script(script);
  start();
  EXPECT_EQ(
      whole(kCompletion, R"({"prompt":"x","model":"fake"})"),
      R"({"id":"cmpl-ID","object":"text_completion","created":0,"model":"fake","choices":[{"index":0,"text":"Hello",)"
      R"("logprobs":null,"finish_reason":"stop","stop_reason":"###"}],)" +
          usage_json + "}");
}

TEST_F(OpenAiHttp, GathersInterleavedChoicesByIndex) {
  service.set_script({.deltas = {token(1, "b", 1), token(0, "a", 2), token(1, "B", 3, FinishReason::kLength),
                                 token(0, "A", 4, FinishReason::kStop)},
                      .n = 2});
  start();
  const json::value answer = json::parse(whole(kCompletion, R"({"prompt":"x","n":2})"));
  const json::array& choices = answer.at("choices").as_array();
  ASSERT_EQ(choices.size(), 2u);
  EXPECT_EQ(choices[0].at("text"), "aA");
  EXPECT_EQ(choices[0].at("finish_reason"), "stop");
  EXPECT_EQ(choices[1].at("text"), "bB");
  EXPECT_EQ(choices[1].at("index"), 1);
  EXPECT_EQ(choices[1].at("finish_reason"), "length");
}

TEST_F(OpenAiHttp, ReturnsTokenIdsWhenAsked) {
  Script script = hello();
  script.deltas.back().stop_reason = TokenId{11};
  service.set_script(script);
  start();
  const json::value chat = json::parse(whole(kChat, R"({"messages":[],"return_token_ids":true})"));
  EXPECT_EQ(json::serialize(chat.at("prompt_token_ids")), "[1,2,3]");
  EXPECT_EQ(json::serialize(chat.at("choices").at(0).at("token_ids")), "[10,11]");
  EXPECT_EQ(chat.at("choices").at(0).at("stop_reason"), 11);
  const json::value completion =
      json::parse(whole(kCompletion, R"({"prompt":[7,8],"return_token_ids":true})"));
  EXPECT_EQ(json::serialize(completion.at("choices").at(0).at("prompt_token_ids")), "[7,8]");
  EXPECT_EQ(json::serialize(completion.at("choices").at(0).at("token_ids")), "[10,11]");
}

// --- reasoning and calls ---

TEST_F(OpenAiHttp, AnswersInPartsWhole) {
  service.set_script({.deltas = {parts({{PartKind::kReasoning, "Hm.", ""},
                                        {PartKind::kCall, "f", "call_1"},
                                        {PartKind::kArguments, "{\"a\": \"\u00e9\"}", ""},
                                        {PartKind::kCall, "g", "call_2"}},
                                       FinishReason::kStop)}});
  start();
  const json::value choice = json::parse(whole(kChat, R"({"messages":[]})")).at("choices").at(0);
  EXPECT_EQ(choice.at("finish_reason"), "tool_calls");
  EXPECT_EQ(choice.at("message"), json::parse(R"({"role":"assistant","content":null,"reasoning_content":"Hm.","reasoning":"Hm.",
      "tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\": \"\u00e9\"}"}},
                    {"id":"call_2","type":"function","function":{"name":"g","arguments":""}}],"refusal":null})"));
}

TEST_F(OpenAiHttp, StreamsACallByItsNameOnceAndItsArgumentsAsTheyCome) {
  service.set_script({.deltas = {parts({{PartKind::kReasoning, "Hm.", ""}}), parts({{PartKind::kContent, "So", ""}, {PartKind::kCall, "f", "call_1"}}),
                                 parts({{PartKind::kArguments, "{\"a\":", ""}}),
                                 parts({{PartKind::kArguments, " 1}", ""}, {PartKind::kCall, "g", "call_2"}, {PartKind::kArguments, "{}", ""}}),
                                 parts({}, FinishReason::kStop)}});
  start();
  const std::string text = stream(kChat, R"({"messages":[],"stream":true})");
  std::vector<std::string> deltas;
  const std::regex pattern("\"delta\":(.*),\"logprobs\"");
  for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at) deltas.push_back((*at)[1]);
  EXPECT_EQ(deltas, (std::vector<std::string>{
                        R"({"role":"assistant","content":""})", R"({"reasoning_content":"Hm.","reasoning":"Hm."})",
                        R"({"content":"So","tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":""}}]})",
                        R"({"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]})",
                        R"({"tool_calls":[{"index":0,"function":{"arguments":" 1}"}},{"index":1,"id":"call_2","type":"function","function":{"name":"g","arguments":"{}"}}]})",
                        "{}"}));
  EXPECT_THAT(text, HasSubstr("\"finish_reason\":\"tool_calls\""));
}

TEST_F(OpenAiHttp, AnAnswerCutOffWithinACallSaysSo) {
  service.set_script({.deltas = {parts({{PartKind::kCall, "f", "call_1"}}, FinishReason::kLength)}});
  start();
  EXPECT_EQ(json::parse(whole(kChat, R"({"messages":[]})")).at("choices").at(0).at("finish_reason"), "length");
}

// --- log-probabilities ---

Script with_logprobs() {
  Delta delta = token(0, "h\xc3\xa9", 10);
  TokenLogprob h{.token = 10, .bytes = "h", .logprob = -0.5f, .rank = 1};
  h.top = {{.token = 10, .bytes = "h", .logprob = -0.5f, .rank = 1},
           {.token = 12, .bytes = "j", .logprob = -INFINITY, .rank = 2}};
  TokenLogprob half{.token = 11, .bytes = "\xc3", .logprob = -1, .rank = 3};
  half.top = {{.token = 13, .bytes = "k", .logprob = -0.25f, .rank = 1}};
  TokenLogprob rest{.token = 14, .bytes = "\xa9", .logprob = 0, .rank = 1};
  delta.token_ids = {10, 11, 14};
  delta.logprobs = {h, half, rest};
  delta.finish = FinishReason::kLength;
  return {.deltas = {delta}};
}

TEST_F(OpenAiHttp, ChatLogprobsHaveBytesAndNoInfinity) {
  service.set_script(with_logprobs());
  start();
  EXPECT_THAT(
      whole(kChat, R"({"messages":[],"logprobs":true,"top_logprobs":2})"),
      HasSubstr(
          R"("logprobs":{"content":[{"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[)"
          R"({"token":"h","logprob":-0.5,"bytes":[104]},{"token":"j","logprob":-9999.0,"bytes":[106]}]},)"
          R"({"token":"bytes:\\xc3","logprob":-1.0,"bytes":[195],"top_logprobs":[{"token":"k","logprob":-0.25,"bytes":[107]}]},)"
          R"({"token":"bytes:\\xa9","logprob":0.0,"bytes":[169],"top_logprobs":[]}],"refusal":null})"));
  EXPECT_EQ(service.last_request().logprobs, 2);
}

TEST_F(OpenAiHttp, CompletionLogprobsAreParallelArrays) {
  service.set_script(with_logprobs());
  start();
  EXPECT_THAT(
      whole(kCompletion, R"({"prompt":"x","logprobs":1})"),
      HasSubstr(
          R"("logprobs":{"tokens":["h","bytes:\\xc3","bytes:\\xa9"],"token_logprobs":[-0.5,-1.0,0.0],)"
          R"("top_logprobs":[{"h":-0.5,"j":-9999.0},{"k":-0.25,"bytes:\\xc3":-1.0},{"bytes:\\xa9":0.0}],)"
          R"("text_offset":[0,1,2]})"));
}

TEST_F(OpenAiHttp, LogprobsNameTokensByTheirIdsWhenAsked) {
  service.set_script(with_logprobs());
  start();
  EXPECT_THAT(whole(kCompletion, R"({"prompt":"x","logprobs":1,"return_tokens_as_token_ids":true})"),
              HasSubstr(R"("logprobs":{"tokens":["token_id:10","token_id:11","token_id:14"],"token_logprobs":[-0.5,-1.0,0.0],)"
                        R"("top_logprobs":[{"token_id:10":-0.5,"token_id:12":-9999.0},{"token_id:13":-0.25,"token_id:11":-1.0},)"
                        R"({"token_id:14":0.0}],)"));
  const std::string chat = whole(kChat, R"({"messages":[],"logprobs":true,"return_tokens_as_token_ids":true})");
  EXPECT_THAT(chat, HasSubstr(R"({"token":"token_id:10","logprob":-0.5,"bytes":[104],"top_logprobs":[{"token":"token_id:10")"));
}

Script with_prompt_logprobs() {
  Script script = with_logprobs();
  PromptLogprobs prompt;
  prompt.entries = {{.token = 'P'}, {.token = 'q', .logprob = -2, .rank = 4, .top_end = 1}};
  prompt.top = {{.token = 'r', .logprob = -1}};
  script.deltas[0].prompt_logprobs = std::make_shared<const PromptLogprobs>(std::move(prompt));
  return script;
}

TEST_F(OpenAiHttp, EchoPutsThePromptInFront) {
  service.set_script(with_prompt_logprobs());
  start();
  const std::string answer = whole(kCompletion, R"({"prompt":"Pq","echo":true,"logprobs":1,"max_tokens":1})");
  EXPECT_THAT(answer, HasSubstr("\"text\":\"Pqh\xc3\xa9\""));
  EXPECT_THAT(
      answer,
      HasSubstr(
          R"("tokens":["P","q","h","bytes:\\xc3","bytes:\\xa9"],"token_logprobs":[null,-2.0,-0.5,-1.0,0.0])"));
  EXPECT_THAT(answer, HasSubstr(R"("top_logprobs":[null,{"r":-1.0,"q":-2.0},)"));
  EXPECT_THAT(answer, HasSubstr(R"("text_offset":[0,1,2,3,4])"));
  EXPECT_THAT(stream(kCompletion, R"({"prompt":"Pq","echo":true,"logprobs":1,"stream":true})"),
              HasSubstr("\"text\":\"Pqh\xc3\xa9\""));
}

TEST_F(OpenAiHttp, TokensThatTheTextLeavesOutHaveNoWidth) {
  Delta delta = token(0, "de", 3, FinishReason::kStopString);
  delta.logprobs = {{.token = 'd', .bytes = "d"},
                    {.token = 1, .bytes = "<s>", .width = 0},
                    {.token = 'e', .bytes = "e"},
                    {.token = 'f', .bytes = "fgh"},  // a stop string, which the text does not have
                    {.token = 'i', .bytes = "i"}};
  PromptLogprobs prompt;
  prompt.entries = {{.token = 1, .width = 0}, {.token = 'a', .width = 1}, {.token = 'b', .width = 1}};
  delta.prompt_logprobs = std::make_shared<const PromptLogprobs>(std::move(prompt));
  service.set_script({.deltas = {delta}});
  start();
  const std::string expected = R"("text_offset":[0,0,1,2,3,3,4,4])";
  EXPECT_THAT(whole(kCompletion, R"({"prompt":"ab","echo":true,"logprobs":0})"), HasSubstr(expected));
  EXPECT_THAT(stream(kCompletion, R"({"prompt":"ab","echo":true,"logprobs":0,"stream":true})"), HasSubstr(expected));
}

TEST_F(OpenAiHttp, ALongAnswerComesInPiecesAndIsTheSame) {
  // Whole and streamed; with keep-alive and, for HTTP/1.0, to the end of the connection.
  PromptLogprobs prompt;
  for (int i = 0; i < 20'000; ++i)
    prompt.entries.push_back({.token = 'a' + i % 20, .logprob = -1, .rank = i, .top_end = 0});
  Delta delta = token(0, std::string(100'000, 'x') + "\xc3\xa9", 3, FinishReason::kLength);
  delta.prompt_logprobs = std::make_shared<const PromptLogprobs>(std::move(prompt));
  service.set_script({.deltas = {delta}});
  start();
  const std::string json = R"({"prompt":"ab","prompt_logprobs":0,"return_token_ids":true})";
  const RawResponse chunked = ask(post(kCompletion, json));
  EXPECT_EQ(chunked.field("transfer-encoding"), "chunked");
  EXPECT_GT(chunked.chunks.size(), 10u);
  for (const std::string& chunk : chunked.chunks) EXPECT_LE(chunk.size(), 64u << 10);
  const json::value answer = json::parse(chunked.body);
  EXPECT_EQ(answer.at("choices").at(0).at("prompt_logprobs").as_array().size(), 20'000u);
  EXPECT_EQ(std::string(answer.at("choices").at(0).at("text").as_string()), delta.text);
  std::string old = post(kCompletion, json);
  old.replace(old.find("HTTP/1.1"), 8, "HTTP/1.0");
  const RawResponse closed = ask(old);
  EXPECT_TRUE(closed.ends_with_close);
  EXPECT_EQ(json::parse(closed.body).at("choices"), answer.at("choices"));
  const std::string events = stream(kCompletion, R"({"prompt":"ab","prompt_logprobs":0,"stream":true})");
  EXPECT_THAT(events, ::testing::EndsWith("data: [DONE]\n\n"));
  const json::value event = json::parse(events.substr(6, events.find("\n\n") - 6));
  EXPECT_EQ(event.at("choices").at(0).at("prompt_logprobs"), answer.at("choices").at(0).at("prompt_logprobs"));
}

TEST_F(OpenAiHttp, PromptLogprobsNameTheTokenAndItsRivals) {
  service.set_script(with_prompt_logprobs());
  start();
  const std::string expected =
      R"("prompt_logprobs":[null,{"113":{"logprob":-2.0,"rank":4,"decoded_token":"q"},)"
      R"("114":{"logprob":-1.0,"rank":1,"decoded_token":"r"}}])";
  EXPECT_THAT(whole(kCompletion, R"({"prompt":"Pq","prompt_logprobs":1})"), HasSubstr(expected));
  EXPECT_THAT(whole(kChat, R"({"messages":[],"prompt_logprobs":1})"), HasSubstr(expected));
  EXPECT_THAT(stream(kChat, R"({"messages":[],"prompt_logprobs":1,"stream":true})"), HasSubstr(expected));
}

// --- streams ---

TEST_F(OpenAiHttp, StreamsAChat) {
  service.set_script(hello());
  start();
  const std::string head =
      R"(data: {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":0,"model":"fake",)";
  EXPECT_EQ(
      stream(kChat, R"({"messages":[],"stream":true})"),
      head +
          R"("choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]})" +
          "\n\n" + head +
          R"("choices":[{"index":0,"delta":{"content":"Hel"},"logprobs":null,"finish_reason":null}]})" +
          "\n\n" + head +
          R"("choices":[{"index":0,"delta":{"content":"lo"},"logprobs":null,"finish_reason":"stop","stop_reason":null}]})" +
          "\n\ndata: [DONE]\n\n");
}

TEST_F(OpenAiHttp, StreamsUsageLastAndNullBefore) {
  service.set_script(hello());
  start();
  const std::string head = R"(data: {"id":"cmpl-ID","object":"text_completion","created":0,"model":"fake",)";
  EXPECT_EQ(
      stream(kCompletion, R"({"prompt":"x","stream":true,"stream_options":{"include_usage":true}})"),
      head + R"("choices":[{"index":0,"text":"Hel","logprobs":null,"finish_reason":null}],"usage":null})" +
          "\n\n" + head +
          R"("choices":[{"index":0,"text":"lo","logprobs":null,"finish_reason":"stop","stop_reason":null}],"usage":null})" +
          "\n\n" + head + R"("choices":[],)" + usage_json + "}\n\ndata: [DONE]\n\n");
}

TEST_F(OpenAiHttp, ContinuousUsageCountsWithEveryEvent) {
  service.set_script({.deltas = {token(0, "a", 1), token(1, "b", 2), token(0, "c", 3, FinishReason::kStop),
                                 token(1, "d", 4, FinishReason::kStop)},
                      .usage = {.prompt_tokens = 3, .completion_tokens = 4},
                      .n = 2});
  start();
  const std::string options = R"("n":2,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}})";
  const auto usages = [](const std::string& events) {
    std::vector<std::string> found;
    const std::regex usage(R"re("usage":\{"prompt_tokens":(\d+),"completion_tokens":(\d+),"total_tokens":(\d+)\}\})re");
    for (std::sregex_iterator it(events.begin(), events.end(), usage), end; it != end; ++it)
      found.push_back((*it)[1].str() + "+" + (*it)[2].str() + "=" + (*it)[3].str());
    return found;
  };
  EXPECT_EQ(usages(stream(kCompletion, R"({"prompt":[7,8,9],)" + options)),
            (std::vector<std::string>{"3+1=4", "3+1=4", "3+2=5", "3+2=5"}));
  EXPECT_EQ(usages(stream(kChat, R"({"messages":[],)" + options)),
            (std::vector<std::string>{"3+0=3", "3+1=4", "3+0=3", "3+1=4", "3+2=5", "3+2=5"}));
}

TEST_F(OpenAiHttp, ChoicesAppearInOrderWhateverTheEngineSaysFirst) {
  service.set_script(
      {.deltas = {token(2, "c", 1), token(0, "a", 2), token(1, "b", 3, FinishReason::kStop),
                  token(2, "C", 4, FinishReason::kStop), token(0, "", 5, FinishReason::kLength)},
       .n = 3});
  start();
  for (const std::string& path : {kChat, kCompletion}) {
    const std::string events =
        stream(path, R"({"prompt":"x","messages":[],"n":3,"stream":true,"return_token_ids":true})");
    std::vector<int64_t> first_seen;
    std::vector<std::string> texts(3);
    size_t roles = 0;
    for (size_t at = 0; (at = events.find("data: {", at)) != std::string::npos; ++at) {
      const json::value chunk = json::parse(events.substr(at + 6, events.find("\n\n", at) - at - 6));
      const json::value& choice = chunk.at("choices").at(0);
      const int64_t index = choice.at("index").as_int64();
      if (std::find(first_seen.begin(), first_seen.end(), index) == first_seen.end())
        first_seen.push_back(index);
      const json::object& holder = path == kChat ? choice.at("delta").as_object() : choice.as_object();
      if (const json::value* text = holder.if_contains(path == kChat ? "content" : "text")) {
        texts[static_cast<size_t>(index)] += text->as_string();
      }
      roles += holder.contains("role");
    }
    EXPECT_EQ(first_seen, (std::vector<int64_t>{0, 1, 2})) << events;
    EXPECT_EQ(texts, (std::vector<std::string>{"a", "b", "cC"}));
    EXPECT_EQ(roles, path == kChat ? 3u : 0u);
    EXPECT_THAT(events, HasSubstr(R"("finish_reason":"length")"));
  }
}

TEST_F(OpenAiHttp, StreamsTokenIdsWithThePromptOnce) {
  service.set_script(hello());
  start();
  const std::string chat = stream(kChat, R"({"messages":[],"stream":true,"return_token_ids":true})");
  EXPECT_EQ(chat.find("\"prompt_token_ids\":[1,2,3]"), chat.rfind("\"prompt_token_ids\":"));
  EXPECT_THAT(chat, HasSubstr("\"token_ids\":[10]"));
  EXPECT_THAT(chat, HasSubstr("\"token_ids\":[11]"));
  const std::string completion =
      stream(kCompletion, R"({"prompt":[7],"stream":true,"return_token_ids":true})");
  EXPECT_EQ(completion.find("\"prompt_token_ids\":[7]"), completion.rfind("\"prompt_token_ids\":"));
}

TEST_F(OpenAiHttp, TheHeadIsNotSentBeforeTheFirstToken) {
  service.set_script({.deltas = {token(0, "a", 1, FinishReason::kStop)}, .hold_before = 0});
  start();
  RawHttpClient client(server->port());
  client.send(post(kChat, R"({"messages":[],"stream":true})"));
  ASSERT_TRUE(service.wait_until([&] { return service.num_started() == 1; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(num_responses, 0);
  service.release();
  EXPECT_EQ(client.read_response()->status, 200);
}

TEST_F(OpenAiHttp, AnOldClientGetsTheStreamUnframed) {
  service.set_script(hello());
  start();
  RawHttpClient client(server->port());
  const std::string body = R"({"prompt":"x","stream":true})";
  client.send("POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n" + body);
  const auto response = client.read_response();
  ASSERT_TRUE(response.has_value());
  EXPECT_TRUE(response->ends_with_close);
  EXPECT_EQ(response->field("transfer-encoding"), "");
  EXPECT_EQ(response->body.substr(response->body.size() - 14), "data: [DONE]\n\n");
}

TEST_F(OpenAiHttp, AConnectionCarriesStreamAfterStream) {
  service.set_script(hello());
  start();
  RawHttpClient client(server->port());
  for (int i = 0; i < 3; ++i) {
    client.send(post(kChat, R"({"messages":[],"stream":true})"));
    const auto response = client.read_response();
    ASSERT_TRUE(response.has_value());
    EXPECT_THAT(response->body, HasSubstr("[DONE]"));
  }
}

TEST_F(OpenAiHttp, SixtyFourStreamsAtOnceAreEachWhole) {
  service.set_script([](const GenerateRequest& request) {
    Script script;
    const std::string& prompt = std::get<std::string>(request.prompts.at(0));
    for (int i = 0; i < 50; ++i) script.deltas.push_back(token(0, prompt + std::to_string(i) + ";", i));
    script.deltas.back().finish = FinishReason::kLength;
    return script;
  });
  HttpConfig config;
  config.io_threads = 2;
  config.text_threads = 2;
  start(config);
  std::vector<std::unique_ptr<RawHttpClient>> clients;
  for (int i = 0; i < 64; ++i) {
    clients.push_back(std::make_unique<RawHttpClient>(server->port()));
    clients.back()->send(post(kCompletion, "{\"prompt\":\"p" + std::to_string(i) + ".\",\"stream\":true}"));
  }
  for (int i = 0; i < 64; ++i) {
    const auto response = clients[static_cast<size_t>(i)]->read_response();
    ASSERT_TRUE(response.has_value());
    std::string text, expected;
    for (int k = 0; k < 50; ++k) expected += "p" + std::to_string(i) + "." + std::to_string(k) + ";";
    const std::regex piece("\"text\":\"([^\"]*)\"");
    for (std::sregex_iterator it(response->body.begin(), response->body.end(), piece), end; it != end; ++it)
      text += (*it)[1];
    EXPECT_EQ(text, expected);
  }
}

// --- errors ---

TEST_F(OpenAiHttp, AnErrorOfTheServiceIsAStatus) {
  start();
  struct {
    ErrorKind kind;
    int status;
    const char* type;
    const char* retry_after;
    const char* should_retry;
  } cases[] = {
      {ErrorKind::kInvalidRequest, 400, "invalid_request_error", "", ""},
      {ErrorKind::kUnauthenticated, 401, "authentication_error", "", ""},
      {ErrorKind::kPermissionDenied, 403, "permission_error", "", ""},
      {ErrorKind::kNotFound, 404, "not_found_error", "", ""},
      {ErrorKind::kOverloaded, 429, "rate_limit_error", "7", ""},
      {ErrorKind::kInternal, 500, "server_error", "", "false"},
      {ErrorKind::kUnavailable, 503, "service_unavailable", "7", ""},
      {ErrorKind::kDeadlineExceeded, 504, "timeout_error", "", "false"},
  };
  for (const bool late : {false, true}) {
    for (const bool streamed : {false, true}) {
      for (const auto& c : cases) {
        Script script;
        const Error error{c.kind, "some_code", "A \"sentence\".", "field", 7};
        (late ? script.error : script.refusal) = error;
        service.set_script(script);
        const RawResponse response =
            ask(post(kChat, streamed ? R"({"messages":[],"stream":true})" : R"({"messages":[]})"));
        EXPECT_EQ(response.status, c.status);
        EXPECT_EQ(response.field("content-type"), "application/json");
        EXPECT_EQ(error_field(response, "type"), c.type);
        EXPECT_EQ(error_field(response, "code"), "some_code");
        EXPECT_EQ(error_field(response, "param"), "field");
        EXPECT_EQ(error_field(response, "message"), "A \"sentence\".");
        EXPECT_EQ(response.field("retry-after"), c.retry_after);
        EXPECT_EQ(response.field("x-should-retry"), c.should_retry);
      }
    }
  }
}

TEST_F(OpenAiHttp, ARetryAfterIsNeverLongerThanClientsAccept) {
  service.set_script({.refusal = Error{ErrorKind::kOverloaded, "queue_full", "Full.", "", 3600}});
  start();
  const RawResponse response = ask(post(kChat, R"({"messages":[]})"));
  EXPECT_EQ(response.field("retry-after"), "120");
  EXPECT_EQ(response.field("retry-after-ms"), "120000");
}

TEST_F(OpenAiHttp, AnErrorInsideAStreamIsAnEventThenDoneThenTheEnd) {
  service.set_script({.deltas = {token(0, "a", 1)},
                      .hold_before = 1,
                      .error = Error{ErrorKind::kInternal, "numerical_error", "NaN.", ""}});
  start();
  RawHttpClient client(server->port());
  client.send(post(kCompletion, R"({"prompt":"x","stream":true})"));
  ASSERT_TRUE(client.read_until("\"text\":\"a\""));
  service.release();
  const auto response = client.read_response();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->status, 200);
  const std::string end =
      "data: "
      "{\"error\":{\"message\":\"NaN.\",\"type\":\"server_error\",\"param\":null,\"code\":\"numerical_"
      "error\"}}\n\n"
      "data: [DONE]\n\n";
  EXPECT_EQ(response->body.substr(response->body.size() - end.size()), end);
  EXPECT_TRUE(client.closed_by_server());
}

TEST_F(OpenAiHttp, AFinishThatIsNoAnswerIsAnError) {
  service.set_script({.deltas = {token(0, "a", 1, FinishReason::kNumericalError)}});
  start();
  const RawResponse response = ask(post(kCompletion, R"({"prompt":"x"})"));
  EXPECT_EQ(response.status, 500);
  EXPECT_EQ(error_code(response), "generation_failed");
}

// --- clients that leave or do not read ---

TEST_F(OpenAiHttp, AClientThatLeavesCancelsItsGeneration) {
  enum Way { kFin, kReset, kClose };
  enum Moment { kQueued, kStreaming, kGathering };
  start();
  int cancelled = 0;
  for (const Moment moment : {kQueued, kStreaming, kGathering}) {
    for (const Way way : {kFin, kReset, kClose}) {
      SCOPED_TRACE(std::to_string(moment) + " " + std::to_string(way));
      Script script{.deltas = {token(0, "a", 1)}};
      script.forever = moment != kQueued;
      if (moment == kQueued) script.hold_before = 0;
      service.set_script(script);
      const int started = service.num_started();
      RawHttpClient client(server->port());
      client.send(
          post(kCompletion, moment == kStreaming ? R"({"prompt":"x","stream":true})" : R"({"prompt":"x"})"));
      ASSERT_TRUE(service.wait_until([&] { return service.num_started() == started + 1; }));
      if (moment == kStreaming) {
        ASSERT_TRUE(client.read_until("\"text\":\"a\""));
      }
      if (way == kFin) client.shutdown_send();
      if (way == kReset) client.reset();
      if (way == kClose) client.close();
      ++cancelled;
      EXPECT_TRUE(service.wait_until([&] { return service.num_cancelled() == cancelled; }));
    }
  }
  EXPECT_EQ(service.num_finished(), 0);
  EXPECT_EQ(num_stalls, 0);
}

TEST_F(OpenAiHttp, AClientThatLeavesBehindAFullPipelineIsNoticed) {
  service.set_script({.deltas = {token(0, "a", 1)}, .hold_before = 0});
  HttpConfig config;
  config.head = {.max_request_line_bytes = 64, .max_header_bytes = 128};
  start(config);
  RawHttpClient client(server->port());
  std::string flood;
  for (int i = 0; i < 1000; ++i) flood += get("/version");
  client.send(post(kCompletion, R"({"prompt":"x"})") + flood);
  ASSERT_TRUE(service.wait_until([&] { return service.num_started() == 1; }));
  client.shutdown_send();
  EXPECT_TRUE(service.wait_until([&] { return service.num_cancelled() == 1; }));
}

TEST_F(OpenAiHttp, AHalfClosedClientStillGetsAnAnswerThatIsNoGeneration) {
  start();
  RawHttpClient client(server->port());
  client.send(get("/version") + get("/v1/models") + post("/tokenize", R"({"prompt":"ab"})"));
  client.shutdown_send();
  for (int i = 0; i < 3; ++i) {
    const auto response = client.read_response();
    ASSERT_TRUE(response.has_value()) << i;
    EXPECT_EQ(response->status, 200);
  }
  EXPECT_TRUE(client.closed_by_server());
}

TEST_F(OpenAiHttp, AReaderThatTakesNothingIsCutOffAndSlowsNobody) {
  Script endless{.deltas = {token(0, std::string(1000, 'x'), 1)}};
  endless.forever = true;
  service.set_script(endless);
  HttpConfig config;
  config.send_buffer_bytes = 16 << 10;
  config.stream_buffer_bytes = 64 << 10;
  start(config);
  RawHttpClient stuck(server->port(), /*receive_buffer_bytes=*/4096);
  stuck.send(post(kCompletion, R"({"prompt":"x","stream":true})"));
  ASSERT_TRUE(service.wait_until([&] { return service.num_cancelled() == 1; }));
  EXPECT_EQ(num_stalls, 1);
  EXPECT_EQ(ask(get("/version")).status, 200);
}

TEST_F(OpenAiHttp, AReaderThatStopsIsCutOffAfterTheStallTimeout) {
  // Less than the buffer may hold, more than the kernel does: only the clock can end it.
  Script script{.deltas = {token(0, std::string(400'000, 'x'), 1), token(0, "", 2, FinishReason::kStop)},
                .hold_before = 1};
  service.set_script(script);
  HttpConfig config;
  config.send_buffer_bytes = 16 << 10;
  config.stream_buffer_bytes = 64 << 20;
  config.write_stall_timeout = std::chrono::milliseconds(150);
  start(config);
  RawHttpClient stuck(server->port(), /*receive_buffer_bytes=*/4096);
  stuck.send(post(kCompletion, R"({"prompt":"x","stream":true})"));
  ASSERT_TRUE(service.wait_until([&] { return service.num_cancelled() == 1; }));
  EXPECT_EQ(num_stalls + num_disconnects, 1);  // the kernel's own timer may be the first
}

// --- the other endpoints ---

TEST_F(OpenAiHttp, ListsModels) {
  start();
  const json::value list = json::parse(whole("/tokenize", R"({"prompt":""})"));
  EXPECT_EQ(list.at("count"), 0);
  const json::value models = json::parse(ask(get("/v1/models")).body);
  EXPECT_EQ(models.at("object"), "list");
  const json::object& model = models.at("data").at(0).as_object();
  EXPECT_EQ(model.at("id"), "fake");
  EXPECT_EQ(model.at("object"), "model");
  EXPECT_EQ(model.at("created"), 1700000000);
  EXPECT_EQ(model.at("root"), "fake");
  EXPECT_EQ(model.at("max_model_len"), 4096);
  for (const char* key : {"owned_by", "parent", "permission"}) EXPECT_TRUE(model.contains(key)) << key;
}

TEST_F(OpenAiHttp, ShowsAModelByItsNameHoweverItIsEscaped) {
  start();
  for (const char* name : {"fake", "org/alias", "org%2Falias", "f%61ke"}) {
    EXPECT_EQ(ask(get("/v1/models/" + std::string(name))).status, 200) << name;
  }
  for (const char* name : {"other", "fake/", "Fake"}) {
    const RawResponse response = ask(get("/v1/models/" + std::string(name)));
    EXPECT_EQ(response.status, 404) << name;
    EXPECT_EQ(error_code(response), "model_not_found") << name;
    EXPECT_EQ(error_field(response, "param"), "model");
  }
  for (const char* name : {"fake%0", "fake%", "%zz", "fake%00", "a/../fake", "."}) {
    EXPECT_EQ(error_code(ask(get("/v1/models/" + std::string(name)))), "unknown_url") << name;
  }
}

TEST_F(OpenAiHttp, RendersTokenizesAndDetokenizes) {
  start();
  EXPECT_EQ(ask(post(kChat + "/render", R"({"messages":[]})")).body,
            R"({"prompt":"<user>","prompt_token_ids":[1,2,3]})");
  EXPECT_EQ(ask(post(kCompletion + "/render", R"({"prompt":"ab"})")).body,
            R"({"prompt":"ab","prompt_token_ids":[97,98]})");
  EXPECT_EQ(ask(post(kCompletion + "/render", R"({"prompt":["a","b"]})")).body,
            R"([{"prompt":"a","prompt_token_ids":[97]},{"prompt":"b","prompt_token_ids":[98]}])");
  EXPECT_EQ(ask(post("/tokenize", R"({"prompt":"ab"})")).body,
            R"({"count":2,"max_model_len":4096,"tokens":[97,98],"token_strs":null})");
  EXPECT_EQ(
      ask(post("/tokenize", R"({"prompt":"ab","return_token_strs":true,"add_special_tokens":false})")).body,
      R"({"count":2,"max_model_len":4096,"tokens":[97,98],"token_strs":["a","b"]})");
  EXPECT_EQ(ask(post("/tokenize", R"({"messages":[],"add_generation_prompt":false})")).body,
            R"({"count":3,"max_model_len":4096,"tokens":[1,2,3],"token_strs":null})");
  EXPECT_EQ(ask(post("/detokenize", R"({"tokens":[97,98],"model":"fake"})")).body, R"({"prompt":"ab"})");
  EXPECT_EQ(error_code(ask(post("/detokenize", R"({"tokens":[970]})"))), "invalid_token_id");
  EXPECT_EQ(error_code(ask(post("/detokenize", R"({"tokens":[97],"model":"other"})"))), "model_not_found");
  EXPECT_EQ(error_code(ask(post("/tokenize", R"({"prompt":"ab","model":"other"})"))), "model_not_found");
  EXPECT_EQ(service.num_started(), 0);
}

TEST_F(OpenAiHttp, AClientCannotNameAPrefillPeer) {
  start();
  const RawResponse response =
      ask(post(kCompletion, R"({"prompt":"x"})", "x-prefiller-host-port: 10.0.0.1:80\r\n"));
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(error_code(response), "not_allowed");
}

}  // namespace
}  // namespace serval::testing
