#include "server/grpc_server.h"

#include <google/protobuf/stubs/logging.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>

#include "kernels/base/log.h"
#include "server/grpc_infrastructure.h"
#include "server/grpc_methods.h"
#include "server/inference_service.h"
#include "server/text_lane.h"

namespace serval {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr std::chrono::milliseconds kAcceptPause{100};

// The library writes to stderr by itself otherwise, and waits for whoever reads that; what it says is of a client's bytes.
void log_for_protobuf(google::protobuf::LogLevel, const char*, int, const std::string& message) {
  log(LogLevel::kDebug, "protobuf", {{"what", message}});
}

std::string_view key_of(const H2Request& request) {
  constexpr std::string_view kBearer = "Bearer ";
  if (const std::string* const value = find_field(request, "authorization"); value && value->starts_with(kBearer))
    return std::string_view(*value).substr(kBearer.size());
  const std::string* const key = find_field(request, "x-api-key");
  return key ? std::string_view(*key) : std::string_view();
}

}  // namespace

struct GrpcServer::Impl {
  Impl(const GrpcConfig& grpc_config, InferenceService& service)
      : config(grpc_config),
        messages(config.max_total_message_bytes),
        texts(config.text_threads, config.max_waiting_texts, config.max_total_message_bytes),
        health(service_names()),
        acceptor(io),
        pause(io),
        work(asio::make_work_guard(io)) {
    google::protobuf::SetLogHandler(log_for_protobuf);
    const std::set<std::string> names = service_names();
    for (auto rows : {inference_methods(service, config.refused), health.methods(),
                      reflection_methods({names.begin(), names.end()})})
      for (GrpcMethod& method : rows) {
        std::string path = method.path;
        methods.emplace(std::move(path), std::move(method));
      }
    listen();
    accept();
    thread = std::thread([this] { run_io(); });
    pthread_setname_np(thread.native_handle(), "serval-grpc");
  }

  static std::set<std::string> service_names() {
    return {"serval.v1.Inference", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection"};
  }

  void listen() {
    const std::string where = config.host + ":" + std::to_string(config.port);
    boost::system::error_code error;
    tcp::endpoint endpoint(asio::ip::make_address(config.host, error), static_cast<uint16_t>(config.port));
    if (error) {
      tcp::resolver resolver(io);
      const auto found = resolver.resolve(config.host, std::to_string(config.port), tcp::resolver::passive, error);
      if (error || found.empty()) throw std::runtime_error("cannot listen for gRPC on " + where + ": no such address");
      endpoint = *found.begin();
    }
    acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) throw std::runtime_error("cannot listen for gRPC on " + where + ": " + error.message());
    port = acceptor.local_endpoint().port();
  }

  void run_io() {
    for (;;) {
      try {
        io.run();
        return;
      } catch (const std::exception&) {  // of the library itself, between handlers: memory, in effect
      }
    }
  }

  // --- on the I/O thread ---

  void accept() {
    acceptor.async_accept([this](boost::system::error_code error, tcp::socket socket) {
      if (error == asio::error::operation_aborted || !acceptor.is_open()) return;
      if (!error) {
        open(std::move(socket));
        return accept();
      }
      // Out of descriptors or memory: the idle ones can be asked to leave.
      close_longest_idle();
      pause.expires_after(kAcceptPause);
      pause.async_wait([this](boost::system::error_code cancelled) {
        if (!cancelled) accept();
      });
    });
  }

  void open(tcp::socket socket) {
    if (static_cast<int>(connections.size()) >= config.max_connections && !close_longest_idle()) return;  // closes the new one
    boost::system::error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    const int patience = static_cast<int>(config.connection.write_stall_timeout.count());
    ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_USER_TIMEOUT, &patience, sizeof patience);
    const auto connection = std::make_shared<H2Connection>(
        std::move(socket), config.connection,
        [this](H2Connection& on, int32_t stream, H2Request request, bool has_body) { return begin(on, stream, std::move(request), has_body); },
        [this](H2Connection& gone) { forget(gone); });
    {
      std::lock_guard lock(mutex);
      connections.insert(connection);
    }
    connection->start();
  }

  bool close_longest_idle() {
    std::shared_ptr<H2Connection> longest;
    for (const auto& connection : connections)
      if (connection->is_idle() && (!longest || connection->idle_since() < longest->idle_since())) longest = connection;
    if (longest) longest->close();
    return longest != nullptr;
  }

  void forget(H2Connection& gone) {
    std::lock_guard lock(mutex);
    connections.erase(gone.shared_from_this());
    if (connections.empty()) all_closed.notify_all();
  }

  // A call's head has come: all that can be said without its message is said now.
  std::shared_ptr<H2Stream> begin(H2Connection& connection, int32_t stream, H2Request request, bool) {
    const std::string* const type = find_field(request, "content-type");
    if (request.method != "POST" || !type || !type->starts_with("application/grpc")) {
      connection.respond(stream, {{":status", request.method != "POST" ? "405" : "415"}}, true);
      return nullptr;
    }
    const auto call = std::make_shared<GrpcCall>(connection, stream, request, config.call, messages, config.answers.get());
    const auto found = methods.find(request.path);
    const GrpcMethod* const method = found == methods.end() ? nullptr : &found->second;
    call->set_on_finished([this, name = method ? method->path : "unknown"](GrpcCode code) {
      if (config.finished) config.finished(name, static_cast<int>(code));
    });
    if (!method) {
      call->begin(request, [](std::optional<std::string>) {});
      call->finish({GrpcCode::kUnimplemented, "There is no method " + request.path + "; reflection lists what there is.", {}});
    } else if (const int key = config.authorize ? config.authorize(key_of(request)) : 0; method->needs_key && config.authorize && key == 0) {
      call->begin(request, [](std::optional<std::string>) {});
      refuse(*call, {ErrorKind::kUnauthenticated, "invalid_api_key", "A valid key is needed: metadata 'authorization: Bearer KEY'.", ""});
    } else {
      call->set_key(key);
      if (!call->begin(request, on_message(*method, call)) && config.refused) config.refused("overloaded");
    }
    return call;
  }

  void refuse(GrpcCall& call, const Error& error) {
    if (config.refused) config.refused(error.code);
    call.finish(to_grpc_status(error));
  }

  GrpcCall::OnMessage on_message(const GrpcMethod& method, const std::weak_ptr<GrpcCall>& weak) {
    return [this, &method, weak, only = std::optional<std::string>()](std::optional<std::string> message) mutable {
      const std::shared_ptr<GrpcCall> call = weak.lock();
      if (!call) return;
      if (method.takes_many) {
        if (message) return method.run(call, *message);
        return call->finish({});
      }
      if (message) {
        if (only) return refuse(*call, {ErrorKind::kInvalidRequest, "malformed_message", "The method takes one message.", ""});
        only = std::move(message);
        return;
      }
      if (!only) return refuse(*call, {ErrorKind::kInvalidRequest, "malformed_message", "The call has no message.", ""});
      run(method, call, std::move(*only));
    };
  }

  void run(const GrpcMethod& method, const std::shared_ptr<GrpcCall>& call, std::string message) {
    if (!method.is_long) return method.run(call, message);
    const size_t bytes = message.size();
    const bool is_queued = texts.submit(bytes, [this, &method, call, text = std::make_shared<std::string>(std::move(message))] {
      try {
        method.run(call, *text);
      } catch (const std::exception&) {  // memory, in effect: this call's misfortune
        call->finish({GrpcCode::kResourceExhausted, "The server has no memory left for this request.", {}});
      }
    });
    if (!is_queued) refuse(*call, {ErrorKind::kOverloaded, "too_many_requests", "Too many texts wait to be tokenised; try again later.", ""});
  }

  const GrpcConfig config;
  MemoryBudget messages;
  TextLane texts;
  GrpcHealth health;
  std::map<std::string, GrpcMethod> methods;  // by path
  asio::io_context io;
  tcp::acceptor acceptor;
  asio::steady_timer pause;
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work;
  std::thread thread;
  int port = 0;

  mutable std::mutex mutex;  // of the set; changed on the I/O thread alone
  std::condition_variable all_closed;
  std::set<std::shared_ptr<H2Connection>> connections;
};

GrpcServer::GrpcServer(const GrpcConfig& config, InferenceService& service) : impl_(std::make_unique<Impl>(config, service)) {}

GrpcServer::~GrpcServer() {
  shutdown(0);
}

int GrpcServer::port() const {
  return impl_->port;
}

int GrpcServer::num_connections() const {
  std::lock_guard lock(impl_->mutex);
  return static_cast<int>(impl_->connections.size());
}

void GrpcServer::set_serving(bool serving) {
  impl_->health.set_serving(serving);
}

void GrpcServer::shutdown(int timeout_ms) {
  Impl& i = *impl_;
  if (!i.thread.joinable()) return;
  asio::post(i.io, [&i] {
    boost::system::error_code ignored;
    i.acceptor.close(ignored);
    i.pause.cancel();
    for (const auto& connection : std::set(i.connections)) connection->drain();
  });
  {
    std::unique_lock lock(i.mutex);
    i.all_closed.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&i] { return i.connections.empty(); });
  }
  asio::post(i.io, [&i] {
    for (const auto& connection : std::set(i.connections)) connection->close();
  });
  i.texts.join();  // what is queued sees its call gone and ends at once
  i.work.reset();
  i.thread.join();
}

}  // namespace serval
