// kernels/cuda/runtime.h over the emulation: device memory is host memory between guard bytes, filled with
// not-a-number; a stream does its work at once; a graph is the list of what was given to the stream.
#include "kernels/cuda/runtime.h"

#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/cuda/vendor_gemm.h"
#include "kernels/emulation/emulation.h"
#include "kernels/emulation/runtime.h"

namespace serval {
namespace {

using Work = std::function<void()>;

struct EmulatedGraph {
  std::vector<Work> work;
};
struct EmulatedStream {
  EmulatedGraph* captured = nullptr;
};

constexpr size_t kGuard = 256;
constexpr unsigned char kGuardByte = 0xa5;

std::mutex allocations_mutex;
std::map<unsigned char*, size_t>& allocations() {
  static std::map<unsigned char*, size_t> live;
  return live;
}

void check_guards_of(const unsigned char* memory, size_t bytes) {
  for (size_t i = 0; i < kGuard; ++i) {
    SERVAL_CHECK(memory[-1 - static_cast<ptrdiff_t>(i)] == kGuardByte, "written before an allocation", i,
                 bytes);
    SERVAL_CHECK(memory[bytes + i] == kGuardByte, "written beyond an allocation", i, bytes);
  }
}

std::set<void*>& streams() {
  static std::set<void*> live;
  return live;
}
std::mutex streams_mutex;

// Null is the default stream; another one must have been created and not destroyed.
EmulatedStream* live_stream(void* stream) {
  std::lock_guard lock(streams_mutex);
  SERVAL_CHECK(stream == nullptr || streams().contains(stream), "a stream that does not live");
  return static_cast<EmulatedStream*>(stream);
}

void give(void* stream, Work work) {
  auto* const s = live_stream(stream);
  if (s && s->captured) {
    s->captured->work.push_back(std::move(work));
  } else {
    work();
  }
}

}  // namespace

namespace simt {

void check_guards() {
  std::lock_guard lock(allocations_mutex);
  for (const auto& [memory, bytes] : allocations()) check_guards_of(memory, bytes);
}
size_t num_live_allocations() {
  std::lock_guard lock(allocations_mutex);
  return allocations().size();
}

void emulation::submit(void* stream, std::function<void()> work) {
  give(stream, std::move(work));
}
bool emulation::is_capturing(void* stream) {
  const EmulatedStream* const s = live_stream(stream);
  return s != nullptr && s->captured != nullptr;
}

}  // namespace simt

namespace cuda {

std::string device_problem() {
  return {};
}
std::unique_ptr<VendorGemm> VendorGemm::load() {
  return nullptr;
}
DeviceProperties device_properties() {
  return {.name = "emulated",
          .compute_capability = 90,
          .num_sms = 4,
          .total_bytes = size_t{2} << 30,
          .shared_bytes_per_block = size_t{227} << 10,
          .is_emulated = true};
}
size_t free_device_bytes() {
  return size_t{1} << 30;
}

void* allocate_device(size_t bytes) {
  auto* const raw =
      static_cast<unsigned char*>(std::aligned_alloc(256, (bytes + 2 * kGuard + 255) / 256 * 256));
  unsigned char* const memory = raw + kGuard;
  std::memset(raw, kGuardByte, kGuard);
  std::memset(memory, 0xff, bytes);
  std::memset(memory + bytes, kGuardByte, kGuard);
  std::lock_guard lock(allocations_mutex);
  allocations()[memory] = bytes;
  return memory;
}
void free_device(void* memory) {
  auto* const bytes = static_cast<unsigned char*>(memory);
  std::lock_guard lock(allocations_mutex);
  const auto found = allocations().find(bytes);
  SERVAL_CHECK(found != allocations().end(), "freed what was not allocated");
  check_guards_of(bytes, found->second);
  allocations().erase(found);
  std::free(bytes - kGuard);
}
void* allocate_pinned(size_t bytes) {
  return std::malloc(bytes);
}
void free_pinned(void* memory) {
  std::free(memory);
}

Stream create_stream() {
  auto* const stream = new EmulatedStream;
  std::lock_guard lock(streams_mutex);
  streams().insert(stream);
  return stream;
}
void destroy_stream(Stream stream) {
  auto* const s = live_stream(stream);
  std::lock_guard lock(streams_mutex);
  streams().erase(stream);
  delete s;
}
void synchronize(Stream stream) {
  live_stream(stream);
}
void copy_to_device(Stream stream, void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;  // nothing may come from nowhere
  give(stream, [=] { std::memcpy(to, from, bytes); });
}
void copy_to_host(Stream stream, void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  give(stream, [=] { std::memcpy(to, from, bytes); });
}
void copy_on_device(Stream stream, void* to, const void* from, size_t bytes) {
  give(stream, [=] { std::memmove(to, from, bytes); });
}
void clear(Stream stream, void* memory, size_t bytes) {
  give(stream, [=] { std::memset(memory, 0, bytes); });
}

Event create_event() {
  return nullptr;
}
void destroy_event(Event) {}
void record(Event, Stream stream) {
  live_stream(stream);
}
void wait(Event) {}
Event create_timing_event() {
  return nullptr;
}
float elapsed_ms(Event, Event) {
  return 0;
}

void begin_capture(Stream stream) {
  live_stream(stream)->captured = new EmulatedGraph;
}
Graph end_capture(Stream stream) {
  return std::exchange(live_stream(stream)->captured, nullptr);
}
void launch_graph(Graph graph, Stream stream) {
  live_stream(stream);
  for (const Work& work : static_cast<EmulatedGraph*>(graph)->work) work();
}
void destroy_graph(Graph graph) {
  delete static_cast<EmulatedGraph*>(graph);
}

}  // namespace cuda
}  // namespace serval
