#include "server/http/http_session.h"

#include <poll.h>

#include <algorithm>
#include <boost/asio/post.hpp>

#include "kernels/base/log.h"
#include "server/http/error_response.h"
#include "server/out_of_memory.h"
#include "server/unique_id.h"

namespace serval {
namespace {

namespace asio = boost::asio;

constexpr int kMaxEmptyLines = 4;
constexpr size_t kReadBytes = 64 << 10;
constexpr std::chrono::milliseconds kWatchInterval{250};
constexpr char kOutOfMemory[] = "The server has no memory for this request now; try again shortly.";

// Runs a route; whatever becomes of that, the request gets an answer. Any thread.
void handle(const Route& route, const std::shared_ptr<HttpExchange>& exchange) noexcept {
  try {
    route.handler(exchange);
    return;
  } catch (const std::bad_alloc&) {
    until_memory([&] { exchange->respond(error_response(503, "out_of_memory", kOutOfMemory)); });
  } catch (const std::exception& failure) {
    until_memory([&] {
      log_error("a handler failed", {{"route", route.path}, {"what", failure.what()}});
      exchange->respond(error_response(500, "internal_error", "The server failed to handle this request."));
    });
  }
}

}  // namespace

HttpSession::HttpSession(std::shared_ptr<HttpContext> context, asio::ip::tcp::socket socket)
    : context_(std::move(context)),
      config_(context_->config),
      socket_(std::move(socket)),
      timer_(socket_.get_executor()),
      body_charge_(&context_->bodies),
      answer_charge_(config_.answers.get(), kFreeAnswerBytes) {}

// Let go without being closed (an exception ended its last operation): the books must still balance.
HttpSession::~HttpSession() {
  close("disconnect");
}

// A request that nothing was answered to yet can still be told why.
void HttpSession::fail_for_memory() noexcept {
  try {
    if (state_ == State::kReading) {
      reader_->refuse({503, "out_of_memory", kOutOfMemory});
      finish_reading();
      answer(reader_->take_refusal());
      return;
    }
    if (state_ == State::kAnswering && !answer_begun_) {
      answer(error_response(503, "out_of_memory", kOutOfMemory));
      return;
    }
  } catch (const std::exception&) {
  }
  close(nullptr);
}

void HttpSession::post(std::function<void()> work) {
  asio::post(socket_.get_executor(), handler([work = std::move(work)](HttpSession&) { work(); }));
}

void HttpSession::start() {
  asio::post(socket_.get_executor(), handler([](HttpSession& self) {
               self.advance();
               self.wait_readable();
             }));
}

void HttpSession::drain() {
  asio::post(socket_.get_executor(), handler([](HttpSession& self) {
               if (self.state_ == State::kIdle && self.unread().empty()) self.close(nullptr);
             }));
}

void HttpSession::abort() {
  asio::post(socket_.get_executor(), handler([](HttpSession& self) { self.close(nullptr); }));
}

void HttpSession::make_way(bool at_once) {
  asio::post(
      socket_.get_executor(), handler([at_once](HttpSession& self) {
        const bool idle = self.state_ == State::kIdle && self.unread().empty();
        if (idle || self.state_ == State::kLingering || (at_once && self.state_ != State::kAnswering)) {
          self.close(nullptr);
        } else {
          self.leaving_ = true;
        }
      }));
}

// --- reading ---

// While an answer is in work we still read, to see the client leave and because its next request may come;
// but no further ahead than one head.
bool HttpSession::input_full() const {
  return unread().size() >= config_.head.max_request_line_bytes + config_.head.max_header_bytes + 4;
}

void HttpSession::consume(size_t n) {
  input_pos_ += n;
  if (input_pos_ < input_.size()) return;
  input_.clear();
  input_pos_ = 0;
}

void HttpSession::wait_readable() {
  if (reading_ || client_eof_ || state_ == State::kClosed) return;
  if (state_ == State::kAnswering && input_full()) {
    watch_deadline_ = Clock::now() + kWatchInterval;
    arm_timer();
    return;
  }
  reading_ = true;
  // Waiting without a buffer: an idle connection costs no more than this object.
  socket_.async_wait(
      asio::ip::tcp::socket::wait_read,
      handler([](HttpSession& self, boost::system::error_code error) { self.on_readable(error); }));
}

void HttpSession::on_readable(boost::system::error_code error) {
  reading_ = false;
  if (state_ == State::kClosed) return;
  thread_local std::array<char, kReadBytes> buffer;
  size_t n = 0;
  if (!error) n = socket_.read_some(asio::buffer(buffer), error);
  if (error == asio::error::would_block) {
    wait_readable();
    return;
  }
  if (error == asio::error::eof) {
    on_client_eof();
    return;
  }
  if (error) {
    close("disconnect");
    return;
  }
  if (state_ != State::kLingering) {
    if (input_pos_ > 0) {
      input_.erase(0, input_pos_);
      input_pos_ = 0;
    }
    input_.append(buffer.data(), n);
    advance();
  }
  wait_readable();
}

void HttpSession::on_client_eof() {
  client_eof_ = true;
  if (state_ == State::kAnswering && !(route_ && route_->ends_with_client && !answer_complete_))
    return;  // it may still read
  if (state_ == State::kAnswering) {
    close("disconnect");
  } else {
    close(nullptr);
  }
}

// --- the stages ---

void HttpSession::advance() {
  while (state_ == State::kIdle || state_ == State::kReading) {
    if (state_ == State::kIdle) {
      skip_empty_lines();
      if (unread().empty() || unread() == "\r") {
        await_request();
        return;
      }
      begin_request();
    }
    if (!read_request()) break;
  }
  // Whoever has closed its side in the middle of a request wants no answer.
  if (client_eof_ && state_ == State::kReading) close(nullptr);
}

// Some clients end a body with a line of its own. RFC 9112 2.2: such lines before a request mean nothing.
void HttpSession::skip_empty_lines() {
  for (; num_empty_lines_ < kMaxEmptyLines && unread().starts_with("\r\n"); ++num_empty_lines_) consume(2);
}

void HttpSession::await_request() {
  if (client_eof_ || context_->draining) {
    close(nullptr);
    return;
  }
  input_.shrink_to_fit();
  context_->set_idle(this, true);
  read_deadline_ = Clock::now() + (served_any_ ? config_.keep_alive_timeout : config_.header_timeout);
  arm_timer();
}

void HttpSession::begin_request() {
  reader_.emplace(config_.head, config_.body, context_->routes, context_->keys, context_->cors);
  request_id_ = "req_" + unique_id();
  received_ = Clock::now();
  state_ = State::kReading;
  context_->set_idle(this, false);
  num_empty_lines_ = 0;
  route_ = nullptr;
  status_ = 0;
  refusal_.clear();
  chunked_answer_ = answer_begun_ = answer_complete_ = false;
  // The first request's time began with the connection.
  if (served_any_ || read_deadline_ == kNever) read_deadline_ = received_ + config_.header_timeout;
  arm_timer();
}

// False: the request needs bytes that have not come yet.
bool HttpSession::read_request() {
  const bool was_in_head = reader_->state() == RequestReader::State::kHead;
  size_t used = 0;
  RequestReader::State state = reader_->feed(unread(), &used);
  consume(used);
  if (!body_charge_.fits(reader_->body_bytes())) {
    reader_->refuse(
        {429, "server_overloaded", "The server holds as many request bodies as it can; try again shortly."});
    state = RequestReader::State::kRefused;
  }
  if (was_in_head && (state == RequestReader::State::kBody || state == RequestReader::State::kReady) &&
      !may_ask()) {
    reader_->refuse({503, "too_many_connections",
                     "The server has as many connections open as it may; try again shortly."});
    state = RequestReader::State::kRefused;
  }
  switch (state) {
    case RequestReader::State::kHead:
      return false;
    case RequestReader::State::kBody:
      read_deadline_ = Clock::now() + config_.body_timeout;
      if (was_in_head) begin_body();
      return false;
    case RequestReader::State::kReady:
      finish_reading();
      dispatch(reader_->take_request());
      return true;
    case RequestReader::State::kRefused:
      finish_reading();
      answer(reader_->take_refusal());
      return true;
  }
  return false;
}

bool HttpSession::may_ask() {
  return reader_->route()->probe || context_->claim_rights(this);
}

void HttpSession::begin_body() {
  body_deadline_ = Clock::now() + config_.body_total_timeout;
  arm_timer();
  if (reader_->expects_continue() && unread().empty() && reader_->body_bytes() == 0) {
    output_.append("HTTP/1.1 100 Continue\r\n\r\n");
    flush();
  }
}

// What the answer must know of the request, whether it was accepted or refused.
void HttpSession::finish_reading() {
  state_ = State::kAnswering;
  read_deadline_ = body_deadline_ = kNever;
  route_ = reader_->route();
  keep_alive_ = reader_->keep_alive();
  http_1_0_ = reader_->http_1_0();
  head_only_ = reader_->head_only();
  if (!reader_->request_id().empty()) request_id_ = reader_->request_id();
}

void HttpSession::dispatch(HttpRequest request) {
  request.id = request_id_;
  request.received = received_;
  const size_t body_bytes = request.body.size();
  exchange_ = std::make_shared<HttpExchange>(std::move(request), weak_from_this());
  if (route_->runs_on == RunsOn::kInline) {
    handle(*route_, exchange_);
    return;
  }
  const bool taken = context_->lane_for(body_bytes)
                         .submit(body_bytes, [route = route_, exchange = exchange_, weak = weak_from_this()] {
                           if (!exchange->gone()) handle(*route, exchange);
                           // The handler has taken the body and is done with it, however long its answer
                           // takes.
                           until_memory([&] {
                             exchange->post([weak] {
                               if (const auto session = weak.lock()) session->body_charge_.set(0);
                             });
                           });
                         });
  if (!taken)
    answer(error_response(429, "server_overloaded",
                          "As many long texts wait as the server takes; try again shortly."));
}

// --- the end ---

// Closing with unread input makes the kernel send a reset, which can overtake the answer. So: say that we are
// done, and let the client close, for a bounded time.
void HttpSession::linger() {
  boost::system::error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  if (client_eof_ || ignored) {
    close(nullptr);
    return;
  }
  state_ = State::kLingering;
  context_->set_idle(this, true);
  consume(unread().size());
  read_deadline_ = Clock::now() + config_.linger_timeout;
  arm_timer();
  wait_readable();
}

// `reason`: why an open request ends without its answer; null when none does, or when it is our doing.
void HttpSession::close(const char* reason) noexcept {
  if (state_ == State::kClosed) return;
  if (state_ == State::kAnswering) tell_end(reason ? reason : "aborted");
  state_ = State::kClosed;
  if (exchange_) {
    try {
      if (reason && context_->hooks.client_gone) context_->hooks.client_gone(reason);
    } catch (const std::exception&) {
    }
    exchange_->end();
    exchange_.reset();
  }
  output_.clear();
  body_charge_.set(0);
  answer_charge_.set(0);
  timer_.cancel();
  boost::system::error_code ignored;
  socket_.close(ignored);
  context_->connection_closed(this);
}

// --- deadlines ---

// Deadlines move with every byte; the timer moves only when one comes earlier than it is armed for, and looks
// again when it fires.
void HttpSession::arm_timer() {
  const Clock::time_point earliest =
      std::min({read_deadline_, body_deadline_, write_deadline_, watch_deadline_});
  if (earliest >= timer_armed_for_) return;
  timer_armed_for_ = earliest;
  timer_.expires_at(earliest);
  timer_.async_wait(handler([](HttpSession& self, boost::system::error_code error) {
    if (error != asio::error::operation_aborted) self.on_timer();
  }));
}

void HttpSession::on_timer() {
  timer_armed_for_ = kNever;
  const Clock::time_point now = Clock::now();
  if (write_deadline_ <= now) {
    look_at_reader(now);
    if (now >= taken_at_ + config_.write_stall_timeout) {
      close("client_stall");
      return;
    }
  }
  if (std::min(read_deadline_, body_deadline_) <= now) {
    read_deadline_ = body_deadline_ = kNever;
    on_read_timeout();
  }
  if (watch_deadline_ <= now) {
    watch_deadline_ = kNever;
    if (client_hung_up()) {
      close("disconnect");
    } else {
      wait_readable();
    }
  }
  if (state_ != State::kClosed) arm_timer();
}

void HttpSession::on_read_timeout() {
  if (state_ != State::kReading) {
    close(nullptr);  // idle, or lingering
    return;
  }
  const bool in_head = reader_->state() == RequestReader::State::kHead;
  reader_->refuse({408, "request_timeout",
                   in_head ? "The request's head did not arrive in time."
                           : "The request's body did not arrive in time."});
  finish_reading();
  answer(reader_->take_refusal());
}

bool HttpSession::client_hung_up() {
  pollfd poll_socket{socket_.native_handle(), POLLRDHUP, 0};
  return ::poll(&poll_socket, 1, 0) > 0;
}

}  // namespace serval
