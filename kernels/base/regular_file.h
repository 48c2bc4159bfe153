// Opening a file that somebody else put there: a FIFO, a device or a socket in its place is refused instead
// of waited for or read without end. Start-up only.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

namespace serval {

// A descriptor that closes itself.
class OpenFile {
 public:
  // For reading. Throws std::runtime_error with a sentence when the file cannot be opened or is not a regular
  // file. Never waits.
  explicit OpenFile(const std::filesystem::path& path);
  OpenFile(const OpenFile&) = delete;
  ~OpenFile();

  int descriptor() const { return descriptor_; }
  size_t size() const { return size_; }

 private:
  int descriptor_ = -1;
  size_t size_ = 0;
};

// All of a regular file. Throws std::runtime_error with a sentence that names it: cannot be opened, is not a
// regular file, has more than max_bytes, or ends while it is read.
std::string read_regular_file(const std::filesystem::path& path, size_t max_bytes);

// Throws std::runtime_error with a sentence unless the path names a regular file that can be written, or
// nothing yet: then an empty file is there afterwards.
void require_writable_file(const std::filesystem::path& path);

}  // namespace serval
