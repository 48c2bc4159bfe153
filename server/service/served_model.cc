#include "server/service/served_model.h"

#include <boost/json.hpp>
#include <stdexcept>

#include "engine/json/fields.h"
#include "engine/json/json_reader.h"
#include "engine/model/model_folder.h"
#include "engine/model/read_model.h"
#include "engine/model/weight_loader.h"
#include "engine/text/tokenizer/load_tokenizer.h"
#include "kernels/base/check.h"
#include "kernels/base/regular_file.h"

namespace serval {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxTemplateBytes = size_t{4} << 20;
constexpr size_t kMaxConfigBytes = size_t{64} << 20;  // added tokens are listed there

// chat_template.jinja, else the template (or the one named "default") of tokenizer_config.json; absent for a
// plain model.
std::optional<std::string> chat_template_source(const fs::path& folder) {
  const fs::path template_path = folder / "chat_template.jinja";
  if (fs::exists(template_path)) return read_regular_file(template_path, kMaxTemplateBytes);
  const fs::path config_path = folder / "tokenizer_config.json";
  if (!fs::exists(config_path)) return std::nullopt;
  const boost::json::object object = read_json_file(config_path, kMaxConfigBytes);
  const Fields config(object, config_path.string());
  const boost::json::value* source = config.find("chat_template");
  if (!source) return std::nullopt;
  if (source->is_string()) return std::string(source->get_string());
  if (source->is_array()) {
    for (const boost::json::value& entry : source->get_array()) {
      const boost::json::object* named = entry.if_object();
      const boost::json::value* name = named ? named->if_contains("name") : nullptr;
      const boost::json::value* text = named ? named->if_contains("template") : nullptr;
      if (name && *name == "default" && text && text->is_string()) return std::string(text->get_string());
    }
  }
  config.refuse("chat_template", "is neither a text nor a list with one named default");
}

std::optional<ChatTemplate> load_chat_template(const fs::path& folder) {
  const std::optional<std::string> source = chat_template_source(folder);
  if (!source) return std::nullopt;
  Result<ChatTemplate> parsed = ChatTemplate::parse(*source);
  if (!parsed)
    throw std::runtime_error("the model's chat template cannot be used: " + parsed.error().message);
  return std::move(*parsed);
}

}  // namespace

ServedModel read_served_model(const std::string& model) {
  ServedModel served;
  served.folder = resolve_model(model);
  served.name = fs::is_directory(model) ? fs::weakly_canonical(served.folder).filename().string() : model;
  served.spec = read_model_spec(served.folder);
  served.defaults = read_generation_defaults(served.folder, served.spec.vocab_size);
  served.tokenizer = load_tokenizer(served.folder, served.spec.vocab_size);
  SERVAL_CHECK(served.tokenizer->vocab_size() <= served.spec.vocab_size, served.tokenizer->vocab_size());
  served.chat_template = load_chat_template(served.folder);
  check_weights(served.folder, served.spec);
  return served;
}

}  // namespace serval
