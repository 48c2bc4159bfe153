#include "server/http/local_call.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

#include "server/http/http_connection.h"
#include "server/http/http_exchange.h"

namespace serval {

// Its strand is the thread that runs it.
class LocalConnection final : public HttpConnection {
 public:
  void drain() override {}
  void abort() override {}
  void make_way(bool) override {}
  void post(std::function<void()> work) override {
    const std::lock_guard lock(mutex_);
    work_.push_back(std::move(work));
    arrived_.notify_one();
  }

  void respond(const HttpExchange&, HttpResponse response) override {
    answer_ = std::move(response);
    if (answer_.source)
      while (answer_.source->next(answer_.body)) {
      }
    answer_.source.reset();
    is_answered_ = true;
  }
  void start_stream(const HttpExchange&) override { answer_.content_type = "text/event-stream"; }
  void write_stream(const HttpExchange&, std::string_view bytes) override { answer_.body += bytes; }
  void write_stream(const HttpExchange&, std::shared_ptr<BodySource> source) override {
    while (source->next(answer_.body)) {
    }
  }
  void end_stream(const HttpExchange&, bool) override { is_answered_ = true; }

  std::optional<HttpResponse> run(const std::function<bool()>& stopped) {
    constexpr std::chrono::milliseconds kLook{50};
    while (!is_answered_) {
      std::function<void()> work;
      {
        std::unique_lock lock(mutex_);
        if (work_.empty()) arrived_.wait_for(lock, kLook);
        if (!work_.empty()) {
          work = std::move(work_.front());
          work_.pop_front();
        }
      }
      if (work) {
        work();
      } else if (stopped()) {
        return std::nullopt;
      }
    }
    return std::move(answer_);
  }
  static void end(HttpExchange& exchange) { exchange.end(); }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<std::function<void()>> work_;
  // Of the thread that runs it.
  HttpResponse answer_;
  bool is_answered_ = false;
};

std::optional<HttpResponse> call_route(const Route& route, HttpRequest request, const HttpHooks& hooks, const std::function<bool()>& stopped) {
  const auto connection = std::make_shared<LocalConnection>();
  const auto exchange = std::make_shared<HttpExchange>(std::move(request), connection);
  // Whatever happens, nothing goes on for nobody.
  const std::shared_ptr<void> at_end(nullptr, [&](void*) { LocalConnection::end(*exchange); });
  route.handler(exchange);
  std::optional<HttpResponse> answer = connection->run(stopped);
  constexpr int kClientLeft = 499;
  if (answer && !answer->refusal.empty() && hooks.refused) hooks.refused(answer->refusal);
  if (answer && hooks.response) hooks.response(route.path, answer->status);
  if (!answer && hooks.client_gone) hooks.client_gone("disconnect");
  if (hooks.ended)
    hooks.ended({.method = exchange->request().method,
                 .path = exchange->request().path,
                 .id = exchange->request().id,
                 .key = exchange->request().key,
                 .status = answer ? answer->status : kClientLeft,
                 .code = answer ? std::string_view(answer->refusal) : std::string_view(),
                 .gone = answer ? "" : "disconnect",
                 .total_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - exchange->request().received).count(),
                 .generation = exchange->record()});
  return answer;
}

}  // namespace serval
