#include "kernels/base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>

namespace serval {
namespace {

std::atomic<LogLevel> g_level{LogLevel::kInfo};  // process-wide by nature: stderr is
std::atomic<uint64_t> g_dropped{0};
const auto g_start = std::chrono::steady_clock::now();

void append_escaped(std::string& out, std::string_view text) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      char hex[5];
      std::snprintf(hex, sizeof hex, "\\x%02x", byte);
      out += hex;
    } else {
      out += c;
    }
  }
}

}  // namespace

void set_log_level(LogLevel level) {
  g_level = level;
}

uint64_t log_lines_dropped() {
  return g_dropped;
}

void log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) {
  if (level < g_level.load(std::memory_order_relaxed)) return;
  static constexpr const char* kNames[] = {"DEBUG", "INFO ", "WARN ", "ERROR"};
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - g_start;
  char head[48];
  std::snprintf(head, sizeof head, "%s %9.3f ", kNames[static_cast<int>(level)], seconds.count());
  std::string line = head;
  append_escaped(line, message);
  for (const LogField& field : fields) {
    line += ' ';
    line += field.key;
    line += '=';
    append_escaped(line, field.value);
  }
  line += '\n';
  // A reader that stopped must not stop us: write only what the pipe takes now.
  pollfd ready{STDERR_FILENO, POLLOUT, 0};
  if (poll(&ready, 1, 0) != 1 || write(STDERR_FILENO, line.data(), line.size()) < 0) ++g_dropped;
}

}  // namespace serval
