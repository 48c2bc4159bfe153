// Reads a file whole, unpacking it on the way when its first bytes say that it is packed: traces lie about as
// .xz and .gz, and nobody should have to unpack them by hand.
#pragma once

#include <cstddef>
#include <string>

namespace serval::load {

// Throws std::runtime_error with a sentence when the file cannot be read, is damaged, or holds more than
// max_bytes once unpacked.
std::string read_packed_file(const std::string& path, size_t max_bytes);

}  // namespace serval::load
