#include "loadtest/driver.h"

#include <algorithm>
#include <boost/asio.hpp>
#include <boost/json.hpp>
#include <chrono>
#include <deque>
#include <memory>
#include <sstream>
#include <stdexcept>

#include "loadtest/sse.h"

namespace serval::load {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

Clock::duration to_duration(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

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

class Run;

// One connection: takes a request at a time, is reused while the server keeps it alive.
class Stream : public std::enable_shared_from_this<Stream> {
 public:
  Stream(Run& run, asio::io_context& io) : run_(run), socket_(io), deadline_(io) {}

  void start(size_t index);
  void cut_off() { fail("run ended"); }

 private:
  void connect();
  void send();
  void read();
  void event(std::string_view data);
  void fail(const std::string& kind);
  void finish();

  Run& run_;
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

class Run {
 public:
  Run(const DriverOptions& options, const std::vector<PlannedRequest>& workload, std::string model)
      : options_(options),
        workload_(workload),
        model_(std::move(model)),
        timer_(io_),
        scrape_timer_(io_),
        progress_timer_(io_),
        limit_(io_) {
    tcp::resolver resolver(io_);
    error_code failed;
    endpoints_ = resolver.resolve(options.target.host, options.target.port, failed);
    if (failed) throw std::runtime_error("cannot resolve " + options.target.host + ": " + failed.message());
    result_.model = model_;
    result_.outcomes.resize(workload.size());
    waiting_on_.resize(workload.size());
    for (size_t i = 0; i < workload.size(); ++i) {
      if (workload[i].after >= 0) waiting_on_[workload[i].after].push_back(i);
    }
  }

  DriverResult go() {
    start_ = Clock::now();
    limit_.expires_after(to_duration(options_.max_duration_s));
    limit_.async_wait([this](error_code failed) {
      if (!failed) time_is_up();
    });
    if (options_.concurrency > 0) {
      fill_closed_loop();
    } else {
      schedule_next();
    }
    if (options_.scrape_every_s > 0) scrape();
    tell();
    if (!workload_.empty()) io_.run();
    return std::move(result_);
  }

  double now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  const DriverOptions& options() const { return options_; }
  const auto& endpoints() const { return endpoints_; }
  Outcome& outcome(size_t index) { return result_.outcomes[index]; }
  std::string message(size_t index) const {
    const std::string path = options_.target.base + (options_.chat ? "/chat/completions" : "/completions");
    const std::string body = request_body(options_, model_, workload_[index]);
    return request_head(options_.target, "POST", path, options_.api_key, body.size()) + body;
  }

  void done(size_t index, std::shared_ptr<Stream> stream, bool reusable) {
    std::erase(busy_, stream);
    if (reusable) idle_.push_back(std::move(stream));
    ++num_done_;
    num_failed_ += !outcome(index).error.empty();
    for (const size_t next : waiting_on_[index]) launch_later(next);
    if (num_done_ == workload_.size()) return end();
    if (options_.concurrency > 0) fill_closed_loop();
  }

 private:
  // Open loop: every request at its time, whatever the others do.
  void schedule_next() {
    while (next_ < workload_.size() && workload_[next_].after >= 0) ++next_;  // those follow another
    if (next_ >= workload_.size() || stopped_) return;
    timer_.expires_at(start_ + to_duration(workload_[next_].at_s));
    timer_.async_wait([this](error_code failed) {
      if (failed || stopped_) return;
      const double present = now();
      while (next_ < workload_.size() && (workload_[next_].after >= 0 || workload_[next_].at_s <= present)) {
        if (workload_[next_].after < 0) launch(next_, workload_[next_].at_s);
        ++next_;
      }
      schedule_next();
    });
  }

  void fill_closed_loop() {
    while (!stopped_ && static_cast<int>(busy_.size()) + num_thinking_ < options_.concurrency &&
           next_ < workload_.size()) {
      const size_t index = next_++;
      if (workload_[index].after < 0) launch(index, now());
    }
  }

  // A turn of a conversation, once the one before it has ended and the person has thought.
  void launch_later(size_t index) {
    ++num_thinking_;
    auto timer = std::make_shared<asio::steady_timer>(io_);
    timer->expires_after(to_duration(workload_[index].think_s));
    timer->async_wait([this, timer, index](error_code failed) {
      --num_thinking_;
      if (!failed && !stopped_) launch(index, now());
    });
  }

  void launch(size_t index, double intended) {
    outcome(index).intended_s = intended;
    ++num_sent_;
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

  void scrape() {
    scrape_timer_.expires_after(to_duration(options_.scrape_every_s));
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
    fetch->message = request_head(options_.target, "GET", "/metrics", options_.api_key, 0);
    const double at = now();
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
          result_.samples.push_back({at, running, series(text, "vllm:num_requests_waiting", 0),
                                     series(text, "vllm:kv_cache_usage_perc", 0)});
          if (!stopped_) scrape();
        });
  }

  void tell() {
    if (!options_.progress) return;
    options_.progress(num_sent_, num_done_, num_failed_, workload_.size());
    progress_timer_.expires_after(std::chrono::milliseconds(500));
    progress_timer_.async_wait([this](error_code failed) {
      if (!failed && !stopped_) tell();
    });
  }

  void time_is_up() {
    stopped_ = true;
    timer_.cancel();
    for (size_t i = 0; i < workload_.size(); ++i) {
      Outcome& missing = outcome(i);
      if (missing.sent_s == 0 && missing.end_s == 0 && missing.error.empty()) {
        missing.intended_s =
            options_.concurrency > 0 || workload_[i].after >= 0 ? now() : std::min(workload_[i].at_s, now());
        missing.end_s = now();
        missing.error = "not sent: time was up";
      }
    }
    const auto running = busy_;
    for (const auto& stream : running) stream->cut_off();
    end();
  }

  void end() {
    stopped_ = true;
    idle_.clear();
    timer_.cancel();
    scrape_timer_.cancel();
    progress_timer_.cancel();
    limit_.cancel();
    if (options_.progress) options_.progress(num_sent_, num_done_, num_failed_, workload_.size());
  }

  const DriverOptions& options_;
  const std::vector<PlannedRequest>& workload_;
  const std::string model_;
  asio::io_context io_{1};
  asio::steady_timer timer_, scrape_timer_, progress_timer_, limit_;
  tcp::resolver::results_type endpoints_;
  Clock::time_point start_;
  DriverResult result_;
  std::vector<std::vector<size_t>> waiting_on_;  // turns that follow each request
  std::vector<std::shared_ptr<Stream>> busy_, idle_;
  size_t next_ = 0, num_sent_ = 0, num_done_ = 0, num_failed_ = 0;
  int num_thinking_ = 0;
  bool stopped_ = false;
};

void Stream::start(size_t index) {
  index_ = index;
  busy_ = true;
  reader_ = std::make_unique<ResponseReader>([this](std::string_view data) { event(data); });
  outgoing_ = run_.message(index);
  deadline_.expires_after(to_duration(run_.options().request_timeout_s));
  deadline_.async_wait([self = shared_from_this(), index](error_code failed) {
    if (!failed && self->busy_ && self->index_ == index) self->fail("timeout");
  });
  connected_ ? send() : connect();
}

void Stream::connect() {
  fresh_ = true;
  asio::async_connect(socket_, run_.endpoints(),
                      [self = shared_from_this()](error_code failed, const tcp::endpoint&) {
                        if (!self->busy_) return;
                        if (failed) return self->fail("connect");
                        error_code ignored;
                        self->socket_.set_option(tcp::no_delay(true), ignored);
                        self->connected_ = true;
                        self->send();
                      });
}

void Stream::send() {
  run_.outcome(index_).sent_s = run_.now();
  asio::async_write(socket_, asio::buffer(outgoing_), [self = shared_from_this()](error_code failed, size_t) {
    if (!self->busy_) return;
    if (failed && self->fresh_) return self->fail("write");
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
    self->fail(failed ? "connection lost" : "malformed answer");
  });
}

void Stream::event(std::string_view data) {
  if (data == "[DONE]") return;
  Outcome& outcome = run_.outcome(index_);
  error_code failed;
  const json::value value = json::parse(data, failed);
  const json::object* object = value.if_object();
  if (failed || !object) {
    outcome.error = "malformed event";
    return;
  }
  if (const json::value* error = object->if_contains("error"); error && !error->is_null()) {
    outcome.error = "error in stream";
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
      outcome.token_s.push_back(run_.now());
      if (run_.options().keep_text) outcome.text += std::string_view(text->get_string());
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

void Stream::fail(const std::string& kind) {
  busy_ = false;
  deadline_.cancel();
  error_code ignored;
  socket_.close(ignored);
  connected_ = false;
  Outcome& outcome = run_.outcome(index_);
  outcome.end_s = run_.now();
  if (outcome.error.empty()) outcome.error = kind;
  run_.done(index_, shared_from_this(), false);
}

void Stream::finish() {
  busy_ = false;
  fresh_ = false;
  deadline_.cancel();
  Outcome& outcome = run_.outcome(index_);
  outcome.end_s = run_.now();
  if (reader_->status() != 200) outcome.error = "status " + std::to_string(reader_->status());
  // A server that does not report usage: an event is taken for a token.
  if (outcome.output_tokens == 0) outcome.output_tokens = static_cast<int>(outcome.token_s.size());
  const bool reusable = reader_->keep_alive();
  if (!reusable) {
    error_code ignored;
    socket_.close(ignored);
    connected_ = false;
  }
  run_.done(index_, shared_from_this(), reusable);
}

}  // namespace

Target parse_url(const std::string& url) {
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme))
    throw std::runtime_error("--url is '" + url + "'; it must begin with http://");
  Target target;
  const std::string rest = url.substr(kScheme.size());
  const size_t slash = rest.find('/');
  const std::string authority = rest.substr(0, slash);
  const size_t colon = authority.rfind(':');
  target.host = authority.substr(0, colon);
  target.port = colon == std::string::npos ? "80" : authority.substr(colon + 1);
  target.base = slash == std::string::npos ? "" : rest.substr(slash);
  while (target.base.ends_with("/")) target.base.pop_back();
  if (target.host.empty() || target.port.empty() ||
      target.port.find_first_not_of("0123456789") != std::string::npos) {
    throw std::runtime_error("--url is '" + url + "'; it must look like http://HOST:PORT/v1");
  }
  return target;
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

DriverResult drive(const DriverOptions& options, const std::vector<PlannedRequest>& workload) {
  std::string model = options.model;
  if (model.empty()) {
    error_code failed;
    const json::value listed =
        json::parse(http_get(options.target, options.target.base + "/models", options.api_key), failed);
    if (!failed && listed.is_object() && listed.get_object().contains("data")) {
      const json::value& data = listed.get_object().at("data");
      if (data.is_array() && !data.get_array().empty() && data.get_array()[0].is_object()) {
        const json::value* id = data.get_array()[0].get_object().if_contains("id");
        if (id && id->is_string()) model = std::string(id->get_string());
      }
    }
    if (model.empty()) {
      throw std::runtime_error("no model is listed at http://" + options.target.host + ":" +
                               options.target.port + options.target.base +
                               "/models; is the server there? (--model names one)");
    }
  }
  Run run(options, workload, model);
  return run.go();
}

}  // namespace serval::load
