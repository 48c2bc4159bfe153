#include "kernels/base/log.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <mutex>
#include <thread>

#include "kernels/base/check.h"

namespace serval {
namespace {

constexpr size_t kMaxQueuedBytes = 256 << 10;
constexpr std::chrono::milliseconds kLongestFlush{500};  // whoever does not read by then has lost the rest

std::atomic<LogLevel> g_level{LogLevel::kInfo};  // process-wide by nature: stderr is
std::atomic<uint64_t> g_dropped{0};

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

// "2026-11-28T06:23:04.123Z"
std::string timestamp() {
  const auto now = std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now());
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char date[32], text[48];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(text, sizeof text, "%s.%03dZ", date, static_cast<int>(now.time_since_epoch().count() % 1000));
  return text;
}

std::string format(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) {
  static constexpr const char* kNames[] = {"DEBUG", "INFO ", "WARN ", "ERROR"};
  std::string line = timestamp() + ' ' + kNames[static_cast<int>(level)] + ' ';
  append_escaped(line, message);
  for (const LogField& field : fields) {
    line += ' ';
    line += field.key;
    line += '=';
    append_escaped(line, field.value);
  }
  line += '\n';
  return line;
}

// The queue and its thread, which begins with the first line and is never joined: it may be inside a write that nobody ends.
class Writer {
 public:
  Writer() {
    // Signals are for the threads that ask for them.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread thread([this] { run(); });
    pthread_setname_np(thread.native_handle(), "serval-log");
    thread.detach();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    std::atexit(flush_log);
  }

  void put(std::string_view line) {
    {
      std::lock_guard lock(mutex_);
      if (queued_.size() + line.size() > kMaxQueuedBytes) {
        ++g_dropped;
        return;
      }
      queued_ += line;
    }
    arrived_.notify_one();
  }

  bool has_thread() const { return getpid() == process_; }  // a fork has none

  void flush() {
    if (!has_thread()) return;
    std::unique_lock lock(mutex_);
    written_.wait_for(lock, kLongestFlush, [this] { return queued_.empty() && !is_writing_; });
  }

 private:
  [[noreturn]] void run() {
    uint64_t said = 0;
    std::string lines;
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        is_writing_ = false;
        if (queued_.empty()) written_.notify_all();
        arrived_.wait(lock, [this] { return !queued_.empty(); });
        lines.swap(queued_);
        is_writing_ = true;
      }
      write_all(lines);
      lines.clear();
      if (const uint64_t dropped = g_dropped; dropped != said) {
        write_all(format(LogLevel::kWarn, "log lines were dropped, as nobody read them", {{"lines", dropped - said}}));
        said = dropped;
      }
    }
  }

  static void write_all(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(STDERR_FILENO, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        continue;
      }
      if (n <= 0) {
        ++g_dropped;  // closed: there is nobody to tell
        return;
      }
      bytes.remove_prefix(static_cast<size_t>(n));
    }
  }

  const pid_t process_ = getpid();
  std::mutex mutex_;
  std::condition_variable arrived_, written_;
  std::string queued_;
  bool is_writing_ = false;
};

std::atomic<Writer*> g_writer{nullptr};

Writer& writer() {
  static Writer* const only = [] {
    auto* const made = new Writer;  // never destroyed: its thread does not end
    g_writer = made;
    internal::tell_last = [](const std::string& line) {
      if (!g_writer.load()->has_thread()) return false;
      log_error(line);
      flush_log();
      return true;
    };
    return made;
  }();
  return *only;
}

}  // namespace

void set_log_level(LogLevel level) {
  g_level = level;
}

uint64_t log_lines_dropped() {
  return g_dropped;
}

void flush_log() {
  if (Writer* const made = g_writer) made->flush();
}

void log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) {
  if (level < g_level.load(std::memory_order_relaxed)) return;
  writer().put(format(level, message, fields));
}

}  // namespace serval
