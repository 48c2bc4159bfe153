// The device's memory, streams, events and graphs: the few calls that the backend needs. Two bodies:
// runtime.cu over the CUDA runtime, kernels/emulation/runtime.cc over the emulation. A call that fails ends the
// process (a dead device or our own mistake), but for the ones that say otherwise.
#pragma once

#include <cstddef>
#include <string>

#include "kernels/cuda/launch_shape.h"

namespace serval::cuda {

using simt::Stream;
using Event = void*;
using Graph = void*;

struct DeviceProperties {
  std::string name;
  int compute_capability = 0;  // 10 * major + minor
  int num_sms = 0;
  size_t total_bytes = 0;
  size_t shared_bytes_per_block = 0;
  bool is_emulated = false;  // no hardware: results mean something, times do not
};

// Why device 0 cannot be used, in one sentence; empty when it can.
std::string device_problem();
DeviceProperties device_properties();
size_t free_device_bytes();

void* allocate_device(size_t bytes);  // null when there is not enough
void free_device(void* memory);
// Host memory that copies run from and to without waiting; null likewise.
void* allocate_pinned(size_t bytes);
void free_pinned(void* memory);

Stream create_stream();
void destroy_stream(Stream stream);
void synchronize(Stream stream);
// Copies of no bytes do nothing, whatever their addresses.
void copy_to_device(Stream stream, void* to, const void* from, size_t bytes);
void copy_to_host(Stream stream, void* to, const void* from, size_t bytes);
void copy_on_device(Stream stream, void* to, const void* from, size_t bytes);
void clear(Stream stream, void* memory, size_t bytes);

// A stream for as long as this lives.
class OwnedStream {
 public:
  OwnedStream() : stream_(create_stream()) {}
  ~OwnedStream() { destroy_stream(stream_); }
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;
  operator Stream() const { return stream_; }

 private:
  Stream stream_;
};

Event create_event();
void destroy_event(Event event);
void record(Event event, Stream stream);
void wait(Event event);  // the calling thread, until what was recorded is done
// Milliseconds between two events made by create_timing_event that are both done; 0 in the emulation.
Event create_timing_event();
float elapsed_ms(Event begin, Event end);

// Between the two, work given to the stream is kept instead of done.
void begin_capture(Stream stream);
Graph end_capture(Stream stream);
void launch_graph(Graph graph, Stream stream);
void destroy_graph(Graph graph);

}  // namespace serval::cuda
