#include "kernels/base/regular_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <tuple>
#include <utility>

namespace serval {

namespace {

// A descriptor of a regular file, and its size.
std::pair<int, size_t> open_regular(const std::filesystem::path& path, int flags) {
  // O_NONBLOCK: opening a FIFO must not wait for its other end; for a regular file it changes nothing.
  const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666);
  if (descriptor < 0) {
    const int error = errno;
    // A socket cannot be opened at all, a FIFO without a reader and a folder not for writing.
    const char* why = error == ENXIO || error == EISDIR ? "it is not a regular file" : std::strerror(error);
    throw std::runtime_error("cannot open " + path.string() + ": " + why);
  }
  struct stat info {};
  if (::fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(descriptor);
    throw std::runtime_error(path.string() + " is not a regular file");
  }
  return {descriptor, static_cast<size_t>(info.st_size)};
}

}  // namespace

OpenFile::OpenFile(const std::filesystem::path& path) {
  std::tie(descriptor_, size_) = open_regular(path, O_RDONLY);
}

OpenFile::~OpenFile() {
  ::close(descriptor_);
}

std::string read_regular_file(const std::filesystem::path& path, size_t max_bytes) {
  const OpenFile file(path);
  if (file.size() > max_bytes) {
    throw std::runtime_error(path.string() + " has " + std::to_string(file.size()) + " bytes; at most " +
                             std::to_string(max_bytes) + " are supported");
  }
  std::string text(file.size(), '\0');
  for (size_t done = 0; done < text.size();) {
    const ssize_t got = ::read(file.descriptor(), text.data() + done, text.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw std::runtime_error("cannot read " + path.string() + ": " + std::strerror(errno));
    if (got == 0) throw std::runtime_error(path.string() + " was truncated while it was being read");
    done += static_cast<size_t>(got);
  }
  return text;
}

void require_writable_file(const std::filesystem::path& path) {
  ::close(open_regular(path, O_WRONLY | O_CREAT).first);
}

}  // namespace serval
