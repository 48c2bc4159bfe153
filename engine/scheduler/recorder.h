// Every input of a Scheduler in order, as lines of text, so that a day can be replayed: the same inputs give
// the same batches. Writing may allocate and goes to the file line by line: a recording engine is being
// looked at, not measured.
#pragma once

#include <fstream>
#include <functional>
#include <string>
#include <string_view>

#include "engine/batch.h"
#include "engine/config.h"
#include "engine/kv_geometry.h"
#include "engine/request.h"
#include "engine/scheduler/input.h"

namespace serval {

class Recorder {
 public:
  // Throws std::runtime_error when the file cannot be written. The head of the file is the configuration.
  Recorder(const std::string& path, const SchedulerConfig& config, const BlockGeometry& geometry);

  // Before the scheduler's call of the same name.
  void take(const SchedulerInput& input, Time now);
  void next_batch(Time now);
  void apply(const ModelOutput& output, Time now);
  void take_guesses(const ModelOutput& output, Time now);

  // Inputs that are not in the file. The first that cannot be written (a full disk) is said in the log and
  // ends the recording; the engine goes on.
  uint64_t num_lost() const { return num_lost_; }

 private:
  template <class... Values>
  void line(std::string_view name, Time now, const Values&... values);
  void end_line();

  const std::string path_;
  std::ofstream file_;
  uint64_t num_lost_ = 0;
};

// What a replay tells, each with the time it was recorded at. Any may be empty.
struct Replay {
  std::function<void(const SchedulerInput&, Time)> on_input;
  std::function<void(const Batch&, Time)> on_batch;
  std::function<void(const EventBatch&, Time)> on_events;  // of the step just applied
};

// Feeds a recorded day to a new Scheduler and tells what it makes of it. Throws std::runtime_error naming the
// line that cannot be read.
void replay(const std::string& path, const Replay& watch);

}  // namespace serval
