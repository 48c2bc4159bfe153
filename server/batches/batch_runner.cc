#include "server/batches/batch_runner.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <chrono>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <utility>

#include "engine/json/fields.h"
#include "engine/json/json_reader.h"
#include "kernels/base/log.h"
#include "server/batches/batch_lines.h"
#include "server/http/local_call.h"
#include "server/unique_id.h"

namespace serval {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr int64_t kMaxRequests = 50'000;  // OpenAI's
constexpr size_t kMaxUnended = 64, kMaxKept = 1000;
constexpr size_t kMaxStateBytes = 256 << 10;
constexpr std::string_view kState = ".json", kAnswers = ".answers";
// Before each line of the answers as they are gathered.
constexpr char kGood = '+', kBad = '-';

std::string text_of(const json::object& shown, std::string_view field) {
  return std::string(shown.at(field).as_string());
}

bool has_ended(const json::object& shown) {
  const std::string status = text_of(shown, "status");
  return status != "validating" && status != "in_progress" && status != "finalizing" && status != "cancelling";
}

Error not_kept(std::string_view id) {
  return {ErrorKind::kNotFound, "batch_not_found", "No batch with the id '" + std::string(id.substr(0, 64)) + "' is kept here.", "batch_id"};
}

json::object problem(std::string_view code, std::string_view message, std::string_view param = {}) {
  return {{"code", code}, {"message", message}, {"param", param.empty() ? json::value() : json::value(param)}, {"line", nullptr}};
}

json::object new_batch(const BatchRequest& request) {
  json::object out{{"id", "batch_" + unique_id()}, {"object", "batch"}, {"endpoint", request.endpoint}, {"errors", nullptr},
                   {"input_file_id", request.input_file_id}, {"completion_window", std::to_string(request.window_hours) + "h"},
                   {"status", "validating"}, {"output_file_id", nullptr}, {"error_file_id", nullptr}, {"created_at", unix_now()}};
  out["expires_at"] = unix_now() + int64_t{3600} * request.window_hours;
  for (const char* time : {"in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at"}) out[time] = nullptr;
  out["request_counts"] = {{"total", 0}, {"completed", 0}, {"failed", 0}};
  out["metadata"] = request.metadata.empty() ? json::value() : json::value(request.metadata);
  return out;
}

std::optional<std::string> next_request(std::istream& input) {
  for (std::string line; std::getline(input, line);)
    if (line.find_first_not_of(" \t\r") != line.npos) return line;
  return std::nullopt;
}

}  // namespace

// Asks the server's own routes.
class BatchRunner::Caller final : public BatchCaller {
 public:
  Caller(const BatchRunner& runner, const Route& route, int key) : runner_(runner), route_(route), key_(key) {}

  BatchReply post(const std::string& url, const std::string& body) override {
    HttpRequest request{.method = "POST", .path = url, .fields = {{"content-type", "application/json"}}, .body = body, .key = key_,
                        .id = "req_" + unique_id(), .received = std::chrono::steady_clock::now()};
    BatchReply reply{.request_id = request.id};
    std::optional<HttpResponse> response = call_route(route_, std::move(request), runner_.hooks_, [this] { return runner_.is_stopped(); });
    if (!response) throw std::runtime_error("The batch was stopped.");
    reply.status = response->status;
    reply.body = std::move(response->body);
    for (const HttpField& field : response->fields)
      if (equal_ignoring_case(field.name, "retry-after")) std::from_chars(field.value.data(), field.value.data() + field.value.size(), reply.retry_after_s);
    return reply;
  }

 private:
  const BatchRunner& runner_;
  const Route& route_;
  const int key_;
};

BatchRunner::BatchRunner(FileStore& files, std::vector<Route> routes, const ApiKeys& keys, HttpHooks hooks, int concurrency)
    : files_(files), routes_(std::move(routes)), keys_(keys), hooks_(std::move(hooks)), concurrency_(concurrency) {
  read_folder();
  thread_ = std::thread([this] { work(); });
}

BatchRunner::~BatchRunner() {
  stop();
}

void BatchRunner::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  came_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void BatchRunner::read_folder() {
  for (const fs::directory_entry& entry : fs::directory_iterator(files_.folder())) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("batch_") || !name.ends_with(kState)) continue;
    const json::object state = read_json_file(entry.path(), kMaxStateBytes);
    const Fields fields(state, entry.path().string());
    Batch batch{.owner = fields.get_string("owner"), .output_lifetime_s = fields.find_integer("output_lifetime_s").value_or(0), .shown = fields.get_object("batch").object()};
    std::error_code none;
    if (const auto num_bytes = fs::file_size(answers_path(batch), none); !none) files_.hold(num_bytes);
    batches_.push_back(std::move(batch));
  }
  batches_.sort([](const Batch& a, const Batch& b) {
    return std::pair(a.shown.at("created_at").as_int64(), text_of(a.shown, "id")) < std::pair(b.shown.at("created_at").as_int64(), text_of(b.shown, "id"));
  });
}

fs::path BatchRunner::answers_path(const Batch& batch) const {
  return files_.path(text_of(batch.shown, "id") + std::string(kAnswers));
}

void BatchRunner::save(const Batch& batch) const {
  write_file(files_.path(text_of(batch.shown, "id") + std::string(kState)),
             json::serialize(json::object{{"owner", batch.owner}, {"output_lifetime_s", batch.output_lifetime_s}, {"batch", batch.shown}}));
}

BatchRunner::Batch* BatchRunner::find_batch(std::string_view id, std::string_view owner) {
  for (Batch& batch : batches_)
    if (batch.shown.at("id").as_string() == id && batch.owner == owner) return &batch;
  return nullptr;
}

Result<json::object> BatchRunner::create(BatchRequest request) {
  const std::optional<StoredFile> input = files_.find(request.input_file_id, request.owner);
  if (!input) return invalid("input_file_id", "file_not_found", "input_file_id names no file that is kept here.");
  if (input->purpose != "batch") return invalid("input_file_id", "invalid_purpose", "input_file_id must name a file of the purpose \"batch\".");
  if (std::none_of(routes_.begin(), routes_.end(), [&](const Route& route) { return route.path == request.endpoint; })) {
    std::string all;
    for (const Route& route : routes_)
      if (!route.path.ends_with('/')) all += (all.empty() ? "" : ", ") + route.path;
    return invalid("endpoint", "invalid_value", "endpoint must be one of " + all + ".");
  }
  const std::lock_guard lock(mutex_);
  const auto unended = std::count_if(batches_.begin(), batches_.end(), [](const Batch& batch) { return !has_ended(batch.shown); });
  if (static_cast<size_t>(unended) >= kMaxUnended)
    return Error{ErrorKind::kOverloaded, "server_overloaded", "As many batches wait as the server takes; try again when one has ended.", "", /*retry_after_s=*/30};
  if (batches_.size() >= kMaxKept) {
    const auto oldest = std::find_if(batches_.begin(), batches_.end(), [this](const Batch& batch) { return has_ended(batch.shown) && &batch != running_; });
    std::error_code ignored;
    fs::remove(files_.path(text_of(oldest->shown, "id") + std::string(kState)), ignored);
    batches_.erase(oldest);
  }
  Batch batch{.owner = request.owner, .output_lifetime_s = request.output_lifetime_s, .shown = new_batch(request)};
  save(batch);
  batches_.push_back(std::move(batch));
  came_.notify_all();
  return batches_.back().shown;
}

Result<json::object> BatchRunner::find(std::string_view id, std::string_view owner) {
  const std::lock_guard lock(mutex_);
  const Batch* const batch = find_batch(id, owner);
  if (batch == nullptr) return not_kept(id);
  return batch->shown;
}

std::vector<json::object> BatchRunner::list(std::string_view owner) {
  const std::lock_guard lock(mutex_);
  std::vector<json::object> out;
  for (auto batch = batches_.rbegin(); batch != batches_.rend(); ++batch)
    if (batch->owner == owner) out.push_back(batch->shown);
  return out;
}

Result<json::object> BatchRunner::cancel(std::string_view id, std::string_view owner) {
  const std::lock_guard lock(mutex_);
  Batch* const batch = find_batch(id, owner);
  if (batch == nullptr) return not_kept(id);
  if (has_ended(batch->shown)) return Error{ErrorKind::kInvalidRequest, "invalid_value", "The batch has ended: it is " + text_of(batch->shown, "status") + ".", "batch_id"};
  if (text_of(batch->shown, "status") != "cancelling") {
    batch->shown["status"] = "cancelling";
    batch->shown["cancelling_at"] = unix_now();
    save(*batch);
    if (batch == running_) cancelling_ = true;
    came_.notify_all();
  }
  return batch->shown;
}

// The oldest that has not ended; null: the server stops.
BatchRunner::Batch* BatchRunner::next() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (stopping_) return nullptr;
    for (Batch& batch : batches_)
      if (!has_ended(batch.shown)) {
        cancelling_ = text_of(batch.shown, "status") == "cancelling";
        return running_ = &batch;
      }
    came_.wait(lock);
  }
}

void BatchRunner::work() {
  while (Batch* const batch = next()) {
    try {
      execute(*batch);
    } catch (const std::exception& failed) {
      log_error("a batch failed", {{"what", failed.what()}});
      try {
        end(*batch, "failed", {problem("internal_error", "The server failed to carry out the batch.")});
      } catch (const std::exception&) {  // the disk takes nothing: what is shown says so all the same
      }
    }
    const std::lock_guard lock(mutex_);
    running_ = nullptr;
  }
}

void BatchRunner::execute(Batch& batch) {
  if (!cancelling_) {
    const std::optional<StoredFile> input = files_.find(text_of(batch.shown, "input_file_id"), batch.owner);
    const std::optional<int> key = keys_.position(batch.owner);
    if (!input) return end(batch, "failed", {problem("file_not_found", "The input file is no longer there.", "input_file_id")});
    if (!key) return end(batch, "failed", {problem("invalid_api_key", "The key that asked for it is no longer one of the server's.")});
    if (!validate(batch, files_.path(input->id))) return;
    if (!ask(batch, files_.path(input->id), *key)) return end(batch, "failed", {problem("files_full", files_.is_full().message)});
  }
  if (!stopping_) finish(batch);
}

bool BatchRunner::validate(Batch& batch, const fs::path& input) {
  std::ifstream lines(input);
  int64_t total = 0;
  while (total <= kMaxRequests && next_request(lines)) ++total;
  if (total == 0 || total > kMaxRequests) {
    end(batch, "failed", {total == 0 ? problem("empty_file", "The input file has no requests.") : problem("too_many_requests", "The input file has more than " + std::to_string(kMaxRequests) + " requests.")});
    return false;
  }
  const std::lock_guard lock(mutex_);
  batch.shown["request_counts"].as_object()["total"] = total;
  if (batch.shown["in_progress_at"].is_null()) batch.shown["in_progress_at"] = unix_now();
  if (!cancelling_) batch.shown["status"] = "in_progress";
  save(batch);
  return true;
}

bool BatchRunner::ask(Batch& batch, const fs::path& input, int key) {
  // What an earlier server gathered, but for a line that it did not end.
  int64_t num_good = 0, num_bad = 0, good_bytes = 0;
  {
    std::ifstream before(answers_path(batch));
    for (std::string line; std::getline(before, line) && !before.eof(); good_bytes += static_cast<int64_t>(line.size()) + 1)
      (line.starts_with(kGood) ? num_good : num_bad) += 1;
  }
  std::ofstream answers(answers_path(batch), std::ios::app);
  files_.release(fs::file_size(answers_path(batch)) - static_cast<uintmax_t>(good_bytes));
  fs::resize_file(answers_path(batch), static_cast<uintmax_t>(good_bytes));
  std::ifstream lines(input);
  for (int64_t i = 0; i < num_good + num_bad; ++i) next_request(lines);
  const std::string endpoint = text_of(batch.shown, "endpoint");
  const int64_t expires_at = batch.shown.at("expires_at").as_int64();
  const Route& route = *std::find_if(routes_.begin(), routes_.end(), [&](const Route& each) { return each.path == endpoint; });
  const auto count = [&](int64_t good, int64_t bad) {
    const std::lock_guard lock(mutex_);
    json::object& counts = batch.shown["request_counts"].as_object();
    counts["completed"] = good;
    counts["failed"] = bad;
  };
  count(num_good, num_bad);
  std::atomic<bool> is_full{false};
  run_batch_lines({.next = [&] { return next_request(lines); },
                   .number = static_cast<size_t>(num_good + num_bad) + 1,
                   .concurrency = concurrency_,
                   .max_tries = std::numeric_limits<int>::max(),
                   .make_caller = [&] { return std::make_unique<Caller>(*this, route, key); },
                   .refuse = [&](const std::string& url) -> std::optional<Error> {
                     if (unix_now() >= expires_at) return invalid("", "batch_expired", "This request could not be executed before the completion window expired.");
                     if (url != endpoint) return invalid("url", "mismatched_endpoint", "The url must be the batch's endpoint, " + endpoint + ".");
                     return std::nullopt;
                   },
                   .write =
                       [&](const std::string& line, bool good) {
                         if (!is_full) is_full = !files_.reserve(line.size() + 2);
                         if (is_full) return;
                         answers << (good ? kGood : kBad) << line << std::endl;
                         if (!answers) throw std::runtime_error("cannot write " + answers_path(batch).string());
                         ++(good ? num_good : num_bad);
                         count(num_good, num_bad);
                       },
                   .stopped = [&] { return is_stopped() || is_full; }});
  return !is_full;
}

// The answers as files, however many there are.
void BatchRunner::finish(Batch& batch) {
  const std::string id = text_of(batch.shown, "id");
  {
    const std::lock_guard lock(mutex_);
    batch.shown["finalizing_at"] = unix_now();
    if (!cancelling_) batch.shown["status"] = "finalizing";
    save(batch);
  }
  const fs::path good_path = files_.path(id + ".output"), bad_path = files_.path(id + ".errors");
  std::ofstream good(good_path, std::ios::trunc), bad(bad_path, std::ios::trunc);
  {
    std::ifstream answers(answers_path(batch));
    for (std::string line; std::getline(answers, line) && !answers.eof();) (line.starts_with(kGood) ? good : bad) << std::string_view(line).substr(1) << '\n';
  }
  good.close();
  bad.close();
  if (!good || !bad) throw std::runtime_error("cannot write the answers of " + id);
  const auto keep = [&](const fs::path& path, const char* field, const char* name) {
    if (fs::file_size(path) == 0) {
      fs::remove(path);
      return;
    }
    const StoredFile file = files_.adopt({.owner = batch.owner, .filename = id + name, .purpose = "batch_output"}, path, batch.output_lifetime_s);
    const std::lock_guard lock(mutex_);
    batch.shown[field] = file.id;
  };
  keep(good_path, "output_file_id", "_output.jsonl");
  keep(bad_path, "error_file_id", "_error.jsonl");
  const bool has_expired = batch.shown.at("expires_at").as_int64() <= unix_now();
  end(batch, cancelling_ ? "cancelled" : has_expired ? "expired" : "completed");
}

void BatchRunner::end(Batch& batch, std::string_view status, json::array errors) {
  const json::object& counts = batch.shown.at("request_counts").as_object();
  {
    const std::lock_guard lock(mutex_);
    batch.shown["status"] = status;
    batch.shown[std::string(status) + "_at"] = unix_now();
    if (!errors.empty()) batch.shown["errors"] = {{"object", "list"}, {"data", std::move(errors)}};
    save(batch);
  }
  std::error_code none;
  if (const auto num_bytes = fs::file_size(answers_path(batch), none); !none) files_.release(num_bytes);
  fs::remove(answers_path(batch), none);
  log_info("a batch has ended", {{"id", text_of(batch.shown, "id")}, {"status", std::string(status)}, {"completed", counts.at("completed").as_int64()},
                                 {"failed", counts.at("failed").as_int64()}});
}

}  // namespace serval
