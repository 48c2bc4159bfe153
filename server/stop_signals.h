// SIGINT and SIGTERM as something to wait for instead of something that kills. `serval serve` makes this first
// thing in main, before there is another thread: all threads inherit that they are blocked. Until the server is
// ready a thread of its own waits for them and ends the process at once, whatever the start is busy with: nobody
// was served yet, so that there is nothing to take down in order. SIGHUP is taken the same way and means nothing:
// settings are read at the start. SIGPIPE and SIGXFSZ are ignored: a client that left and a file that may not grow
// are error codes of write.
#pragma once

#include <signal.h>

#include <chrono>
#include <thread>

namespace serval {

class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;

  // From now on signals are for wait() and wait_for(), which may not be called before.
  void ready();
  // Returns when one came, at once if one is pending; takes it.
  void wait();
  // True when one came within the time; takes it.
  bool wait_for(std::chrono::milliseconds time);

 private:
  sigset_t set_;
  std::thread early_;
};

}  // namespace serval
