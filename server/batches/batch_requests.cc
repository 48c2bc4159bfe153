#include "server/batches/batch_requests.h"

#include <boost/json.hpp>
#include <charconv>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/json/fields.h"
#include "engine/json/json_reader.h"
#include "server/http/multipart.h"

namespace serval {
namespace {

namespace json = boost::json;

constexpr size_t kMaxNameBytes = 512;
constexpr int kMaxWindowHours = 24 * 30;
constexpr int64_t kLeastLifetime = 3600, kMostLifetime = 30 * 24 * 3600;  // OpenAI's

// Of expires_after, whose only anchor is the making.
int64_t lifetime(std::string_view anchor, std::optional<int64_t> seconds, const std::string& field) {
  if (anchor != "created_at") throw FieldError("", invalid(field, "invalid_value", field + ".anchor must be \"created_at\"."));
  if (!seconds || *seconds < kLeastLifetime || *seconds > kMostLifetime)
    throw FieldError("", invalid(field, "invalid_value", field + ".seconds must be a whole number between " + std::to_string(kLeastLifetime) + " and " + std::to_string(kMostLifetime) + "."));
  return *seconds;
}

}  // namespace

std::optional<int64_t> number_of(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

Result<FileUpload> read_upload(std::string_view content_type, std::string_view body, bool strict) try {
  const Result<std::vector<FormPart>> form = read_form(content_type, body);
  if (!form) return form.error();
  StoredFile file;
  std::optional<std::string_view> content;
  std::string anchor = "created_at";
  std::optional<int64_t> seconds;
  bool expires = false;
  for (const FormPart& part : *form) {
    if (part.name == "purpose") {
      file.purpose = part.content;
    } else if (part.name == "file") {
      content = part.content;
      file.filename = part.filename.value_or("file");
    } else if (part.name == "expires_after[anchor]") {
      anchor = part.content;
      expires = true;
    } else if (part.name == "expires_after[seconds]") {
      seconds = number_of(part.content);
      expires = true;
    } else if (strict) {
      return invalid("", "unknown_parameter", "The form has a part that this URL does not know.");
    }
  }
  if (!content) return invalid("file", "missing_required_parameter", "file is missing.");
  if (file.purpose != "batch") return invalid("purpose", "invalid_value", "purpose must be \"batch\": files are kept for batches alone.");
  if (file.filename.size() > kMaxNameBytes) return invalid("file", "invalid_value", "The file's name has more than " + std::to_string(kMaxNameBytes) + " bytes.");
  if (expires) file.expires_at = unix_now() + lifetime(anchor, seconds, "expires_after");
  return FileUpload{std::move(file), *content};
} catch (const FieldError& refused) {
  return refused.error();
}

Result<BatchRequest> parse_batch_request(std::string_view body, bool strict) try {
  const Result<json::object> object = read_json_object(body);
  if (!object) return object.error();
  const Fields fields(*object);
  BatchRequest out;
  out.input_file_id = fields.get_string("input_file_id");
  out.endpoint = fields.get_string("endpoint");
  const std::string window = fields.get_string("completion_window");
  const std::optional<int64_t> hours = window.ends_with('h') ? number_of(std::string_view(window).substr(0, window.size() - 1)) : std::nullopt;
  if (!hours || *hours < 1 || *hours > kMaxWindowHours) fields.refuse("completion_window", "must be a number of hours from \"1h\" to \"" + std::to_string(kMaxWindowHours) + "h\"");
  out.window_hours = static_cast<int>(*hours);
  if (const std::optional<Fields> expires = fields.find_object("output_expires_after"))
    out.output_lifetime_s = lifetime(expires->get_string("anchor"), expires->find_integer("seconds"), "output_expires_after");
  if (const std::optional<Fields> metadata = fields.find_object("metadata")) {
    if (metadata->object().size() > 16) fields.refuse("metadata", "may have at most 16 members");
    for (const auto& [name, value] : metadata->object())
      if (name.size() > 64 || !value.is_string() || value.get_string().size() > 512) fields.refuse("metadata", "may have names of at most 64 bytes and texts of at most 512");
    out.metadata = metadata->object();
  }
  if (const std::vector<std::string> unknown = fields.unknown(); strict && !unknown.empty())
    fields.refuse(unknown.front(), "is not a parameter of this URL", "unknown_parameter");
  return out;
} catch (const FieldError& refused) {
  return refused.error();
}

}  // namespace serval
