// One request and the way to answer it, as a handler sees them. Owned by the connection while the request is
// open; what a handler gives to own() lives exactly as long, so that a client that leaves destroys (and
// thereby cancels) the work done for it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "server/http/http_types.h"
#include "server/request_record.h"

namespace serval {

class HttpConnection;

class HttpExchange : public std::enable_shared_from_this<HttpExchange> {
 public:
  HttpExchange(HttpRequest request, std::weak_ptr<HttpConnection> connection);

  // The body belongs to whoever handles the request; the rest is constant.
  const HttpRequest& request() const { return request_; }
  // Hands out the body and forgets it; later calls give nothing. Handler's thread, once.
  std::string take_body() { return std::move(request_.body); }

  // --- any thread ---

  // The whole answer. Nothing happens when the client has left, or has been answered.
  void respond(HttpResponse response);
  // Runs `task` on the connection's strand, unless the exchange is over by then. `task` should own nothing
  // that owns this.
  void post(std::function<void()> task);
  // The exchange is over: answered, or the client left. Work for it may stop.
  bool gone() const { return gone_.load(std::memory_order_relaxed); }

  // --- on the connection's strand only ---

  // Keeps `work` until the exchange is over; `record` (which may refer to it) tells what was measured of it.
  void own(std::shared_ptr<void> work, std::function<RequestRecord()> record) {
    owned_ = std::move(work);
    record_ = std::move(record);
  }
  std::optional<RequestRecord> record() const { return record_ ? std::optional(record_()) : std::nullopt; }
  // Status 200 and an open-ended body of server-sent events.
  void start_stream();
  bool stream_started() const { return stream_started_; }
  // Queues bytes. If more than the configured amount of earlier ones still waits, the reader is cut off
  // instead (the exchange is over then): what one stream holds is bounded by that amount and one call's
  // bytes.
  void write(std::string_view bytes);
  // The same for bytes that are made while they are sent; what is written later comes behind them.
  void write(std::shared_ptr<BodySource> source);
  void end_stream(bool close_connection);

 private:
  friend class HttpSession;
  friend class LocalConnection;
  void end();  // on the strand: nothing can be answered any more

  HttpRequest request_;
  std::weak_ptr<HttpConnection> connection_;
  std::shared_ptr<void> owned_;
  std::function<RequestRecord()> record_;
  std::atomic<bool> gone_{false};
  bool stream_started_ = false;
};

}  // namespace serval
