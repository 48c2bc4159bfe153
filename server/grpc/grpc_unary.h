// For methods whose request is one message: internal to the methods' files.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "server/grpc/grpc_methods.h"

namespace serval {

inline GrpcStatus malformed_message(std::string sentence) {
  return to_status(invalid("", "malformed_message", std::move(sentence)));
}

// `run` is called once the request is whole, on the connection's thread.
inline GrpcCall::OnMessage one_message(const std::shared_ptr<GrpcCall>& call,
                                       std::function<void(const std::shared_ptr<GrpcCall>&, std::shared_ptr<GrpcMessage>)> run) {
  return [weak = std::weak_ptr(call), run = std::move(run), only = std::shared_ptr<GrpcMessage>()](std::shared_ptr<GrpcMessage> message) mutable {
    const std::shared_ptr<GrpcCall> open = weak.lock();
    if (!open) return;
    if (message) {
      if (std::exchange(only, std::move(message))) open->refuse(malformed_message("The request has more than one message."));
    } else if (only) {
      run(open, std::move(only));
    } else {
      open->refuse(malformed_message("The request has no message."));
    }
  };
}

// False: the bytes are no such message, and the call is refused.
template <class Proto>
bool read_message(GrpcCall& call, const GrpcMessage& message, Proto& to) {
  if (to.ParseFromString(message.bytes)) return true;
  call.finish(malformed_message("The message is not a " + std::string(Proto::descriptor()->full_name()) +
                                ": its bytes, or the UTF-8 of a text in it, are malformed."));
  return false;
}

}  // namespace serval
