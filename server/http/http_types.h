// The plain values of HTTP that travel between the connection, the route table and the handlers. No sockets,
// no JSON.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace serval {

struct HttpField {
  std::string name;
  std::string value;
};

// ASCII only, as header names and tokens are.
bool equal_ignoring_case(std::string_view a, std::string_view b);

struct HttpRequest {
  std::string method;
  std::string path;               // as it came: never decoded, never normalised
  std::string query;              // after '?', without it
  std::string path_tail;          // what follows the path of a prefix route
  std::vector<HttpField> fields;  // of the head only; trailers are dropped
  std::string body;
  int key = 0;     // which API key came with it, see ApiKeys::check
  std::string id;  // the client's x-request-id if sane, else ours: a label for answers and logs, never a key
  std::chrono::steady_clock::time_point received;

  // The first value of that name, empty when there is none.
  std::string_view field(std::string_view name) const;
};

// A body that is made while it is sent, so that a long answer is never in memory as one. One thread at a time.
class BodySource {
 public:
  virtual ~BodySource() = default;
  // Appends the next piece (tens of KiB, never nothing) to `out`. False: that was the last.
  virtual bool next(std::string& out) = 0;
  // Memory it keeps until it goes and that nobody else accounts for.
  virtual size_t held_bytes() const { return 0; }
};

struct HttpResponse {
  int status = 200;
  std::string body;
  std::shared_ptr<BodySource> source;  // instead of `body`
  std::string content_type = "application/json";
  std::vector<HttpField> fields;  // besides those every answer has
  bool close = false;             // the connection ends after this answer
  std::string refusal;            // why the request was refused, as an error code; empty when it was not
};

std::string_view status_text(int status);

}  // namespace serval
