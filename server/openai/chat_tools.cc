#include "server/openai/chat_tools.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <string>
#include <string_view>

#include "engine/json/fields.h"

namespace serval {
namespace {

namespace json = boost::json;

constexpr const char* kInvalidType = "invalid_type";
constexpr size_t kMaxToolNameBytes = 256;

// A function that the model may call; its name.
std::string check_tool(const Fields& fields, const json::value& tool, size_t i) {
  const Fields outer = fields.inside(tool, "tools[" + std::to_string(i) + "]");
  if (outer.get_string("type") != "function") outer.refuse("type", "may only be \"function\" on this server", "not_supported");
  const Fields function = outer.get_object("function");
  std::string name = function.get_string("name");
  const bool is_good = !name.empty() && name.size() <= kMaxToolNameBytes && std::ranges::none_of(name, [](char c) {
    return static_cast<unsigned char>(c) <= ' ' || std::string_view("<>{}\"").find(c) != std::string_view::npos;
  });
  if (!is_good) function.refuse("name", "must have 1 to 256 bytes, and no spaces, quotes, braces or angle brackets");
  function.find_object("parameters");
  return name;
}

// The older names of the same.
void refuse_functions(const Fields& fields) {
  const json::value* const functions = fields.find("functions");
  const json::value* const choice = fields.find("function_call");
  if (functions && !functions->is_array()) fields.refuse("functions", "must be an array", kInvalidType);
  if (choice && !choice->is_string() && !choice->is_object())
    fields.refuse("function_call", "must be a string or an object", kInvalidType);
  const bool has_functions = functions && !functions->get_array().empty();
  if ((choice && *choice == "none") || (!has_functions && (!choice || *choice == "auto"))) return;
  fields.refuse(has_functions ? "functions" : "function_call", "is the older name of tools: send them as tools and tool_choice",
                "not_supported");
}

}  // namespace

void read_tools(const Fields& fields, Chat& chat) {
  refuse_functions(fields);
  const json::array* const tools = fields.find_array("tools");
  const json::value* const choice = fields.find("tool_choice");
  if (choice && !choice->is_string() && !choice->is_object())
    fields.refuse("tool_choice", "must be a string or an object", kInvalidType);
  const bool has_tools = tools && !tools->empty();
  chat.in_parts = true;
  chat.splits_reasoning = fields.get_bool("separate_reasoning", true);
  chat.only_one_call = !fields.get_bool("parallel_tool_calls", true);
  if (choice && *choice == "none") return;
  if (!has_tools && choice && *choice != "auto") fields.refuse("tool_choice", "needs tools");
  if (!has_tools) return;
  for (size_t i = 0; i < tools->size(); ++i) {
    check_tool(fields, (*tools)[i], i);
    chat.tools.push_back({json::serialize((*tools)[i])});
  }
  if (!choice || *choice == "auto") return;
  chat.must_call = true;
  if (*choice == "required") return;
  if (!choice->is_object()) fields.refuse("tool_choice", "must be \"none\", \"auto\", \"required\" or an object that names a function");
  const Fields named = fields.get_object("tool_choice");
  if (named.get_string("type") != "function") named.refuse("type", "may only be \"function\" on this server", "not_supported");
  chat.tool_to_call = named.get_object("function").get_string("name");
}

}  // namespace serval
