#include "server/batches/batches_handlers.h"

#include <algorithm>
#include <boost/json.hpp>
#include <fstream>
#include <optional>
#include <utility>

#include "server/batches/batch_requests.h"
#include "server/batches/batch_runner.h"
#include "server/batches/file_store.h"
#include "server/http/error_response.h"
#include "server/http/http_exchange.h"
#include "server/http/query.h"

namespace serval {
namespace {

namespace json = boost::json;
using Exchange = std::shared_ptr<HttpExchange>;

HttpResponse json_response(const json::value& value) {
  HttpResponse response;
  response.body = json::serialize(value);
  return response;
}

void answer(const Exchange& exchange, const Result<json::object>& result) {
  exchange->respond(result ? json_response(*result) : error_response(result.error()));
}

Error file_not_kept(std::string_view id) {
  return {ErrorKind::kNotFound, "file_not_found", "No file with the id '" + std::string(id.substr(0, 64)) + "' is kept here.", "file_id"};
}

// A file's content, read while it is sent.
class FileBody final : public BodySource {
 public:
  explicit FileBody(const std::filesystem::path& path) : file_(path, std::ios::binary) {}
  bool next(std::string& out) override {
    constexpr size_t kBytes = 64 << 10;
    const size_t before = out.size();
    out.resize(before + kBytes);
    file_.read(out.data() + before, kBytes);
    out.resize(before + static_cast<size_t>(file_.gcount()));
    return file_ && file_.peek() != std::ifstream::traits_type::eof();
  }
  size_t held_bytes() const override { return 8 << 10; }

 private:
  std::ifstream file_;
};

// A page of `items`, which come newest first, as the query asks: after, limit, order.
void answer_page(const Exchange& exchange, std::vector<json::object> items, int64_t usual, int64_t most) {
  const std::string& query = exchange->request().query;
  const std::optional<std::string> order = query_value(query, "order"), after = query_value(query, "after"), limit = query_value(query, "limit");
  if (order && *order != "asc" && *order != "desc") return exchange->respond(error_response(invalid("order", "invalid_value", "order must be \"asc\" or \"desc\".")));
  const std::optional<int64_t> count = limit ? number_of(*limit) : usual;
  if (!count || *count < 1 || *count > most)
    return exchange->respond(error_response(invalid("limit", "invalid_value", "limit must be a whole number between 1 and " + std::to_string(most) + ".")));
  if (order == "asc") std::reverse(items.begin(), items.end());
  auto first = items.begin();
  if (after) {
    const auto found = std::find_if(items.begin(), items.end(), [&](const json::object& item) { return item.at("id").as_string() == *after; });
    if (found == items.end()) return exchange->respond(error_response(invalid("after", "invalid_value", "after names nothing in this list.")));
    first = found + 1;
  }
  const auto last = first + std::min<int64_t>(*count, items.end() - first);
  const json::array data(first, last);
  exchange->respond(json_response(json::object{{"object", "list"},
                                               {"data", data},
                                               {"first_id", data.empty() ? json::value() : data.front().at("id")},
                                               {"last_id", data.empty() ? json::value() : data.back().at("id")},
                                               {"has_more", last != items.end()}}));
}

}  // namespace

Batches::Batches(const BatchesConfig& config, const std::vector<Route>& callable, const ApiKeys& keys, HttpHooks hooks)
    : strict_(config.strict), keys_(keys) {
  if (config.folder.empty()) return;
  files_ = std::make_unique<FileStore>(config.folder, config.max_bytes);
  std::vector<Route> asked;
  std::copy_if(callable.begin(), callable.end(), std::back_inserter(asked), [](const Route& route) { return route.method == "POST" && route.ends_with_client; });
  runner_ = std::make_unique<BatchRunner>(*files_, std::move(asked), keys, std::move(hooks), config.concurrency);
}

Batches::~Batches() = default;

void Batches::stop() {
  if (runner_) runner_->stop();
}

std::vector<Route> Batches::routes() {
  // `handle` gets the owner, and what follows the path.
  const auto row = [this](const char* method, const char* path, BodyKind body, auto handle) {
    return Route{.method = method,
                 .path = path,
                 .handler =
                     [this, handle](const Exchange& exchange) {
                       if (!files_) return exchange->respond(error_response(501, "not_enabled", "This server keeps no files: its setting files_folder names no folder."));
                       handle(exchange, keys_.name(exchange->request().key), std::string(exchange->request().path_tail));
                     },
                 .body = body,
                 .runs_on = RunsOn::kTextPool};
  };
  const auto upload_file = [this](const Exchange& exchange, const std::string& owner, const std::string&) {
    const std::string body = exchange->take_body();
    Result<FileUpload> read = read_upload(exchange->request().field("content-type"), body, strict_);
    if (!read) return exchange->respond(error_response(read.error()));
    read->about.owner = owner;
    const Result<StoredFile> file = files_->put(std::move(read->about), read->content);
    exchange->respond(file ? json_response(file_object(*file)) : error_response(file.error()));
  };
  const auto list_files = [this](const Exchange& exchange, const std::string& owner, const std::string&) {
    const std::optional<std::string> purpose = query_value(exchange->request().query, "purpose");
    std::vector<json::object> shown;
    for (const StoredFile& file : files_->list(owner))
      if (!purpose || file.purpose == *purpose) shown.push_back(file_object(file));
    answer_page(exchange, std::move(shown), 10'000, 10'000);
  };
  const auto show_file = [this](const Exchange& exchange, const std::string& owner, std::string id) {
    constexpr std::string_view kContent = "/content";
    const bool wants_content = id.ends_with(kContent);
    if (wants_content) id.resize(id.size() - kContent.size());
    const std::optional<StoredFile> file = files_->find(id, owner);
    if (!file) return exchange->respond(error_response(file_not_kept(id)));
    if (!wants_content) return exchange->respond(json_response(file_object(*file)));
    HttpResponse response;
    response.content_type = "application/octet-stream";
    if (file->num_bytes > 0) response.source = std::make_shared<FileBody>(files_->path(file->id));
    exchange->respond(std::move(response));
  };
  const auto erase_file = [this](const Exchange& exchange, const std::string& owner, const std::string& id) {
    if (!files_->erase(id, owner)) return exchange->respond(error_response(file_not_kept(id)));
    exchange->respond(json_response(json::object{{"id", id}, {"object", "file"}, {"deleted", true}}));
  };
  const auto create = [this](const Exchange& exchange, const std::string& owner, const std::string&) {
    Result<BatchRequest> request = parse_batch_request(exchange->take_body(), strict_);
    if (!request) return exchange->respond(error_response(request.error()));
    request->owner = owner;
    answer(exchange, runner_->create(std::move(*request)));
  };
  const auto list_batches = [this](const Exchange& exchange, const std::string& owner, const std::string&) {
    answer_page(exchange, runner_->list(owner), 20, 100);
  };
  const auto show_batch = [this](const Exchange& exchange, const std::string& owner, const std::string& id) {
    answer(exchange, runner_->find(id, owner));
  };
  const auto cancel = [this](const Exchange& exchange, const std::string& owner, const std::string& tail) {
    constexpr std::string_view kCancel = "/cancel";
    if (!tail.ends_with(kCancel)) return exchange->respond(error_response(404, "unknown_url", "Unknown URL: a batch can only be POSTed to .../cancel."));
    answer(exchange, runner_->cancel(std::string_view(tail).substr(0, tail.size() - kCancel.size()), owner));
  };
  return {row("POST", "/v1/files", BodyKind::kForm, upload_file),     row("GET", "/v1/files", BodyKind::kNone, list_files),
          row("GET", "/v1/files/*", BodyKind::kNone, show_file),      row("DELETE", "/v1/files/*", BodyKind::kNone, erase_file),
          row("POST", "/v1/batches", BodyKind::kJson, create),        row("GET", "/v1/batches", BodyKind::kNone, list_batches),
          row("GET", "/v1/batches/*", BodyKind::kNone, show_batch),   row("POST", "/v1/batches/*", BodyKind::kNone, cancel)};
}

}  // namespace serval
