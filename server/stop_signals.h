// SIGINT and SIGTERM as something to wait for instead of something that kills. `serval serve` makes this first
// thing in main, before there is another thread: all threads inherit that they are blocked, and one that comes
// early is still there to be asked about. SIGHUP is taken the same way and means nothing: settings are read at
// the start. SIGPIPE is ignored: a client that left is an error code of write.
#pragma once

#include <signal.h>

#include <chrono>

namespace serval {

class StopSignals {
 public:
  StopSignals();

  // Returns when one came, at once if one is pending; takes it.
  void wait();
  // True when one came within the time; takes it.
  bool wait_for(std::chrono::milliseconds time);
  // Whether one came that nobody has taken.
  bool pending() const;

 private:
  sigset_t set_;
};

}  // namespace serval
