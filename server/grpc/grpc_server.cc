#include "server/grpc/grpc_server.h"

#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "kernels/base/log.h"
#include "server/http/connection_table.h"
#include "server/http/http_types.h"
#include "server/http/tcp_endpoint.h"
#include "server/service/inference_service.h"

namespace serval {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr std::chrono::milliseconds kAcceptPause{100};

// Where descriptors are few they are HTTP's first: it answers the probes.
int max_connections(int configured) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return configured;
  return static_cast<int>(std::min<uint64_t>(static_cast<uint64_t>(configured), std::max<uint64_t>(limit.rlim_cur / 8, 1)));
}

// A peer that vanished without a word is found out, whether or not there is something to send.
void watch_peer(tcp::socket& socket, const H2Limits& limits) {
  const auto set = [&](int level, int name, int value) {
    ::setsockopt(socket.native_handle(), level, name, &value, sizeof value);
  };
  constexpr int kProbeSeconds = 10, kProbes = 3;
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(limits.write_stall_timeout.count()));
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, static_cast<int>(std::max<int64_t>(1, limits.idle_timeout.count() / 1000)));
  set(IPPROTO_TCP, TCP_KEEPINTVL, kProbeSeconds);
  set(IPPROTO_TCP, TCP_KEEPCNT, kProbes);
}

// "Bearer KEY", once: whoever stands before us may have looked at another one.
std::string_view bearer_of(const H2Request& request) {
  constexpr std::string_view kScheme = "bearer ";
  std::string_view value;
  for (const auto& [name, given] : request.fields) {
    if (name != "authorization") continue;
    if (!value.empty()) return {};
    value = given;
  }
  return equal_ignoring_case(value.substr(0, kScheme.size()), kScheme) ? value.substr(kScheme.size()) : std::string_view();
}

bool is_grpc(const H2Request& request) {
  constexpr std::string_view kType = "application/grpc";
  const std::string* const type = find_field(request, "content-type");
  if (!type || !std::string_view(*type).starts_with(kType)) return false;
  const std::string_view rest = std::string_view(*type).substr(kType.size());
  return rest.empty() || rest.front() == ';' || rest == "+proto" || rest.starts_with("+proto;");
}

// What a connection needs to the end, even one let go by a foreign thread after the server.
struct GrpcCore {
  explicit GrpcCore(GrpcConfig grpc_config) : config(std::move(grpc_config)) {}
  const GrpcConfig config;
  asio::io_context io{1};
};

}  // namespace

struct GrpcServer::Impl {
  Impl(GrpcConfig grpc_config, InferenceService& service, GrpcHooks grpc_hooks)
      : core(std::make_shared<GrpcCore>(std::move(grpc_config))),
        hooks(std::move(grpc_hooks)),
        shared(std::make_shared<GrpcShared>(config.max_message_bytes, config.max_total_bytes, config.stream_buffer_bytes, config.answers)),
        health(grpc_services()),
        methods(inference_methods(service, config.submit_text)),
        table({.most = max_connections(config.max_connections), .max_per_address = config.max_connections_per_address}),
        work(asio::make_work_guard(io)),
        acceptor(io),
        pause(io) {
    methods.merge(health.methods());
    methods.merge(reflection_methods());
    shared->on_finished = [this](const GrpcCall& call, const GrpcStatus& status, bool is_first) { finished(call, status, is_first); };
    shared->on_standing = [this](const GrpcCall& call) { no_longer_busy(entries.at(call.connection()), call.connection()); };
    shared->on_closed = [this](const GrpcCall& call, H2End end) { closed(call, end); };
    take_over_protobuf_log();
    const tcp::endpoint endpoint = resolve_endpoint(io, config.host, config.port, "gRPC");
    refuse_open_endpoint(endpoint, config.host, config.find_key || config.insecure);
    listen_on(acceptor, endpoint, "gRPC");
    port = acceptor.local_endpoint().port();
    asio::post(io, [this] { wait_for_connections(); });
    thread = std::thread([this] { run(); });
    pthread_setname_np(thread.native_handle(), "serval-grpc");
  }

  void run() {
    for (;;) {
      try {
        io.run();
        return;
      } catch (const std::exception& failure) {
        log_error("a gRPC connection failed", {{"what", failure.what()}});
      }
    }
  }

  // --- on the I/O thread ---

  struct Entry {
    std::shared_ptr<H2Connection> connection;
    int num_busy = 0;  // calls that are not standing
  };

  void wait_for_connections() {
    acceptor.async_wait(tcp::acceptor::wait_read, [this](boost::system::error_code error) {
      if (!error) accept_waiting();
    });
  }

  void accept_waiting() {
    boost::system::error_code error;
    tcp::socket socket = acceptor.accept(error);
    if (error == asio::error::no_descriptors || error == asio::error::no_memory || error == asio::error::no_buffer_space ||
        error == boost::system::errc::too_many_files_open_in_system) {
      leave(table.take_longest_idle());
      pause.expires_after(kAcceptPause);
      pause.async_wait([this](boost::system::error_code cancelled) {
        if (!cancelled) wait_for_connections();
      });
      return;
    }
    if (!error) open(std::move(socket));
    wait_for_connections();
  }

  void open(tcp::socket socket) {
    boost::system::error_code error;
    const tcp::endpoint peer = socket.remote_endpoint(error);
    if (error) return;
    socket.non_blocking(true, error);
    watch_peer(socket, config.connection);
    const auto connection = std::make_shared<H2Connection>(
        core, std::move(socket), config.connection,
        [this](H2Connection& of, int32_t stream, H2Request request) { return begin(of, stream, std::move(request)); },
        [this](H2Connection& of, bool flooded) { forget(of, flooded); });
    {
      std::lock_guard lock(mutex);
      entries[connection.get()].connection = connection;
    }
    leave(table.add(connection.get(), client_address(peer)));
    connection->start();
  }

  void leave(const ConnectionTable::Leaver& leaver) {
    const auto found = entries.find(leaver.id);
    if (found == entries.end()) return;
    const std::shared_ptr<H2Connection> connection = found->second.connection;
    leaver.at_once ? connection->close() : connection->drain();
  }

  void forget(H2Connection& connection, bool flooded) {
    if (flooded && hooks.client_gone) hooks.client_gone("flood");
    table.remove(&connection);
    std::lock_guard lock(mutex);
    entries.erase(&connection);
    if (entries.empty()) all_closed.notify_all();
  }

  std::shared_ptr<H2Stream> begin(H2Connection& connection, int32_t stream, H2Request request) {
    if (request.method != "POST" || !is_grpc(request)) {
      const char* status = request.method != "POST" ? "405" : "415";
      connection.respond(stream, {{":status", status}}, true);
      if (hooks.response) hooks.response("unmatched", status);
      return nullptr;
    }
    const auto call = std::make_shared<GrpcCall>(connection, stream, request, shared);
    const auto found = request.path.starts_with('/') ? methods.find(request.path.substr(1)) : methods.end();
    const GrpcMethod* const method = found == methods.end() ? nullptr : &found->second;
    if (++entries.at(&connection).num_busy == 1) table.set_idle(&connection, false);
    const bool has_rights = (method && method->is_probe) || table.claim_rights(&connection);
    if (method) call->set_method(found->first);
    call->start(request, method ? method->begin(call) : [](const std::shared_ptr<GrpcMessage>&) {});
    if (!has_rights) {
      call->refuse(to_status({ErrorKind::kOverloaded, "too_many_connections",
                              "The server has as many connections as it can; on this one it answers health only.", ""}));
    } else if (!method) {
      call->refuse({GrpcCode::kUnimplemented, "There is no method of that name.", {{"serval-code", "unknown_method"}}});
    } else if (method->needs_key && config.find_key) {
      call->set_key(config.find_key(bearer_of(request)));
      if (call->key() == 0) {
        call->refuse(to_status({ErrorKind::kUnauthenticated, "invalid_api_key",
                                "A valid key is needed: metadata 'authorization: Bearer KEY'.", ""}));
      }
    }
    return call;
  }

  void finished(const GrpcCall& call, const GrpcStatus& status, bool is_first) {
    const std::string name = call.method().empty() ? "unmatched" : call.method();
    if (hooks.response) hooks.response(name, grpc_code_name(status.code));
    if (is_first && status.code != GrpcCode::kOk && hooks.refused) hooks.refused(std::string(status.detail()));
    if (!hooks.ended) return;
    const std::chrono::duration<double> total = std::chrono::steady_clock::now() - call.received();
    hooks.ended({.method = "gRPC",
                 .path = name,
                 .id = call.request_id(),
                 .key = call.key(),
                 .status = static_cast<int>(status.code),
                 .code = status.detail(),
                 .gone = status.code == GrpcCode::kCancelled ? (status.detail().empty() ? "disconnect" : status.detail()) : "",
                 .total_s = total.count(),
                 .quiet = call.is_standing() || name.starts_with("grpc.")});
  }

  void closed(const GrpcCall& call, H2End end) {
    if (end != H2End::kDone && !call.is_standing() && hooks.client_gone)
      hooks.client_gone(end == H2End::kStalled ? "client_stall" : "disconnect");
    const auto found = entries.find(call.connection());
    if (found != entries.end() && !call.is_standing()) no_longer_busy(found->second, found->first);
  }

  void no_longer_busy(Entry& entry, const void* id) {
    if (--entry.num_busy == 0) table.set_idle(id, true);
  }

  // --- any thread ---

  template <class Fn>
  void for_each_connection(Fn fn) {
    asio::post(io, [this, fn] {
      std::vector<std::shared_ptr<H2Connection>> all;
      for (const auto& [id, entry] : entries) all.push_back(entry.connection);
      for (const auto& connection : all) fn(*connection);
    });
  }

  void shutdown(int timeout_ms) {
    if (!thread.joinable()) return;
    asio::post(io, [this] {
      boost::system::error_code ignored;
      acceptor.close(ignored);
      pause.cancel();
    });
    health.set_serving(false);
    health.end();
    for_each_connection([](H2Connection& connection) { connection.drain(); });
    {
      std::unique_lock lock(mutex);
      all_closed.wait_for(lock, std::chrono::milliseconds(timeout_ms), [this] { return entries.empty(); });
    }
    for_each_connection([](H2Connection& connection) { connection.close(); });
    work.reset();
    thread.join();
  }

  const std::shared_ptr<GrpcCore> core;
  const GrpcConfig& config = core->config;
  asio::io_context& io = core->io;
  const GrpcHooks hooks;
  const std::shared_ptr<GrpcShared> shared;
  GrpcHealth health;
  GrpcMethods methods;

  mutable std::mutex mutex;  // for other threads than ours to see whether `entries` is empty
  std::condition_variable all_closed;
  std::map<const void*, Entry> entries;
  ConnectionTable table;

  asio::executor_work_guard<asio::io_context::executor_type> work;
  tcp::acceptor acceptor;
  asio::steady_timer pause;
  uint16_t port = 0;
  std::thread thread;
};

GrpcServer::GrpcServer(GrpcConfig config, InferenceService& service, GrpcHooks hooks)
    : impl_(std::make_unique<Impl>(std::move(config), service, std::move(hooks))) {}

GrpcServer::~GrpcServer() {
  shutdown(0);
}

uint16_t GrpcServer::port() const {
  return impl_->port;
}

int GrpcServer::num_connections() const {
  std::lock_guard lock(impl_->mutex);
  return static_cast<int>(impl_->entries.size());
}

size_t GrpcServer::charged_bytes() const {
  return impl_->shared->calls.used();
}

void GrpcServer::set_serving(bool serving) {
  impl_->health.set_serving(serving);
}

void GrpcServer::shutdown(int timeout_ms) {
  impl_->shutdown(timeout_ms);
}

}  // namespace serval
