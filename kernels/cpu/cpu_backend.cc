#include "kernels/cpu/cpu_backend.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "kernels/base/check.h"
#include "kernels/base/log.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/system_memory.h"

namespace serval::cpu {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;
// Of memory to clear: what a worker takes at a time; and what is cleared sooner than a thread has begun to.
constexpr size_t kClearPiece = 4 * kHugePage;
constexpr size_t kAtOnceBytes = size_t{256} << 20;

size_t round_up(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

ThreadPlan threads_for(const DeviceConfig& config) {
  ThreadPlan plan = plan_threads(config.num_threads, config.pin_threads, allowed_cpus());
  if (config.num_threads == 0)
    log_info("computing threads", {{"threads", plan.num_threads}, {"reason", plan.reason}});
  return plan;
}

}  // namespace

CpuBackend::CpuBackend(const DeviceConfig& config)
    : kernels_(choose_kernels(config.isa)),
      dots_(choose_dots(kernels_)),
      pool_(threads_for(config)),
      name_(std::string("cpu-") + kernels_.name) {}

Buffer CpuBackend::take(size_t bytes) {
  Buffer buffer;
  if (bytes == 0) return buffer;
  // Large memory starts on a huge page, so that all of it can lie in huge pages: fewer address translations
  // on the way through the weights. The advice is a wish; without it everything works, more slowly.
  const bool large = bytes >= 2 * kHugePage;
  const size_t alignment = large ? kHugePage : kLine;
  void* const memory = std::aligned_alloc(alignment, round_up(bytes, alignment));
  if (memory == nullptr)
    throw std::runtime_error("the system refused " + std::to_string(bytes) + " bytes of memory");
  buffer.memory = {memory, [](void* p) { std::free(p); }};
  if (large) madvise(memory, bytes, MADV_HUGEPAGE);
  buffer.bytes = bytes;
  return buffer;
}

// Cleared by all workers: the system gives a page to whoever touches it first, page by page, from the memory
// nearest to that core.
Buffer CpuBackend::allocate(size_t bytes) {
  Buffer buffer = take(bytes);
  const auto pieces = static_cast<int64_t>((bytes + kClearPiece - 1) / kClearPiece);
  pool_.for_each(pieces, [&](int, int64_t i) {
    const size_t from = static_cast<size_t>(i) * kClearPiece;
    std::memset(buffer.as<std::byte>() + from, 0, std::min(kClearPiece, bytes - from));
  });
  return buffer;
}

namespace {

// Before the memory that reserve() gives: the mapping that it is of.
struct Mapping {
  void* memory;
  size_t bytes;
};

// Gives the pages of [from, from + bytes) their memory, in pieces, beside those that compute: only on a core that has
// nothing else to do. Where the system cannot, whoever comes first does.
void touch(std::byte* from, size_t bytes, const std::atomic<bool>& stop) {
  const sched_param none{};
  pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
  for (size_t done = 0; done < bytes && !stop.load(std::memory_order_relaxed); done += kClearPiece) {
#if defined(MADV_POPULATE_WRITE)
    if (madvise(from + done, std::min(kClearPiece, bytes - done), MADV_POPULATE_WRITE) != 0) return;
#endif
  }
}

}  // namespace

Buffer CpuBackend::reserve(size_t bytes) {
  if (bytes <= kAtOnceBytes) return allocate(bytes);
  const size_t length = bytes + 2 * kHugePage;
  void* const memory = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("the system refused " + std::to_string(bytes) + " bytes of memory");
  const size_t begin = round_up(reinterpret_cast<size_t>(memory) + sizeof(Mapping), kHugePage);
  auto* const first = reinterpret_cast<std::byte*>(begin);
  madvise(first, bytes, MADV_HUGEPAGE);
  *reinterpret_cast<Mapping*>(first - sizeof(Mapping)) = {memory, length};
  Buffer buffer;
  buffer.memory = {first, [](void* p) {
                     const Mapping mapping = reinterpret_cast<Mapping*>(p)[-1];
                     munmap(mapping.memory, mapping.bytes);
                   }};
  buffer.bytes = bytes;
  touching_.emplace_back([this, first, bytes] { touch(first, bytes, stop_); });
  return buffer;
}

void CpuBackend::for_each_on_host(int64_t count, const std::function<void(int64_t)>& task) {
  pool_.for_each(count, [&](int, int64_t i) { task(i); });
}

CpuBackend::~CpuBackend() {
  stop_.store(true);
  for (std::thread& thread : touching_) thread.join();
}

DType CpuBackend::preferred_kv_dtype(DType weights) const {
  // Nothing below f32 holds the eleven bits of an f16 in the exponent range that attention needs.
  return weights == DType::kBF16 ? DType::kBF16 : DType::kF32;
}

// Of nothing either may be null, which memcpy forbids.
void CpuBackend::upload(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
void CpuBackend::download(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

size_t CpuBackend::available_bytes() const {
  return available_memory_bytes();
}

std::unique_ptr<StepContext> CpuBackend::make_step_context(const StepLimits& limits) {
  return std::make_unique<CpuStepContext>(limits, *this, pool_, kernels_.sample, step_);
}

size_t CpuBackend::step_context_bytes(const StepLimits& limits) const {
  return CpuStepContext::planned_bytes(limits, pool_.num_threads());
}

StepScratch& CpuBackend::step() {
  SERVAL_CHECK(step_ != nullptr, "an op before any step has begun");
  return *step_;
}

}  // namespace serval::cpu
