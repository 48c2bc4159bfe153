// One line per event on stderr: the time (UTC, ISO 8601 with milliseconds), the level, a message, then key=value pairs. Control bytes
// are escaped, so a client's bytes cannot forge a line. Any thread; nobody ever waits for whoever reads stderr: a thread of its own
// writes, from a bounded queue, and lines that find it full are dropped, counted, and their number is said once there is room.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace serval {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

struct LogField {
  std::string_view key;
  std::string value;
  LogField(std::string_view k, std::string_view v) : key(k), value(v) {}
  LogField(std::string_view k, const char* v) : key(k), value(v) {}
  LogField(std::string_view k, const std::string& v) : key(k), value(v) {}
  template <class Number>
  requires std::is_arithmetic_v<Number> LogField(std::string_view k, Number v)
      : key(k), value(std::to_string(v)) {}
};

void set_log_level(LogLevel level);
void log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields = {});
uint64_t log_lines_dropped();
// Waits until what was logged so far is written, for a bounded time. For the end of a process; exit() does it too.
void flush_log();

inline void log_info(std::string_view message, std::initializer_list<LogField> fields = {}) {
  log(LogLevel::kInfo, message, fields);
}
inline void log_warn(std::string_view message, std::initializer_list<LogField> fields = {}) {
  log(LogLevel::kWarn, message, fields);
}
inline void log_error(std::string_view message, std::initializer_list<LogField> fields = {}) {
  log(LogLevel::kError, message, fields);
}

}  // namespace serval
