// Checks of our own mistakes: shared state that is wrong must not be served from. A failed check prints
// where, what and the values, then aborts; a supervisor restarts us. Nothing a client sends may ever reach
// one (that is a Result, see status.h).
#pragma once

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>

namespace serval::internal {

// Set by the log once it runs: writes a last line behind those that wait, and waits for a bounded time. False: it cannot.
inline std::atomic<bool (*)(const std::string& line)> tell_last{nullptr};

[[noreturn]] inline void check_failed(const char* file, int line, const char* expression,
                                      const std::string& values) {
  const std::string told = std::string(file) + ":" + std::to_string(line) + ": check failed: " + expression +
                           (values.empty() ? "" : ": ") + values;
  const auto tell = tell_last.load();
  if (!tell || !tell(told)) {
    std::fprintf(stderr, "%s\n", told.c_str());
    std::fflush(stderr);
  }
  std::abort();
}

template <class... Values>
std::string join_values(const Values&... values) {
  std::ostringstream out;
  [[maybe_unused]] const char* separator = "";
  ((out << separator << values, separator = ", "), ...);
  return out.str();
}

}  // namespace serval::internal

// SERVAL_CHECK(condition, values...): always on. SERVAL_DCHECK: only in debug builds, for checks inside hot
// loops.
#define SERVAL_CHECK(condition, ...)                                                  \
  do {                                                                                \
    if (!(condition)) [[unlikely]]                                                    \
      ::serval::internal::check_failed(__FILE__, __LINE__, #condition,                \
                                       ::serval::internal::join_values(__VA_ARGS__)); \
  } while (false)

#ifdef NDEBUG
#define SERVAL_DCHECK(condition, ...) \
  do {                                \
  } while (false)
#else
#define SERVAL_DCHECK(condition, ...) SERVAL_CHECK(condition __VA_OPT__(, ) __VA_ARGS__)
#endif
