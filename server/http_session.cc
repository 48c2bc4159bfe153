#include "server/http_session.h"

#include <poll.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <charconv>
#include <ctime>

#include "kernels/base/log.h"
#include "server/error_response.h"
#include "server/unique_id.h"

namespace serval {
namespace {

namespace asio = boost::asio;

constexpr int kMaxEmptyLines = 4;
constexpr size_t kReadBytes = 64 << 10;
constexpr std::chrono::milliseconds kWatchInterval{250};
constexpr auto kNever = std::chrono::steady_clock::time_point::max();

const std::string& http_date() {
  thread_local std::time_t last = 0;
  thread_local std::string text;
  const std::time_t now = std::time(nullptr);
  if (now != last) {
    std::tm utc{};
    gmtime_r(&now, &utc);
    char buffer[64];
    text.assign(buffer, std::strftime(buffer, sizeof(buffer), "%a, %d %b %Y %H:%M:%S GMT", &utc));
    last = now;
  }
  return text;
}

}  // namespace

HttpSession::HttpSession(std::shared_ptr<HttpContext> context, asio::ip::tcp::socket socket)
    : context_(std::move(context)),
      config_(context_->config),
      socket_(std::move(socket)),
      timer_(socket_.get_executor()) {}

// Let go without being closed (an exception ended its last operation): the books must still balance.
HttpSession::~HttpSession() {
  close("disconnect");
}

void HttpSession::start() {
  asio::post(executor(), [self = shared_from_this()] {
    if (self->state_ == State::kClosed) return;
    self->advance();
    self->wait_readable();
  });
}

void HttpSession::drain() {
  asio::post(executor(), [self = shared_from_this()] {
    if (self->state_ == State::kIdle && self->unread().empty()) self->close(nullptr);
  });
}

void HttpSession::abort() {
  asio::post(executor(), [self = shared_from_this()] { self->close(nullptr); });
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
      [self = shared_from_this()](boost::system::error_code error) { self->on_readable(error); });
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
  read_deadline_ = Clock::now() + (served_any_ ? config_.keep_alive_timeout : config_.header_timeout);
  arm_timer();
}

void HttpSession::begin_request() {
  state_ = State::kReading;
  reader_.emplace(config_.head, config_.body, context_->routes, context_->keys, context_->cors);
  received_ = Clock::now();
  request_id_ = "req_" + unique_id();
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
  charge_body(reader_->body_bytes());
  if (reader_->body_bytes() > 0 &&
      context_->body_bytes.load(std::memory_order_relaxed) > config_.max_total_body_bytes) {
    reader_->refuse(
        {429, "server_overloaded", "The server holds as many request bodies as it can; try again shortly."});
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

void HttpSession::begin_body() {
  body_deadline_ = Clock::now() + config_.body_total_timeout;
  arm_timer();
  if (reader_->expects_continue() && unread().empty() && reader_->body_bytes() == 0) {
    output_ += "HTTP/1.1 100 Continue\r\n\r\n";
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

// Accounts for `bytes` of this request's body in the memory that all bodies share.
void HttpSession::charge_body(size_t bytes) {
  context_->body_bytes += bytes;
  context_->body_bytes -= charged_body_bytes_;
  charged_body_bytes_ = bytes;
}

void HttpSession::dispatch(HttpRequest request) {
  request.id = request_id_;
  request.received = received_;
  const size_t body_bytes = request.body.size();
  exchange_ = std::make_shared<HttpExchange>(std::move(request), weak_from_this());
  const auto run = [](const Route& route, const std::shared_ptr<HttpExchange>& exchange) {
    try {
      route.handler(exchange);
    } catch (const std::exception& failure) {
      log_error("a handler failed", {{"route", route.path}, {"what", failure.what()}});
      exchange->respond(error_response(500, "internal_error", "The server failed to handle this request."));
    }
  };
  if (route_->runs_on == RunsOn::kInline) {
    run(*route_, exchange_);
    return;
  }
  asio::post(context_->pool_for(body_bytes),
             [run, route = route_, exchange = exchange_, weak = weak_from_this()] {
               if (exchange->gone()) return;
               run(*route, exchange);
               // The handler has taken the body and is done with it, however long its answer takes.
               exchange->post([weak] {
                 if (const auto session = weak.lock()) session->charge_body(0);
               });
             });
}

// --- answering ---

void HttpSession::respond(const HttpExchange& exchange, HttpResponse response) {
  if (is_open(exchange) && !answer_begun_) answer(std::move(response));
}

void HttpSession::answer(HttpResponse response) {
  keep_alive_ &= !response.close;
  answer_begun_ = answer_complete_ = true;
  refusal_ = std::move(response.refusal);
  if (!refusal_.empty() && context_->hooks.refused) context_->hooks.refused(refusal_);
  if (response.status != 204)
    response.fields.push_back({"Content-Length", std::to_string(response.body.size())});
  append_head(response.status, response.status == 204 ? std::string_view() : response.content_type,
              response.fields);
  if (!head_only_) output_ += response.body;
  flush();
}

void HttpSession::append_head(int status, std::string_view content_type,
                              const std::vector<HttpField>& fields) {
  if (context_->draining) keep_alive_ = false;
  status_ = status;
  const auto elapsed =
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - received_).count();
  const auto line = [this](std::string_view name, std::string_view value) {
    ((output_ += name) += ": ") += value;
    output_ += "\r\n";
  };
  output_ += "HTTP/1.1 " + std::to_string(status) + ' ';
  (output_ += status_text(status)) += "\r\n";
  line("Date", http_date());
  if (!content_type.empty()) line("Content-Type", content_type);
  line("x-request-id", request_id_);
  line("openai-processing-ms", std::to_string(elapsed));
  line("openai-version", "2020-10-01");
  for (const HttpField& field : fields) line(field.name, field.value);
  for (const HttpField& field : reader_->cors_fields()) line(field.name, field.value);
  if (!keep_alive_) {
    line("Connection", "close");
  } else if (http_1_0_) {
    line("Connection", "keep-alive");
  }
  output_ += "\r\n";
  if (context_->hooks.response) context_->hooks.response(route_ ? route_->path : "unmatched", status);
}

void HttpSession::start_stream(const HttpExchange& exchange) {
  if (!is_open(exchange) || answer_begun_) return;
  answer_begun_ = true;
  chunked_answer_ = !http_1_0_;
  std::vector<HttpField> fields{{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  if (chunked_answer_) {
    fields.push_back({"Transfer-Encoding", "chunked"});
  } else {
    keep_alive_ = false;  // HTTP/1.0 knows the end of such a body only by the connection's
  }
  append_head(200, "text/event-stream", fields);
}

void HttpSession::write_stream(const HttpExchange& exchange, std::string_view bytes) {
  if (!is_open(exchange) || answer_complete_ || bytes.empty()) return;
  // What waits is what the reader has not taken: however much comes at once, a reader that keeps up is never
  // cut off.
  if (output_.size() + in_flight_.size() - written_ > config_.stream_buffer_bytes) {
    close("client_stall");
    return;
  }
  if (chunked_answer_) {
    char size[16];
    output_.append(size, std::to_chars(size, size + sizeof(size), bytes.size(), 16).ptr);
    output_ += "\r\n";
  }
  output_ += bytes;
  if (chunked_answer_) output_ += "\r\n";
  flush();
}

void HttpSession::end_stream(const HttpExchange& exchange, bool close_connection) {
  if (!is_open(exchange) || answer_complete_) return;
  answer_complete_ = true;
  keep_alive_ &= !close_connection;
  if (chunked_answer_) output_ += "0\r\n\r\n";
  // What stood in output_ may be on its way already; with HTTP/1.0 nothing new may be here to write.
  if (output_.empty() && !writing_) {
    answer_finished();
  } else {
    flush();
  }
}

void HttpSession::flush() {
  if (writing_ || output_.empty() || state_ == State::kClosed) return;
  in_flight_.swap(output_);
  output_.clear();
  written_ = 0;
  writing_ = true;
  write_more();
}

// Writes what the socket takes and waits for more room: any progress renews the deadline.
void HttpSession::write_more() {
  write_deadline_ = Clock::now() + config_.write_stall_timeout;
  arm_timer();
  socket_.async_write_some(
      asio::buffer(in_flight_.data() + written_, in_flight_.size() - written_),
      [self = shared_from_this()](boost::system::error_code error, size_t n) { self->on_written(error, n); });
}

void HttpSession::on_written(boost::system::error_code error, size_t n) {
  if (state_ == State::kClosed) return;
  if (error) {
    close("disconnect");
    return;
  }
  written_ += n;
  if (written_ < in_flight_.size()) {
    write_more();
    return;
  }
  writing_ = false;
  in_flight_.clear();
  written_ = 0;
  write_deadline_ = kNever;
  if (!output_.empty()) {
    flush();
  } else if (answer_complete_ && state_ == State::kAnswering) {
    answer_finished();
  }
}

// `gone`: why the client did not get all of its answer; null when it did.
void HttpSession::tell_end(const char* gone) {
  if (!context_->hooks.ended) return;
  constexpr int kClientLeft = 499;
  context_->hooks.ended({.method = reader_->method(),
                         .path = reader_->path(),
                         .id = request_id_,
                         .key = reader_->key(),
                         .status = answer_begun_ ? status_ : kClientLeft,
                         .code = refusal_,
                         .gone = gone ? gone : "",
                         .total_s = std::chrono::duration<double>(Clock::now() - received_).count(),
                         .quiet = route_ && route_->quiet,
                         .generation = exchange_ ? exchange_->record() : std::nullopt});
}

void HttpSession::answer_finished() {
  tell_end(nullptr);
  if (exchange_) exchange_->end();
  exchange_.reset();
  reader_.reset();
  charge_body(0);
  served_any_ = true;
  watch_deadline_ = kNever;
  if (output_.capacity() > config_.stream_buffer_bytes) output_.shrink_to_fit();
  if (in_flight_.capacity() > config_.stream_buffer_bytes) in_flight_.shrink_to_fit();
  if (!keep_alive_) {
    linger();
    return;
  }
  state_ = State::kIdle;
  advance();
  wait_readable();
}

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
  consume(unread().size());
  read_deadline_ = Clock::now() + config_.linger_timeout;
  arm_timer();
  wait_readable();
}

// `reason`: why an open request ends without its answer; null when none does, or when it is our doing.
void HttpSession::close(const char* reason) {
  if (state_ == State::kClosed) return;
  if (state_ == State::kAnswering) tell_end(reason ? reason : "aborted");
  state_ = State::kClosed;
  if (exchange_) {
    if (reason && context_->hooks.client_gone) context_->hooks.client_gone(reason);
    exchange_->end();
    exchange_.reset();
  }
  charge_body(0);
  timer_.cancel();
  boost::system::error_code ignored;
  socket_.close(ignored);
  context_->session_closed(this);
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
  timer_.async_wait([self = shared_from_this()](boost::system::error_code error) {
    if (error == asio::error::operation_aborted || self->state_ == State::kClosed) return;
    self->on_timer();
  });
}

void HttpSession::on_timer() {
  timer_armed_for_ = kNever;
  const Clock::time_point now = Clock::now();
  if (write_deadline_ <= now) {
    close("client_stall");
    return;
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
