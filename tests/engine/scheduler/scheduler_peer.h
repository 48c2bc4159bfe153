// What a test may see and spoil inside a scheduler.
#pragma once

#include "engine/scheduler/scheduler.h"

namespace serval {

struct SchedulerPeer {
  static BlockRef take_block(Scheduler& scheduler) { return scheduler.kv_.pools_[0]->allocate(); }
  static const RadixCache& cache(const Scheduler& scheduler) { return scheduler.kv_.cache_; }
};

}  // namespace serval
