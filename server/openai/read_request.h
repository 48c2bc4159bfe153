// What readers of this dialect's requests share. Private to server/openai.
#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/json/fields.h"
#include "engine/json/json_reader.h"
#include "server/openai/request_options.h"
#include "server/service/inference_service.h"

namespace serval {

// Names, ids, salts: nothing that is stored or compared is longer. Texts (prompts, messages) are bounded by the
// body.
inline constexpr size_t kMaxShortStringBytes = 1024;
inline constexpr const char* kInvalidType = "invalid_type";
inline constexpr const char* kNotSupported = "not_supported";

// What nobody asked for is refused, or counted.
void pass_over_unknown(const Fields& fields, const RequestOptions& options, int& num_ignored);

// A text without control bytes.
std::optional<std::string> find_name(const Fields& fields, std::string_view field);

// Texts, or ids of tokens: one, or a list of them.
std::vector<PromptInput> read_prompts(const Fields& fields, std::string_view field);

// Translates the object in `body`: `read` fills a T from it, and returns how many fields inside others it passed
// over. Gives the first error there was.
template <class T, class Read>
Result<T> translate(std::string_view body, const RequestOptions& options, Read read) {
  Result<boost::json::object> object = read_json_object(body);
  if (!object) return object.error();
  try {
    const Fields fields(*object);
    T out;
    int num_ignored = read(fields, out);
    pass_over_unknown(fields, options, num_ignored);
    if (num_ignored > 0 && options.on_ignored) options.on_ignored(num_ignored);
    return out;
  } catch (const FieldError& refused) {
    return refused.error();
  }
}

}  // namespace serval
