#include "server/http/http_context.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstdint>

#include "server/http/http_connection.h"
#include "server/out_of_memory.h"

namespace serval {
namespace {

// Connections that this process can have beside what else it opens: where descriptors are fewer than
// max_connections, they must not run out, or not even a probe could come in.
int max_connections(int configured) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return configured;
  constexpr uint64_t kBesides = 256;
  const uint64_t soft = limit.rlim_cur;
  return static_cast<int>(
      std::min<uint64_t>(static_cast<uint64_t>(configured),
                         std::max<uint64_t>({soft / 2, soft > kBesides ? soft - kBesides : 0, 1})));
}

}  // namespace

HttpContext::HttpContext(HttpConfig http_config, RouteTable route_table, HttpHooks http_hooks)
    : config(std::move(http_config)),
      routes(std::move(route_table)),
      hooks(std::move(http_hooks)),
      keys(config.api_keys),
      cors(config.cors_allow_origins),
      texts(config.text_threads, SIZE_MAX, SIZE_MAX),  // a connection has one request at a time
      long_texts(1, config.max_waiting_long_texts, config.max_waiting_long_text_bytes),
      bodies(config.max_total_body_bytes),
      connections({.most = max_connections(config.max_connections),
                   .max_per_address = config.max_connections_per_address}) {
  for (int i = 0; i < config.io_threads; ++i) ios.push_back(std::make_unique<boost::asio::io_context>(1));
}

bool HttpContext::register_connection(const std::shared_ptr<HttpConnection>& connection, std::string address) {
  ConnectionTable::Leaver leaver;
  {
    std::lock_guard lock(mutex);
    if (stopping) return false;
    const auto position = sessions.emplace(connection.get(), connection).first;
    try {
      leaver = connections.add(connection.get(), std::move(address));
    } catch (...) {
      sessions.erase(position);
      throw;
    }
  }
  make_way(leaver);
  return true;
}

void HttpContext::connection_closed(HttpConnection* connection) noexcept {
  std::lock_guard lock(mutex);
  sessions.erase(connection);
  connections.remove(connection);
  if (sessions.empty()) all_closed.notify_all();
}

void HttpContext::set_idle(HttpConnection* connection, bool idle) {
  std::lock_guard lock(mutex);
  connections.set_idle(connection, idle);
}

bool HttpContext::claim_rights(HttpConnection* connection) {
  std::lock_guard lock(mutex);
  return connections.claim_rights(connection);
}

void HttpContext::close_longest_idle() {
  ConnectionTable::Leaver leaver;
  {
    std::lock_guard lock(mutex);
    leaver = connections.take_longest_idle();
  }
  make_way(leaver);
}

// Without the lock: letting go of a connection may be what ends it.
void HttpContext::make_way(const ConnectionTable::Leaver& leaver) {
  if (!leaver.id) return;
  std::shared_ptr<HttpConnection> connection;
  {
    std::lock_guard lock(mutex);
    if (const auto found = sessions.find(leaver.id); found != sessions.end()) connection = found->second.lock();
  }
  if (connection) until_memory([&] { connection->make_way(leaver.at_once); });
}

std::vector<std::shared_ptr<HttpConnection>> HttpContext::open_connections() {
  std::vector<std::shared_ptr<HttpConnection>> result;
  std::lock_guard lock(mutex);
  for (const auto& [connection, reference] : sessions) {
    if (auto open = reference.lock()) result.push_back(std::move(open));
  }
  return result;
}

}  // namespace serval
