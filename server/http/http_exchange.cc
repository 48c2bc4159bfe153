#include "server/http/http_exchange.h"

#include "server/http/http_connection.h"

namespace serval {

HttpExchange::HttpExchange(HttpRequest request, std::weak_ptr<HttpConnection> connection)
    : request_(std::move(request)), connection_(std::move(connection)) {}

// What waits on a strand refers to the exchange weakly: if the server stops before it runs, it must not keep
// the server's parts.
void HttpExchange::post(std::function<void()> task) {
  const std::shared_ptr<HttpConnection> connection = connection_.lock();
  if (!connection) return;
  connection->post([weak = weak_from_this(), task = std::move(task)] {
    const std::shared_ptr<HttpExchange> self = weak.lock();
    if (self && !self->gone()) task();
  });
}

void HttpExchange::respond(HttpResponse response) {
  const std::shared_ptr<HttpConnection> connection = connection_.lock();
  if (!connection) return;
  connection->post([weak = weak_from_this(), response = std::move(response)]() mutable {
    const std::shared_ptr<HttpExchange> self = weak.lock();
    if (!self || self->gone()) return;
    if (const auto open = self->connection_.lock()) open->respond(*self, std::move(response));
  });
}

void HttpExchange::start_stream() {
  if (const auto connection = connection_.lock(); connection && !stream_started_) {
    stream_started_ = true;
    connection->start_stream(*this);
  }
}

void HttpExchange::write(std::string_view bytes) {
  if (const auto connection = connection_.lock()) connection->write_stream(*this, bytes);
}

void HttpExchange::write(std::shared_ptr<BodySource> source) {
  if (const auto connection = connection_.lock()) connection->write_stream(*this, std::move(source));
}

void HttpExchange::end_stream(bool close_connection) {
  if (const auto connection = connection_.lock()) connection->end_stream(*this, close_connection);
}

void HttpExchange::end() {
  gone_.store(true, std::memory_order_relaxed);
  record_ = nullptr;
  owned_.reset();
}

}  // namespace serval
