// The half of a connection that answers: heads, whole answers and streams, and what the reader takes of them.
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <ctime>

#include "server/http/error_response.h"
#include "server/http/http_session.h"
#include "server/out_of_memory.h"

namespace serval {
namespace {

namespace asio = boost::asio;

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

}  // namespace

void HttpSession::respond(const HttpExchange& exchange, HttpResponse response) {
  if (is_open(exchange) && !answer_begun_) answer(std::move(response));
}

void HttpSession::answer(HttpResponse response) {
  // How long a body made in pieces is, only its end tells, unless that is in its first piece.
  std::shared_ptr<BodySource> rest = std::move(response.source);
  if (rest && !answer_charge_.fits(output_.held_bytes() + rest->held_bytes()))
    rest = nullptr, response = too_much();
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

std::string HttpSession::head(int status, std::string_view content_type,
                              const std::vector<HttpField>& fields) {
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
    write_deadline_ =
        std::min(now + config_.write_stall_timeout / kLooksPerStall, taken_at_ + config_.write_stall_timeout);
  }
}

}  // namespace serval
