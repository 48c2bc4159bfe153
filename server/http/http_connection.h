// A connection as others see it: the exchange that is answered on it, and whoever counts connections and ends
// them. HttpSession is the one implementation; tests may have others.
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "server/http/http_types.h"

namespace serval {

class HttpExchange;

class HttpConnection {
 public:
  virtual ~HttpConnection() = default;

  // --- any thread ---

  // The answer in progress is the last one.
  virtual void drain() = 0;
  // Ends it now.
  virtual void abort() = 0;
  // Others need its place: closes, after what is being asked unless `at_once`.
  virtual void make_way(bool at_once) = 0;
  // Runs `work` on the connection's strand, where what it throws ends this connection's request and nothing else.
  virtual void post(std::function<void()> work) = 0;

  // --- on the connection's strand, for HttpExchange, which is ignored unless it is the open one ---

  virtual void respond(const HttpExchange& exchange, HttpResponse response) = 0;
  virtual void start_stream(const HttpExchange& exchange) = 0;
  virtual void write_stream(const HttpExchange& exchange, std::string_view bytes) = 0;
  virtual void write_stream(const HttpExchange& exchange, std::shared_ptr<BodySource> source) = 0;
  virtual void end_stream(const HttpExchange& exchange, bool close_connection) = 0;
};

}  // namespace serval
