#include "loadtest/load/driver.h"

#include <algorithm>
#include <map>
#include <stdexcept>

#include "loadtest/load/transport.h"

namespace serval::load {
namespace {

// When to send what. Its clock is a line of timers; between two of them the transport has the thread.
class Run {
 public:
  Run(const DriverOptions& options, const std::vector<PlannedRequest>& workload, std::string model)
      : options_(options),
        workload_(workload),
        state_{options, workload, std::move(model), Clock::now(), {}, {}, {}},
        waiting_on_(workload.size()),
        launched_(workload.size()) {
    state_.outcomes.resize(workload.size());
    state_.done = [this](size_t index) { done(index); };
    for (size_t i = 0; i < workload.size(); ++i) {
      if (workload[i].after >= 0) waiting_on_[workload[i].after].push_back(i);
    }
    transport_ = options.target.is_grpc ? make_grpc_transport(state_) : make_http_transport(state_);
  }

  DriverResult go() {
    state_.start = Clock::now();
    at(options_.max_duration_s, [this] { time_is_up(); });
    if (options_.progress) tell();
    options_.concurrency > 0 ? fill_closed_loop() : schedule_next();
    while (num_done_ < workload_.size()) {
      while (timers_.begin()->first <= Clock::now()) {
        const auto due = timers_.extract(timers_.begin());
        due.mapped()();
      }
      if (num_done_ < workload_.size()) transport_->wait(timers_.begin()->first);
    }
    if (options_.progress) options_.progress(num_sent_, num_done_, num_failed_, workload_.size());
    return {state_.model, std::chrono::nanoseconds(state_.start.time_since_epoch()).count(),
            std::move(state_.outcomes), std::move(state_.samples)};
  }

 private:
  void at(double time_s, std::function<void()> what) {
    timers_.emplace(state_.start + to_duration(time_s), std::move(what));
  }

  // Open loop: every request at its time, whatever the others do.
  void schedule_next() {
    while (next_ < workload_.size() && workload_[next_].after >= 0) ++next_;  // those follow another
    if (next_ == workload_.size()) return;
    at(workload_[next_].at_s, [this] {
      const double present = state_.now();
      for (; next_ < workload_.size() && workload_[next_].at_s <= present; ++next_) {
        if (workload_[next_].after < 0) launch(next_, workload_[next_].at_s);
      }
      schedule_next();
    });
  }

  void fill_closed_loop() {
    while (!stopped_ && num_open_ + num_thinking_ < options_.concurrency && next_ < workload_.size()) {
      const size_t index = next_++;
      if (workload_[index].after < 0) launch(index, state_.now());
    }
  }

  // A turn of a conversation, once the one before it has ended and the person has thought.
  void launch_later(size_t index) {
    ++num_thinking_;
    at(state_.now() + workload_[index].think_s, [this, index] {
      --num_thinking_;
      launch(index, state_.now());
    });
  }

  void launch(size_t index, double intended) {
    if (stopped_) return;
    state_.outcomes[index].intended_s = intended;
    launched_[index] = true;
    ++num_sent_;
    ++num_open_;
    transport_->send(index);
  }

  void done(size_t index) {
    --num_open_;
    ++num_done_;
    num_failed_ += !state_.outcomes[index].error.empty();
    if (stopped_) return;
    for (const size_t next : waiting_on_[index]) launch_later(next);
    if (options_.concurrency > 0) fill_closed_loop();
  }

  void tell() {
    options_.progress(num_sent_, num_done_, num_failed_, workload_.size());
    at(state_.now() + 0.5, [this] { tell(); });
  }

  void time_is_up() {
    stopped_ = true;
    at(options_.max_duration_s + 3600, [] {});  // the line is never empty
    for (size_t i = 0; i < workload_.size(); ++i) {
      if (launched_[i]) continue;
      Outcome& missing = state_.outcomes[i];
      const bool has_time = options_.concurrency == 0 && workload_[i].after < 0;
      missing.end_s = state_.now();
      missing.intended_s = has_time ? std::min(workload_[i].at_s, missing.end_s) : missing.end_s;
      missing.error = "not sent: time was up";
      ++num_done_;
      ++num_failed_;
    }
    transport_->cut_off();
  }

  const DriverOptions& options_;
  const std::vector<PlannedRequest>& workload_;
  RunState state_;
  std::multimap<Clock::time_point, std::function<void()>> timers_;
  std::vector<std::vector<size_t>> waiting_on_;  // turns that follow each request
  std::vector<bool> launched_;
  size_t next_ = 0, num_sent_ = 0, num_done_ = 0, num_failed_ = 0;
  int num_open_ = 0, num_thinking_ = 0;
  bool stopped_ = false;
  std::unique_ptr<Transport> transport_;  // last: its calls end before what they tell is gone
};

}  // namespace

Target parse_url(const std::string& url) {
  Target target;
  const size_t scheme_end = url.find("://");
  const std::string scheme = url.substr(0, scheme_end);
  if (scheme_end == std::string::npos || (scheme != "http" && scheme != "grpc"))
    throw std::runtime_error("--url is '" + url + "'; it must begin with http:// or grpc://");
  target.is_grpc = scheme == "grpc";
  const std::string rest = url.substr(scheme_end + 3);
  const size_t slash = rest.find('/');
  const std::string authority = rest.substr(0, slash);
  const size_t colon = authority.rfind(':');
  target.host = authority.substr(0, colon);
  target.port = colon == std::string::npos ? "80" : authority.substr(colon + 1);
  target.base = slash == std::string::npos ? "" : rest.substr(slash);
  while (target.base.ends_with("/")) target.base.pop_back();
  if (target.host.empty() || target.port.empty() ||
      target.port.find_first_not_of("0123456789") != std::string::npos) {
    throw std::runtime_error("--url is '" + url +
                             "'; it must look like http://HOST:PORT/v1 or grpc://HOST:PORT");
  }
  return target;
}

DriverResult drive(const DriverOptions& options, const std::vector<PlannedRequest>& workload) {
  const Target& target = options.target;
  if (target.is_grpc && options.chat) throw std::runtime_error("--chat needs an http:// endpoint");
  std::string model = options.model;
  if (model.empty()) model = target.is_grpc ? first_grpc_model(options) : first_http_model(options);
  if (model.empty()) {
    const bool lacks_path = !target.is_grpc && target.base.empty();
    throw std::runtime_error(
        "no model is listed at " + target.host + ":" + target.port +
        (target.is_grpc ? "" : target.base + "/models") +
        (lacks_path ? "; most servers answer below /v1: http://" + target.host + ":" + target.port + "/v1"
                    : "") +
        "; is the server there? (--model names one)");
  }
  return Run(options, workload, std::move(model)).go();
}

}  // namespace serval::load
