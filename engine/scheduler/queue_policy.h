// The order of the waiting line, and, backwards, who gives way under pressure: a comparator per policy.
#pragma once

#include "engine/config.h"
#include "engine/scheduler/sequence.h"

namespace serval {

// True when `a` goes before `b`. A strict order: arrival decides ties.
inline bool goes_before(QueuePolicy policy, const Sequence& a, const Sequence& b) {
  if (policy == QueuePolicy::kPriority && a.request().priority != b.request().priority) {
    return a.request().priority < b.request().priority;
  }
  return a.arrival < b.arrival;
}

}  // namespace serval
