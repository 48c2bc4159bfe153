#include "server/http_server.h"

#include <netinet/tcp.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <stdexcept>
#include <thread>

#include "kernels/base/log.h"
#include "server/http_context.h"
#include "server/http_session.h"

namespace serval {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr std::chrono::milliseconds kAcceptPause{100};

tcp::endpoint resolve(asio::io_context& io, const std::string& host, uint16_t port) {
  boost::system::error_code error;
  const asio::ip::address address = asio::ip::make_address(host, error);
  if (!error) return {address, port};
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, error);
  if (error || found.empty()) throw std::runtime_error("cannot resolve the HTTP host " + host);
  return *found.begin();
}

}  // namespace

bool HttpContext::register_session(HttpSession* session, std::weak_ptr<HttpSession> reference) {
  std::lock_guard lock(mutex);
  if (stopping) return false;
  sessions.emplace(session, std::move(reference));
  return true;
}

void HttpContext::session_closed(HttpSession* session) {
  std::function<void()> resume;
  {
    std::lock_guard lock(mutex);
    sessions.erase(session);
    if (sessions.empty()) all_closed.notify_all();
    std::swap(resume, room_again);
  }
  if (resume) resume();
}

struct HttpServer::Impl {
  Impl(HttpConfig config, RouteTable routes, HttpHooks hooks)
      : context(std::make_shared<HttpContext>(std::move(config), std::move(routes), std::move(hooks))),
        work(asio::make_work_guard(context->io)),
        acceptor(asio::make_strand(context->io)),
        pause(acceptor.get_executor()) {
    const HttpConfig& c = context->config;
    const tcp::endpoint endpoint = resolve(context->io, c.host, c.port);
    if (!endpoint.address().is_loopback() && context->keys.empty() && !c.insecure) {
      throw std::runtime_error("refusing to listen on " + c.host +
                               " without API keys: set api_keys, or insecure to serve everybody");
    }
    boost::system::error_code error;
    acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) {
      throw std::runtime_error("cannot listen on " + c.host + " port " + std::to_string(c.port) + ": " +
                               error.message());
    }
    port = acceptor.local_endpoint().port();
  }

  // --- on the acceptor's strand ---

  void accept() {
    if (!acceptor.is_open() || paused_for_room()) return;
    acceptor.async_accept(asio::make_strand(context->io),
                          [this](boost::system::error_code error, tcp::socket socket) {
                            if (error == asio::error::operation_aborted) return;
                            if (!error) {
                              open_session(std::move(socket));
                            } else if (error != asio::error::connection_aborted) {
                              // Out of descriptors or memory: the connection waits in the queue until others
                              // have closed.
                              if (!accept_failing)
                                log_warn("accepting connections pauses", {{"error", error.message()}});
                              accept_failing = true;
                              pause.expires_after(kAcceptPause);
                              pause.async_wait([this](boost::system::error_code cancelled) {
                                if (!cancelled) accept();
                              });
                              return;
                            }
                            accept_failing = false;
                            accept();
                          });
  }

  bool paused_for_room() {
    std::lock_guard lock(context->mutex);
    if (static_cast<int>(context->sessions.size()) < context->config.max_connections) return false;
    context->room_again = [this] { asio::post(acceptor.get_executor(), [this] { accept(); }); };
    return true;
  }

  void open_session(tcp::socket socket) {
    const HttpConfig& c = context->config;
    boost::system::error_code error;
    socket.non_blocking(true, error);
    socket.set_option(tcp::no_delay(true), error);
    if (c.send_buffer_bytes > 0)
      socket.set_option(asio::socket_base::send_buffer_size(c.send_buffer_bytes), error);
    // A peer that vanished without a word holds what we sent unacknowledged: give up on it as on one that
    // does not read.
    const int user_timeout = static_cast<int>(c.write_stall_timeout.count());
    ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
    const auto session = std::make_shared<HttpSession>(context, std::move(socket));
    if (context->register_session(session.get(), session)) session->start();
  }

  // --- any thread ---

  void stop_accepting() {
    asio::post(acceptor.get_executor(), [this] {
      boost::system::error_code ignored;
      acceptor.close(ignored);
      pause.cancel();
    });
  }

  std::vector<std::shared_ptr<HttpSession>> open_sessions() {
    std::vector<std::shared_ptr<HttpSession>> result;
    std::lock_guard lock(context->mutex);
    for (const auto& [session, reference] : context->sessions) {
      if (auto open = reference.lock()) result.push_back(std::move(open));
    }
    return result;
  }

  void run_io() {
    for (;;) {
      try {
        context->io.run();
        return;
      } catch (const std::exception& failure) {
        log_error("an HTTP connection failed", {{"what", failure.what()}});
      }
    }
  }

  std::shared_ptr<HttpContext> context;
  asio::executor_work_guard<asio::io_context::executor_type> work;
  tcp::acceptor acceptor;
  asio::steady_timer pause;
  bool accept_failing = false;
  uint16_t port = 0;
  std::vector<std::thread> threads;
};

HttpServer::HttpServer(HttpConfig config, RouteTable routes, HttpHooks hooks)
    : impl_(std::make_unique<Impl>(std::move(config), std::move(routes), std::move(hooks))) {}

HttpServer::~HttpServer() {
  stop();
}

void HttpServer::start() {
  asio::post(impl_->acceptor.get_executor(), [impl = impl_.get()] { impl->accept(); });
  for (int i = 0; i < impl_->context->config.io_threads; ++i)
    impl_->threads.emplace_back([impl = impl_.get()] { impl->run_io(); });
}

uint16_t HttpServer::port() const {
  return impl_->port;
}

int HttpServer::num_connections() const {
  std::lock_guard lock(impl_->context->mutex);
  return static_cast<int>(impl_->context->sessions.size());
}

bool HttpServer::drain(HttpConfig::Duration timeout) {
  impl_->context->draining = true;
  impl_->stop_accepting();
  for (const auto& session : impl_->open_sessions()) session->drain();
  std::unique_lock lock(impl_->context->mutex);
  return impl_->context->all_closed.wait_for(lock, timeout,
                                             [this] { return impl_->context->sessions.empty(); });
}

void HttpServer::stop() {
  HttpContext& context = *impl_->context;
  {
    std::lock_guard lock(context.mutex);
    context.stopping = true;
    context.room_again = nullptr;
  }
  impl_->stop_accepting();
  for (const auto& session : impl_->open_sessions()) session->abort();
  context.text_pool.join();
  context.long_text_pool.join();  // what is queued sees its exchange gone and ends at once
  impl_->work.reset();
  for (std::thread& thread : impl_->threads) thread.join();
  impl_->threads.clear();
}

}  // namespace serval
