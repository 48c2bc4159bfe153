#include "loadtest/gpu/measure.h"

#include <algorithm>
#include <cmath>

namespace serval::gpu {
namespace {

// Two events around work on a stream.
class Clock {
 public:
  explicit Clock(simt::Stream stream)
      : stream_(stream), begin_(cuda::create_timing_event()), end_(cuda::create_timing_event()) {}
  ~Clock() {
    cuda::destroy_event(begin_);
    cuda::destroy_event(end_);
  }
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;

  // Median and spread of kReplays runs of `run`, which makes `launches` launches.
  template <class Run>
  Measurement measure(int launches, const Run& run) const {
    std::vector<double> us;
    for (int i = -kWarmUps; i < kReplays; ++i) {
      cuda::record(begin_, stream_);
      run();
      cuda::record(end_, stream_);
      cuda::wait(end_);
      if (i >= 0) us.push_back(1e3 * cuda::elapsed_ms(begin_, end_));
    }
    return summarise(std::move(us), launches);
  }

 private:
  simt::Stream stream_;
  cuda::Event begin_, end_;
};

}  // namespace

int copies_beyond_cache(double bytes) {
  constexpr double kBytes = 120e6;
  constexpr int kMost = 200;
  return std::clamp(static_cast<int>(std::ceil(kBytes / bytes)), 1, kMost);
}

Measurement summarise(std::vector<double> us, int launches) {
  std::sort(us.begin(), us.end());
  const size_t last = us.size() - 1;
  const double median = us[us.size() / 2];
  return {.us = median / launches,
          .spread = median > 0 ? (us[last * 9 / 10] - us[last / 10]) / median : 0,
          .launches = launches,
          .replays = static_cast<int>(us.size())};
}

Measurement measure(const Workload& workload, simt::Stream stream) {
  const Clock clock(stream);
  const int launches = std::max(kLaunches, workload.num_copies);
  const auto launch_all = [&] {
    for (int i = 0; i < launches; ++i) workload.launch(stream, i % workload.num_copies);
  };
  launch_all();  // loads code and makes what is made once
  cuda::synchronize(stream);
  if (!workload.is_capturable) return clock.measure(launches, launch_all);
  cuda::begin_capture(stream);
  launch_all();
  const cuda::Graph graph = cuda::end_capture(stream);
  const Measurement measured = clock.measure(launches, [&] { cuda::launch_graph(graph, stream); });
  cuda::destroy_graph(graph);
  return measured;
}

}  // namespace serval::gpu
