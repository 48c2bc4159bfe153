// What all connections of one server share. Internal to http_server.cc and http_session.cc. Outlives every
// connection: each holds a reference, so that a connection let go by a foreign thread still finds its
// executor.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "server/api_keys.h"
#include "server/cors.h"
#include "server/http_server.h"

namespace serval {

class HttpSession;

// A text of this size takes a few milliseconds to tokenise; a request's largest body can take seconds.
constexpr size_t kLongBodyBytes = 64 << 10;

struct HttpContext {
  HttpContext(HttpConfig http_config, RouteTable route_table, HttpHooks http_hooks)
      : config(std::move(http_config)),
        routes(std::move(route_table)),
        hooks(std::move(http_hooks)),
        keys(config.api_keys),
        cors(config.cors_allow_origins),
        io(config.io_threads),
        text_pool(static_cast<size_t>(config.text_threads)),
        long_text_pool(1) {}

  // Where a request's template and tokenising run: long ones by themselves, so that they wait for each other
  // and nobody waits for them.
  boost::asio::thread_pool& pool_for(size_t body_bytes) {
    return body_bytes > kLongBodyBytes ? long_text_pool : text_pool;
  }

  // False: the server is stopping, or full. Any thread.
  bool register_session(HttpSession* session, std::weak_ptr<HttpSession> reference);
  void session_closed(HttpSession* session);

  const HttpConfig config;
  const RouteTable routes;
  const HttpHooks hooks;
  const ApiKeys keys;
  const CorsPolicy cors;

  boost::asio::io_context io;
  boost::asio::thread_pool text_pool;
  boost::asio::thread_pool long_text_pool;

  std::atomic<bool> draining{false};
  std::atomic<size_t> body_bytes{0};  // request bodies in memory

  std::mutex mutex;
  std::condition_variable all_closed;
  std::unordered_map<HttpSession*, std::weak_ptr<HttpSession>> sessions;  // open ones
  bool stopping = false;
  std::function<void()> room_again;  // set while accepting pauses because of max_connections
};

}  // namespace serval
