// The requests of a file in OpenAI's batch format, a line each, asked several at a time, their answers told in the lines' order. Knows neither
// who answers nor where lines come from and go: `serval run-batch` asks a server elsewhere, /v1/batches the one it is part of.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "kernels/base/status.h"

namespace serval {

struct BatchReply {
  int status = 0;
  std::string body, request_id;
  int retry_after_s = 0;
};

// Asks on behalf of one thread.
class BatchCaller {
 public:
  virtual ~BatchCaller() = default;
  // A sentence thrown (std::exception) is a line's connection_error.
  virtual BatchReply post(const std::string& url, const std::string& body) = 0;
};

struct BatchLines {
  // The next line; nothing: there are no more. One thread at a time.
  std::function<std::optional<std::string>()> next;
  // Of the first line.
  size_t number = 1;
  int concurrency = 1;
  // Of a request that is told to come back (429, 503).
  int max_tries = 1;
  std::function<std::unique_ptr<BatchCaller>()> make_caller;
  // Why a request may not go to this URL, or at all any more.
  std::function<std::optional<Error>(const std::string& url)> refuse;
  // A line of the output, and whether it holds an answer of status 200. In order, one thread at a time, at most a few behind the slowest.
  std::function<void(const std::string& line, bool good)> write;
  // True: no further line is begun, and what callers still say counts no more.
  std::function<bool()> stopped;
};

// Ends when all lines are answered, or it was stopped. What `write` throws, it throws, once the lines that were begun have ended.
void run_batch_lines(const BatchLines& lines);

}  // namespace serval
