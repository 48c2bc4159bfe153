// What stands behind a URL's question mark. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace serval {

// What `%41` stands for; nothing when an escape is broken.
std::optional<std::string> percent_decode(std::string_view text);
// The decoded value of the first `name=VALUE` of `a=b&c=d`; nothing: there is none, or its escapes are broken.
std::optional<std::string> query_value(std::string_view query, std::string_view name);

}  // namespace serval
