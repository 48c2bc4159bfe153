#include "server/answers/dialect.h"

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <utility>

#include "engine/json/fields.h"

namespace serval {

namespace json = boost::json;

std::string place_in(std::string_view list, size_t i) {
  return std::string(list) + "[" + std::to_string(i) + "]";
}

JsonText function_tool(const Fields& tool, const std::optional<Fields>& parameters) {
  json::object function{{"name", tool.get_string("name")}};
  if (const auto description = tool.find_string("description")) function["description"] = *description;
  if (parameters) function["parameters"] = parameters->object();
  if (tool.get_bool("strict", false)) function["strict"] = true;
  return {json::serialize(json::object{{"type", "function"}, {"function", std::move(function)}})};
}

std::vector<MessagePart> take_parts(Delta& delta) {
  if (!delta.text.empty()) delta.parts.push_back({PartKind::kContent, std::move(delta.text), {}});
  return std::move(delta.parts);
}

}  // namespace serval
