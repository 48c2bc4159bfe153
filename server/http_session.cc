#include "server/http_session.h"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <ctime>

#include "kernels/base/log.h"
#include "server/error_response.h"
#include "server/out_of_memory.h"
#include "server/unique_id.h"

namespace serval {
namespace {

namespace asio = boost::asio;

constexpr int kMaxEmptyLines = 4;
constexpr size_t kReadBytes = 64 << 10;
constexpr std::chrono::milliseconds kWatchInterval{250};
constexpr auto kNever = std::chrono::steady_clock::time_point::max();
constexpr int kLooksPerStall = 4;  // how often a reader is looked at before it is cut off

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

HttpResponse too_much() {
  return error_response(429, "server_overloaded",
                        "The server holds as many answers as it can; try again shortly.");
}

// Runs a route; whatever becomes of that, the request gets an answer. Any thread.
void handle(const Route& route, const std::shared_ptr<HttpExchange>& exchange) noexcept {
  try {
    route.handler(exchange);
    return;
  } catch (const std::bad_alloc&) {
    until_memory([&] {
      exchange->respond(error_response(503, "out_of_memory",
                                       "The server has no memory for this request now; try again shortly."));
    });
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

template <class Work>
void HttpSession::guarded(Work&& work) noexcept {
  if (state_ == State::kClosed) return;
  try {
    work();
    return;
  } catch (const std::exception&) {
  }
  try {
    // A request that nothing was answered to yet can still be told why.
    if (state_ == State::kReading) {
      reader_->refuse({503, "out_of_memory", "The server has no memory for this request now; try again shortly."});
      finish_reading();
      answer(reader_->take_refusal());
      return;
    }
    if (state_ == State::kAnswering && !answer_begun_) {
      answer(error_response(503, "out_of_memory",
                            "The server has no memory for this request now; try again shortly."));
      return;
    }
  } catch (const std::exception&) {
  }
  close(nullptr);
}

template <class Work>
auto HttpSession::handler(Work work) {
  return [self = shared_from_this(), work = std::move(work)](auto... arguments) {
    self->guarded([&] { work(*self, arguments...); });
  };
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
  asio::post(socket_.get_executor(), handler([at_once](HttpSession& self) {
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
  const bool taken =
      context_->lane_for(body_bytes)
          .submit(body_bytes, [route = route_, exchange = exchange_, weak = weak_from_this()] {
            if (!exchange->gone()) handle(*route, exchange);
            // The handler has taken the body and is done with it, however long its answer takes.
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

// --- answering ---

void HttpSession::respond(const HttpExchange& exchange, HttpResponse response) {
  if (is_open(exchange) && !answer_begun_) answer(std::move(response));
}

void HttpSession::answer(HttpResponse response) {
  // How long a body made in pieces is, only its end tells, unless that is in its first piece.
  std::shared_ptr<BodySource> rest = std::move(response.source);
  if (rest && !answer_charge_.fits(output_.held_bytes() + rest->held_bytes())) rest = nullptr, response = too_much();
  if (rest && !rest->next(response.body)) rest = nullptr;
  if (!answer_charge_.fits(output_.held_bytes() + response.body.size() + (rest ? rest->held_bytes() : 0)))
    rest = nullptr, response = too_much();
  keep_alive_ &= !response.close && !(rest && http_1_0_);
  chunked_answer_ = rest && !http_1_0_;
  if (chunked_answer_) {
    response.fields.push_back({"Transfer-Encoding", "chunked"});
  } else if (response.status != 204 && !rest) {
    response.fields.push_back({"Content-Length", std::to_string(response.body.size())});
  }
  std::string out = head(response.status, response.status == 204 ? std::string_view() : response.content_type,
                         response.fields);
  answer_begun_ = answer_complete_ = true;
  refusal_ = std::move(response.refusal);
  count_response(response.status);
  output_.append(out);
  if (!head_only_) {
    if (chunked_answer_) {
      output_.append_chunk(response.body);
      output_.append_source(std::move(rest), /*chunked=*/true);
      output_.append("0\r\n\r\n");
    } else {
      output_.append(response.body);
      if (rest) output_.append_source(std::move(rest), /*chunked=*/false);
    }
  }
  flush();
}

std::string HttpSession::head(int status, std::string_view content_type, const std::vector<HttpField>& fields) {
  if (context_->draining || leaving_) keep_alive_ = false;
  const auto elapsed =
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - received_).count();
  std::string out = "HTTP/1.1 " + std::to_string(status) + ' ';
  (out += status_text(status)) += "\r\n";
  const auto line = [&out](std::string_view name, std::string_view value) {
    ((out += name) += ": ") += value;
    out += "\r\n";
  };
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
  out += "\r\n";
  return out;
}

// An answer goes out whether or not there is memory to count it.
void HttpSession::count_response(int status) noexcept {
  status_ = status;
  try {
    if (!refusal_.empty() && context_->hooks.refused) context_->hooks.refused(refusal_);
    if (context_->hooks.response) context_->hooks.response(route_ ? route_->path : "unmatched", status);
  } catch (const std::exception&) {
  }
}

void HttpSession::start_stream(const HttpExchange& exchange) {
  if (!is_open(exchange) || answer_begun_) return;
  chunked_answer_ = !http_1_0_;
  std::vector<HttpField> fields{{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  if (chunked_answer_) {
    fields.push_back({"Transfer-Encoding", "chunked"});
  } else {
    keep_alive_ = false;  // HTTP/1.0 knows the end of such a body only by the connection's
  }
  // Said although RFC 8259 and the event stream are UTF-8 anyway: some clients take Latin-1 where nothing is.
  output_.append(head(200, "text/event-stream; charset=utf-8", fields));
  answer_begun_ = true;
  count_response(200);
}

void HttpSession::write_stream(const HttpExchange& exchange, std::string_view bytes) {
  if (!is_open(exchange) || answer_complete_ || bytes.empty()) return;
  // What waits is what the reader has not taken: however much comes at once, a reader that keeps up is never
  // cut off.
  if (output_.unread_bytes() > config_.stream_buffer_bytes) {
    close("client_stall");
    return;
  }
  chunked_answer_ ? output_.append_chunk(bytes) : output_.append(bytes);
  if (!answer_charge_.fits(output_.held_bytes())) {
    close("client_stall");
    return;
  }
  flush();
}

void HttpSession::write_stream(const HttpExchange& exchange, std::shared_ptr<BodySource> source) {
  if (!is_open(exchange) || answer_complete_) return;
  output_.append_source(std::move(source), chunked_answer_);
  if (!answer_charge_.fits(output_.held_bytes())) {
    close("client_stall");
    return;
  }
  flush();
}

void HttpSession::end_stream(const HttpExchange& exchange, bool close_connection) {
  if (!is_open(exchange) || answer_complete_) return;
  if (chunked_answer_) output_.append("0\r\n\r\n");
  answer_complete_ = true;
  keep_alive_ &= !close_connection;
  // All may be on its way already; with HTTP/1.0 nothing new may be here to write.
  if (output_.empty() && !writing_) {
    answer_finished();
  } else {
    flush();
  }
}

// Writes what the socket takes and waits for more room.
void HttpSession::flush() {
  if (writing_ || state_ == State::kClosed) return;
  const std::string_view bytes = output_.front();
  if (bytes.empty()) {
    if (answer_complete_ && state_ == State::kAnswering) answer_finished();
    return;
  }
  writing_ = true;
  if (write_deadline_ == kNever) {
    taken_at_ = Clock::now();
    write_deadline_ = taken_at_ + config_.write_stall_timeout / kLooksPerStall;
    arm_timer();
  }
  socket_.async_write_some(asio::buffer(bytes.data(), bytes.size()),
                           handler([](HttpSession& self, boost::system::error_code error, size_t n) {
                             self.on_written(error, n);
                           }));
}

void HttpSession::on_written(boost::system::error_code error, size_t n) {
  if (error) {
    close("disconnect");
    return;
  }
  writing_ = false;
  sent_bytes_ += n;
  output_.written(n);
  answer_charge_.set(output_.held_bytes());
  flush();
}

// `gone`: why the client did not get all of its answer; null when it did.
void HttpSession::tell_end(const char* gone) noexcept {
  if (!context_->hooks.ended) return;
  constexpr int kClientLeft = 499;
  until_memory([&] {
    context_->hooks.ended({.method = reader_->method(),
                           .path = reader_->path(),
                           .id = request_id_,
                           .key = reader_->key(),
                           .status = answer_begun_ ? status_ : kClientLeft,
                           .code = refusal_,
                           .gone = gone ? gone : "",
                           .total_s = std::chrono::duration<double>(Clock::now() - received_).count(),
                           .quiet = route_ && route_->probe,
                           .generation = exchange_ ? exchange_->record() : std::nullopt});
  });
}

void HttpSession::answer_finished() {
  tell_end(nullptr);
  if (exchange_) exchange_->end();
  exchange_.reset();
  reader_.reset();
  body_charge_.set(0);
  answer_charge_.set(0);
  served_any_ = true;
  watch_deadline_ = kNever;
  output_.shrink(config_.stream_buffer_bytes);
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

// What the peer has taken is what counts, and only until it has all: a socket takes more from us only when a
// good part of its buffer is free, and takes much although the peer has vanished.
void HttpSession::look_at_reader(Clock::time_point now) {
  int waiting = 0;
  if (::ioctl(socket_.native_handle(), SIOCOUTQ, &waiting) != 0) waiting = 0;
  const uint64_t taken = sent_bytes_ - static_cast<uint64_t>(waiting);
  if (taken > taken_bytes_) taken_at_ = now;
  taken_bytes_ = taken;
  if (waiting == 0 && !writing_) {
    taken_at_ = now;
    write_deadline_ = kNever;
  } else {
    write_deadline_ = std::min(now + config_.write_stall_timeout / kLooksPerStall,
                               taken_at_ + config_.write_stall_timeout);
  }
}

bool HttpSession::client_hung_up() {
  pollfd poll_socket{socket_.native_handle(), POLLRDHUP, 0};
  return ::poll(&poll_socket, 1, 0) > 0;
}

}  // namespace serval
