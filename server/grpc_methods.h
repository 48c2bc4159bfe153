// The methods of serval.v1.Inference: proto messages to the same InferenceService that HTTP calls, and back. Cancellation and
// deadlines of a call reach the scheduler.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/status.h"
#include "server/grpc_call.h"

namespace serval {

class InferenceService;

struct GrpcMethod {
  std::string path;        // /PACKAGE.SERVICE/METHOD
  bool needs_key = true;
  bool is_long = false;    // thinks (templates, tokenising): not on the connection's thread
  bool takes_many = false; // messages, each run by itself
  std::function<void(const std::shared_ptr<GrpcCall>&, const std::string& message)> run;
};

// The sentence is the status message; code and param travel as trailing metadata, as does when to try again.
GrpcStatus to_grpc_status(const Error& error);
// What answers bytes that are no message of the method's type.
Error malformed_message();

// `refused` is told the code of every call that an error answers. The service outlives the methods.
std::vector<GrpcMethod> inference_methods(InferenceService& service, std::function<void(const std::string& code)> refused);

}  // namespace serval
