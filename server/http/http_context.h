// What all connections of one server share. Internal to http_server.cc and http_session.cc. Outlives every
// connection: each holds a reference, so that a connection let go by a foreign thread still finds its
// executor.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "server/http/api_keys.h"
#include "server/http/connection_table.h"
#include "server/http/cors.h"
#include "server/http/http_config.h"
#include "server/http/route_table.h"
#include "server/http/text_lane.h"

namespace serval {

class HttpConnection;

// A text of this size takes a few milliseconds to tokenise; a request's largest body can take seconds.
constexpr size_t kLongBodyBytes = 64 << 10;

struct HttpContext {
  HttpContext(HttpConfig http_config, RouteTable route_table, HttpHooks http_hooks);

  // Where a request's template and tokenising run: long ones by themselves, so that they wait for each other
  // and nobody waits for them.
  TextLane& lane_for(size_t body_bytes) { return body_bytes > kLongBodyBytes ? long_texts : texts; }

  // --- any thread ---

  // False: the server is stopping. Whoever must go for this connection is told so.
  bool register_connection(const std::shared_ptr<HttpConnection>& connection, std::string address);
  void connection_closed(HttpConnection* connection) noexcept;
  void set_idle(HttpConnection* connection, bool idle);
  // Whether more than probes may be asked on it now.
  bool claim_rights(HttpConnection* connection);
  // Closes the connection that has been idle longest, if any is.
  void close_longest_idle();
  std::vector<std::shared_ptr<HttpConnection>> open_connections();

  const HttpConfig config;
  const RouteTable routes;
  const HttpHooks hooks;
  const ApiKeys keys;
  const CorsPolicy cors;

  // One per I/O thread; a connection lives on one of them, so that its handlers never run together.
  std::vector<std::unique_ptr<boost::asio::io_context>> ios;
  TextLane texts;
  TextLane long_texts;

  std::atomic<bool> draining{false};
  MemoryBudget bodies;  // request bodies

  std::mutex mutex;
  std::condition_variable all_closed;
  std::unordered_map<const void*, std::weak_ptr<HttpConnection>> sessions;  // open ones
  ConnectionTable connections;                                           // the same ones
  bool stopping = false;

 private:
  void make_way(const ConnectionTable::Leaver& leaver);
};

}  // namespace serval
