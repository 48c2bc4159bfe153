// Reads one of a model folder's JSON files under bounds: size, nesting, and the memory its tree may take.
// Private to engine/model.
#pragma once

#include <boost/json.hpp>
#include <cstddef>
#include <filesystem>

namespace serval {

// The file's top-level object. Throws std::runtime_error with a sentence that names the file: missing, larger
// than max_bytes, not valid UTF-8 JSON, not an object, or a tree out of proportion to the file (more than 4
// times its size plus 32 MiB).
boost::json::object read_json_object(const std::filesystem::path& path, size_t max_bytes);

}  // namespace serval
