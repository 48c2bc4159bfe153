#include "server/http/http_exchange.h"

#include "server/http/http_session.h"

namespace serval {

HttpExchange::HttpExchange(HttpRequest request, std::weak_ptr<HttpSession> session)
    : request_(std::move(request)), session_(std::move(session)) {}

// What waits on a strand refers to the exchange weakly: if the server stops before it runs, it must not keep
// the server's parts.
void HttpExchange::post(std::function<void()> task) {
  const std::shared_ptr<HttpSession> session = session_.lock();
  if (!session) return;
  session->post([weak = weak_from_this(), task = std::move(task)] {
    const std::shared_ptr<HttpExchange> self = weak.lock();
    if (self && !self->gone()) task();
  });
}

void HttpExchange::respond(HttpResponse response) {
  const std::shared_ptr<HttpSession> session = session_.lock();
  if (!session) return;
  session->post([weak = weak_from_this(), response = std::move(response)]() mutable {
    const std::shared_ptr<HttpExchange> self = weak.lock();
    if (!self || self->gone()) return;
    if (const auto open = self->session_.lock()) open->respond(*self, std::move(response));
  });
}

void HttpExchange::start_stream() {
  if (const auto session = session_.lock(); session && !stream_started_) {
    stream_started_ = true;
    session->start_stream(*this);
  }
}

void HttpExchange::write(std::string_view bytes) {
  if (const auto session = session_.lock()) session->write_stream(*this, bytes);
}

void HttpExchange::write(std::shared_ptr<BodySource> source) {
  if (const auto session = session_.lock()) session->write_stream(*this, std::move(source));
}

void HttpExchange::end_stream(bool close_connection) {
  if (const auto session = session_.lock()) session->end_stream(*this, close_connection);
}

void HttpExchange::end() {
  gone_.store(true, std::memory_order_relaxed);
  record_ = nullptr;
  owned_.reset();
}

}  // namespace serval
