// What a folder without a checkpoint that can be read holds instead, for the sentence that says so. Private
// to engine/model.
#pragma once

#include <filesystem>
#include <string>

namespace serval {

// What to do about weights in another format, by the name of a file that holds them: "model.gguf is a GGUF
// file
// ..."; "" for any other name.
std::string other_format(const std::filesystem::path& file);
// The same for the first such file of a folder, in order of their names.
std::string other_format_in(const std::filesystem::path& folder);

}  // namespace serval
