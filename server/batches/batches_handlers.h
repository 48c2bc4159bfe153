// The rows of the route table that keep files and carry out batches of requests.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "server/http/api_keys.h"
#include "server/http/http_config.h"
#include "server/http/route_table.h"

namespace serval {

class BatchRunner;
class FileStore;

struct BatchesConfig {
  // Where files and batches are kept; empty: none are.
  std::string folder;
  // Of all files together.
  size_t max_bytes = size_t{1} << 30;
  // Requests of a batch at once.
  int concurrency = 8;
  // Fields that are not known are refused.
  bool strict = false;
};

// The files and batches of one server.
class Batches {
 public:
  // `callable`: the routes that a batch's requests may ask, whose service outlives this, as do `keys`. `hooks` hear of its requests as of those
  // that come over the network. Throws std::runtime_error with a sentence.
  Batches(const BatchesConfig& config, const std::vector<Route>& callable, const ApiKeys& keys, HttpHooks hooks);
  ~Batches();

  // The rows refer to this.
  std::vector<Route> routes();
  // What runs is given up where it is, for the next server to go on with.
  void stop();

 private:
  const bool strict_;
  const ApiKeys& keys_;
  std::unique_ptr<FileStore> files_;
  std::unique_ptr<BatchRunner> runner_;
};

}  // namespace serval
