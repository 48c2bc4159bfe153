#include "engine/model/generation_defaults.h"

#include <boost/json/serialize.hpp>
#include <cmath>
#include <limits>
#include <string_view>

#include "engine/json/json_reader.h"
#include "engine/model/config_fields.h"
#include "engine/model/model_folder.h"
#include "engine/sampling_ranges.h"
#include "kernels/base/log.h"

namespace serval {
namespace {

namespace json = boost::json;

void warn(const Fields& file, std::string_view field, std::string_view value, std::string_view instead) {
  log_warn("a default of the model folder is out of range",
           {{"file", file.file()}, {"field", field}, {"value", value}, {"instead", instead}});
}

// A number of the range. One outside is moved to the nearest end: whoever made the folder wanted much of it,
// and a request that names the field is not held up by a default. Where an end is outside too there is no
// nearest one.
std::optional<float> find_in_range(const Fields& file, std::string_view field, const NumberRange& range) {
  const std::optional<double> number = file.find_any_number(field);
  if (!number) return std::nullopt;
  if (range.holds(*number)) return static_cast<float>(*number);
  if (range.open_low && *number <= range.low) {
    file.refuse(field, "must be above " + json::serialize(json::value(range.low)) + ", not " +
                           shown_value(*file.find(field)));
  }
  const double nearest = *number > range.high ? range.high : range.low;
  warn(file, field, shown_value(*file.find(field)), std::to_string(nearest));
  return static_cast<float>(nearest);
}

std::optional<int> find_top_k(const Fields& file) {
  const std::optional<double> number = file.find_any_number("top_k");
  if (!number) return std::nullopt;
  if (*number != std::trunc(*number)) {
    file.refuse("top_k", "must be an integer, not " + shown_value(*file.find("top_k")));
  }
  if (*number < kLeastTopK) warn(file, "top_k", shown_value(*file.find("top_k")), "0");
  // More than any vocabulary has, and less than one, mean all.
  return *number < 1 || *number > std::numeric_limits<int>::max() ? 0 : static_cast<int>(*number);
}

// Ids of the model, in order; those it has no rows for are left out with a line: no token can end there, and
// nothing may write where they point.
std::vector<int32_t> find_ids(const Fields& file, std::string_view field, int vocab_size) {
  constexpr size_t kMaxIds = 64;
  const json::value* value = file.find(field);
  if (value == nullptr) return {};
  json::array one;
  if (!value->is_array()) one.push_back(*value);
  const json::array& ids = value->is_array() ? value->get_array() : one;
  if (ids.size() > kMaxIds) file.refuse(field, "holds more than 64 ids");
  std::vector<int32_t> out;
  std::string beyond;
  for (const json::value& id : ids) {
    if (!id.is_int64() || id.get_int64() < 0) {
      file.refuse(field, "must be a token id or an array of them, not " + shown_value(id));
    }
    if (id.get_int64() < vocab_size) {
      out.push_back(static_cast<int32_t>(id.get_int64()));
    } else {
      beyond += (beyond.empty() ? "" : ", ") + std::to_string(id.get_int64());
    }
  }
  if (!beyond.empty()) {
    log_warn("token ids beyond the model's vocabulary are left out",
             {{"file", file.file()}, {"field", field}, {"ids", beyond}, {"vocab_size", vocab_size}});
  }
  return out;
}

int32_t find_bos(const Fields& file, int vocab_size) {
  const std::vector<int32_t> ids = find_ids(file, "bos_token_id", vocab_size);
  return ids.empty() ? -1 : ids.front();
}

}  // namespace

GenerationDefaults read_generation_defaults(const std::filesystem::path& model_dir, int vocab_size) {
  GenerationDefaults defaults;
  const std::filesystem::path generation_path = model_dir / "generation_config.json";
  if (std::filesystem::exists(generation_path)) {
    const json::object object = read_json_file(generation_path, kMaxConfigBytes);
    const Fields file(object, generation_path.string());
    defaults.temperature = find_in_range(file, "temperature", kTemperatureRange);
    defaults.top_p = find_in_range(file, "top_p", kTopPRange);
    defaults.min_p = find_in_range(file, "min_p", kMinPRange);
    defaults.repetition_penalty = find_in_range(file, "repetition_penalty", kRepetitionPenaltyRange);
    defaults.top_k = find_top_k(file);
    // Said outright, it means the most likely token, whatever else the file says of sampling.
    if (!file.get_bool("do_sample", true)) defaults.temperature = 0;
    defaults.eos_token_ids = find_ids(file, "eos_token_id", vocab_size);
    defaults.bos_token_id = find_bos(file, vocab_size);
  }
  const ModelConfig config = read_config(model_dir);
  const Fields file(config.object, config.file.string());
  if (defaults.eos_token_ids.empty()) defaults.eos_token_ids = find_ids(file, "eos_token_id", vocab_size);
  if (defaults.bos_token_id < 0) defaults.bos_token_id = find_bos(file, vocab_size);
  return defaults;
}

}  // namespace serval
