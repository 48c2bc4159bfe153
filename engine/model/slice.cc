#include "engine/model/slice.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "kernels/base/shown.h"

namespace serval {
namespace {

[[noreturn]] void refuse(std::string_view setting, const std::string& why) {
  throw std::runtime_error(std::string(setting) + " " + why);
}

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

std::optional<int> number_in(std::string_view text) {
  text = trimmed(text);
  int number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || rest != text.data() + text.size() || number < 0) return std::nullopt;
  return number;
}

// What stands between commas.
std::vector<std::string_view> items(std::string_view text) {
  std::vector<std::string_view> all;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    all.push_back(trimmed(text.substr(begin, end - begin)));
    begin = end + 1;
  }
  return all;
}

std::vector<bool> skipped_layers(const std::string& setting, int num_layers) {
  std::vector<bool> skipped(num_layers, false);
  for (const std::string_view item : items(setting)) {
    const size_t dash = item.find('-');
    const std::optional<int> first = number_in(item.substr(0, dash));
    const std::optional<int> last = dash == item.npos ? first : number_in(item.substr(dash + 1));
    if (!first || !last || *first > *last)
      refuse("skip_layers", "has " + in_quotes(item) + ", which is neither a layer's number nor a range of them, 20-24");
    if (*last >= num_layers)
      refuse("skip_layers", "has layer " + std::to_string(*last) + "; the model has " + std::to_string(num_layers) + ", counted from 0");
    std::fill(skipped.begin() + *first, skipped.begin() + *last + 1, true);
  }
  return skipped;
}

void leave_out(const std::vector<bool>& skipped, ModelSpec& spec) {
  std::vector<int> place(spec.layers.size(), -1);
  std::vector<LayerSpec> kept;
  for (int l = 0; l < spec.num_layers(); ++l) {
    LayerSpec& layer = spec.layers[l];
    layer.stored_index = layer.stored_index.value_or(l);
    if (skipped[l]) {
      spec.layers_unused.push_back(*layer.stored_index);
      continue;
    }
    if (layer.kv_source && skipped[*layer.kv_source])
      refuse("skip_layers", "has layer " + std::to_string(*layer.kv_source) + ", whose keys and values layer " + std::to_string(l) + " reads");
    if (layer.kv_source) layer.kv_source = place[*layer.kv_source];
    place[l] = static_cast<int>(kept.size());
    kept.push_back(std::move(layer));
  }
  for (KvGroupSpec& group : spec.kv_groups) {
    std::erase_if(group.layers, [&](int layer) { return place[layer] < 0; });
    if (group.layers.empty()) refuse("skip_layers", "leaves no layer that keeps the same of a sequence as those it names");
    for (int& layer : group.layers) layer = place[layer];
  }
  spec.layers = std::move(kept);
}

template <class Part>
DenseFfnSpec* narrowable(Part&) {
  return nullptr;
}
DenseFfnSpec* narrowable(DenseFfnSpec& part) {
  return &part;
}

void narrow(const std::string& setting, ModelSpec& spec) {
  std::vector<int> widths;
  for (const std::string_view item : items(setting)) {
    const std::optional<int> width = number_in(item);
    if (!width || *width == 0) refuse("ffn_widths", "has " + in_quotes(item) + ", which is no number of neurons");
    widths.push_back(*width);
  }
  if (widths.size() == 1) widths.resize(spec.layers.size(), widths[0]);
  if (widths.size() != spec.layers.size())
    refuse("ffn_widths", "has " + std::to_string(widths.size()) + " numbers; " + std::to_string(spec.layers.size()) + " layers stay");
  for (size_t l = 0; l < widths.size(); ++l) {
    DenseFfnSpec* const ffn = std::visit([](auto& part) { return narrowable(part); }, spec.layers[l].ffn);
    const int stored = ffn == nullptr ? 0 : ffn->intermediate_size;
    if (widths[l] > stored)
      refuse("ffn_widths", "has " + std::to_string(widths[l]) + " for layer " + std::to_string(*spec.layers[l].stored_index) +
                               ", which has " + std::to_string(stored) + " neurons");
    ffn->stored_size = stored;
    ffn->intermediate_size = widths[l];
  }
}

}  // namespace

ModelSpec sliced(ModelSpec spec, const std::string& ffn_widths, const std::string& skip_layers) {
  if (ffn_widths.empty() && skip_layers.empty()) return spec;
  if (!spec.has_nested_ffn)
    refuse(ffn_widths.empty() ? "skip_layers" : "ffn_widths", "is set, but no smaller model lies within this one, as within Gemma 3n");
  leave_out(skip_layers.empty() ? std::vector<bool>(spec.layers.size(), false) : skipped_layers(skip_layers, spec.num_layers()), spec);
  if (!ffn_widths.empty()) narrow(ffn_widths, spec);
  return spec;
}

}  // namespace serval
