// A live gRPC server on a loopback port over a scripted service, with small limits where a test wants them.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "grpc/health/v1/health.pb.h"
#include "serval/v1/inference.pb.h"
#include "server/grpc/grpc_server.h"
#include "server/http/text_lane.h"
#include "tests/support/fake_inference_service.h"
#include "tests/support/raw_http2_client.h"

namespace serval::testing {

constexpr const char* kGenerate = "/serval.v1.Inference/Generate";
constexpr const char* kListModels = "/serval.v1.Inference/ListModels";
constexpr const char* kCheck = "/grpc.health.v1.Health/Check";
constexpr const char* kWatch = "/grpc.health.v1.Health/Watch";

// The wire's numbers of the codes that tests ask for.
constexpr int kOk = 0, kInvalidArgument = 3, kDeadlineExceeded = 4, kNotFound = 5, kResourceExhausted = 8, kUnimplemented = 12,
              kInternal = 13, kUnavailable = 14, kUnauthenticated = 16;
constexpr uint32_t kRefusedStream = 7, kEnhanceYourCalm = 11;

class GrpcTest : public ::testing::Test {
 protected:
  using Ms = std::chrono::milliseconds;

  void start(GrpcConfig config = {}) {
    config.submit_text = [this](size_t bytes, std::function<void()> task) { return texts.submit(bytes, std::move(task)); };
    GrpcHooks hooks;
    const auto count = [this](std::map<std::string, int>& counts, std::string_view what) {
      std::lock_guard lock(counts_mutex);
      ++counts[std::string(what)];
    };
    hooks.response = [this, count](const std::string& method, std::string_view code) { count(responses, method + " " + std::string(code)); };
    hooks.refused = [this, count](const std::string& code) { count(refusals, code); };
    hooks.client_gone = [this, count](const char* reason) { count(gone, reason); };
    server = std::make_unique<GrpcServer>(std::move(config), service, std::move(hooks));
    server->set_serving(true);
  }
  void TearDown() override {
    service.release();
    if (server) server->shutdown(0);
    texts.join();
  }

  // One whole call on a connection of its own.
  Http2Answer ask(std::string_view path, std::string_view message, const std::vector<std::pair<std::string, std::string>>& fields = {}) {
    RawHttp2Client client(server->port());
    client.send(call_head(1, path, fields) + frame(kData, kEndStream, 1, grpc_message(message)));
    return client.answer(1);
  }
  static std::string prompt(const std::string& text) {
    v1::GenerateRequest request;
    request.set_text(text);
    return request.SerializeAsString();
  }
  int count_of(const std::map<std::string, int>& counts, const std::string& what) {
    std::lock_guard lock(counts_mutex);
    const auto found = counts.find(what);
    return found == counts.end() ? 0 : found->second;
  }
  template <class Condition>
  static bool eventually(Condition condition) {
    for (int i = 0; i < 2000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(Ms(10));
    }
    return false;
  }

  FakeInferenceService service;
  TextLane texts{1, SIZE_MAX, SIZE_MAX};
  std::unique_ptr<GrpcServer> server;
  std::mutex counts_mutex;
  std::map<std::string, int> responses, refusals, gone;
};

}  // namespace serval::testing
