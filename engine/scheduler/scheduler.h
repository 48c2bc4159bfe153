// Decides which tokens of which sequences run next. Pure: no clock, lock, device, I/O or metrics; time is an
// argument, and the same calls with the same arguments give the same batches. Rules and invariants:
// docs/scheduler.md.
#pragma once

#include <memory>

#include "engine/batch.h"
#include "engine/config.h"
#include "engine/request.h"
#include "engine/scheduler/capacity.h"
#include "engine/stats.h"
#include "kernels/base/status.h"

namespace serval {

// One thread. Whatever a call publishes it appends to the `events` of that call. next_batch and apply
// allocate nothing once their arguments have been used a while; add may.
class Scheduler {
 public:
  Scheduler(const SchedulerConfig& config, const BlockGeometry& geometry);
  ~Scheduler();

  // The request must be valid, and fits() (capacity.h) true of it; its id is in use by no other. Fails,
  // changing nothing, with kOverloaded "queue_full" when its sequences would be more than max_num_seqs +
  // max_waiting with those that are here.
  Result<void> add(Request request);
  // Ends all sequences of the request with kAborted. One that has already ended, or never was, is ignored.
  void abort(RequestId id, EventBatch& events);
  void abort_all(EventBatch& events);
  // The text layer matched a stop string once sequence `index` had num_output tokens: it ends with
  // kStopString there.
  void stop_string_matched(RequestId id, int index, int num_output, EventBatch& events);

  // Ends what is past its deadline and fills `batch` with the next step's work. No steps in it: there is
  // nothing to run. Otherwise the batch must be executed and its output given to apply before the next call.
  void next_batch(Time now, Batch& batch, EventBatch& events);
  void apply(const ModelOutput& output, EventBatch& events);

  bool has_work() const;  // a sequence is here that has not ended
  SchedulerStats stats() const;
  // Aborts with values when any count contradicts another: every block accounted for, every sequence in one
  // place.
  void check_invariants() const;

 private:
  friend struct SchedulerPeer;  // a test spoils a count to show that check_invariants sees it
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serval
