// What a run found, as one JSON file that is complete after every row: a run that is cut off loses nothing.
#pragma once

#include <boost/json/object.hpp>
#include <chrono>
#include <string>

namespace serval::gpu {

class Report {
 public:
  // path empty: nothing is written. header: what is known before the first row (device, commit, date).
  Report(std::string path, boost::json::object header);
  // Appends to "rows" and writes the file. Throws std::runtime_error when it cannot be written.
  void add(boost::json::object row);

 private:
  std::string path_;
  boost::json::object content_;
};

// A time by which no further row is begun.
class Deadline {
 public:
  explicit Deadline(double seconds)  // 0: never
      : has_end_(seconds > 0), end_(Clock::now() + std::chrono::milliseconds(int64_t(seconds * 1000))) {}
  bool has_passed() const { return has_end_ && Clock::now() >= end_; }

 private:
  using Clock = std::chrono::steady_clock;
  bool has_end_;
  Clock::time_point end_;
};

}  // namespace serval::gpu
