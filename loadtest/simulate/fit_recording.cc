#include "loadtest/simulate/fit_recording.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>

#include "engine/json/fields.h"
#include "engine/json/json_reader.h"
#include "engine/scheduler/recorder.h"

namespace serval::load {
namespace {

namespace json = boost::json;

// A pause this long between two steps is idleness; a shorter one is work of the engine thread, and part of
// the step before it.
constexpr int64_t kIdleNs = 200'000;

// The engine's side of a run. Times in nanoseconds of the monotonic clock.
struct Seen {
  struct Step {
    int64_t begin, end;
    StepShape shape;
  };
  struct Line {
    int64_t added, first_token = 0, last_token = 0;
  };
  std::vector<Step> steps;
  std::map<RequestId, Line> requests;
};

Seen read_recording(const std::string& path) {
  Seen seen;
  Replay watch;
  watch.on_input = [&](const SchedulerInput& input, Time now) {
    if (const Add* const add = std::get_if<Add>(&input)) seen.requests[add->request_state->request.id] = {now.count()};
  };
  watch.on_batch = [&](const Batch& batch, Time now) {
    if (!batch.empty()) seen.steps.push_back({now.count(), now.count(), shape_of(batch)});
  };
  watch.on_events = [&](const EventBatch& events, Time now) {
    seen.steps.back().end = now.count();
    for (const TokenEvent& event : events.events) {
      if (event.token < 0) continue;
      Seen::Line& line = seen.requests.at(event.request);
      if (line.first_token == 0) line.first_token = now.count();
      line.last_token = now.count();
    }
  };
  replay(path, watch);
  return seen;
}

std::vector<StepSample> samples_of(const std::vector<Seen::Step>& steps) {
  std::vector<StepSample> samples;
  for (size_t i = 0; i < steps.size(); ++i) {
    const bool goes_on = i + 1 < steps.size() && steps[i + 1].begin - steps[i].end < kIdleNs;
    const int64_t end = goes_on ? steps[i + 1].begin : steps[i].end;
    if (end > steps[i].begin)
      samples.push_back({steps[i].shape, static_cast<double>(end - steps[i].begin) / 1e6});
  }
  return samples;
}

// The client's side: a column of the report; not a number where a request failed.
std::vector<double> column(const Fields& report, const char* name) {
  std::vector<double> numbers;
  for (const json::value& value : report.get_object("by_request").get_array(name))
    numbers.push_back(value.is_number() ? value.to_number<double>() : NAN);
  return numbers;
}

}  // namespace

CostModel fit_recording(const std::string& recording, const std::string& report_path) {
  const Seen seen = read_recording(recording);
  const json::object object = read_own_json_file(report_path);
  const Fields report(object, report_path);
  const std::optional<int64_t> started = report.find_integer("started_ns");
  if (!started) report.refuse("started_ns", "is missing: it is not the report of a run");
  const std::vector<double> at_s = column(report, "at_s"), ttft_ms = column(report, "ttft_ms"),
                            last_ms = column(report, "last_token_ms");
  if (at_s.size() > seen.requests.size() || ttft_ms.size() != at_s.size() || last_ms.size() != at_s.size())
    throw std::runtime_error(recording + " has fewer requests than " + report_path);

  CostModel cost = fit_steps(samples_of(seen.steps));
  std::vector<double> idle, busy, first, last;
  const auto since = [](int64_t begin, int64_t end) {
    return std::max(0.0, static_cast<double>(end - begin) / 1e6);
  };
  auto line = std::prev(seen.requests.end(), static_cast<std::ptrdiff_t>(at_s.size()));
  for (size_t i = 0; i < at_s.size(); ++i, ++line) {
    const Seen::Line& request = line->second;
    if (std::isnan(ttft_ms[i]) || request.first_token == 0) continue;
    const int64_t at = *started + static_cast<int64_t>(at_s[i] * 1e9);
    const auto step_before = [&](int64_t time) {
      const auto after = std::upper_bound(seen.steps.begin(), seen.steps.end(), time,
                                          [](int64_t t, const Seen::Step& step) { return t < step.begin; });
      return after == seen.steps.begin() ? nullptr : &*std::prev(after);
    };
    const Seen::Step* running = step_before(at);
    const bool is_busy = running && at < running->end + kIdleNs;
    // The engine looks for requests between steps only, and that wait is the simulator's to make: a request
    // reached the line at some time in the step before it was taken, in its middle on average.
    int64_t reached = request.added;
    if (const Seen::Step* step = step_before(request.added); step && request.added < step->end + kIdleNs)
      reached = (std::max(at, step->begin) + request.added) / 2;
    (is_busy ? busy : idle).push_back(since(at, reached));
    first.push_back(since(request.first_token, at + static_cast<int64_t>(ttft_ms[i] * 1e6)));
    last.push_back(since(request.last_token, at + static_cast<int64_t>(last_ms[i] * 1e6)));
  }
  if (first.empty()) throw std::runtime_error(report_path + " has no request that succeeded");
  if (idle.empty()) idle = busy;
  if (busy.empty()) busy = idle;
  cost.arrival_idle = Spread::of(std::move(idle));
  cost.arrival_busy = Spread::of(std::move(busy));
  cost.first_token = Spread::of(std::move(first));
  cost.last_token = Spread::of(std::move(last));
  return cost;
}

}  // namespace serval::load
