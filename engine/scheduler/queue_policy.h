// The order in which sequences wait, run and give way: a comparator per policy.
#pragma once

#include <cstdint>

#include "engine/config.h"

namespace serval {

struct QueueKey {
  int priority = 0;  // lower first
  uint64_t arrival =
      0;  // counts the requests added; kept through preemptions, so that one preempted goes back to the front
  int32_t index = 0;  // of the sequence in its request
};

// A strict weak order; two sequences never compare equal, so decisions do not depend on how a container
// breaks ties.
bool goes_before(QueuePolicy policy, const QueueKey& a, const QueueKey& b);

}  // namespace serval
