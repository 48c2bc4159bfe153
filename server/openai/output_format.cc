#include "server/openai/output_format.h"

#include <boost/json/serialize.hpp>
#include <string>
#include <utility>

namespace serval {
namespace {

namespace json = boost::json;
using Kind = OutputFormat::Kind;

constexpr const char* kInvalidType = "invalid_type";
constexpr const char* kNotSupported = "not_supported";

// What was asked for so far; a second one is refused.
class Asked {
 public:
  explicit Asked(const Fields& fields) : fields_(fields) {}

  void set(OutputFormat format) {
    if (format_) fields_.refuse(format.param, "cannot be combined with " + format_->param);
    format_ = std::move(format);
  }
  std::optional<OutputFormat> take() { return std::move(format_); }

 private:
  const Fields& fields_;
  std::optional<OutputFormat> format_;
};

// A schema as a value, or as its text.
OutputFormat schema_of(const Fields& fields, std::string_view field, const json::value& schema, std::string param) {
  OutputFormat format{.kind = Kind::kJsonSchema, .param = std::move(param)};
  if (schema.is_object() || schema.is_bool())
    format.text = json::serialize(schema);
  else if (schema.is_string())
    format.text = std::string(schema.get_string());
  else
    fields.refuse(field, "must be a JSON Schema", kInvalidType);
  return format;
}

OutputFormat choice_of(const Fields& fields, std::string_view field, const json::value& choices, std::string param) {
  OutputFormat format{.kind = Kind::kChoice, .param = std::move(param)};
  if (!choices.is_array() || choices.get_array().empty())
    fields.refuse(field, "must be an array of strings, at least one", kInvalidType);
  for (const json::value& choice : choices.get_array()) {
    if (!choice.is_string()) fields.refuse(field, "has an element that is no string", kInvalidType);
    format.choices.emplace_back(choice.get_string());
  }
  return format;
}

OutputFormat text_of(Kind kind, std::string text, std::string param) {
  return {.kind = kind, .text = std::move(text), .param = std::move(param)};
}

void read_response_format(const Fields& fields, Asked& asked) {
  const json::value* given = fields.find("response_format");
  if (!given) return;
  if (!given->is_object() || !given->get_object().contains("type") || !given->get_object().at("type").is_string())
    fields.refuse("response_format", "must be an object with a string in type", kInvalidType);
  const Fields format = fields.get_object("response_format");
  const std::string type = format.get_string("type");
  if (type == "text") return;
  if (type == "json_object") return asked.set({.kind = Kind::kJsonObject, .param = "response_format"});
  if (type == "structural_tag") {
    for (const auto& member : format.object()) format.find(member.key());  // what is in it, the grammar says
    return asked.set(text_of(Kind::kStructuralTag, json::serialize(format.object()), "response_format"));
  }
  if (type != "json_schema")
    fields.refuse("response_format", "may only be of type \"text\", \"json_object\", \"json_schema\" or \"structural_tag\" on this server",
                  kNotSupported);
  const Fields named = format.get_object("json_schema");
  named.ignore({"name", "description", "strict"});
  const json::value* schema = named.find("schema");
  if (!schema) return asked.set({.kind = Kind::kJsonObject, .param = "response_format"});
  asked.set(schema_of(named, "schema", *schema, "response_format"));
}

void read_structured_outputs(const Fields& fields, Asked& asked) {
  const std::optional<Fields> given = fields.find_object("structured_outputs");
  if (!given) return;
  const std::string param = "structured_outputs";
  if (const json::value* schema = given->find("json")) asked.set(schema_of(*given, "json", *schema, param));
  if (given->get_bool("json_object", false)) asked.set({.kind = Kind::kJsonObject, .param = param});
  if (auto regex = given->find_string("regex")) asked.set(text_of(Kind::kRegex, std::move(*regex), param));
  if (const json::value* choices = given->find("choice")) asked.set(choice_of(*given, "choice", *choices, param));
  if (auto grammar = given->find_string("grammar")) asked.set(text_of(Kind::kGrammar, std::move(*grammar), param));
  if (auto tag = given->find_string("structural_tag")) asked.set(text_of(Kind::kStructuralTag, std::move(*tag), param));
  given->ignore({"disable_fallback", "disable_any_whitespace", "disable_additional_properties", "backend"});
  if (given->find("whitespace_pattern")) given->refuse("whitespace_pattern", "is not supported by this server", kNotSupported);
  if (const std::vector<std::string> unknown = given->unknown(); !unknown.empty())
    fields.refuse(unknown.front(), "is not a way to structure output here", kNotSupported);
}

}  // namespace

std::optional<OutputFormat> read_output_format(const Fields& fields) {
  Asked asked(fields);
  read_response_format(fields, asked);
  read_structured_outputs(fields, asked);
  if (const json::value* schema = fields.find("guided_json"))
    asked.set(schema_of(fields, "guided_json", *schema, "guided_json"));
  if (auto regex = fields.find_string("guided_regex"); regex && !regex->empty())
    asked.set(text_of(Kind::kRegex, std::move(*regex), "guided_regex"));
  if (const json::value* choices = fields.find("guided_choice");
      choices && !(choices->is_array() && choices->get_array().empty()))
    asked.set(choice_of(fields, "guided_choice", *choices, "guided_choice"));
  if (auto grammar = fields.find_string("guided_grammar"); grammar && !grammar->empty())
    asked.set(text_of(Kind::kGrammar, std::move(*grammar), "guided_grammar"));
  fields.ignore({"guided_decoding_backend"});
  if (fields.find("guided_whitespace_pattern"))
    fields.refuse("guided_whitespace_pattern", "is not supported by this server", kNotSupported);
  return asked.take();
}

}  // namespace serval
