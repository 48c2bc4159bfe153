// Files for the loader's tests: a folder that removes itself, and safetensors files with any header one
// likes.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>

namespace serval::testing {

// The seed of a fuzzing test: the same each time, but in repetitions that are shuffled, each of which has its own and says
// it ("--gtest_repeat=-1 --gtest_shuffle").
inline uint32_t fuzz_seed(uint32_t usual) {
  const bool is_shuffled = ::testing::GTEST_FLAG(shuffle);
  return is_shuffled ? static_cast<uint32_t>(::testing::UnitTest::GetInstance()->random_seed()) * 7919 + usual : usual;
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "serval-model-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    path_ = pattern;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, std::string_view bytes) const {
    std::ofstream(path_ / name, std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

// A folder whose one file lives in memory: tens of thousands of writes to a disk would take minutes.
class FolderInMemory {
 public:
  explicit FolderInMemory(const std::string& file) : fd_(::memfd_create("test", MFD_CLOEXEC)) {
    std::filesystem::create_symlink("/proc/self/fd/" + std::to_string(fd_), folder_.path() / file);
  }
  ~FolderInMemory() { ::close(fd_); }
  FolderInMemory(const FolderInMemory&) = delete;
  FolderInMemory& operator=(const FolderInMemory&) = delete;

  const std::filesystem::path& path() const { return folder_.path(); }
  void write(std::string_view bytes) {
    const bool written = ::ftruncate(fd_, static_cast<off_t>(bytes.size())) == 0 &&
                         ::pwrite(fd_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size());
    if (!written) throw std::runtime_error("cannot write a file in memory");
  }

 private:
  TemporaryFolder folder_;
  int fd_;
};

inline std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The 8 bytes before a header of this many bytes.
inline std::string length_prefix(uint64_t length) {
  std::string prefix;
  for (int i = 0; i < 8; ++i) prefix += static_cast<char>(length >> (8 * i) & 0xff);
  return prefix;
}

inline std::string safetensors(std::string_view header, std::string_view data) {
  return length_prefix(header.size()) + std::string(header) + std::string(data);
}

// The message of the std::runtime_error that `action` throws; empty when it throws none.
template <class Action>
std::string complaint(Action&& action) {
  try {
    action();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

}  // namespace serval::testing
