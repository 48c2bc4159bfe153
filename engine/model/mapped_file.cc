#include "engine/model/mapped_file.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/regular_file.h"

namespace serval {
namespace {

// Where a SIGBUS of this thread returns to while it copies out of a mapping; null the rest of the time.
// Volatile: its one reader is the signal handler, which the compiler does not see.
thread_local sigjmp_buf* volatile copy_escape = nullptr;
struct sigaction previous_action;

void on_sigbus(int, siginfo_t*, void*) {
  if (copy_escape != nullptr) siglongjmp(*copy_escape, 1);
  // Not ours: put back whoever was there and let the faulting instruction run into it.
  sigaction(SIGBUS, &previous_action, nullptr);
}

void install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous_action);
  });
}

// False when a page of the source is no longer backed by the file. Holds nothing that a jump would leak.
bool guarded_copy(void* to, const void* from, size_t bytes) {
  sigjmp_buf escape;
  if (sigsetjmp(escape, 1) != 0) {  // 1: the jump also unblocks SIGBUS, which its handler runs with blocked
    copy_escape = nullptr;
    return false;
  }
  copy_escape = &escape;
  std::memcpy(to, from, bytes);
  copy_escape = nullptr;
  return true;
}

// Pages are dropped in pieces of this size, so that a tensor of gigabytes never counts twice in the resident
// size.
constexpr size_t kPieceBytes = size_t{8} << 20;

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const OpenFile file(path);
  void* memory = nullptr;
  if (file.size() > 0) {
    size_ = file.size();
    memory = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
  }
  if (memory == MAP_FAILED) {
    throw std::runtime_error("cannot map " + path.string() + ": " + std::strerror(errno));
  }
  data_ = static_cast<const std::byte*>(memory);
  install_handler();
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::copy(size_t offset, size_t bytes, void* to) const {
  SERVAL_CHECK(offset <= size_ && bytes <= size_ - offset, offset, bytes, size_);
  if (bytes == 0) return;
  if (!guarded_copy(to, data_ + offset, bytes)) {
    throw std::runtime_error(path_.string() + " was truncated while it was being read");
  }
}

void MappedFile::take(size_t offset, size_t bytes, void* to) const {
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  for (size_t done = 0; done < bytes;) {
    const size_t piece = std::min(kPieceBytes, bytes - done);
    copy(offset + done, piece, static_cast<std::byte*>(to) + done);
    const size_t first = (offset + done) / page * page;
    ::madvise(const_cast<std::byte*>(data_) + first, offset + done + piece - first, MADV_DONTNEED);
    done += piece;
  }
}

}  // namespace serval
