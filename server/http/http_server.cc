#include "server/http/http_server.h"

#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <utility>

#include "kernels/base/log.h"
#include "server/http/http_context.h"
#include "server/http/http_session.h"
#include "server/http/tcp_endpoint.h"
#include "server/out_of_memory.h"

namespace serval {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr std::chrono::milliseconds kAcceptPause{100};

}  // namespace

struct HttpServer::Impl {
  Impl(HttpConfig config, RouteTable routes, HttpHooks hooks)
      : context(std::make_shared<HttpContext>(std::move(config), std::move(routes), std::move(hooks))),
        acceptor(*context->ios.front()),
        pause(*context->ios.front()) {
    const HttpConfig& c = context->config;
    for (const auto& io : context->ios) work.push_back(asio::make_work_guard(*io));
    const tcp::endpoint endpoint = resolve_endpoint(*context->ios.front(), c.host, c.port, "HTTP");
    refuse_open_endpoint(endpoint, c.host, !context->keys.empty() || c.insecure);
    listen_on(acceptor, endpoint, "HTTP");
    port = acceptor.local_endpoint().port();
  }

  // --- on the first I/O thread ---

  void wait_for_connections() {
    until_memory([this] {
      acceptor.async_wait(tcp::acceptor::wait_read, [this](boost::system::error_code error) {
        if (!error) accept_waiting();
      });
    });
  }

  // Takes all that wait to be accepted, some at a time.
  void accept_waiting() {
    constexpr int kMaxAtOnce = 64;
    for (int i = 0; i < kMaxAtOnce; ++i) {
      const int descriptor =
          ::accept4(acceptor.native_handle(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (descriptor >= 0) {
        accept_failing = false;
        open_session(descriptor);
      } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        break;
      } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        pause_accepting(errno);
        return;
      }  // else that connection was gone before it was accepted
    }
    wait_for_connections();
  }

  // Out of descriptors or memory: the connection waits in the queue until others have closed, of which the
  // idle ones can be asked.
  void pause_accepting(int error) {
    context->close_longest_idle();
    if (!std::exchange(accept_failing, true))
      until_memory([&] { log_warn("accepting connections pauses", {{"error", std::strerror(error)}}); });
    until_memory([this] {
      pause.expires_after(kAcceptPause);
      pause.async_wait([this](boost::system::error_code cancelled) {
        if (!cancelled) accept_waiting();
      });
    });
  }

  // Without memory for it the connection is closed, and nothing else happens.
  void open_session(int descriptor) noexcept {
    bool owned = false;
    try {
      asio::io_context& io = *context->ios[next_io++ % context->ios.size()];
      tcp::socket socket(io);
      socket.assign(acceptor.local_endpoint().protocol(), descriptor);
      owned = true;
      const HttpConfig& c = context->config;
      boost::system::error_code error;
      socket.non_blocking(true, error);
      socket.set_option(tcp::no_delay(true), error);
      if (c.send_buffer_bytes > 0)
        socket.set_option(asio::socket_base::send_buffer_size(c.send_buffer_bytes), error);
      const tcp::endpoint peer = socket.remote_endpoint(error);
      const auto session = std::make_shared<HttpSession>(context, std::move(socket));
      if (context->register_connection(session, client_address(peer))) session->start();
    } catch (const std::exception&) {
      if (!owned) ::close(descriptor);
    }
  }

  // --- any thread ---

  void stop_accepting() {
    asio::post(acceptor.get_executor(), [this] {
      boost::system::error_code ignored;
      acceptor.close(ignored);
      pause.cancel();
    });
  }

  // Handlers catch what their connection can throw; this is for what the library itself throws between them.
  static void run_io(asio::io_context& io) {
    for (;;) {
      try {
        io.run();
        return;
      } catch (const std::exception& failure) {
        until_memory([&] { log_error("an I/O thread goes on after a failure", {{"what", failure.what()}}); });
      }
    }
  }

  std::shared_ptr<HttpContext> context;
  std::vector<asio::executor_work_guard<asio::io_context::executor_type>> work;
  tcp::acceptor acceptor;
  asio::steady_timer pause;
  bool accept_failing = false;
  size_t next_io = 0;
  uint16_t port = 0;
  std::vector<std::thread> threads;
};

HttpServer::HttpServer(HttpConfig config, RouteTable routes, HttpHooks hooks)
    : impl_(std::make_unique<Impl>(std::move(config), std::move(routes), std::move(hooks))) {}

HttpServer::~HttpServer() {
  stop();
}

void HttpServer::start() {
  asio::post(impl_->acceptor.get_executor(), [impl = impl_.get()] { impl->wait_for_connections(); });
  for (const auto& io : impl_->context->ios) {
    impl_->threads.emplace_back([&io = *io] { Impl::run_io(io); });
    pthread_setname_np(impl_->threads.back().native_handle(), "serval-io");
  }
}

uint16_t HttpServer::port() const {
  return impl_->port;
}

int HttpServer::num_connections() const {
  std::lock_guard lock(impl_->context->mutex);
  return static_cast<int>(impl_->context->sessions.size());
}

bool HttpServer::submit_text(size_t bytes, std::function<void()> task) {
  return impl_->context->lane_for(bytes).submit(bytes, std::move(task));
}

size_t HttpServer::num_waiting_texts() const {
  return impl_->context->long_texts.num_waiting();
}

bool HttpServer::drain(HttpConfig::Duration timeout) {
  impl_->context->draining = true;
  impl_->stop_accepting();
  for (const auto& session : impl_->context->open_connections()) session->drain();
  std::unique_lock lock(impl_->context->mutex);
  return impl_->context->all_closed.wait_for(lock, timeout,
                                             [this] { return impl_->context->sessions.empty(); });
}

void HttpServer::stop() {
  HttpContext& context = *impl_->context;
  {
    std::lock_guard lock(context.mutex);
    context.stopping = true;
  }
  impl_->stop_accepting();
  for (const auto& session : impl_->context->open_connections()) session->abort();
  context.texts.join();
  context.long_texts.join();  // what is queued sees its exchange gone and ends at once
  impl_->work.clear();
  for (std::thread& thread : impl_->threads) thread.join();
  impl_->threads.clear();
}

}  // namespace serval
