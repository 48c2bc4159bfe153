// One connection: reads requests in stages (head, checks, body), one at a time, hands each to its route,
// writes the answer, and watches the client meanwhile. Everything here runs on the connection's strand unless
// a comment says otherwise. Pipelined requests wait in the socket: they are answered in order, and at most
// one head's worth of bytes is read ahead.
#pragma once

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "server/http/answer_output.h"
#include "server/http/http_connection.h"
#include "server/http/http_context.h"
#include "server/http/http_exchange.h"
#include "server/http/http_request_reader.h"

namespace serval {

class HttpSession : public HttpConnection, public std::enable_shared_from_this<HttpSession> {
 public:
  HttpSession(std::shared_ptr<HttpContext> context, boost::asio::ip::tcp::socket socket);
  ~HttpSession() override;

  // Any thread.
  void start();
  void drain() override;
  void abort() override;
  void make_way(bool at_once) override;
  void post(std::function<void()> work) override;

  void respond(const HttpExchange& exchange, HttpResponse response) override;
  void start_stream(const HttpExchange& exchange) override;
  void write_stream(const HttpExchange& exchange, std::string_view bytes) override;
  void write_stream(const HttpExchange& exchange, std::shared_ptr<BodySource> source) override;
  void end_stream(const HttpExchange& exchange, bool close_connection) override;

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr Clock::time_point kNever = Clock::time_point::max();
  enum class State {
    kIdle,       // between requests
    kReading,    // a request is arriving
    kAnswering,  // a handler works, or its answer is being written
    kLingering,  // answered for the last time; what still comes is thrown away
    kClosed
  };

  // Every handler runs in it: what `work` throws (memory, in effect) becomes a 503, or else closes the
  // connection.
  template <class Work>
  void guarded(Work&& work) noexcept {
    if (state_ == State::kClosed) return;
    try {
      work();
    } catch (const std::exception&) {
      fail_for_memory();
    }
  }
  void fail_for_memory() noexcept;
  // A completion handler for asio that runs `work(*this, arguments...)` guarded.
  template <class Work>
  auto handler(Work work) {
    return [self = shared_from_this(), work = std::move(work)](auto... arguments) {
      self->guarded([&] { work(*self, arguments...); });
    };
  }

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
  bool may_ask();

  // Answering.
  void answer(HttpResponse response);
  std::string head(int status, std::string_view content_type, const std::vector<HttpField>& fields);
  void count_response(int status) noexcept;
  void flush();
  void on_written(boost::system::error_code error, size_t n);
  void answer_finished();
  void linger();
  void tell_end(const char* gone) noexcept;
  void close(const char* reason) noexcept;

  // Deadlines: one timer, armed for the earliest.
  void arm_timer();
  void on_timer();
  void on_read_timeout();
  bool client_hung_up();
  void look_at_reader(Clock::time_point now);

  bool is_open(const HttpExchange& exchange) const {
    return state_ == State::kAnswering && exchange_.get() == &exchange;
  }

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
  MemoryCharge body_charge_;
  bool keep_alive_ = true;
  bool http_1_0_ = false;
  bool head_only_ = false;
  bool chunked_answer_ = false;
  bool answer_begun_ = false;
  int status_ = 0;                // of the answer, once begun
  std::string refusal_;           // its error's code
  bool answer_complete_ = false;  // all of it is in output_
  bool leaving_ = false;          // others need its place

  AnswerOutput output_;
  MemoryCharge answer_charge_;
  bool writing_ = false;
  uint64_t sent_bytes_ = 0;     // given to the kernel since the connection began
  uint64_t taken_bytes_ = 0;    // of those, taken by the peer when last looked at
  Clock::time_point taken_at_;  // when that was last more than before

  Clock::time_point read_deadline_ = kNever;
  Clock::time_point body_deadline_ = kNever;   // of the whole body
  Clock::time_point write_deadline_ = kNever;  // look whether the reader takes anything
  Clock::time_point watch_deadline_ = kNever;  // look whether the client hung up although we do not read
  Clock::time_point timer_armed_for_ = kNever;
};

}  // namespace serval
