// With what resolve_model() knows of the Hugging Face cache's layout: hub/models--org--name/refs/main names a
// folder of hub/models--org--name/snapshots.
#include "engine/model/model_folder.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

#include "engine/json/json_reader.h"
#include "engine/model/config_fields.h"
#include "engine/model/gguf.h"
#include "engine/model/gguf_model.h"
#include "engine/model/other_formats.h"
#include "kernels/base/regular_file.h"

namespace serval {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// The first of these that is set decides, as in the tools that fill the cache.
fs::path cache_folder() {
  if (const std::string hub = environment("HF_HUB_CACHE"); !hub.empty()) return hub;
  if (const std::string home = environment("HF_HOME"); !home.empty()) return fs::path(home) / "hub";
  if (const std::string xdg = environment("XDG_CACHE_HOME"); !xdg.empty())
    return fs::path(xdg) / "huggingface" / "hub";
  return fs::path(environment("HOME")) / ".cache" / "huggingface" / "hub";
}

// "name" or "org/name" of letters, digits, '.', '_' and '-': nothing that could lead out of the cache.
bool is_repository_name(std::string_view name) {
  constexpr std::string_view kAllowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/";
  const size_t slash = name.find('/');
  const auto is_part = [](std::string_view part) { return !part.empty() && part.front() != '.'; };
  if (name.size() > 200 || name.find_first_not_of(kAllowed) != std::string_view::npos) return false;
  if (slash == std::string_view::npos) return is_part(name);
  return name.find('/', slash + 1) == std::string_view::npos && is_part(name.substr(0, slash)) &&
         is_part(name.substr(slash + 1));
}

// Empty where there is none, or several.
fs::path only_gguf_in(const fs::path& folder) {
  fs::path found;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    const bool is_later = name.find("-of-") != name.npos && name.find("-00001-of-") == name.npos;
    if (!is_gguf(entry.path()) || is_later) continue;
    if (!found.empty()) return {};
    found = entry.path();
  }
  return found;
}

}  // namespace

ModelConfig read_config(const fs::path& model) {
  if (is_gguf(model)) return {config_of_gguf(GgufFile(model)), model};
  const fs::path file = model / "config.json";
  return {read_json_file(file, kMaxConfigBytes), file};
}

fs::path resolve_model(const std::string& model) {
  std::error_code ignored;
  if (fs::is_directory(model, ignored)) {
    if (!fs::exists(fs::path(model) / "config.json", ignored)) {
      if (const fs::path only = only_gguf_in(model); !only.empty()) return only;
      const std::string other = other_format_in(model);
      throw std::runtime_error("the folder " + model + " holds no config.json" +
                               (other.empty() ? "" : "; " + other));
    }
    return model;
  }
  if (is_gguf(model)) return model;
  if (fs::exists(model, ignored)) {
    const std::string other = other_format(model);
    throw std::runtime_error(other.empty() ? model + " is not a folder; MODEL is one, or a name of the cache"
                                           : other);
  }
  if (!is_repository_name(model)) throw std::runtime_error("there is no model folder " + model);

  std::string folder = "models--" + model;
  if (const size_t slash = folder.find('/'); slash != std::string::npos) folder.replace(slash, 1, "--");
  const fs::path repository = cache_folder() / folder;
  std::string revision;
  if (fs::exists(repository / "refs" / "main", ignored)) {
    revision = read_regular_file(repository / "refs" / "main", 256);
    revision.resize(std::min(revision.find_first_of(" \r\n"), revision.size()));
  }
  const bool is_hash =
      !revision.empty() && revision.find_first_not_of("0123456789abcdef") == std::string::npos;
  const fs::path snapshot = repository / "snapshots" / revision;
  if (!is_hash || !fs::exists(snapshot / "config.json", ignored)) {
    throw std::runtime_error("there is no folder " + model +
                             ", and no complete model of that name in the cache " + cache_folder().string() +
                             "; `huggingface-cli download " + model + "` fetches one");
  }
  return snapshot;
}

}  // namespace serval
