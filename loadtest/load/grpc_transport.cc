// Serval's own gRPC endpoint as a target (proto/serval/v1/inference.proto). Every call's events come out of
// one completion queue, on the driver's thread.

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <thread>
#include <unordered_set>

#include "kernels/base/shown.h"
#include "loadtest/load/transport.h"
#include "serval/v1/inference.grpc.pb.h"

namespace serval::load {
namespace {

// Servers bound the streams of a connection (ours: 1024), so that many are spread over several.
constexpr int kStreamsPerConnection = 500;

std::string address(const Target& target) {
  return target.host + ":" + target.port;
}

void authorise(grpc::ClientContext& context, const std::string& api_key) {
  if (!api_key.empty()) context.AddMetadata("authorization", "Bearer " + api_key);
}

std::unique_ptr<v1::Inference::Stub> connect(const Target& target) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
  return v1::Inference::NewStub(
      grpc::CreateCustomChannel(address(target), grpc::InsecureChannelCredentials(), arguments));
}

// The kind a failure is counted under.
std::string error_kind(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::OK:
      return "";
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return "timeout";
    case grpc::StatusCode::UNAVAILABLE:
      return "status UNAVAILABLE";
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return "status RESOURCE_EXHAUSTED";
    case grpc::StatusCode::INVALID_ARGUMENT:
      return "status INVALID_ARGUMENT";
    case grpc::StatusCode::UNAUTHENTICATED:
      return "status UNAUTHENTICATED";
    default:
      return "status " + std::to_string(code);
  }
}

struct Connection {
  std::unique_ptr<v1::Inference::Stub> stub;
  int open = 0;
};

// One request; its address is the tag of the one operation it always has under way.
struct Call {
  enum class Doing : uint8_t { kStarting, kReading, kFinishing };
  size_t index;
  Connection* connection;
  Doing doing = Doing::kStarting;
  grpc::ClientContext context;
  grpc::Status status;
  v1::GenerateResponse message;
  std::unique_ptr<grpc::ClientAsyncReader<v1::GenerateResponse>> reader;
};

class GrpcTransport final : public Transport {
 public:
  explicit GrpcTransport(RunState& run) : run_(run) {}
  ~GrpcTransport() override {
    cut_off();
    queue_.Shutdown();
    void* tag;
    bool ok;
    while (queue_.Next(&tag, &ok)) delete static_cast<Call*>(tag);
  }

  void send(size_t index) override {
    Call* const call = new Call;
    open_.insert(call);
    call->index = index;
    call->connection = &free_connection();
    ++call->connection->open;
    call->context.set_deadline(std::chrono::system_clock::now() +
                               to_duration(run_.options.request_timeout_s));
    authorise(call->context, run_.options.api_key);
    call->reader = call->connection->stub->PrepareAsyncGenerate(&call->context, message(index), &queue_);
    run_.outcomes[index].sent_s = run_.now();
    call->reader->StartCall(call);
  }

  void cut_off() override {
    for (Call* const call : open_) {
      if (run_.outcomes[call->index].error.empty()) run_.outcomes[call->index].error = "run ended";
      call->context.TryCancel();
    }
  }

  // The queue waits in whole milliseconds: the last of them pass in naps.
  void wait(Clock::time_point until) override {
    constexpr auto kNap = std::chrono::microseconds(50);
    void* tag;
    bool ok;
    const auto floor = until - std::chrono::milliseconds(2) - Clock::now();
    const auto deadline = std::chrono::system_clock::now() + std::max(Clock::duration::zero(), floor);
    if (queue_.AsyncNext(&tag, &ok, deadline) == grpc::CompletionQueue::GOT_EVENT)
      go_on(static_cast<Call*>(tag), ok);
    else
      std::this_thread::sleep_for(std::min<Clock::duration>(kNap, until - Clock::now()));
  }

 private:
  Connection& free_connection() {
    for (const auto& connection : connections_) {
      if (connection->open < kStreamsPerConnection) return *connection;
    }
    connections_.push_back(std::make_unique<Connection>(Connection{connect(run_.options.target)}));
    return *connections_.back();
  }

  v1::GenerateRequest message(size_t index) const {
    const PlannedRequest& planned = run_.workload[index];
    v1::GenerateRequest request;
    request.set_model(run_.model);
    if (planned.token_ids.empty()) {
      request.set_text(planned.prompt);
    } else {
      request.mutable_token_ids()->mutable_ids()->Assign(planned.token_ids.begin(), planned.token_ids.end());
    }
    request.mutable_sampling()->set_max_tokens(planned.output_tokens);
    request.mutable_sampling()->set_temperature(run_.options.temperature);
    request.mutable_sampling()->set_ignore_eos(run_.options.ignore_eos);
    return request;
  }

  // The operation under way is over: on with the next.
  void go_on(Call* call, bool ok) {
    switch (call->doing) {
      case Call::Doing::kReading:
        if (ok) take(*call);
        [[fallthrough]];
      case Call::Doing::kStarting:
        if (ok) {
          call->doing = Call::Doing::kReading;
          return call->reader->Read(&call->message, call);
        }
        call->doing = Call::Doing::kFinishing;
        return call->reader->Finish(&call->status, call);
      case Call::Doing::kFinishing:
        return end(call);
    }
  }

  void take(Call& call) {
    Outcome& outcome = run_.outcomes[call.index];
    if (!call.message.text().empty()) {
      outcome.token_s.push_back(run_.now());
      if (run_.options.keep_text) outcome.text += call.message.text();
    }
    if (!call.message.has_usage()) return;
    outcome.prompt_tokens = static_cast<int>(call.message.usage().prompt_tokens());
    outcome.output_tokens = static_cast<int>(call.message.usage().completion_tokens());
    outcome.cached_tokens = static_cast<int>(call.message.usage().cached_tokens());
  }

  void end(Call* call) {
    const size_t index = call->index;
    Outcome& outcome = run_.outcomes[index];
    outcome.end_s = run_.now();
    if (outcome.error.empty()) {
      outcome.error = error_kind(call->status.error_code());
      outcome.message = shown(call->status.error_message(), kMaxMessageBytes);
    }
    --call->connection->open;
    open_.erase(call);
    delete call;
    run_.done(index);
  }

  RunState& run_;
  std::vector<std::unique_ptr<Connection>> connections_;
  grpc::CompletionQueue queue_;
  std::unordered_set<Call*> open_;
};

}  // namespace

std::unique_ptr<Transport> make_grpc_transport(RunState& run) {
  return std::make_unique<GrpcTransport>(run);
}

std::string first_grpc_model(const DriverOptions& options) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  authorise(context, options.api_key);
  v1::ListModelsResponse models;
  const grpc::Status status = connect(options.target)->ListModels(&context, {}, &models);
  return status.ok() && models.models_size() > 0 ? models.models(0).id() : "";
}

}  // namespace serval::load
