#include "engine/scheduler/queue_policy.h"

#include <tuple>

namespace serval {

bool goes_before(QueuePolicy policy, const QueueKey& a, const QueueKey& b) {
  switch (policy) {
    case QueuePolicy::kPriority:
      return std::tie(a.priority, a.arrival, a.index) < std::tie(b.priority, b.arrival, b.index);
    case QueuePolicy::kFcfs:
      break;
  }
  return std::tie(a.arrival, a.index) < std::tie(b.arrival, b.index);
}

}  // namespace serval
