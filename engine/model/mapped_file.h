// A file mapped for reading whose truncation while we read is an error with a sentence, not a SIGBUS that
// ends the process. Whoever needs bytes that must not be pulled away copies them out; there is no pointer
// into the mapping to hand around.
#pragma once

#include <cstddef>
#include <filesystem>

namespace serval {

class MappedFile {
 public:
  // Throws std::runtime_error when the file is missing, is not a regular file or cannot be mapped. An empty
  // file is legal.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  size_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }

  // Copies [offset, offset + bytes) to `to`. Throws when the file was truncated below that range since it was
  // opened. Any thread.
  void copy(size_t offset, size_t bytes, void* to) const;
  // Copies like copy() and then drops the pages of the range from our resident size; they stay in the
  // system's cache.
  void take(size_t offset, size_t bytes, void* to) const;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace serval
