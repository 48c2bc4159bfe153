// How long work on a stream takes: a graph of launches over rotating memory, replayed between two events.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "kernels/cuda/runtime.h"
#include "kernels/cuda/sampler.h"

namespace serval::gpu {

// Work that can be timed, with the memory it works on. Launch i works on copy i % num_copies, so that what
// one launch reads is not in the cache because the one before left it there.
struct Workload {
  std::function<void(simt::Stream, int copy)> launch;
  int num_copies = 1;
  bool is_capturable = true;  // false: launched as it is, never kept in a graph
};

struct Measurement {
  double us = 0;      // of one launch, the median of all replays
  double spread = 0;  // (90th percentile - 10th) / median
  int launches = 0;   // in a replay
  int replays = 0;
};

inline constexpr int kLaunches = 20;  // at least, in a graph
inline constexpr int kWarmUps = 3;
inline constexpr int kReplays = 11;
inline constexpr double kSteady = 0.05;  // a larger spread means that the machine was not at rest

// `stream` has nothing else to do and outlives the workload.
Measurement measure(const Workload& workload, simt::Stream stream);

// The same of numbers measured elsewhere.
Measurement summarise(std::vector<double> us, int launches);

using DeviceMemory = std::unique_ptr<void, cuda::FreeDevice>;

// Copies of something of this many bytes that fill twice the second-level cache of the devices of today.
int copies_beyond_cache(double bytes);

}  // namespace serval::gpu
