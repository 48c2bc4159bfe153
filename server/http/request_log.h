// One line of the log for each request, when it is over. Any thread.
#pragma once

#include <optional>
#include <string_view>

#include "server/request_record.h"

namespace serval {

struct RequestEnd {
  std::string_view method, path;  // empty when no head could be read
  std::string_view id;            // its x-request-id
  int key = 0;                    // position of its key in api_keys, from 1; 0: none was given, or needed
  int status = 0;
  std::string_view code;                    // why it was refused; empty: it was not
  std::string_view gone;                    // why its client got no whole answer; empty: it did
  double total_s = 0;                       // since its first byte
  bool quiet = false;                       // unless it was refused: worth no line above debug
  std::optional<RequestRecord> generation;  // when there was one
};

void log_request(const RequestEnd& end);

}  // namespace serval
