// Limits of this process that the system sets and the settings need.
#pragma once

namespace serval {

// Raises the soft limit of open descriptors (RLIMIT_NOFILE) as far towards the hard one as `connections` and
// what the process opens beside them need. Warns in the log where the hard limit is too low for all of them.
void raise_descriptor_limit(int connections);

}  // namespace serval
