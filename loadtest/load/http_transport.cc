#include <algorithm>
#include <array>
#include <boost/asio.hpp>
#include <boost/json.hpp>
#include <sstream>
#include <stdexcept>

#include "engine/json/json_reader.h"
#include "kernels/base/shown.h"
#include "loadtest/load/sse.h"
#include "loadtest/load/transport.h"

namespace serval::load {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using asio::ip::tcp;
using boost::system::error_code;

std::string request_head(const Target& target, const std::string& method, const std::string& path,
                         const std::string& key, size_t length) {
  std::ostringstream head;
  head << method << ' ' << path << " HTTP/1.1\r\nHost: " << target.host << ':' << target.port
       << "\r\nAccept: */*\r\n";
  if (!key.empty()) head << "Authorization: Bearer " << key << "\r\n";
  if (method == "POST") head << "Content-Type: application/json\r\nContent-Length: " << length << "\r\n";
  head << "\r\n";
  return head.str();
}

std::string request_body(const DriverOptions& options, const std::string& model,
                         const PlannedRequest& planned) {
  json::object body;
  body["model"] = model;
  body["max_tokens"] = planned.output_tokens;
  body["temperature"] = options.temperature;
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  if (options.ignore_eos) body["ignore_eos"] = true;
  if (options.chat) {
    body["messages"] = json::array{json::object{{"role", "user"}, {"content", planned.prompt}}};
  } else if (!planned.token_ids.empty()) {
    body["prompt"] = json::array(planned.token_ids.begin(), planned.token_ids.end());
  } else {
    body["prompt"] = planned.prompt;
  }
  return json::serialize(body);
}

// The value of the first series of that name in a Prometheus text; `fallback` when there is none.
double series(const std::string& text, const std::string& name, double fallback) {
  for (size_t at = text.find(name); at != std::string::npos; at = text.find(name, at + 1)) {
    if (at != 0 && text[at - 1] != '\n') continue;
    const char after = text[at + name.size()];
    if (after != '{' && after != ' ') continue;
    const size_t end = text.find('\n', at);
    const size_t space = text.rfind(' ', end);
    return std::strtod(text.c_str() + space + 1, nullptr);
  }
  return fallback;
}

// What an error's body says to a person: the message of OpenAI's shape ({"error": {"message": ...}}) or of
// others
// ({"error": ...}, {"message": ...}, {"detail": ...}); otherwise the body itself. As Outcome keeps it.
std::string message_in(const json::value& value) {
  const json::object* object = value.if_object();
  for (const char* name : {"error", "message", "detail"}) {
    const json::value* found = object ? object->if_contains(name) : nullptr;
    if (found && (found->is_object() || found->is_string())) return message_in(*found);
  }
  const json::string* text = value.if_string();
  return shown(text ? std::string(*text) : json::serialize(value), kMaxMessageBytes);
}
std::string message_in(const std::string& body) {
  const Result<json::value> value = read_json(body);
  return value ? message_in(*value) : shown(body, kMaxMessageBytes);
}

class HttpTransport;

// One connection: takes a request at a time, is reused while the server keeps it alive.
class Stream : public std::enable_shared_from_this<Stream> {
 public:
  Stream(HttpTransport& transport, asio::io_context& io)
      : transport_(transport), socket_(io), deadline_(io) {}

  void start(size_t index);
  void cut_off() { fail("run ended"); }

 private:
  void connect();
  void send();
  void read();
  void event(std::string_view data);
  void fail(const std::string& kind, const error_code& why = {});
  void finish();

  HttpTransport& transport_;
  tcp::socket socket_;
  asio::steady_timer deadline_;
  bool connected_ = false;
  bool busy_ = false;
  bool fresh_ = false;  // no request was answered on this connection yet
  size_t index_ = 0;
  std::string outgoing_;
  std::unique_ptr<ResponseReader> reader_;
  std::array<char, 16384> buffer_;
};

class HttpTransport final : public Transport {
 public:
  explicit HttpTransport(RunState& run) : run_(run), scrape_timer_(io_) {
    const Target& target = run.options.target;
    error_code failed;
    endpoints_ = tcp::resolver(io_).resolve(target.host, target.port, failed);
    if (failed) throw std::runtime_error("cannot resolve " + target.host + ": " + failed.message());
    if (run.options.scrape_every_s > 0) scrape();
  }

  void send(size_t index) override {
    std::shared_ptr<Stream> stream;
    if (idle_.empty()) {
      stream = std::make_shared<Stream>(*this, io_);
    } else {
      stream = std::move(idle_.back());
      idle_.pop_back();
    }
    busy_.push_back(stream);
    stream->start(index);
  }
  void cut_off() override {
    const auto open = busy_;
    for (const auto& stream : open) stream->cut_off();
  }
  // By a timer of the context: run_one_until would wait in whole milliseconds.
  void wait(Clock::time_point until) override {
    if (wake_.expiry() != until) {
      wake_.expires_at(until);
      wake_.async_wait([](error_code) {});
    }
    io_.run_one();
    io_.poll();
  }

  RunState& run() { return run_; }
  const auto& endpoints() const { return endpoints_; }
  std::string message(size_t index) const {
    const DriverOptions& options = run_.options;
    const std::string path = options.target.base + (options.chat ? "/chat/completions" : "/completions");
    const std::string body = request_body(options, run_.model, run_.workload[index]);
    return request_head(options.target, "POST", path, options.api_key, body.size()) + body;
  }
  void ended(size_t index, std::shared_ptr<Stream> stream, bool reusable) {
    std::erase(busy_, stream);
    if (reusable) idle_.push_back(std::move(stream));
    run_.done(index);
  }

 private:
  void scrape() {
    scrape_timer_.expires_after(to_duration(run_.options.scrape_every_s));
    scrape_timer_.async_wait([this](error_code failed) {
      if (failed) return;
      fetch_metrics();
    });
  }

  void fetch_metrics() {
    struct Fetch {
      explicit Fetch(asio::io_context& io) : socket(io), reader([](std::string_view) {}) {}
      tcp::socket socket;
      ResponseReader reader;
      std::string message;
      std::array<char, 65536> buffer;
      std::function<void()> read;
    };
    auto fetch = std::make_shared<Fetch>(io_);
    fetch->message = request_head(run_.options.target, "GET", "/metrics", run_.options.api_key, 0);
    const double at = run_.now();
    asio::async_connect(fetch->socket, endpoints_,
                        [this, fetch, at](error_code failed, const tcp::endpoint&) {
                          if (failed) return;  // no metrics here: ask no more
                          asio::async_write(fetch->socket, asio::buffer(fetch->message),
                                            [this, fetch, at](error_code failed_write, size_t) {
                                              if (failed_write) return;
                                              read_metrics(fetch, at);
                                            });
                        });
  }
  template <class Fetch>
  void read_metrics(std::shared_ptr<Fetch> fetch, double at) {
    fetch->socket.async_read_some(
        asio::buffer(fetch->buffer), [this, fetch, at](error_code failed, size_t size) {
          auto state = ResponseReader::State::kMalformed;
          if (!failed) state = fetch->reader.feed({fetch->buffer.data(), size});
          if (failed == asio::error::eof) state = fetch->reader.end_of_stream();
          if (state == ResponseReader::State::kNeedMore) return read_metrics(fetch, at);
          if (state != ResponseReader::State::kComplete || fetch->reader.status() != 200) return;
          const std::string& text = fetch->reader.body();
          const double running = series(text, "vllm:num_requests_running", -1);
          if (running < 0) return;
          run_.samples.push_back({at, running, series(text, "vllm:num_requests_waiting", 0),
                                  series(text, "vllm:kv_cache_usage_perc", 0)});
          scrape();
        });
  }

  RunState& run_;
  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> always_{io_.get_executor()};
  asio::steady_timer wake_{io_}, scrape_timer_;
  tcp::resolver::results_type endpoints_;
  std::vector<std::shared_ptr<Stream>> busy_, idle_;
};

void Stream::start(size_t index) {
  index_ = index;
  busy_ = true;
  reader_ = std::make_unique<ResponseReader>([this](std::string_view data) { event(data); });
  outgoing_ = transport_.message(index);
  deadline_.expires_after(to_duration(transport_.run().options.request_timeout_s));
  deadline_.async_wait([self = shared_from_this(), index](error_code failed) {
    if (!failed && self->busy_ && self->index_ == index) self->fail("timeout");
  });
  connected_ ? send() : connect();
}

void Stream::connect() {
  fresh_ = true;
  asio::async_connect(socket_, transport_.endpoints(),
                      [self = shared_from_this()](error_code failed, const tcp::endpoint&) {
                        if (!self->busy_) return;
                        if (failed) return self->fail("connect", failed);
                        error_code ignored;
                        self->socket_.set_option(tcp::no_delay(true), ignored);
                        self->connected_ = true;
                        self->send();
                      });
}

void Stream::send() {
  transport_.run().outcomes[index_].sent_s = transport_.run().now();
  asio::async_write(socket_, asio::buffer(outgoing_), [self = shared_from_this()](error_code failed, size_t) {
    if (!self->busy_) return;
    if (failed && self->fresh_) return self->fail("write", failed);
    self->read();
  });
}

void Stream::read() {
  socket_.async_read_some(asio::buffer(buffer_), [self = shared_from_this()](error_code failed, size_t size) {
    if (!self->busy_) return;
    auto state = ResponseReader::State::kMalformed;
    if (!failed) state = self->reader_->feed({self->buffer_.data(), size});
    if (failed == asio::error::eof) state = self->reader_->end_of_stream();
    if (state == ResponseReader::State::kNeedMore) return self->read();
    if (state == ResponseReader::State::kComplete) return self->finish();
    if (failed && !self->fresh_ && self->reader_->status() == 0) {
      // The server closed an idle connection as we took it up: that is no failure of the request.
      self->socket_ = tcp::socket(self->socket_.get_executor());
      self->connected_ = false;
      return self->connect();
    }
    self->fail(failed ? "connection lost" : "malformed answer", failed);
  });
}

void Stream::event(std::string_view data) {
  if (data == "[DONE]") return;
  Outcome& outcome = transport_.run().outcomes[index_];
  const Result<json::object> value = read_json_object(data);
  if (!value) {
    outcome.error = "malformed event";
    return;
  }
  const json::object* object = &*value;
  if (const json::value* error = object->if_contains("error"); error && !error->is_null()) {
    outcome.error = "error in stream";
    outcome.message = message_in(*object->if_contains("error"));
    return;
  }
  const json::value* choices = object->if_contains("choices");
  if (choices && choices->is_array() && !choices->get_array().empty()) {
    const json::object* choice = choices->get_array()[0].if_object();
    const json::value* text = choice ? choice->if_contains("text") : nullptr;
    if (const json::value* delta = choice ? choice->if_contains("delta") : nullptr;
        delta && delta->is_object()) {
      text = delta->get_object().if_contains("content");
    }
    // A chunk counts when it carries text: a role, or a bare finish, is no token.
    if (text && text->is_string() && !text->get_string().empty()) {
      outcome.token_s.push_back(transport_.run().now());
      if (transport_.run().options.keep_text) outcome.text += std::string_view(text->get_string());
    }
  }
  if (const json::value* usage = object->if_contains("usage"); usage && usage->is_object()) {
    const auto number = [](const json::object& from, const char* name) {
      const json::value* found = from.if_contains(name);
      return found && found->is_int64() ? static_cast<int>(found->get_int64()) : 0;
    };
    outcome.prompt_tokens = number(usage->get_object(), "prompt_tokens");
    outcome.output_tokens = number(usage->get_object(), "completion_tokens");
    if (const json::value* details = usage->get_object().if_contains("prompt_tokens_details");
        details && details->is_object()) {
      outcome.cached_tokens = number(details->get_object(), "cached_tokens");
    }
  }
}

void Stream::fail(const std::string& kind, const error_code& why) {
  busy_ = false;
  deadline_.cancel();
  error_code ignored;
  socket_.close(ignored);
  connected_ = false;
  Outcome& outcome = transport_.run().outcomes[index_];
  outcome.end_s = transport_.run().now();
  if (outcome.error.empty()) {
    outcome.error = kind;
    if (why) outcome.message = why.message();
  }
  transport_.ended(index_, shared_from_this(), false);
}

void Stream::finish() {
  busy_ = false;
  fresh_ = false;
  deadline_.cancel();
  Outcome& outcome = transport_.run().outcomes[index_];
  outcome.end_s = transport_.run().now();
  if (reader_->status() != 200) {
    outcome.error = "status " + std::to_string(reader_->status());
    outcome.message = message_in(reader_->body());
  }
  // A server that does not report usage: an event is taken for a token.
  if (outcome.output_tokens == 0) outcome.output_tokens = static_cast<int>(outcome.token_s.size());
  const bool reusable = reader_->keep_alive();
  if (!reusable) {
    error_code ignored;
    socket_.close(ignored);
    connected_ = false;
  }
  transport_.ended(index_, shared_from_this(), reusable);
}

}  // namespace

std::unique_ptr<Transport> make_http_transport(RunState& run) {
  return std::make_unique<HttpTransport>(run);
}

std::string http_get(const Target& target, const std::string& path, const std::string& api_key) {
  asio::io_context io;
  tcp::socket socket(io);
  error_code failed;
  asio::connect(socket, tcp::resolver(io).resolve(target.host, target.port, failed), failed);
  if (failed) return "";
  asio::write(socket, asio::buffer(request_head(target, "GET", path, api_key, 0)), failed);
  ResponseReader reader([](std::string_view) {});
  std::array<char, 65536> buffer;
  auto state = ResponseReader::State::kNeedMore;
  while (!failed && state == ResponseReader::State::kNeedMore) {
    const size_t size = socket.read_some(asio::buffer(buffer), failed);
    state = failed ? reader.end_of_stream() : reader.feed({buffer.data(), size});
  }
  return state == ResponseReader::State::kComplete && reader.status() == 200 ? reader.body() : "";
}

std::string first_http_model(const DriverOptions& options) {
  const Result<json::object> listed =
      read_json_object(http_get(options.target, options.target.base + "/models", options.api_key));
  const json::value* data = listed ? listed->if_contains("data") : nullptr;
  if (!data || !data->is_array() || data->get_array().empty() || !data->get_array()[0].is_object()) return "";
  const json::value* id = data->get_array()[0].get_object().if_contains("id");
  return id && id->is_string() ? std::string(id->get_string()) : "";
}

}  // namespace serval::load
