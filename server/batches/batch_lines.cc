#include "server/batches/batch_lines.h"

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "engine/json/json_reader.h"

namespace serval {
namespace {

namespace json = boost::json;

// Answers of these many lines for each thread may wait for a slower one before them.
constexpr size_t kLinesAhead = 8;
constexpr std::chrono::milliseconds kLook{50};

json::object error_of(std::string_view code, std::string_view message) {
  return {{"code", code}, {"message", message}};
}

// Waits where the server is full, as long as it says.
BatchReply ask(const BatchLines& lines, BatchCaller& caller, const std::string& url, const std::string& body) {
  for (int tried = 1;; ++tried) {
    BatchReply reply = caller.post(url, body);
    if ((reply.status != 429 && reply.status != 503) || tried == lines.max_tries || lines.stopped()) return reply;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::clamp(reply.retry_after_s, 1, 30));
    while (std::chrono::steady_clock::now() < end && !lines.stopped()) std::this_thread::sleep_for(kLook);
  }
}

// What the output says of one line of the input.
json::object answer_line(const BatchLines& lines, const std::string& line, size_t number, BatchCaller& caller) {
  const std::string name = "Line " + std::to_string(number);
  json::object out{{"id", "batch_req_" + std::to_string(number)}, {"custom_id", nullptr}, {"response", nullptr}, {"error", nullptr}};
  const Result<json::object> request = read_json_object(line, {}, name);
  if (!request) {
    out["error"] = error_of(request.error().code, request.error().message);
    return out;
  }
  const auto text = [&](const char* field) {
    const json::value* const value = request->if_contains(field);
    return value && value->is_string() ? std::string(value->get_string()) : std::string();
  };
  if (const json::value* const id = request->if_contains("custom_id")) out["custom_id"] = *id;
  const json::value* const body = request->if_contains("body");
  const std::string method = text("method"), url = text("url");
  if ((!method.empty() && method != "POST") || !url.starts_with('/') || url.find_first_of(" \r\n") != url.npos || !body || !body->is_object()) {
    out["error"] = error_of("invalid_request", name + " must have method \"POST\", a path as url, and an object as body.");
    return out;
  }
  if (const std::optional<Error> refused = lines.refuse(url)) {
    out["error"] = error_of(refused->code, refused->message);
    return out;
  }
  try {
    const BatchReply reply = ask(lines, caller, url, json::serialize(*body));
    const Result<json::value> read = read_json(reply.body, kOwnJson);
    json::value told = read ? *read : json::value(reply.body);
    out["response"] = {{"status_code", reply.status}, {"request_id", reply.request_id}, {"body", std::move(told)}};
  } catch (const std::exception& failed) {
    out["error"] = error_of("connection_error", failed.what());
  }
  return out;
}

bool is_good(const json::object& answer) {
  const json::value* const response = answer.if_contains("response");
  return response && response->is_object() && response->at("status_code") == 200;
}

// What the threads of one batch share.
struct Crew {
  explicit Crew(const BatchLines& batch) : lines(batch) {}

  // A line and its place; nothing: that was all.
  std::optional<std::pair<size_t, std::string>> take() {
    std::unique_lock lock(mutex);
    while (!is_over() && num_taken >= num_written + kLinesAhead * static_cast<size_t>(lines.concurrency)) room.wait_for(lock, kLook);
    if (is_over()) return std::nullopt;
    std::optional<std::string> line = lines.next();
    if (!line) {
      at_end = true;
      return std::nullopt;
    }
    return std::pair(num_taken++, std::move(*line));
  }
  void put(size_t place, std::string line, bool good) {
    const std::lock_guard lock(mutex);
    if (lines.stopped() || failure) return;
    answers[place] = {std::move(line), good};
    for (auto first = answers.begin(); first != answers.end() && first->first == num_written; first = answers.erase(first), ++num_written)
      lines.write(first->second.first, first->second.second);
    room.notify_all();
  }
  void work() {
    try {
      const std::unique_ptr<BatchCaller> caller = lines.make_caller();
      while (const auto taken = take()) {
        const json::object answer = answer_line(lines, taken->second, lines.number + taken->first, *caller);
        put(taken->first, json::serialize(answer), is_good(answer));
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
      room.notify_all();
    }
  }
  bool is_over() const { return at_end || failure || lines.stopped(); }

  const BatchLines& lines;
  std::mutex mutex;
  std::condition_variable room;
  std::map<size_t, std::pair<std::string, bool>> answers;
  size_t num_taken = 0, num_written = 0;
  bool at_end = false;
  std::exception_ptr failure;
};

}  // namespace

void run_batch_lines(const BatchLines& lines) {
  Crew crew(lines);
  std::vector<std::thread> threads;
  for (int i = 0; i < lines.concurrency; ++i) threads.emplace_back([&crew] { crew.work(); });
  for (std::thread& thread : threads) thread.join();
  if (crew.failure) std::rethrow_exception(crew.failure);
}

}  // namespace serval
