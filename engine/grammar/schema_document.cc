#include "engine/grammar/schema_document.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include "engine/grammar/refusal.h"

namespace serval::grammar {
namespace {

using boost::json::value;

constexpr std::array<std::string_view, 6> kMapsOfSchemas = {"properties", "patternProperties", "$defs",
                                                            "definitions", "dependentSchemas", "dependencies"};
constexpr std::array<std::string_view, 17> kSchemas = {
    "allOf",           "anyOf",         "oneOf",
    "prefixItems",     "items",         "additionalItems",
    "contains",        "not",           "if",
    "then",            "else",          "additionalProperties",
    "propertyNames",   "contentSchema", "unevaluatedItems",
    "unevaluatedProperties", "extends"};

// A URI in its parts: scheme with ":", authority with "//", path, query with "?".
struct Address {
  std::string scheme, authority, path, query;
};
Address split(std::string_view text) {
  Address address;
  const size_t colon = text.find(':'), slash = text.find_first_of("/?");
  if (colon != std::string_view::npos && colon > 0 && (slash == std::string_view::npos || colon < slash)) {
    address.scheme = text.substr(0, colon + 1);
    text.remove_prefix(colon + 1);
  }
  const size_t query = std::min(text.find('?'), text.size());
  address.query = text.substr(query);
  text = text.substr(0, query);
  if (text.starts_with("//")) {
    const size_t end = std::min(text.find('/', 2), text.size());
    address.authority = text.substr(0, end);
    text.remove_prefix(end);
  }
  address.path = text;
  return address;
}

std::string without_dots(std::string_view path) {
  std::string out;
  while (!path.empty()) {
    const size_t end = std::min(path.find('/', 1), path.size());
    const std::string_view segment = path.substr(0, end);
    const bool is_last = end == path.size();
    if (segment == "/..") {
      out.erase(std::min(out.rfind('/'), out.size()));
      if (is_last) out += '/';
    } else if (segment == "/.") {
      if (is_last) out += '/';
    } else {
      out += segment;
    }
    path.remove_prefix(end);
  }
  return out;
}

// RFC 3986, section 5.2; neither has a fragment.
std::string resolved(const std::string& base, std::string_view reference) {
  if (reference.empty()) return base;
  Address to = split(reference);
  if (!to.scheme.empty()) return std::string(reference);
  const Address from = split(base);
  if (to.authority.empty()) {
    to.authority = from.authority;
    if (to.path.empty()) {
      to.path = from.path;
      if (to.query.empty()) to.query = from.query;
    } else if (!to.path.starts_with('/')) {
      const size_t slash = from.path.rfind('/');
      to.path = slash == std::string::npos ? "/" + to.path : from.path.substr(0, slash + 1) + to.path;
    }
    to.path = without_dots(to.path);
  }
  return from.scheme + to.authority + to.path + to.query;
}

std::string unescaped(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    if (text[i] == '%' && i + 2 < text.size() + 0 &&
        std::from_chars(text.data() + i + 1, text.data() + i + 3, byte, 16).ptr == text.data() + i + 3) {
      out.push_back(static_cast<char>(byte));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

std::optional<std::string_view> text_of(const boost::json::object& object, std::string_view key) {
  const value* found = object.if_contains(key);
  if (found == nullptr || !found->is_string()) return std::nullopt;
  return std::string_view(found->get_string());
}

// "address#fragment"
std::pair<std::string_view, std::string_view> cut(std::string_view reference) {
  const size_t hash = reference.find('#');
  if (hash == std::string_view::npos) return {reference, {}};
  return {reference.substr(0, hash), reference.substr(hash + 1)};
}

}  // namespace

SchemaDocument::SchemaDocument(boost::json::value root) : root_(std::move(root)) {
  resources_[""] = &root_;
  index(root_, "");
}

void SchemaDocument::index(const value& schema, const std::string& outer) {
  if (const auto* list = schema.if_array()) {
    for (const value& element : *list) index(element, outer);
    return;
  }
  const auto* object = schema.if_object();
  if (object == nullptr) return;
  std::string base = outer;
  for (const std::string_view key : {"$id", "id"}) {
    const auto id = text_of(*object, key);
    if (!id) continue;
    const auto [address, fragment] = cut(*id);
    if (!address.empty()) {
      base = resolved(outer, address);
      resources_.try_emplace(base, &schema);
    }
    if (!fragment.empty()) anchors_.try_emplace(base + "#" + std::string(fragment), &schema);
    break;
  }
  bases_.try_emplace(&schema, base);
  if (const auto name = text_of(*object, "$anchor"))
    anchors_.try_emplace(base + "#" + std::string(*name), &schema);
  if (const auto name = text_of(*object, "$dynamicAnchor")) {
    anchors_.try_emplace(base + "#" + std::string(*name), &schema);
    ++dynamic_anchors_[std::string(*name)];
  }
  for (const auto& member : *object) {
    if (std::find(kSchemas.begin(), kSchemas.end(), member.key()) != kSchemas.end()) {
      index(member.value(), base);
    } else if (std::find(kMapsOfSchemas.begin(), kMapsOfSchemas.end(), member.key()) != kMapsOfSchemas.end()) {
      if (const auto* map = member.value().if_object()) {
        for (const auto& entry : *map) {
          if (entry.value().is_object()) index(entry.value(), base);
        }
      }
    }
  }
}

const value& SchemaDocument::resolve(const value& schema, std::string_view reference,
                                     const std::string& keyword) {
  const auto [address, raw_fragment] = cut(reference);
  const auto from = bases_.find(&schema);
  const std::string base = resolved(from == bases_.end() ? "" : from->second, address);
  const std::string fragment = unescaped(raw_fragment);
  const auto missing = [&]() -> Refusal {
    return {keyword, "\"" + std::string(reference) + "\" is nowhere in the schema"};
  };
  if (!fragment.empty() && !fragment.starts_with('/')) {
    const auto anchor = anchors_.find(base + "#" + fragment);
    if (anchor == anchors_.end()) throw missing();
    return *anchor->second;
  }
  const auto resource = resources_.find(base);
  if (resource == resources_.end()) throw missing();
  const value* at = resource->second;
  std::string inner = base;
  for (size_t pos = 0; pos < fragment.size();) {
    const size_t end = std::min(fragment.find('/', pos + 1), fragment.size());
    std::string token = fragment.substr(pos + 1, end - pos - 1);
    for (const auto& [escape, character] : {std::pair{"~1", "/"}, std::pair{"~0", "~"}}) {
      for (size_t i = 0; (i = token.find(escape, i)) != std::string::npos; ++i) token.replace(i, 2, character);
    }
    if (const auto* object = at->if_object()) {
      at = object->if_contains(token);
    } else if (const auto* list = at->if_array()) {
      size_t i = 0;
      const auto [stop, error] = std::from_chars(token.data(), token.data() + token.size(), i);
      const bool is_index = error == std::errc() && stop == token.data() + token.size();
      at = is_index && i < list->size() ? &(*list)[i] : nullptr;
    } else {
      at = nullptr;
    }
    if (at == nullptr) throw missing();
    if (const auto known = bases_.find(at); known != bases_.end()) inner = known->second;
    pos = end;
  }
  if (!bases_.contains(at)) index(*at, inner);  // what stands under a keyword that has no meaning
  return *at;
}

const value& SchemaDocument::resolve_dynamic(const value& schema, std::string_view reference) {
  const value& target = resolve(schema, reference, "$dynamicRef");
  const std::string name = unescaped(cut(reference).second);
  const auto* object = target.if_object();
  const auto own = object ? text_of(*object, "$dynamicAnchor") : std::nullopt;
  if (own && *own == name && dynamic_anchors_[name] > 1)
    throw Refusal("$dynamicRef", "\"" + std::string(reference) + "\" may point at several schemas");
  return target;
}

}  // namespace serval::grammar
