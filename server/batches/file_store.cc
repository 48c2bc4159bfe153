#include "server/batches/file_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstring>
#include <ctime>
#include <fstream>
#include <stdexcept>

#include "engine/json/fields.h"
#include "engine/json/json_reader.h"
#include "kernels/base/log.h"
#include "server/unique_id.h"

namespace serval {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr size_t kMaxAboutBytes = 64 << 10;
constexpr std::string_view kAbout = ".json";

// What a file counts, however small: its entry is somewhere too.
size_t cost(int64_t num_bytes) {
  constexpr int64_t kLeast = 4096;
  return static_cast<size_t>(std::max(num_bytes, kLeast));
}

json::object about_object(const StoredFile& file) {
  json::object out = file_object(file);
  out["owner"] = file.owner;
  return out;
}

StoredFile read_about(const fs::path& path) {
  const json::object about = read_json_file(path, kMaxAboutBytes);
  const Fields fields(about, path.string());
  StoredFile file;
  file.id = fields.get_string("id");
  file.owner = fields.get_string("owner");
  file.filename = fields.get_string("filename");
  file.purpose = fields.get_string("purpose");
  file.num_bytes = fields.find_integer("bytes").value_or(0);
  file.created_at = fields.find_integer("created_at").value_or(0);
  file.expires_at = fields.find_integer("expires_at").value_or(0);
  return file;
}

}  // namespace

int64_t unix_now() {
  return static_cast<int64_t>(std::time(nullptr));
}

void write_file(const fs::path& path, std::string_view content) {
  fs::path unfinished = path;
  unfinished += ".new";
  std::ofstream out(unfinished, std::ios::binary | std::ios::trunc);
  out.write(content.data(), static_cast<std::streamsize>(content.size()));
  out.close();
  if (!out) throw std::runtime_error("cannot write " + unfinished.string());
  fs::rename(unfinished, path);
}

json::object file_object(const StoredFile& file) {
  json::object out{{"id", file.id},           {"object", "file"},           {"bytes", file.num_bytes},   {"created_at", file.created_at},
                   {"filename", file.filename}, {"purpose", file.purpose}, {"status", "processed"}, {"status_details", nullptr}};
  if (file.expires_at > 0) out["expires_at"] = file.expires_at;
  return out;
}

FileStore::FileStore(fs::path folder, size_t max_bytes) : folder_(std::move(folder)), max_bytes_(max_bytes) {
  std::error_code error;
  fs::create_directories(folder_, error);
  lock_ = ::open((folder_ / "lock").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  if (lock_ < 0) throw std::runtime_error("files_folder: cannot write into " + folder_.string() + ": " + std::strerror(errno));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    throw std::runtime_error("files_folder: another server uses " + folder_.string());
  }
  try {
    read_folder();
  } catch (...) {
    ::close(lock_);
    throw;
  }
}

FileStore::~FileStore() {
  ::close(lock_);
}

// What is there without its other half was never finished, or half deleted.
void FileStore::read_folder() {
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("file-")) continue;
    std::error_code ignored;
    if (name.ends_with(".new")) {
      fs::remove(entry.path(), ignored);
    } else if (name.ends_with(kAbout)) {
      StoredFile file = read_about(entry.path());
      if (file.id + std::string(kAbout) == name && fs::is_regular_file(path(file.id)))
        add(std::move(file));
      else
        fs::remove(entry.path(), ignored);
    } else if (!fs::exists(path(name + std::string(kAbout)))) {
      fs::remove(entry.path(), ignored);
    }
  }
}

void FileStore::add(StoredFile file) {
  num_bytes_ += cost(file.num_bytes);
  std::string id = file.id;
  files_.emplace(std::move(id), std::move(file));
}

void FileStore::drop(const StoredFile& file) {
  std::error_code ignored;
  fs::remove(path(file.id + std::string(kAbout)), ignored);
  fs::remove(path(file.id), ignored);
  num_bytes_ -= cost(file.num_bytes);
  files_.erase(files_.find(file.id));
}

void FileStore::sweep() {
  const int64_t now = unix_now();
  for (auto next = files_.begin(); next != files_.end();) {
    const StoredFile& file = (next++)->second;
    if (file.expires_at > 0 && file.expires_at <= now) drop(file);
  }
}

Result<StoredFile> FileStore::put(StoredFile about, std::string_view content) {
  about.id = "file-" + unique_id();
  about.num_bytes = static_cast<int64_t>(content.size());
  about.created_at = unix_now();
  const size_t num_bytes = cost(about.num_bytes);
  if (!reserve(num_bytes)) return is_full();
  try {
    write_file(path(about.id), content);
    write_file(path(about.id + std::string(kAbout)), json::serialize(about_object(about)));
  } catch (const std::exception& failed) {
    log_error("a file cannot be kept", {{"what", failed.what()}});
    release(num_bytes);
    return Error{ErrorKind::kInternal, "internal_error", "The server cannot write the file to its disk.", ""};
  }
  const std::lock_guard lock(mutex_);
  num_bytes_ -= num_bytes;
  add(about);
  return about;
}

StoredFile FileStore::adopt(StoredFile about, const fs::path& from, int64_t lifetime_s) {
  about.id = "file-" + unique_id();
  about.num_bytes = static_cast<int64_t>(fs::file_size(from));
  about.created_at = unix_now();
  if (lifetime_s > 0) about.expires_at = about.created_at + lifetime_s;
  write_file(path(about.id + std::string(kAbout)), json::serialize(about_object(about)));
  fs::rename(from, path(about.id));
  const std::lock_guard lock(mutex_);
  add(about);
  return about;
}

std::optional<StoredFile> FileStore::find(std::string_view id, std::string_view owner) {
  const std::lock_guard lock(mutex_);
  sweep();
  const auto found = files_.find(id);
  if (found == files_.end() || found->second.owner != owner) return std::nullopt;
  return found->second;
}

std::vector<StoredFile> FileStore::list(std::string_view owner) {
  const std::lock_guard lock(mutex_);
  sweep();
  std::vector<StoredFile> out;
  for (const auto& [id, file] : files_)
    if (file.owner == owner) out.push_back(file);
  std::stable_sort(out.begin(), out.end(), [](const StoredFile& a, const StoredFile& b) { return a.created_at > b.created_at; });
  return out;
}

bool FileStore::erase(std::string_view id, std::string_view owner) {
  const std::lock_guard lock(mutex_);
  const auto found = files_.find(id);
  if (found == files_.end() || found->second.owner != owner) return false;
  drop(found->second);
  return true;
}

bool FileStore::reserve(size_t num_bytes) {
  const std::lock_guard lock(mutex_);
  sweep();
  if (num_bytes > max_bytes_ - std::min(max_bytes_, num_bytes_)) return false;
  num_bytes_ += num_bytes;
  return true;
}

void FileStore::hold(size_t num_bytes) {
  const std::lock_guard lock(mutex_);
  num_bytes_ += num_bytes;
}

void FileStore::release(size_t num_bytes) {
  const std::lock_guard lock(mutex_);
  num_bytes_ -= num_bytes;
}

Error FileStore::is_full() const {
  return invalid("file", "files_full", "All files together may have " + std::to_string(max_bytes_) + " bytes (max_files_bytes); delete some first.");
}

}  // namespace serval
