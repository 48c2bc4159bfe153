// The table of fields against the readers of requests: each does with each field what its row says, and knows no other.
#include "server/api_document.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "server/anthropic/messages_request.h"
#include "server/batches/batch_requests.h"
#include "server/ollama/ollama_request.h"
#include "server/openai/openai_request.h"
#include "server/openai/pooling_request.h"
#include "server/responses/responses_request.h"

namespace serval {
namespace {

namespace json = boost::json;

template <class T>
std::optional<Error> error_of(const Result<T>& result) {
  return result ? std::nullopt : std::optional<Error>(result.error());
}

// What is wrong with the body as a request of the kind, unknown fields included.
std::optional<Error> refusal(char request, const std::string& body) {
  const RequestOptions strict{.strict = true};
  switch (request) {
    case 'C': return error_of(parse_chat_request(body, strict));
    case 'T': return error_of(parse_completion_request(body, strict));
    case 'R': return error_of(parse_responses_request(body, ResponseStore(1), 0, true));
    case 'M': return error_of(parse_messages_request(body, false, true));
    case 'N': return error_of(parse_messages_request(body, true, true));
    case 'E': return error_of(parse_embedding_request(body, strict));
    case 'K': return error_of(parse_classify_request(body, strict));
    case 'S': return error_of(parse_score_request(body, strict));
    case 'A': return error_of(parse_rerank_request(body, strict));
    case 'Z': return error_of(parse_tokenize_request(body, strict));
    case 'D': return error_of(parse_detokenize_request(body, strict));
    case 'O': return error_of(parse_ollama_chat(body, true));
    case 'G': return error_of(parse_ollama_generate(body, true));
    case 'B': return error_of(parse_ollama_embed(body, true));
    case 'J': return error_of(parse_batch_request(body, true));
  }
  ADD_FAILURE() << "no reader of " << request;
  return std::nullopt;
}

json::object least_body(char request) {
  const json::array messages{{{"role", "user"}, {"content", "hi"}}};
  switch (request) {
    case 'C':
    case 'O':
    case 'Z': return {{"messages", messages}};
    case 'G': return {{"prompt", "x"}};
    case 'T': return {{"prompt", "x"}};
    case 'R': return {{"input", "x"}};
    case 'M': return {{"messages", messages}, {"max_tokens", 1}};
    case 'N': return {{"messages", messages}};
    case 'S': return {{"text_1", "x"}, {"text_2", "y"}};
    case 'A': return {{"query", "x"}, {"documents", {"y"}}};
    case 'D': return {{"tokens", {1}}};
    case 'J': return {{"input_file_id", "file-x"}, {"endpoint", "/v1/completions"}, {"completion_window", "24h"}};
    default: return {{"input", "x"}};
  }
}

// One that says something, of the field's first type.
json::value a_value(const ApiField& field) {
  const std::string_view type = field.types.substr(0, field.types.find('|'));
  if (type == "string") return "a";
  if (type == "integer") return 2;
  if (type == "number") return 0.5;
  if (type == "boolean") return true;
  if (type == "array") return json::array{"a"};
  return json::object{{"a", 1}};
}

// Of no type that the field has.
json::value a_wrong_value(const ApiField& field) {
  if (field.types.find("object") == field.types.npos) return json::object{{"a", 1}};
  return field.types.find("boolean") == field.types.npos ? json::value(true) : json::value(1.5);
}

TEST(ApiDocument, EachFieldIsWhatItsRowSays) {
  for (const ApiRequest& request : api_requests()) {
    if (request.is_form) continue;
    EXPECT_EQ(refusal(request.letter, json::serialize(least_body(request.letter))), std::nullopt) << request.name;
    std::set<std::string_view> names;
    for (const ApiField& field : api_fields()) names.insert(field.name);
    for (const ApiField& field : api_fields()) {
      const std::string where = std::string(request.name) + "." + std::string(field.name);
      const FieldUse use = field.use(request.letter);
      const auto with = [&](const json::value& value) {
        json::object body = least_body(request.letter);
        body[field.name] = value;
        return refusal(request.letter, json::serialize(body));
      };
      if (use == FieldUse::kHonoured) {
        const auto error = with(a_wrong_value(field));
        ASSERT_TRUE(error) << where;
        EXPECT_NE(error->code, "unknown_parameter") << where;
        EXPECT_TRUE(error->param.starts_with(field.name)) << where << ": " << error->param << " " << error->message;
        const auto good = with(a_value(field));
        EXPECT_TRUE(!good || good->code != "unknown_parameter") << where;
        const bool is_required = std::ranges::find(request.required, field.name) != request.required.end();
        if (is_required || !least_body(request.letter).contains(field.name)) {
          EXPECT_EQ(with(nullptr).has_value(), is_required) << where;
        }
      } else if (use == FieldUse::kIgnored) {
        EXPECT_EQ(with(a_value(field)), std::nullopt) << where;
      } else if (use == FieldUse::kRefused) {
        const auto error = with(a_value(field));
        ASSERT_TRUE(error) << where;
        EXPECT_TRUE(error->code == "not_supported" || error->code == "not_allowed") << where << ": " << error->code;
        EXPECT_EQ(error->param, field.name) << where;
      } else if (std::ranges::none_of(api_fields(), [&](const ApiField& row) {
                   return row.name == field.name && row.use(request.letter) != FieldUse::kUnknown;
                 })) {
        const auto error = with(a_value(field));
        ASSERT_TRUE(error) << where << " is read, or passed over, and has no place in the table";
        EXPECT_EQ(error->code, "unknown_parameter") << where;
      }
    }
  }
}

// What is wrong with a form of these names and texts.
std::optional<Error> form_refusal(const std::vector<std::pair<std::string, std::string>>& parts) {
  std::string body;
  for (const auto& [name, text] : parts) body += "--x\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + text + "\r\n";
  return error_of(read_upload("multipart/form-data; boundary=x", body + "--x--\r\n", true));
}

TEST(ApiDocument, TheFormOfAFileIsWhatItsRowsSay) {
  std::set<std::string_view> honoured;
  for (const ApiField& field : api_fields()) {
    EXPECT_TRUE(field.use('U') == FieldUse::kHonoured || field.use('U') == FieldUse::kUnknown) << field.name;
    if (field.use('U') == FieldUse::kHonoured) honoured.insert(field.name);
  }
  EXPECT_EQ(honoured, (std::set<std::string_view>{"expires_after", "file", "purpose"}));
  using Parts = std::vector<std::pair<std::string, std::string>>;
  const Parts least{{"file", "x"}, {"purpose", "batch"}}, lasting{{"expires_after[anchor]", "created_at"}, {"expires_after[seconds]", "3600"}};
  const auto with = [&least](Parts more) {
    more.insert(more.begin(), least.begin(), least.end());
    return form_refusal(more);
  };
  EXPECT_EQ(with({}), std::nullopt);
  EXPECT_EQ(with(lasting), std::nullopt);
  EXPECT_EQ(form_refusal({least[1]})->param, "file");
  EXPECT_EQ(form_refusal({least[0]})->param, "purpose");
  EXPECT_EQ(with({{"expires_after[anchor]", "last_active_at"}, lasting[1]})->param, "expires_after");
  EXPECT_EQ(with({lasting[0], {"expires_after[seconds]", "1"}})->param, "expires_after");
  EXPECT_EQ(with({{"model", "x"}})->code, "unknown_parameter");
}

TEST(ApiDocument, RowsAreInOrderAndSayOneThing) {
  std::string_view last;
  for (const ApiField& field : api_fields()) {
    EXPECT_LE(last, field.name);
    last = field.name;
    const std::string all = std::string(field.honoured) + std::string(field.ignored) + std::string(field.refused);
    EXPECT_EQ(std::set<char>(all.begin(), all.end()).size(), all.size()) << field.name;
    EXPECT_FALSE(all.empty()) << field.name;
  }
}

}  // namespace
}  // namespace serval
