#include "server/stop_signals.h"

#include <unistd.h>

#include "kernels/base/log.h"

namespace serval {
namespace {

// Wakes the early thread to say that it is no longer needed. Sent to that thread alone.
const int kReady = SIGRTMIN;

// Whether the signal that was taken (none: -1) asks for the end.
bool stops(int number) {
  if (number == SIGHUP) log_info("SIGHUP changes nothing: settings are read at the start");
  return number == SIGINT || number == SIGTERM;
}

}  // namespace

StopSignals::StopSignals() {
  sigemptyset(&set_);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set_, number);
  sigset_t early = set_;
  sigaddset(&early, kReady);
  pthread_sigmask(SIG_BLOCK, &early, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  early_ = std::thread([early] {
    int number = 0;
    do {
      sigwait(&early, &number);
      if (number == kReady) return;
    } while (!stops(number));
    log_info("stopped before it was ready");
    flush_log();
    ::_exit(0);
  });
}

StopSignals::~StopSignals() {
  if (early_.joinable()) ready();
}

void StopSignals::ready() {
  pthread_kill(early_.native_handle(), kReady);
  early_.join();
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

}  // namespace serval
