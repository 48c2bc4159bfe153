#include "server/openai/pooling_request.h"

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

#include "server/openai/read_request.h"

namespace serval {
namespace {

namespace json = boost::json;

// About what a number comes to: its digits and a comma, or a third more than its four bytes.
constexpr int kBytesPerDigits = 14, kBytesPerBase64 = 6;

void read_shared(const Fields& fields, GenerateRequest& out) {
  out.model = find_name(fields, "model").value_or("");
  fields.find_string("user", kMaxShortStringBytes);
  out.add_special_tokens = fields.get_bool("add_special_tokens", true);
  out.truncate_prompt_tokens = fields.find_integer("truncate_prompt_tokens");
  out.keeps_end = false;
  if (const std::optional<std::string> side = fields.find_string("truncation_side", kMaxShortStringBytes)) {
    if (*side != "left" && *side != "right") fields.refuse("truncation_side", "must be \"left\" or \"right\"");
    out.keeps_end = *side == "left";
  }
  out.cache_salt = fields.find_string("cache_salt", kMaxShortStringBytes);
  out.priority = fields.find_integer("priority");
  PoolRequest& pool = out.pool.emplace();
  pool.finishes = fields.find_bool("use_activation");
  if (const std::optional<bool> older = fields.find_bool("activation")) pool.finishes = older;
  fields.ignore({"request_id", "mm_processor_kwargs"});
}

// A text, or a list of them; of objects where the field's elements may be such, their "text".
std::vector<std::string> read_texts(const Fields& fields, std::string_view field) {
  std::vector<std::string> texts;
  const json::value& value = fields.get(field);
  const auto add = [&](const json::value& element) {
    if (element.is_string()) {
      texts.emplace_back(element.get_string());
    } else if (element.is_object()) {
      const Fields inside = fields.inside(element, std::string(field));
      texts.push_back(inside.get_string("text"));
    } else {
      fields.refuse(field, "must be a string or an array of strings", kInvalidType);
    }
  };
  if (!value.is_array()) {
    add(value);
    return texts;
  }
  for (const json::value& element : value.get_array()) add(element);
  if (texts.empty()) fields.refuse(field, "is empty");
  return texts;
}

// Which of a field's names the client used.
std::string_view name_of(const Fields& fields, std::initializer_list<std::string_view> names) {
  std::string_view used;
  for (const std::string_view name : names) {
    if (!fields.find(name)) continue;
    if (!used.empty()) fields.refuse(name, "and " + std::string(used) + " exclude each other");
    used = name;
  }
  return used.empty() ? *names.begin() : used;
}

}  // namespace

Result<TextsRequest> parse_embedding_request(std::string_view body, const RequestOptions& options) {
  return translate<TextsRequest>(body, options, [](const Fields& fields, TextsRequest& out) {
    GenerateRequest& r = out.generate;
    read_shared(fields, r);
    r.prompts = read_prompts(fields, "input");
    r.prompt_param = "input";
    const std::string format = fields.find_string("encoding_format", kMaxShortStringBytes).value_or("float");
    if (format != "float" && format != "base64") fields.refuse("encoding_format", "must be \"float\" or \"base64\"");
    out.base64 = format == "base64";
    r.pool->dimensions = fields.find_integer("dimensions");
    r.pool->prompt_name = fields.find_string("prompt_name", kMaxShortStringBytes);
    if (const std::optional<bool> normalize = fields.find_bool("normalize")) r.pool->finishes = normalize;
    r.pool->bytes_per_number = out.base64 ? kBytesPerBase64 : kBytesPerDigits;
    return 0;
  });
}

Result<TextsRequest> parse_classify_request(std::string_view body, const RequestOptions& options) {
  return translate<TextsRequest>(body, options, [](const Fields& fields, TextsRequest& out) {
    read_shared(fields, out.generate);
    out.generate.prompts = read_prompts(fields, "input");
    out.generate.prompt_param = "input";
    out.generate.pool->what = PoolRequest::What::kScores;
    out.generate.pool->bytes_per_number = kBytesPerDigits;
    return 0;
  });
}

Result<PairsRequest> parse_score_request(std::string_view body, const RequestOptions& options) {
  return translate<PairsRequest>(body, options, [](const Fields& fields, PairsRequest& out) {
    read_shared(fields, out.generate);
    const std::string_view first = name_of(fields, {"text_1", "queries", "data_1"});
    const std::string_view second = name_of(fields, {"text_2", "documents", "items", "data_2"});
    out.queries = read_texts(fields, first);
    out.documents = read_texts(fields, second);
    out.generate.prompt_param = second;
    out.instruction = fields.find_string("instruction");
    if (out.queries.size() != 1 && out.queries.size() != out.documents.size())
      fields.refuse(first, "must be one text, or as many as " + std::string(second));
    return 0;
  });
}

Result<PairsRequest> parse_rerank_request(std::string_view body, const RequestOptions& options) {
  return translate<PairsRequest>(body, options, [](const Fields& fields, PairsRequest& out) {
    read_shared(fields, out.generate);
    out.queries.push_back(fields.get_string("query"));
    out.documents = read_texts(fields, "documents");
    out.generate.prompt_param = "documents";
    out.instruction = fields.find_string("instruction");
    out.top_n = fields.find_integer("top_n");
    if (out.top_n && *out.top_n < 0) fields.refuse("top_n", "must be at least 0");
    out.with_documents = fields.get_bool("return_documents", true);
    fields.ignore({"max_chunks_per_doc", "max_tokens_per_doc"});
    return 0;
  });
}

}  // namespace serval
