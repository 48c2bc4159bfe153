// A run whose every time is known, recorded as the engine would and reported as a client would: the fit finds
// those times again.

#include "loadtest/simulate/fit_recording.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <stdexcept>

#include "engine/scheduler/recorder.h"
#include "engine/scheduler/scheduler.h"
#include "loadtest/load/report.h"
#include "tests/support/fake_runner.h"

namespace serval::load {
namespace {

constexpr int64_t kStartNs = 5'000'000'000;
const StepCost kTruth{0.4, 0.01, 0.05, 0.0, {}};

class FitRecording : public testing::Test {
 protected:
  FitRecording() {
    config_.max_num_seqs = 16;
    geometry_.groups[0].num_blocks = 4096;
  }
  ~FitRecording() override {
    std::remove(recording_.c_str());
    std::remove(report_.c_str());
  }

  // Groups of 1 to 8 requests that find the engine idle: 0.3 ms to the engine, 0.5 ms back for a first token
  // and 0.2 ms for a last one.
  void write_run() {
    Recorder recorder(recording_, config_, geometry_);
    Scheduler scheduler(config_, geometry_);
    FakeRunner runner(geometry_, 1000);
    Report report;
    report.started_ns = kStartNs;
    Batch batch;
    ModelOutput output;
    EventBatch events;
    int64_t now = kStartNs;
    for (int group = 1; group <= 8; ++group) {
      now += 50'000'000;
      for (int i = 0; i < group; ++i) {
        Request request;
        request.id = report.outcomes.size() + 1;
        request.prompt.assign(20 * group + i, static_cast<TokenId>(group * 10 + i));
        request.sampling.max_tokens = 6;
        Outcome outcome;
        outcome.intended_s = static_cast<double>(now - kStartNs - 300'000) / 1e9;
        report.outcomes.push_back(outcome);
        SchedulerInput input = Add{scheduler.prepare(std::move(request))};
        recorder.take(input, Time{now});
        scheduler.take(std::move(input), Time{now});
      }
      while (scheduler.has_work()) {
        recorder.next_batch(Time{now});
        scheduler.next_batch(Time{now}, batch);
        runner(batch, output);
        now += static_cast<int64_t>(kTruth.mean_ms(shape_of(batch)) * 1e6);
        recorder.apply(output, Time{now});
        scheduler.apply(output, Time{now}, events);
        for (const TokenEvent& event : events.events) {
          Outcome& outcome = report.outcomes[event.request - 1];
          const double back_s = outcome.token_s.empty() ? 0.0005 : 0.0002;
          outcome.token_s.push_back(static_cast<double>(now - kStartNs) / 1e9 + back_s);
          outcome.end_s = outcome.token_s.back();
        }
        events.clear();
      }
    }
    std::ofstream(report_) << report_json(report);
  }

  SchedulerConfig config_;
  BlockGeometry geometry_;
  const std::string recording_ = testing::TempDir() + "/fit-" + std::to_string(getpid()) + ".rec",
                    report_ = testing::TempDir() + "/fit-" + std::to_string(getpid()) + ".json";
};

TEST_F(FitRecording, FindsTheTimesOfStepsAndOfTheWayThereAndBack) {
  write_run();
  const CostModel cost = fit_recording(recording_, report_);
  for (const StepShape& shape : {StepShape{4, 4, 0.1}, {8, 8, 1}})
    EXPECT_NEAR(cost.decode.mean_ms(shape) / kTruth.mean_ms(shape), 1, 0.02);
  for (const StepShape& shape : {StepShape{100, 4, 2}, {400, 8, 10}})
    EXPECT_NEAR(cost.prompt.mean_ms(shape) / kTruth.mean_ms(shape), 1, 0.02);
  for (const double ms : cost.arrival_idle.shares) EXPECT_NEAR(ms, 0.3, 0.001);
  for (const double ms : cost.first_token.shares) EXPECT_NEAR(ms, 0.5, 0.001);
  for (const double ms : cost.last_token.shares) EXPECT_NEAR(ms, 0.2, 0.001);
}

TEST_F(FitRecording, RefusesARecordingAndAReportThatDoNotBelongTogether) {
  write_run();
  EXPECT_THROW(fit_recording(recording_, "/no/such/report"), std::runtime_error);
  EXPECT_THROW(fit_recording("/no/such/recording", report_), std::runtime_error);
  std::ofstream(report_) << "{\"started_ns\": 1, \"by_request\": {}}";
  EXPECT_THROW(fit_recording(recording_, report_), std::runtime_error);
  Report longer;
  longer.outcomes.resize(1000);
  std::ofstream(report_) << report_json(longer);
  EXPECT_THROW(fit_recording(recording_, report_), std::runtime_error);
}

}  // namespace
}  // namespace serval::load
