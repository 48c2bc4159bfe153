// What a gRPC client sees of the server, in raw frames: what is answered, and every bound.
#include "tests/server/grpc/grpc_fixture.h"

#include <thread>

namespace serval::testing {
namespace {

using ::testing::HasSubstr;

Script two_tokens() {
  return {.deltas = {token(0, "a", 1), token(0, "b", 2, FinishReason::kStop)}};
}

std::string text_of(const Http2Answer& answer) {
  std::string text;
  for (const std::string& bytes : answer.messages()) {
    v1::GenerateResponse message;
    EXPECT_TRUE(message.ParseFromString(bytes));
    text += message.text();
  }
  return text;
}

TEST_F(GrpcTest, AnswersACallWithMessagesAndAStatusInTheTrailers) {
  service.set_script(two_tokens());
  start();
  const Http2Answer answer = ask(kGenerate, prompt("hi"), {{"x-request-id", "mine"}});
  EXPECT_EQ(answer.field(":status"), "200");
  EXPECT_EQ(answer.field("content-type"), "application/grpc");
  EXPECT_EQ(answer.field("x-request-id"), "mine");
  EXPECT_EQ(answer.grpc_status(), kOk);
  EXPECT_EQ(text_of(answer), "ab");
  EXPECT_EQ(answer.messages().size(), 3u);  // the last one has the usage
  EXPECT_EQ(count_of(responses, "serval.v1.Inference/Generate OK"), 1);
  EXPECT_EQ(ask(kListModels, "").grpc_status(), kOk);
}

TEST_F(GrpcTest, MessagesMayComeInAnyPieces) {
  service.set_script(two_tokens());
  start();
  RawHttp2Client client(server->port());
  client.send(call_head(1, kGenerate));
  const std::string message = grpc_message(prompt("hello"));
  for (const char c : message) client.send(frame(kData, 0, 1, std::string(1, c)));
  client.send(frame(kData, kEndStream, 1));
  EXPECT_EQ(client.answer(1).grpc_status(), kOk);
  EXPECT_EQ(std::get<std::string>(service.last_request().prompts.at(0)), "hello");
}

TEST_F(GrpcTest, RefusesWhatIsNoCall) {
  start();
  EXPECT_EQ(ask("/serval.v1.Inference/Nothing", "").grpc_status(), kUnimplemented);
  EXPECT_EQ(ask("/nowhere", "").grpc_status(), kUnimplemented);
  RawHttp2Client client(server->port());
  client.send(frame(kHeaders, kEndHeaders | kEndStream, 1,
                    header_block({{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "a"}})));
  EXPECT_EQ(client.answer(1).field(":status"), "405");
  client.send(frame(kHeaders, kEndHeaders | kEndStream, 3,
                    header_block({{":method", "POST"}, {":scheme", "http"}, {":path", kGenerate}, {":authority", "a"}, {"content-type", "application/json"}})));
  EXPECT_EQ(client.answer(3).field(":status"), "415");
}

TEST_F(GrpcTest, MalformedMessagesAreInvalidArgumentsAndCounted) {
  start();
  const std::string not_utf8("\x12\x02\xff\xfe", 4);  // `text`
  for (const std::string& bytes : {std::string("\xff\xff\xff"), not_utf8}) {
    const Http2Answer answer = ask(kGenerate, bytes);
    EXPECT_EQ(answer.grpc_status(), kInvalidArgument);
    EXPECT_EQ(answer.field("serval-code"), "malformed_message");
  }
  EXPECT_EQ(count_of(refusals, "malformed_message"), 2);
  EXPECT_EQ(count_of(responses, "serval.v1.Inference/Generate INVALID_ARGUMENT"), 2);

  RawHttp2Client none(server->port());
  none.send(call_head(1, kGenerate, {}, kEndHeaders | kEndStream));
  EXPECT_EQ(none.answer(1).grpc_status(), kInvalidArgument);
  RawHttp2Client two(server->port());
  two.send(call_head(1, kGenerate) + frame(kData, kEndStream, 1, grpc_message(prompt("a")) + grpc_message(prompt("b"))));
  EXPECT_EQ(two.answer(1).grpc_status(), kInvalidArgument);
  RawHttp2Client half(server->port());
  half.send(call_head(1, kGenerate) + frame(kData, kEndStream, 1, grpc_message(prompt("abc")).substr(0, 7)));
  EXPECT_EQ(half.answer(1).grpc_status(), kInvalidArgument);
}

TEST_F(GrpcTest, ErrorsCarrySentenceCodeAndField) {
  service.set_script({.refusal = invalid("temperature", "value_out_of_range", "temperature is 3 \xe2\x82\xac; 100%.")});
  start();
  const Http2Answer answer = ask(kGenerate, prompt("a"));
  EXPECT_EQ(answer.grpc_status(), kInvalidArgument);
  EXPECT_EQ(answer.field("grpc-message"), "temperature is 3 %E2%82%AC; 100%25.");
  EXPECT_EQ(answer.field("serval-code"), "value_out_of_range");
  EXPECT_EQ(answer.field("serval-param"), "temperature");
}

TEST_F(GrpcTest, AskingForAKeyComesBeforeAnyMessage) {
  GrpcConfig config;
  config.find_key = [](std::string_view key) { return key == "good" ? 1 : 0; };
  start(std::move(config));
  RawHttp2Client client(server->port());
  client.send(call_head(1, kGenerate));  // and no message
  EXPECT_EQ(client.answer(1).grpc_status(), kUnauthenticated);
  EXPECT_TRUE(eventually([&] { return server->charged_bytes() == 0; }));
  EXPECT_EQ(ask(kGenerate, prompt("a"), {{"authorization", "Bearer bad"}}).grpc_status(), kUnauthenticated);
  EXPECT_EQ(ask(kGenerate, prompt("a"), {{"authorization", "Bearer good"}, {"authorization", "Bearer good"}}).grpc_status(), kUnauthenticated);
  EXPECT_EQ(ask(kGenerate, prompt("a"), {{"authorization", "bearer good"}}).grpc_status(), kOk);
  EXPECT_EQ(ask(kCheck, "").grpc_status(), kOk);
}

TEST_F(GrpcTest, TheDeadlineOfACallReachesTheService) {
  start();
  EXPECT_EQ(ask(kGenerate, prompt("a"), {{"grpc-timeout", "5S"}}).grpc_status(), kOk);
  const Time timeout = service.last_request().timeout;
  EXPECT_GT(timeout, Time{0});
  EXPECT_LE(timeout, std::chrono::duration_cast<Time>(std::chrono::seconds(5)));
  EXPECT_EQ(ask(kGenerate, prompt("a")).grpc_status(), kOk);
  EXPECT_EQ(service.last_request().timeout, Time{0});
}

TEST(GrpcTimeout, IsReadAsTheProtocolWritesIt) {
  using namespace std::chrono_literals;
  EXPECT_EQ(parse_grpc_timeout("1H"), 1h);
  EXPECT_EQ(parse_grpc_timeout("2M"), 2min);
  EXPECT_EQ(parse_grpc_timeout("3S"), 3s);
  EXPECT_EQ(parse_grpc_timeout("4m"), 4ms);
  EXPECT_EQ(parse_grpc_timeout("5u"), 5us);
  EXPECT_EQ(parse_grpc_timeout("6n"), 6ns);
  EXPECT_EQ(parse_grpc_timeout("0S"), 1ns);
  EXPECT_EQ(parse_grpc_timeout("99999999H"), 24h * 365);
  for (const char* bad : {"", "1", "S", "-1S", "1s", "123456789S", "1.5S", "0x1S"}) EXPECT_EQ(parse_grpc_timeout(bad), 0ns) << bad;
}

TEST_F(GrpcTest, AClientThatResetsCancelsItsGeneration) {
  service.set_script({.deltas = {token(0, "a", 1)}, .forever = true});
  start();
  RawHttp2Client client(server->port());
  client.send(call_head(1, kGenerate) + frame(kData, kEndStream, 1, grpc_message(prompt("a"))));
  client.read_data(1, 1);
  client.send(rst_stream(1));
  EXPECT_TRUE(service.wait_until([&] { return service.num_cancelled() == 1; }));
  EXPECT_TRUE(eventually([&] { return count_of(gone, "disconnect") == 1; }));
  client.send(call_head(3, kGenerate) + frame(kData, kEndStream, 3, grpc_message(prompt("a"))));
  client.read_data(3, 1);
  client.close();
  EXPECT_TRUE(service.wait_until([&] { return service.num_cancelled() == 2; }));
}

// --- streams and connections ---

TEST_F(GrpcTest, StreamsBeyondTheLimitAreRefusedBeforeTheSettingsAreAcknowledged) {
  GrpcConfig config;
  config.connection.max_streams = 4;
  start(std::move(config));
  RawHttp2Client client(server->port());
  client.set_acknowledges(false);
  std::string burst;
  for (uint32_t i = 0; i < 6; ++i) burst += call_head(1 + 2 * i, kGenerate);
  client.send(burst);
  EXPECT_EQ(client.answer(9).reset, kRefusedStream);  // the fifth
  EXPECT_EQ(client.answer(11).reset, kRefusedStream);
  EXPECT_EQ(client.settings[NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS], 4u);
  client.send(frame(kData, kEndStream, 7, grpc_message(prompt("a"))));
  EXPECT_EQ(client.answer(7).grpc_status(), kOk);
  client.send(call_head(13, kGenerate) + frame(kData, kEndStream, 13, grpc_message(prompt("a"))));
  EXPECT_EQ(client.answer(13).grpc_status(), kOk);
}

TEST_F(GrpcTest, ABurstBeforeTheSettingsAreAcknowledgedEndsTheConnection) {
  start();
  RawHttp2Client client(server->port());
  client.set_acknowledges(false);
  std::string burst;
  for (uint32_t i = 0; i < 20'000; ++i) burst += call_head(1 + 2 * i, kGenerate);
  client.send(burst);
  EXPECT_TRUE(client.closed_by_server());
  EXPECT_EQ(client.goaway, kEnhanceYourCalm);
  EXPECT_TRUE(eventually([&] { return count_of(gone, "flood") == 1 && server->charged_bytes() == 0; }));
  EXPECT_EQ(ask(kListModels, "").grpc_status(), kOk);
}

TEST_F(GrpcTest, ResetsWithoutEndEndTheConnection) {
  start();
  RawHttp2Client client(server->port());
  ASSERT_TRUE(client.greeted());
  std::string burst;
  for (uint32_t i = 0; i < 20'000; ++i)
    burst += call_head(1 + 2 * i, kGenerate) + frame(kData, kEndStream, 1 + 2 * i, grpc_message(prompt("a"))) + rst_stream(1 + 2 * i);
  client.send(burst);
  EXPECT_TRUE(client.closed_by_server());
  EXPECT_EQ(client.goaway, kEnhanceYourCalm);
  EXPECT_LE(service.num_started(), 2001);
  EXPECT_TRUE(eventually([&] { return server->charged_bytes() == 0; }));
}

TEST_F(GrpcTest, FramesThatOnlyMakeWorkEndTheConnection) {
  start();
  const std::string eight(8, 'p');
  const std::vector<std::string> floods = {frame(kPing, 0, 0, eight), frame(kSettings, 0, 0),
                                           frame(kPriority, 0, 9, std::string("\0\0\0\0\1", 5))};
  for (const std::string& one : floods) {
    RawHttp2Client client(server->port());
    ASSERT_TRUE(client.greeted());
    std::string burst;
    for (int i = 0; i < 5000; ++i) burst += one;
    client.send(burst);
    EXPECT_TRUE(client.closed_by_server());
  }
  RawHttp2Client client(server->port());
  ASSERT_TRUE(client.greeted());
  std::string burst = call_head(1, kGenerate);
  for (int i = 0; i < 5000; ++i) burst += frame(kData, 0, 1);
  client.send(burst);
  EXPECT_TRUE(client.closed_by_server());
}

TEST_F(GrpcTest, AHeadIsBoundedInBytesAndTime) {
  GrpcConfig config;
  config.connection.max_header_bytes = 2048;
  config.connection.header_timeout = Ms(200);
  config.connection.max_fields = 20;
  start(std::move(config));
  EXPECT_EQ(ask(kListModels, "", {{"x", std::string(1500, 'x')}}).grpc_status(), kOk);
  EXPECT_EQ(ask(kListModels, "", {{"x", std::string(2048, 'x')}}).field(":status"), "431");
  EXPECT_EQ(ask(kListModels, "", std::vector<std::pair<std::string, std::string>>(14, {"x", "y"})).grpc_status(), kOk);
  EXPECT_EQ(ask(kListModels, "", std::vector<std::pair<std::string, std::string>>(15, {"x", "y"})).field(":status"), "431");

  RawHttp2Client client(server->port());
  ASSERT_TRUE(client.greeted());
  client.send(call_head(1, kListModels, {}, 0));  // CONTINUATION would follow
  EXPECT_TRUE(client.closed_by_server());

  RawHttp2Client flood(server->port());
  ASSERT_TRUE(flood.greeted());
  std::string burst = call_head(1, kListModels, {}, 0);
  for (int i = 0; i < 1000; ++i) burst += frame(kContinuation, 0, 1, header_block({{"x", std::string(1000, 'x')}}));
  flood.send(burst);
  EXPECT_TRUE(flood.closed_by_server());

  RawHttp2Client silent(server->port(), {}, /*greet=*/false);
  EXPECT_TRUE(silent.closed_by_server());
}

TEST_F(GrpcTest, IdleConnectionsEndAndMakeWay) {
  GrpcConfig config;
  config.max_connections = 2;
  config.connection.linger_timeout = Ms(50);
  start(std::move(config));
  RawHttp2Client first(server->port());
  ASSERT_TRUE(first.greeted());
  RawHttp2Client second(server->port());
  ASSERT_TRUE(second.greeted());
  RawHttp2Client third(server->port());
  EXPECT_TRUE(first.closed_by_server());  // idle longest
  third.send(call_head(1, kListModels) + frame(kData, kEndStream, 1, grpc_message("")));
  EXPECT_EQ(third.answer(1).grpc_status(), kOk);

  server->shutdown(0);
  GrpcConfig patient;
  patient.connection.idle_timeout = Ms(100);
  start(std::move(patient));
  RawHttp2Client idle(server->port());
  EXPECT_TRUE(idle.closed_by_server());
  EXPECT_EQ(idle.goaway, 0u);
}

TEST_F(GrpcTest, HealthIsAnsweredWhenAllConnectionsAreBusy) {
  service.set_script({.deltas = {token(0, "a", 1)}, .forever = true});
  GrpcConfig config;
  config.max_connections = 1;
  start(std::move(config));
  RawHttp2Client busy(server->port());
  busy.send(call_head(1, kGenerate) + frame(kData, kEndStream, 1, grpc_message(prompt("a"))));
  busy.read_data(1, 1);
  EXPECT_EQ(ask(kCheck, "").grpc_status(), kOk);
  const Http2Answer refused = ask(kListModels, "");
  EXPECT_EQ(refused.grpc_status(), kResourceExhausted);
  EXPECT_EQ(refused.field("serval-code"), "too_many_connections");
}

TEST_F(GrpcTest, AsManyBusyConnectionsAsTheLimitSaysAreServedAndOneMoreIsRefused) {
  service.set_script({.deltas = {token(0, "a", 1)}, .forever = true});
  GrpcConfig config;
  config.max_connections = 3;
  start(std::move(config));
  RawHttp2Client busy[3] = {RawHttp2Client(server->port()), RawHttp2Client(server->port()), RawHttp2Client(server->port())};
  for (RawHttp2Client& client : busy) {
    client.send(call_head(1, kGenerate) + frame(kData, kEndStream, 1, grpc_message(prompt("a"))));
    EXPECT_GT(client.read_data(1, 1).data.size(), 0u);
  }
  EXPECT_EQ(ask(kListModels, "").field("serval-code"), "too_many_connections");
  busy[0].close();
  EXPECT_TRUE(eventually([&] { return ask(kListModels, "").grpc_status() == kOk; }));
}

TEST_F(GrpcTest, ConnectionsThatOnlyWatchHealthMakeWay) {
  GrpcConfig config;
  config.max_connections = 2;
  start(std::move(config));
  RawHttp2Client watchers[2] = {RawHttp2Client(server->port()), RawHttp2Client(server->port())};
  for (RawHttp2Client& watcher : watchers) {
    watcher.send(call_head(1, kWatch) + frame(kData, kEndStream, 1, grpc_message("")));
    watcher.read_data(1, 5);
  }
  EXPECT_EQ(ask(kListModels, "").grpc_status(), kOk);
}

// --- messages ---

TEST_F(GrpcTest, CompressionIsRefusedUnread) {
  start();
  RawHttp2Client client(server->port());
  client.send(call_head(1, kGenerate, {{"grpc-encoding", "gzip"}}));  // nothing of the bomb is waited for
  const Http2Answer answer = client.answer(1);
  EXPECT_EQ(answer.grpc_status(), kUnimplemented);
  EXPECT_EQ(answer.field("grpc-accept-encoding"), "identity");
  client.send(call_head(3, kGenerate) + frame(kData, 0, 3, grpc_message("", 1)));
  EXPECT_EQ(client.answer(3).grpc_status(), kInternal);
  EXPECT_EQ(ask(kListModels, "", {{"grpc-encoding", "identity"}}).grpc_status(), kOk);
}

TEST_F(GrpcTest, AMessageIsTakenUpToItsLimitAndRefusedByItsHead) {
  GrpcConfig config;
  config.max_message_bytes = 2000;
  start(std::move(config));
  const std::string fits = prompt(std::string(2000 - 3, 'a'));
  ASSERT_EQ(fits.size(), 2000u);
  EXPECT_EQ(ask(kGenerate, fits).grpc_status(), kOk);
  RawHttp2Client client(server->port());
  client.send(call_head(1, kGenerate) + frame(kData, 0, 1, grpc_message(fits + "x").substr(0, 5)));
  const Http2Answer answer = client.answer(1);
  EXPECT_EQ(answer.grpc_status(), kResourceExhausted);
  EXPECT_EQ(answer.field("serval-code"), "request_too_large");
}

TEST_F(GrpcTest, UnfinishedMessagesAreBoundedInBytesOverAllConnections) {
  GrpcConfig config;
  config.max_total_bytes = 200'000;
  start(std::move(config));
  const std::string unfinished = grpc_message(std::string(60'000, 'a')).substr(0, 50'000);
  std::vector<std::unique_ptr<RawHttp2Client>> clients;
  int refused = 0;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(std::make_unique<RawHttp2Client>(server->port()));
    std::string bytes = call_head(1, kGenerate);
    for (size_t at = 0; at < unfinished.size(); at += 10'000) bytes += frame(kData, 0, 1, unfinished.substr(at, 10'000));
    clients.back()->send(bytes + frame(kPing, 0, 0, "12345678"));
    clients.back()->answered_ping();
    refused += clients.back()->answers[1].grpc_status() == kResourceExhausted;
    EXPECT_LE(server->charged_bytes(), 200'000u);
    if (refused > 0) break;
  }
  EXPECT_EQ(refused, 1);
  EXPECT_EQ(clients.size(), 4u);  // three fit
  clients.clear();
  EXPECT_TRUE(eventually([&] { return server->charged_bytes() == 0; }));
  EXPECT_EQ(ask(kListModels, "").grpc_status(), kOk);
}

TEST_F(GrpcTest, UnfinishedMessagesAreBoundedInTime) {
  GrpcConfig config;
  config.connection.body_timeout = Ms(100);
  start(std::move(config));
  RawHttp2Client paused(server->port());
  paused.send(call_head(1, kGenerate) + frame(kData, 0, 1, grpc_message("abcdef").substr(0, 8)));
  EXPECT_EQ(paused.answer(1).grpc_status(), kDeadlineExceeded);
  EXPECT_EQ(paused.answer(1).field("serval-code"), "request_timeout");

  server->shutdown(0);
  GrpcConfig slow;
  slow.connection.body_total_timeout = Ms(200);
  start(std::move(slow));
  RawHttp2Client trickle(server->port());
  trickle.send(call_head(1, kGenerate) + frame(kData, 0, 1, grpc_message(std::string(1 << 20, 'a')).substr(0, 5)));
  do {
    trickle.send(frame(kData, 0, 1, "a"));
    std::this_thread::sleep_for(Ms(20));
  } while (server->charged_bytes() > 0);
  EXPECT_EQ(trickle.answer(1).grpc_status(), kDeadlineExceeded);
}

// --- answers ---

TEST_F(GrpcTest, AStreamWhoseWindowNeverOpensEndsAfterTheStallTime) {
  service.set_script(two_tokens());
  GrpcConfig config;
  config.connection.write_stall_timeout = Ms(200);
  start(std::move(config));
  RawHttp2Client client(server->port(), setting(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0));
  ASSERT_TRUE(client.greeted());
  client.send(call_head(1, kGenerate) + frame(kData, kEndStream, 1, grpc_message(prompt("a"))));
  EXPECT_EQ(client.answer(1).reset, kEnhanceYourCalm);
  EXPECT_TRUE(eventually([&] { return count_of(gone, "client_stall") == 1 && server->charged_bytes() == 0; }));
}

TEST_F(GrpcTest, AnUnreadStreamHoldsNoMoreThanItsBuffer) {
  const std::string kilobyte(1024, 'x');
  service.set_script({.deltas = {token(0, kilobyte, 1)}, .forever = true});
  GrpcConfig config;
  config.stream_buffer_bytes = 16 << 10;
  const auto answers = std::make_shared<MemoryBudget>(1 << 30);
  config.answers = answers;
  start(std::move(config));
  RawHttp2Client client(server->port(), setting(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0));
  ASSERT_TRUE(client.greeted());
  client.send(call_head(1, kGenerate) + frame(kData, kEndStream, 1, grpc_message(prompt("a"))));
  EXPECT_EQ(client.answer(1).reset, kEnhanceYourCalm);
  EXPECT_TRUE(service.wait_until([&] { return service.num_cancelled() == 1; }));
  EXPECT_TRUE(eventually([&] { return answers->used() == 0; }));
}

TEST_F(GrpcTest, WhatAllUnreadStreamsHoldIsBounded) {
  service.set_script({.deltas = {token(0, std::string(100 << 10, 'x'), 1)}});
  GrpcConfig config;
  const auto answers = std::make_shared<MemoryBudget>(100 << 10);  // beyond 64 KiB of each
  config.answers = answers;
  start(std::move(config));
  RawHttp2Client client(server->port(), setting(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0));
  ASSERT_TRUE(client.greeted());
  for (uint32_t stream = 1; stream < 9; stream += 2)
    client.send(call_head(stream, kGenerate) + frame(kData, kEndStream, stream, grpc_message(prompt("a"))));
  EXPECT_TRUE(eventually([&] { return count_of(gone, "client_stall") == 2; }));  // two fit, in whatever order they came
  EXPECT_LE(answers->used(), 100u << 10);
}

TEST_F(GrpcTest, AReaderThatKeepsUpGetsAllOfALongAnswer) {
  Script script;
  for (int i = 0; i < 3000; ++i) script.deltas.push_back(token(0, std::string(500, 'x'), 1, i == 2999 ? FinishReason::kStop : FinishReason::kNone));
  service.set_script(script);
  GrpcConfig config;
  config.stream_buffer_bytes = 8 << 20;
  start(std::move(config));
  RawHttp2Client client(server->port(), setting(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1u << 30));
  client.send(frame(kWindowUpdate, 0, 0, std::string("\x3f\0\0\0", 4)));
  client.send(call_head(1, kGenerate) + frame(kData, kEndStream, 1, grpc_message(prompt("a"))));
  const Http2Answer& answer = client.answer(1);
  EXPECT_EQ(answer.grpc_status(), kOk);
  EXPECT_EQ(text_of(answer).size(), 3000u * 500);
}

// --- health, the end ---

int health_of(const Http2Answer& answer) {
  grpc::health::v1::HealthCheckResponse response;
  return answer.messages().size() == 1 && response.ParseFromString(answer.messages()[0]) ? static_cast<int>(response.status()) : -1;
}

TEST_F(GrpcTest, HealthKnowsEveryServedNameAndNoOther) {
  start();
  const auto check = [&](const std::string& name) {
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(name);
    return ask(kCheck, request.SerializeAsString());
  };
  for (const char* name : {"", "serval.v1.Inference", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
                           "grpc.reflection.v1alpha.ServerReflection"}) {
    EXPECT_EQ(health_of(check(name)), 1) << name;
  }
  EXPECT_EQ(check("serval.v1.Nothing").grpc_status(), kNotFound);
  server->set_serving(false);
  EXPECT_EQ(health_of(check("serval.v1.Inference")), 2);
}

TEST_F(GrpcTest, WatchersHearOfChangesAndOfTheEnd) {
  start();
  RawHttp2Client client(server->port());
  client.send(call_head(1, kWatch) + frame(kData, kEndStream, 1, grpc_message("")));
  client.read_data(1, 5);
  server->set_serving(false);
  const std::vector<std::string> heard = client.read_data(1, 14).messages();
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_EQ(heard[0], std::string("\x08\x01"));
  EXPECT_EQ(heard[1], std::string("\x08\x02"));
  std::thread end([&] { server->shutdown(20'000); });
  EXPECT_EQ(client.answer(1).grpc_status(), kUnavailable);
  EXPECT_TRUE(client.closed_by_server());
  end.join();
}

TEST_F(GrpcTest, ADrainLetsRunningCallsEnd) {
  Script script = two_tokens();
  script.hold_before = 1;
  service.set_script(script);
  start();
  RawHttp2Client client(server->port());
  client.send(call_head(1, kGenerate) + frame(kData, kEndStream, 1, grpc_message(prompt("a"))));
  client.read_data(1, 1);
  std::thread end([&] { server->shutdown(20'000); });
  service.release();
  EXPECT_EQ(client.answer(1).grpc_status(), kOk);
  EXPECT_TRUE(client.closed_by_server());
  EXPECT_EQ(client.goaway, 0u);
  end.join();
  EXPECT_EQ(server->num_connections(), 0);
}

}  // namespace
}  // namespace serval::testing
