// How requests get to a server and tokens back: the driver decides when, a transport does it. All on the
// driver's one thread.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "loadtest/load/driver_options.h"
#include "loadtest/load/measure.h"
#include "loadtest/load/workload.h"

namespace serval::load {

using Clock = std::chrono::steady_clock;

// Of a failure's message, as Outcome keeps it: shown(text, kMaxMessageBytes).
inline constexpr size_t kMaxMessageBytes = 300;

// What driver and transport share of a run.
struct RunState {
  const DriverOptions& options;
  const std::vector<PlannedRequest>& workload;
  std::string model;
  Clock::time_point start;
  std::vector<Outcome> outcomes;      // in the workload's order
  std::vector<ServerSample> samples;  // of the server, when the transport can ask for them
  std::function<void(size_t index)> done;

  double now() const { return std::chrono::duration<double>(Clock::now() - start).count(); }
};

inline Clock::duration to_duration(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

class Transport {
 public:
  virtual ~Transport() = default;
  // Sends a request. Fills its outcome and calls done once it has ended, however it does; never from within
  // this call.
  virtual void send(size_t index) = 0;
  // Ends what is open with the error "run ended".
  virtual void cut_off() = 0;
  // Lets the network act, until that time at most; may return early.
  virtual void wait(Clock::time_point until) = 0;
};

// Each throws std::runtime_error with a sentence when the server's name has no address.
std::unique_ptr<Transport> make_http_transport(RunState& run);
std::unique_ptr<Transport> make_grpc_transport(RunState& run);

// The first model the server lists; "" when it cannot be asked or lists none.
std::string first_http_model(const DriverOptions& options);
std::string first_grpc_model(const DriverOptions& options);

}  // namespace serval::load
