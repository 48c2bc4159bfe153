#include "server/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>

#include "serval/v1/inference.grpc.pb.h"
#include "server/inference_service.h"

namespace serval {
namespace {

grpc::StatusCode status_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kInvalidRequest:
      return grpc::StatusCode::INVALID_ARGUMENT;
    case ErrorKind::kUnauthenticated:
      return grpc::StatusCode::UNAUTHENTICATED;
    case ErrorKind::kPermissionDenied:
      return grpc::StatusCode::PERMISSION_DENIED;
    case ErrorKind::kNotFound:
      return grpc::StatusCode::NOT_FOUND;
    case ErrorKind::kOverloaded:
      return grpc::StatusCode::RESOURCE_EXHAUSTED;
    case ErrorKind::kUnavailable:
      return grpc::StatusCode::UNAVAILABLE;
    case ErrorKind::kDeadlineExceeded:
      return grpc::StatusCode::DEADLINE_EXCEEDED;
    case ErrorKind::kCancelled:
      return grpc::StatusCode::CANCELLED;
    case ErrorKind::kInternal:
      return grpc::StatusCode::INTERNAL;
  }
  return grpc::StatusCode::INTERNAL;
}

// The sentence is the status message; code and param travel as trailing metadata, as does when to try again.
grpc::Status to_status(const Error& error, grpc::CallbackServerContext& context) {
  context.AddTrailingMetadata("serval-code", error.code);
  if (!error.param.empty()) context.AddTrailingMetadata("serval-param", error.param);
  if (error.retry_after_s > 0) {
    context.AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(error.retry_after_s * 1000));
  }
  return {status_code(error.kind), error.message};
}

template <class To, class From>
void copy_optional(bool has, const From& from, std::optional<To>& to) {
  if (has) to = static_cast<To>(from);
}

GenerateRequest from_proto(const v1::GenerateRequest& proto) {
  GenerateRequest r;
  r.kind = GenerateRequest::Kind::kCompletion;
  r.model = proto.model();
  if (proto.prompt_case() == v1::GenerateRequest::kText) {
    r.prompts.emplace_back(proto.text());
  } else if (proto.prompt_case() == v1::GenerateRequest::kTokenIds) {
    r.prompts.emplace_back(
        std::vector<TokenId>(proto.token_ids().ids().begin(), proto.token_ids().ids().end()));
  }
  copy_optional(proto.has_n(), proto.n(), r.n);
  copy_optional(proto.has_priority(), proto.priority(), r.priority);
  copy_optional(proto.has_cache_salt(), proto.cache_salt(), r.cache_salt);
  r.add_special_tokens = proto.add_special_tokens();
  const v1::SamplingParams& s = proto.sampling();
  copy_optional(s.has_max_tokens(), s.max_tokens(), r.max_tokens);
  copy_optional(s.has_min_tokens(), s.min_tokens(), r.min_tokens);
  copy_optional(s.has_temperature(), s.temperature(), r.temperature);
  copy_optional(s.has_top_k(), s.top_k(), r.top_k);
  copy_optional(s.has_top_p(), s.top_p(), r.top_p);
  copy_optional(s.has_min_p(), s.min_p(), r.min_p);
  copy_optional(s.has_presence_penalty(), s.presence_penalty(), r.presence_penalty);
  copy_optional(s.has_frequency_penalty(), s.frequency_penalty(), r.frequency_penalty);
  copy_optional(s.has_repetition_penalty(), s.repetition_penalty(), r.repetition_penalty);
  copy_optional(s.has_seed(), s.seed(), r.seed);
  copy_optional(s.has_logprobs(), s.logprobs(), r.logprobs);
  copy_optional(s.has_prompt_logprobs(), s.prompt_logprobs(), r.prompt_logprobs);
  r.stop.assign(s.stop().begin(), s.stop().end());
  r.stop_token_ids.assign(s.stop_token_ids().begin(), s.stop_token_ids().end());
  for (const auto& [token, bias] : s.logit_bias()) r.logit_bias.emplace_back(token, bias);
  r.ignore_eos = s.ignore_eos();
  r.include_stop_str_in_output = s.include_stop_str_in_output();
  r.skip_special_tokens = !s.has_skip_special_tokens() || s.skip_special_tokens();
  return r;
}

void to_proto(const TokenLogprob& from, v1::TokenLogprob& to) {
  to.set_token_id(from.token);
  to.set_token(from.bytes);
  to.set_logprob(from.logprob);
  to.set_rank(from.rank);
  for (const TokenLogprob& top : from.top) to_proto(top, *to.add_top());
}

void to_proto(const Delta& delta, v1::GenerateResponse& out) {
  out.set_index(delta.index);
  out.set_text(delta.text);
  out.mutable_token_ids()->Assign(delta.token_ids.begin(), delta.token_ids.end());
  for (const TokenLogprob& entry : delta.logprobs) to_proto(entry, *out.add_logprobs());
  for (const TokenLogprob& entry : delta.prompt_logprobs) to_proto(entry, *out.add_prompt_logprobs());
  if (delta.finish == FinishReason::kLength) out.set_finish_reason(v1::FINISH_REASON_LENGTH);
  if (delta.finish == FinishReason::kStop || delta.finish == FinishReason::kStopString) {
    out.set_finish_reason(v1::FINISH_REASON_STOP);
  }
  if (const auto* text = std::get_if<std::string>(&delta.stop_reason)) out.set_stop_string(*text);
  if (const auto* token = std::get_if<TokenId>(&delta.stop_reason)) out.set_stop_token_id(*token);
}

// One Generate call. The reactor belongs to gRPC and dies in OnDone; the stream is what the delivery thread
// holds on to.
class GenerateStream final : public GenerationObserver, public std::enable_shared_from_this<GenerateStream> {
 public:
  class Reactor final : public grpc::ServerWriteReactor<v1::GenerateResponse> {
   public:
    explicit Reactor(std::shared_ptr<GenerateStream> stream) : stream_(std::move(stream)) {}
    void OnWriteDone(bool ok) override { stream_->write_done(ok); }
    void OnCancel() override { stream_->cancelled(); }
    void OnDone() override {
      stream_->detach();
      delete this;
    }

   private:
    std::shared_ptr<GenerateStream> stream_;
  };

  GenerateStream(grpc::CallbackServerContext& context, const GrpcConfig& config)
      : context_(context), config_(config) {}

  Reactor* make_reactor() {
    reactor_ = new Reactor(shared_from_this());
    return reactor_;
  }

  void start(InferenceService& service, const v1::GenerateRequest& proto, Time timeout, int key) {
    GenerateRequest request = from_proto(proto);
    request.timeout = timeout;
    request.key = key;
    Result<std::unique_ptr<Generation>> started = service.generate(request, shared_from_this());
    if (!started) return on_error(started.error());
    std::unique_ptr<Generation> unwanted;
    {
      std::lock_guard lock(mutex_);
      if (proto.return_prompt_token_ids()) prompt_ids_ = (*started)->prompts().front().token_ids;
      (cancelled_ ? unwanted : generation_) = std::move(*started);
      started_ = true;
      pump();
    }
  }

  void on_delta(Delta&& delta) override {
    std::lock_guard lock(mutex_);
    if (closed_) return;
    answered_ = true;
    v1::GenerateResponse message;
    to_proto(delta, message);
    queued_bytes_ += message.ByteSizeLong();
    queue_.push_back(std::move(message));
    if (queued_bytes_ > config_.stream_buffer_bytes) {
      closed_ = true;
      context_.TryCancel();  // the generation is cancelled from OnCancel: not from inside an observer call
      return;
    }
    pump();
  }
  void on_done(const Usage& usage) override {
    std::lock_guard lock(mutex_);
    if (closed_) return;
    v1::GenerateResponse message;
    message.mutable_usage()->set_prompt_tokens(usage.prompt_tokens);
    message.mutable_usage()->set_completion_tokens(usage.completion_tokens);
    message.mutable_usage()->set_cached_tokens(usage.cached_tokens);
    queue_.push_back(std::move(message));
    end_ = grpc::Status::OK;
    pump();
  }
  void on_error(const Error& error) override {
    std::lock_guard lock(mutex_);
    if (closed_ || end_) return;
    started_ = true;
    if (!answered_ && config_.refused) config_.refused(error.code);
    end_ = to_status(error, context_);
    pump();
  }

 private:
  // Starts the next write, or finishes; called with mutex_ held. Nothing goes out before start() is through
  // with the prompt.
  void pump() {
    if (!reactor_ || writing_ || closed_ || !started_) return;
    if (!queue_.empty()) {
      current_ = std::move(queue_.front());
      queue_.pop_front();
      if (!prompt_ids_.empty() && !current_.has_usage() && prompt_sent_.insert(current_.index()).second) {
        current_.mutable_prompt_token_ids()->Assign(prompt_ids_.begin(), prompt_ids_.end());
      }
      writing_ = true;
      reactor_->StartWrite(&current_);
    } else if (end_) {
      closed_ = true;
      reactor_->Finish(*end_);
    }
  }
  void write_done(bool ok) {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (!ok) return;  // the call is gone: OnCancel follows
    queued_bytes_ -= std::min(queued_bytes_, current_.ByteSizeLong());
    pump();
  }
  void cancelled() {
    std::unique_ptr<Generation> generation;
    {
      std::lock_guard lock(mutex_);
      cancelled_ = true;
      generation = std::move(generation_);
    }
    if (generation) generation->cancel();
    std::lock_guard lock(mutex_);
    if (!reactor_ || finished_) return;
    const bool already = closed_ && end_;
    closed_ = true;
    finished_ = true;
    if (!already) reactor_->Finish(grpc::Status::CANCELLED);
  }
  void detach() {
    std::unique_ptr<Generation> generation;  // destroyed outside the lock: it cancels
    std::lock_guard lock(mutex_);
    reactor_ = nullptr;
    closed_ = true;
    generation = std::move(generation_);
  }

  grpc::CallbackServerContext& context_;
  const GrpcConfig& config_;
  std::mutex mutex_;
  Reactor* reactor_ = nullptr;
  std::unique_ptr<Generation> generation_;
  std::vector<TokenId> prompt_ids_;
  std::set<int> prompt_sent_;
  std::deque<v1::GenerateResponse> queue_;
  size_t queued_bytes_ = 0;
  v1::GenerateResponse current_;
  std::optional<grpc::Status> end_;
  bool started_ = false;
  bool answered_ = false;  // with more than an error
  bool writing_ = false;
  bool cancelled_ = false;
  bool closed_ = false;    // nothing more will be written
  bool finished_ = false;  // Finish was called from OnCancel
};

std::string_view bearer_of(const grpc::CallbackServerContext& context) {
  const auto it = context.client_metadata().find("authorization");
  if (it == context.client_metadata().end()) return {};
  std::string_view value(it->second.data(), it->second.size());
  constexpr std::string_view kPrefix = "Bearer ";
  return value.starts_with(kPrefix) ? value.substr(kPrefix.size()) : std::string_view();
}

// Time left of a call's deadline; 0 when it has none.
Time time_left(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  const auto left = deadline - std::chrono::system_clock::now();
  if (left > std::chrono::hours(24 * 365)) return Time{0};
  return std::max<Time>(std::chrono::duration_cast<Time>(left), Time{1});
}

class Handlers final : public v1::Inference::CallbackService {
 public:
  Handlers(const GrpcConfig& config, InferenceService& service) : config_(config), service_(service) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override {
    auto stream = std::make_shared<GenerateStream>(*context, config_);
    auto* reactor = stream->make_reactor();
    int key = 0;
    if (const auto refusal = refuse(*context, &key)) {
      stream->on_error(*refusal);
    } else {
      stream->start(service_, *request, time_left(*context), key);
    }
    return reactor;
  }

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context, const v1::ListModelsRequest*,
                                       v1::ListModelsResponse* response) override {
    auto* reactor = context->DefaultReactor();
    int key = 0;
    if (const auto refusal = refuse(*context, &key)) {
      if (config_.refused) config_.refused(refusal->code);
      reactor->Finish(to_status(*refusal, *context));
      return reactor;
    }
    for (const ModelInfo& model : service_.models()) {
      v1::ModelInfo* info = response->add_models();
      info->set_id(model.id);
      info->set_created(model.created);
      info->set_max_model_len(model.max_model_len);
    }
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  // Says in `key` who is not refused.
  std::optional<Error> refuse(const grpc::CallbackServerContext& context, int* key) const {
    if (!config_.authorize || (*key = config_.authorize(bearer_of(context))) > 0) return std::nullopt;
    return Error{ErrorKind::kUnauthenticated, "invalid_api_key",
                 "A valid key is needed: metadata 'authorization: Bearer KEY'.", ""};
  }

  const GrpcConfig& config_;
  InferenceService& service_;
};

}  // namespace

struct GrpcServer::Impl {
  Impl(const GrpcConfig& grpc_config, InferenceService& service)
      : config(grpc_config), handlers(config, service) {}
  const GrpcConfig config;
  Handlers handlers;
  std::unique_ptr<grpc::Server> server;
  int port = 0;
};

GrpcServer::GrpcServer(const GrpcConfig& config, InferenceService& service)
    : impl_(std::make_unique<Impl>(config, service)) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  const std::string address = config.host + ":" + std::to_string(config.port);
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &impl_->port);
  builder.SetMaxReceiveMessageSize(config.max_message_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, config.max_concurrent_streams);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 8 << 10);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT,
                             0);  // two daemons on one port is a mistake, not a feature
  builder.RegisterService(&impl_->handlers);
  impl_->server = builder.BuildAndStart();
  if (!impl_->server || impl_->port == 0) throw std::runtime_error("cannot listen for gRPC on " + address);
  set_serving(false);
}

GrpcServer::~GrpcServer() {
  shutdown(0);
}

int GrpcServer::port() const {
  return impl_->port;
}

void GrpcServer::set_serving(bool serving) {
  if (auto* health = impl_->server->GetHealthCheckService()) health->SetServingStatus(serving);
}

void GrpcServer::shutdown(int timeout_ms) {
  impl_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(timeout_ms));
}

}  // namespace serval
