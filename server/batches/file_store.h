// Files that clients left or batches made, in one local folder: each as its content and, beside it, what is known of it. Bounded in bytes, seen by
// the API key alone that brought it, there again after a restart. Any thread; blocks on the disk.
#pragma once

#include <boost/json/object.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/status.h"

namespace serval {

// Seconds since 1970.
int64_t unix_now();

// Replaces what is there as a whole. Throws std::runtime_error.
void write_file(const std::filesystem::path& path, std::string_view content);

struct StoredFile {
  std::string id;
  // ApiKeys::name of whose it is.
  std::string owner;
  std::string filename, purpose;
  int64_t num_bytes = 0, created_at = 0;
  // 0: it stays until it is deleted.
  int64_t expires_at = 0;
};

// As the API shows it.
boost::json::object file_object(const StoredFile& file);

class FileStore {
 public:
  // Makes the folder if need be and keeps others out of it. Throws std::runtime_error with a sentence.
  FileStore(std::filesystem::path folder, size_t max_bytes);
  ~FileStore();
  FileStore(const FileStore&) = delete;

  // Gives it its id, size and time.
  Result<StoredFile> put(StoredFile about, std::string_view content);
  // The same of a file in the folder, which is renamed, whatever room there is; `lifetime_s`: see StoredFile::expires_at.
  StoredFile adopt(StoredFile about, const std::filesystem::path& path, int64_t lifetime_s);
  std::optional<StoredFile> find(std::string_view id, std::string_view owner);
  // The newest first.
  std::vector<StoredFile> list(std::string_view owner);
  bool erase(std::string_view id, std::string_view owner);

  // Room for what is written beside them. False: there is none.
  bool reserve(size_t num_bytes);
  // The same, whether there is or not.
  void hold(size_t num_bytes);
  void release(size_t num_bytes);
  Error is_full() const;

  const std::filesystem::path& folder() const { return folder_; }
  std::filesystem::path path(std::string_view id) const { return folder_ / id; }

 private:
  void read_folder();
  void sweep();  // of what has expired
  void add(StoredFile file);
  void drop(const StoredFile& file);

  const std::filesystem::path folder_;
  const size_t max_bytes_;
  int lock_ = -1;
  std::mutex mutex_;
  std::map<std::string, StoredFile, std::less<>> files_;
  size_t num_bytes_ = 0;
};

}  // namespace serval
