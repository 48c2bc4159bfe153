#include "loadtest/load/run_batch.h"

#include <algorithm>
#include <boost/asio.hpp>
#include <boost/beast.hpp>
#include <boost/json.hpp>
#include <chrono>
#include <fstream>
#include <iostream>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <thread>

#include "engine/json/json_reader.h"
#include "kernels/base/option_table.h"
#include "kernels/base/usage.h"
#include "loadtest/load/driver_options.h"

namespace serval {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;
namespace json = boost::json;
using boost::asio::ip::tcp;

struct Asked {
  std::string url = "http://127.0.0.1:8000", input, output, api_key;
  int concurrency = 32;
};

std::vector<OptionRow> rows_of(Asked& asked) {
  return {
      {"--url", "URL", "the server, http://HOST:PORT", kAnyForm, set_text(asked.url)},
      {"--input", "FILE", "a request a line: {\"custom_id\", \"method\", \"url\", \"body\"}", kAnyForm, set_text(asked.input)},
      {"--output", "FILE", "an answer a line, in the order of the requests", kAnyForm, set_text(asked.output)},
      {"--api-key", "KEY", "sent as a bearer token", kAnyForm, set_text(asked.api_key)},
      {"--concurrency", "N", "requests at once (32)", kAnyForm, [&asked](const std::string& text) {
         asked.concurrency = std::atoi(text.c_str());
         if (asked.concurrency < 1 || asked.concurrency > 1024) throw UsageError("--concurrency must be between 1 and 1024");
       }},
  };
}

constexpr uint64_t kMaxAnswerBytes = uint64_t{1} << 30;
constexpr int kMaxTries = 8;  // of a request that is told to come back

// One connection to the server, opened again where it was closed.
class Connection {
 public:
  Connection(const load::Target& target, const std::string& api_key) : target_(target), api_key_(api_key) {}

  struct Answer {
    int status = 0;
    std::string body, request_id;
  };
  // Waits where the server is full, as long as it says.
  Answer post(const std::string& path, const std::string& body) {
    for (int tried = 1;; ++tried) {
      http::response<http::string_body> response = exchange(path, body);
      const int status = static_cast<int>(response.result_int());
      if ((status != 429 && status != 503) || tried == kMaxTries)
        return {status, std::move(response.body()), std::string(response["x-request-id"])};
      const int seconds = std::atoi(std::string(response["retry-after"]).c_str());
      std::this_thread::sleep_for(std::chrono::seconds(std::clamp(seconds, 1, 30)));
    }
  }

 private:
  http::response<http::string_body> exchange(const std::string& path, const std::string& body) {
    http::request<http::string_body> request{http::verb::post, path, 11};
    request.set(http::field::host, target_.host + ":" + target_.port);
    request.set(http::field::content_type, "application/json");
    if (!api_key_.empty()) request.set(http::field::authorization, "Bearer " + api_key_);
    request.body() = body;
    request.prepare_payload();
    const bool was_open = is_open_;
    try {
      return exchange(request);
    } catch (const boost::system::system_error&) {
      is_open_ = false;
      if (!was_open) throw;
    }
    return exchange(request);  // it had been idle for too long
  }
  http::response<http::string_body> exchange(const http::request<http::string_body>& request) {
    if (!is_open_) {
      stream_.emplace(io_);
      stream_->connect(tcp::resolver(io_).resolve(target_.host, target_.port));
      buffer_.clear();
      is_open_ = true;
    }
    http::write(*stream_, request);
    http::response_parser<http::string_body> parser;
    parser.body_limit(kMaxAnswerBytes);
    http::read(*stream_, buffer_, parser);
    is_open_ = parser.keep_alive();
    return parser.release();
  }

  const load::Target target_;
  const std::string api_key_;
  boost::asio::io_context io_;
  std::optional<beast::tcp_stream> stream_;
  beast::flat_buffer buffer_;
  bool is_open_ = false;
};

json::object error_of(const std::string& code, const std::string& message) {
  return {{"code", code}, {"message", message}};
}

// What the output says of one line of the input.
json::object answer_line(const std::string& line, size_t number, Connection& connection) {
  json::object out{{"id", "batch_req_" + std::to_string(number)}, {"custom_id", nullptr}, {"response", nullptr}, {"error", nullptr}};
  const Result<json::object> request = read_json_object(line, {}, "Line " + std::to_string(number));
  if (!request) {
    out["error"] = error_of(request.error().code, request.error().message);
    return out;
  }
  const auto text = [&](const char* name) {
    const json::value* const value = request->if_contains(name);
    return value && value->is_string() ? std::string(value->get_string()) : std::string();
  };
  if (const json::value* const id = request->if_contains("custom_id")) out["custom_id"] = *id;
  const json::value* const body = request->if_contains("body");
  const std::string method = text("method"), url = text("url");
  if ((!method.empty() && method != "POST") || !url.starts_with('/') || url.find_first_of(" \r\n") != url.npos || !body || !body->is_object()) {
    out["error"] = error_of("invalid_request", "Line " + std::to_string(number) + " must have method \"POST\", a path as url, and an object as body.");
    return out;
  }
  try {
    const Connection::Answer answer = connection.post(url, json::serialize(*body));
    const Result<json::value> read = read_json(answer.body, kOwnJson);
    json::value told = read ? *read : json::value(answer.body);
    out["response"] = {{"status_code", answer.status}, {"request_id", answer.request_id}, {"body", std::move(told)}};
  } catch (const std::exception& failed) {
    out["error"] = error_of("connection_error", failed.what());
  }
  return out;
}

bool is_good(const json::object& line) {
  const json::value* const response = line.if_contains("response");
  return response && response->is_object() && response->at("status_code") == 200;
}

}  // namespace

std::string run_batch_help() {
  Asked unused;
  return options_help(rows_of(unused)) +
         "\nRequests are OpenAI's batch format; any POST address of the server may be asked. Those that find it full wait and come again.\n";
}

int run_batch(const std::vector<std::string>& arguments) {
  Asked asked;
  take_options(rows_of(asked), {"serval run-batch"}, arguments);
  if (asked.input.empty() || asked.output.empty())
    throw UsageError("serval run-batch takes --input and --output; serval run-batch --help shows how");
  const load::Target target = load::parse_url(asked.url);
  std::ifstream input(asked.input);
  if (!input) throw std::runtime_error("cannot read " + asked.input);
  std::vector<std::string> lines;
  for (std::string line; std::getline(input, line);)
    if (line.find_first_not_of(" \t\r") != line.npos) lines.push_back(std::move(line));
  std::ofstream output(asked.output);
  if (!output) throw std::runtime_error("cannot write " + asked.output);

  // Each is written as soon as all before it are.
  std::mutex mutex;
  std::vector<std::optional<std::string>> answers(lines.size());
  size_t next = 0, num_written = 0, num_failed = 0;
  const auto work = [&] {
    Connection connection(target, asked.api_key);
    for (;;) {
      size_t index;
      {
        const std::lock_guard lock(mutex);
        if (next == lines.size()) return;
        index = next++;
      }
      const json::object answer = answer_line(lines[index], index + 1, connection);
      const std::lock_guard lock(mutex);
      num_failed += !is_good(answer);
      answers[index] = json::serialize(answer);
      for (; num_written < answers.size() && answers[num_written]; ++num_written) {
        output << *answers[num_written] << '\n';
        answers[num_written]->clear();
      }
      output.flush();
    }
  };
  std::vector<std::thread> workers;
  for (size_t i = 0; i < std::min(lines.size(), static_cast<size_t>(asked.concurrency)); ++i) workers.emplace_back(work);
  for (std::thread& worker : workers) worker.join();
  if (!output) throw std::runtime_error("cannot write " + asked.output);
  std::cout << lines.size() - num_failed << " of " << lines.size() << " requests were answered\n";
  return num_failed == 0 ? 0 : 1;
}

}  // namespace serval
