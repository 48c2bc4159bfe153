// A live server on a loopback port over a scripted service, with small timeouts where a test wants them.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <boost/json.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "server/admin_handlers.h"
#include "server/anthropic/messages_handlers.h"
#include "server/http/http_server.h"
#include "server/openai/openai_handlers.h"
#include "server/responses/responses_handlers.h"
#include "tests/support/fake_inference_service.h"
#include "tests/support/raw_http_client.h"

namespace serval::testing {

// A piece of an answer that is told in parts.
inline Delta parts(std::vector<MessagePart> parts, FinishReason finish = FinishReason::kNone) {
  Delta delta;
  delta.parts = std::move(parts);
  delta.finish = finish;
  return delta;
}

class HttpTest : public ::testing::Test {
 protected:
  void start(HttpConfig config = {}, RequestOptions options = {}) {
    RouteTable routes;
    routes.add(openai_routes(service, options));
    routes.add(messages_routes(service, options.strict));
    routes.add(responses_routes(service, {.strict = options.strict}));
    routes.add(admin_routes(
        service, [] { return std::string("serval:up 1\n"); }, "1.2.3"));
    HttpHooks hooks;
    hooks.response = [this](const std::string&, int) { ++num_responses; };
    hooks.refused = [this](const std::string& code) {
      std::lock_guard lock(refusals_mutex);
      ++refusals[code];
    };
    hooks.client_gone = [this](const char* reason) {
      std::string_view(reason) == "disconnect" ? ++num_disconnects : ++num_stalls;
    };
    hooks.ended = [this](const RequestEnd& end) {
      std::ostringstream line;
      line << end.method << ' ' << end.path << ' ' << end.status << ' ' << end.code << ' ' << end.gone << " key "
           << end.key << ' ' << end.id << (end.quiet ? " quiet" : "");
      if (end.generation) line << " tokens " << end.generation->prompt_tokens << '+' << end.generation->output_tokens;
      std::lock_guard lock(ends_mutex);
      ends.push_back(line.str());
    };
    server = std::make_unique<HttpServer>(std::move(config), std::move(routes), std::move(hooks));
    server->start();
  }
  void TearDown() override {
    service.release();
    if (server) server->stop();
  }

  // One request on a connection of its own.
  RawResponse ask(const std::string& request) {
    RawHttpClient client(server->port());
    client.send(request);
    auto response = client.read_response();
    EXPECT_TRUE(response.has_value()) << request.substr(0, 200);
    return response.value_or(RawResponse{});
  }

  // error.code of an answer's body; also checks that all four keys are there.
  static std::string error_code(const RawResponse& response) { return error_field(response, "code"); }
  static std::string error_field(const RawResponse& response, const char* field) {
    boost::system::error_code failed;
    const boost::json::value body = boost::json::parse(response.body, failed);
    if (failed || !body.is_object() || !body.get_object().contains("error")) return "(no error object)";
    const boost::json::object& error = body.at("error").as_object();
    EXPECT_EQ(error.size(), 4u) << response.body;
    for (const char* key : {"message", "type", "param", "code"})
      EXPECT_TRUE(error.contains(key)) << response.body;
    const boost::json::value& value = error.at(field);
    return value.is_null() ? "null" : std::string(value.as_string());
  }

  FakeInferenceService service;
  std::unique_ptr<HttpServer> server;
  std::mutex refusals_mutex;
  std::map<std::string, int> refusals;  // by code
  // The ends told so far; waits for `num` of them.
  std::vector<std::string> ended(size_t num) {
    for (int i = 0; i < 2000; ++i) {
      {
        std::lock_guard lock(ends_mutex);
        if (ends.size() >= num) return ends;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return {};
  }
  std::mutex ends_mutex;
  std::vector<std::string> ends;
  std::atomic<int> num_responses{0}, num_disconnects{0}, num_stalls{0};
};

}  // namespace serval::testing
