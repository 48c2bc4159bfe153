// A server whose delays are known: it streams tokens by a script and keeps a record of when it really sent
// each. What a load harness reports is held against that record, not against the clock on the wall.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace serval::load {

class ScriptedServer {
 public:
  using Clock = std::chrono::steady_clock;
  struct Script {
    std::chrono::microseconds first_delay{1000};
    std::chrono::microseconds token_delay{1000};
    int status = 200;
    std::string body = "{}";  // of a status other than 200
    bool drop_after_first_token = false;
  };
  struct Record {
    Clock::time_point received;
    std::vector<Clock::time_point> tokens;
  };

  // `script` says how the n-th request (from 0) is answered. Serves on one thread; `serial` makes requests
  // wait for each other.
  ScriptedServer(std::function<Script(int)> script, bool serial = false);
  ~ScriptedServer();

  std::string url() const;
  std::vector<Record> records() const;  // in order of arrival

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace serval::load
