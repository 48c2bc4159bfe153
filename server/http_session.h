// One connection: reads requests in stages (head, checks, body), one at a time, hands each to its route,
// writes the answer, and watches the client meanwhile. Everything here runs on the connection's strand unless
// a comment says otherwise. Pipelined requests wait in the socket: they are answered in order, and at most
// one head's worth of bytes is read ahead.
#pragma once

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "server/http_context.h"
#include "server/http_exchange.h"
#include "server/http_request_reader.h"

namespace serval {

class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  HttpSession(std::shared_ptr<HttpContext> context, boost::asio::ip::tcp::socket socket);
  ~HttpSession();

  // Any thread.
  void start();
  void drain();  // the answer in progress is the last one
  void abort();  // now
  boost::asio::any_io_executor executor() { return socket_.get_executor(); }

  // For HttpExchange, which is ignored unless it is the open one.
  void respond(const HttpExchange& exchange, HttpResponse response);
  void start_stream(const HttpExchange& exchange);
  void write_stream(const HttpExchange& exchange, std::string_view bytes);
  void end_stream(const HttpExchange& exchange, bool close_connection);

 private:
  using Clock = std::chrono::steady_clock;
  enum class State {
    kIdle,       // between requests
    kReading,    // a request is arriving
    kAnswering,  // a handler works, or its answer is being written
    kLingering,  // answered for the last time; what still comes is thrown away
    kClosed
  };

  // Reading.
  void wait_readable();
  void on_readable(boost::system::error_code error);
  void on_client_eof();
  bool input_full() const;
  std::string_view unread() const { return std::string_view(input_).substr(input_pos_); }
  void consume(size_t n);

  // The stages. advance() takes a request as far as the bytes that are here allow.
  void advance();
  void await_request();
  void skip_empty_lines();
  void begin_request();
  bool read_request();
  void begin_body();
  void finish_reading();
  void dispatch(HttpRequest request);

  // Answering.
  void answer(HttpResponse response);
  void append_head(int status, std::string_view content_type, const std::vector<HttpField>& fields);
  void flush();
  void write_more();
  void on_written(boost::system::error_code error, size_t n);
  void answer_finished();
  void linger();
  void tell_end(const char* gone);
  void close(const char* reason);

  // Deadlines: one timer, armed for the earliest.
  void arm_timer();
  void on_timer();
  void on_read_timeout();
  bool client_hung_up();

  bool is_open(const HttpExchange& exchange) const {
    return state_ == State::kAnswering && exchange_.get() == &exchange;
  }
  void charge_body(size_t bytes);

  const std::shared_ptr<HttpContext> context_;
  const HttpConfig& config_;
  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer timer_;
  State state_ = State::kIdle;
  bool served_any_ = false;

  std::string input_;
  size_t input_pos_ = 0;
  int num_empty_lines_ = 0;  // before the next request
  bool reading_ = false;
  bool client_eof_ = false;  // the client has closed its sending side

  // The request being read, then answered.
  std::optional<RequestReader> reader_;
  Clock::time_point received_;
  std::string request_id_;
  const Route* route_ = nullptr;
  std::shared_ptr<HttpExchange> exchange_;
  size_t charged_body_bytes_ = 0;
  bool keep_alive_ = true;
  bool http_1_0_ = false;
  bool head_only_ = false;
  bool chunked_answer_ = false;
  bool answer_begun_ = false;
  int status_ = 0;                // of the answer, once begun
  std::string refusal_;           // its error's code
  bool answer_complete_ = false;  // every byte of it is in output_

  std::string output_;     // waiting
  std::string in_flight_;  // being written, from written_ on
  size_t written_ = 0;
  bool writing_ = false;

  Clock::time_point read_deadline_ = Clock::time_point::max();
  Clock::time_point body_deadline_ = Clock::time_point::max();  // of the whole body
  Clock::time_point write_deadline_ = Clock::time_point::max();
  Clock::time_point watch_deadline_ =
      Clock::time_point::max();  // look whether the client hung up although we do not read
  Clock::time_point timer_armed_for_ = Clock::time_point::max();
};

}  // namespace serval
