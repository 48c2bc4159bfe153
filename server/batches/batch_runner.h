// Batches: files of requests that the server answers when it can, one file after the other, several of its requests at a time. A batch's
// state lies beside the files; a server that was stopped goes on where it was. Any thread.
#pragma once

#include <atomic>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "server/batches/file_store.h"
#include "server/http/api_keys.h"
#include "server/http/http_config.h"
#include "server/http/route_table.h"

namespace serval {

struct BatchRequest {
  std::string owner;
  std::string input_file_id, endpoint;
  int window_hours = 24;
  // Of the files that come of it; 0: they stay.
  int64_t output_lifetime_s = 0;
  boost::json::object metadata;
};

class BatchRunner {
 public:
  // `routes`: what a batch may ask. All but them and `hooks` must outlive the runner. Throws std::runtime_error with a sentence.
  BatchRunner(FileStore& files, std::vector<Route> routes, const ApiKeys& keys, HttpHooks hooks, int concurrency);
  ~BatchRunner();  // stop()

  // A batch as the API shows it; an Error where there is none of that id and owner.
  Result<boost::json::object> create(BatchRequest request);
  Result<boost::json::object> find(std::string_view id, std::string_view owner);
  Result<boost::json::object> cancel(std::string_view id, std::string_view owner);
  // The newest first.
  std::vector<boost::json::object> list(std::string_view owner);
  // What runs is given up where it is, and gone on with by the next server. Idempotent.
  void stop();

 private:
  struct Batch {
    std::string owner;
    int64_t output_lifetime_s = 0;
    boost::json::object shown;
  };
  class Caller;

  void read_folder();
  Batch* find_batch(std::string_view id, std::string_view owner);
  Batch* next();
  void work();
  void execute(Batch& batch);
  bool validate(Batch& batch, const std::filesystem::path& input);
  // False: there was no room for the answers.
  bool ask(Batch& batch, const std::filesystem::path& input, int key);
  void finish(Batch& batch);
  void end(Batch& batch, std::string_view status, boost::json::array errors = {});
  void save(const Batch& batch) const;
  std::filesystem::path answers_path(const Batch& batch) const;
  bool is_stopped() const { return stopping_ || cancelling_; }

  FileStore& files_;
  const std::vector<Route> routes_;
  const ApiKeys& keys_;
  const HttpHooks hooks_;
  const int concurrency_;
  // Batches, and what they show, change under it; those that run stay in their place.
  std::mutex mutex_;
  std::condition_variable came_;
  std::list<Batch> batches_;  // the oldest first
  Batch* running_ = nullptr;
  std::atomic<bool> stopping_{false}, cancelling_{false};
  std::thread thread_;
};

}  // namespace serval
