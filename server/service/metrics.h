// What the service counts and measures, and its Prometheus text. Native names are serval:*; the vllm:* names
// that dashboards and autoscalers already read are the same series under a second name (docs/api.md). Any
// thread; a scrape reads a snapshot of the engine's counters and never takes the engine's time.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "engine/batch.h"
#include "engine/kv_geometry.h"
#include "engine/stats.h"
#include "kernels/base/status.h"
#include "server/request_record.h"

namespace serval {

class ServiceMetrics {
 public:
  explicit ServiceMetrics(std::string model_name);
  ~ServiceMetrics();

  // Where engine counters come from; without one they are absent. Set again to nullptr before the engine
  // goes.
  void set_engine(std::function<EngineStats()> stats, const BlockGeometry& geometry, bool prefix_cache);

  void first_token(double seconds);
  void inter_token(double seconds);
  void finished(const RequestRecord& record);
  void grammar_compiled(double seconds, bool accepted);
  void mask_made(double seconds);
  void rejected(const std::string& code);  // answered with this error instead of served
  void fields_ignored(int count);          // of requests, which no URL of ours knows
  void client_gone(const char* reason);    // "disconnect", "client_stall"
  void http_response(const std::string& route, int status);
  void grpc_finished(const std::string& method, std::string_view status);  // a path, and a code of google.rpc.Code

  std::string text() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serval
