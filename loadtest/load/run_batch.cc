#include "loadtest/load/run_batch.h"

#include <boost/asio.hpp>
#include <boost/beast.hpp>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <stdexcept>

#include "kernels/base/option_table.h"
#include "kernels/base/usage.h"
#include "loadtest/load/driver_options.h"
#include "server/batches/batch_lines.h"

namespace serval {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;
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
class Connection final : public BatchCaller {
 public:
  Connection(const load::Target& target, const std::string& api_key) : target_(target), api_key_(api_key) {}

  BatchReply post(const std::string& path, const std::string& body) override {
    http::response<http::string_body> response = exchange(path, body);
    return {.status = static_cast<int>(response.result_int()),
            .body = std::move(response.body()),
            .request_id = std::string(response["x-request-id"]),
            .retry_after_s = std::atoi(std::string(response["retry-after"]).c_str())};
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
  std::ofstream output(asked.output);
  if (!output) throw std::runtime_error("cannot write " + asked.output);
  size_t num_written = 0, num_good = 0;
  run_batch_lines({.next = [&]() -> std::optional<std::string> {
                     for (std::string line; std::getline(input, line);)
                       if (line.find_first_not_of(" \t\r") != line.npos) return line;
                     return std::nullopt;
                   },
                   .concurrency = asked.concurrency,
                   .max_tries = kMaxTries,
                   .make_caller = [&] { return std::make_unique<Connection>(target, asked.api_key); },
                   .refuse = [](const std::string&) { return std::nullopt; },
                   .write =
                       [&](const std::string& line, bool good) {
                         output << line << std::endl;
                         ++num_written;
                         num_good += good;
                       },
                   .stopped = [] { return false; }});
  if (!output) throw std::runtime_error("cannot write " + asked.output);
  std::cout << num_good << " of " << num_written << " requests were answered\n";
  return num_good == num_written ? 0 : 1;
}

}  // namespace serval
