#include "server/stop_signals.h"

#include "kernels/base/log.h"

namespace serval {
namespace {

// Whether the signal that was taken (none: -1) asks for the end.
bool stops(int number) {
  if (number == SIGHUP) log_info("SIGHUP changes nothing: settings are read at the start");
  return number == SIGINT || number == SIGTERM;
}

}  // namespace

StopSignals::StopSignals() {
  signal(SIGPIPE, SIG_IGN);
  sigemptyset(&set_);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set_, number);
  pthread_sigmask(SIG_BLOCK, &set_, nullptr);
}

void StopSignals::wait() {
  int number = 0;
  do {
    sigwait(&set_, &number);
  } while (!stops(number));
}

bool StopSignals::wait_for(std::chrono::milliseconds time) {
  const timespec limit{time.count() / 1000, time.count() % 1000 * 1'000'000};
  return stops(sigtimedwait(&set_, nullptr, &limit));
}

bool StopSignals::pending() const {
  sigset_t waiting;
  sigpending(&waiting);
  return sigismember(&waiting, SIGINT) == 1 || sigismember(&waiting, SIGTERM) == 1;
}

}  // namespace serval
