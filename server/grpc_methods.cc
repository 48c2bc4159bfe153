#include "server/grpc_methods.h"

#include <deque>
#include <mutex>
#include <optional>
#include <set>

#include "serval/v1/inference.pb.h"
#include "server/inference_service.h"

namespace serval {
namespace {

GrpcCode code_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kInvalidRequest:
      return GrpcCode::kInvalidArgument;
    case ErrorKind::kUnauthenticated:
      return GrpcCode::kUnauthenticated;
    case ErrorKind::kPermissionDenied:
      return GrpcCode::kPermissionDenied;
    case ErrorKind::kNotFound:
      return GrpcCode::kNotFound;
    case ErrorKind::kOverloaded:
      return GrpcCode::kResourceExhausted;
    case ErrorKind::kUnavailable:
      return GrpcCode::kUnavailable;
    case ErrorKind::kDeadlineExceeded:
      return GrpcCode::kDeadlineExceeded;
    case ErrorKind::kCancelled:
      return GrpcCode::kCancelled;
    case ErrorKind::kInternal:
      return GrpcCode::kInternal;
  }
  return GrpcCode::kInternal;
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

void name_token(const InferenceService& service, TokenId token, float logprob, int rank, v1::TokenLogprob& to) {
  to.set_token_id(token);
  to.set_token(service.token_text(token));
  to.set_logprob(logprob);
  to.set_rank(rank);
}

void to_proto(const PromptLogprobs& list, const InferenceService& service, v1::GenerateResponse& out) {
  for (size_t i = 0; i < list.entries.size(); ++i) {
    const PromptLogprobs::Entry& entry = list.entries[i];
    v1::TokenLogprob& to = *out.add_prompt_logprobs();
    name_token(service, entry.token, entry.logprob, entry.rank, to);
    int rank = 0;
    for (const TopLogprob& top : list.top_of(i)) name_token(service, top.token, top.logprob, ++rank, *to.add_top());
  }
}

void to_proto(const Delta& delta, const InferenceService& service, v1::GenerateResponse& out) {
  out.set_index(delta.index);
  out.set_text(delta.text);
  out.mutable_token_ids()->Assign(delta.token_ids.begin(), delta.token_ids.end());
  for (const TokenLogprob& entry : delta.logprobs) to_proto(entry, *out.add_logprobs());
  if (delta.prompt_logprobs) to_proto(*delta.prompt_logprobs, service, out);
  if (delta.finish == FinishReason::kLength) out.set_finish_reason(v1::FINISH_REASON_LENGTH);
  if (delta.finish == FinishReason::kStop || delta.finish == FinishReason::kStopString) {
    out.set_finish_reason(v1::FINISH_REASON_STOP);
  }
  if (const auto* text = std::get_if<std::string>(&delta.stop_reason)) out.set_stop_string(*text);
  if (const auto* token = std::get_if<TokenId>(&delta.stop_reason)) out.set_stop_token_id(*token);
}

// One Generate call, between the service's delivery thread and the call.
class GenerateStream final : public GenerationObserver, public std::enable_shared_from_this<GenerateStream> {
 public:
  GenerateStream(InferenceService& service, std::shared_ptr<GrpcCall> call,
                 std::function<void(const std::string&)> refused)
      : service_(service), call_(std::move(call)), refused_(std::move(refused)) {}

  void start(const v1::GenerateRequest& proto) {
    call_->set_on_cancel([self = shared_from_this()] { self->cancel(); });
    GenerateRequest request = from_proto(proto);
    request.key = call_->key();
    request.timeout = std::chrono::duration_cast<Time>(call_->timeout());
    if (call_->timeout().count() > 0) request.timeout = std::max(request.timeout, Time{1});
    Result<std::unique_ptr<Generation>> started = service_.generate(request, shared_from_this());
    if (!started) return on_error(started.error());
    std::unique_ptr<Generation> unwanted;
    {
      std::lock_guard lock(mutex_);
      if (proto.return_prompt_token_ids()) prompt_ids_ = (*started)->prompts().front().token_ids;
      (is_cancelled_ ? unwanted : generation_) = std::move(*started);
      is_started_ = true;
      for (v1::GenerateResponse& message : std::exchange(early_, {})) send(message);
      if (end_) finish();
    }
  }

  void on_delta(Delta&& delta) override {
    std::lock_guard lock(mutex_);
    has_answered_ = true;
    v1::GenerateResponse message;
    to_proto(delta, service_, message);
    take(std::move(message));
  }
  void on_done(const Usage& usage) override {
    std::lock_guard lock(mutex_);
    v1::GenerateResponse message;
    message.mutable_usage()->set_prompt_tokens(usage.prompt_tokens);
    message.mutable_usage()->set_completion_tokens(usage.completion_tokens);
    message.mutable_usage()->set_cached_tokens(usage.cached_tokens);
    take(std::move(message));
    end_ = GrpcStatus{};
    if (is_started_) finish();
  }
  void on_error(const Error& error) override {
    std::lock_guard lock(mutex_);
    if (end_) return;
    if (!has_answered_ && refused_) refused_(error.code);
    end_ = to_grpc_status(error);
    // Refused before it began, there is nothing to wait for.
    if (is_started_ || !has_answered_) finish();
  }

 private:
  // Nothing goes out before start() is through with the prompt, whose ids the first message of each choice has.
  void take(v1::GenerateResponse message) {
    if (is_started_) return send(message);
    early_.push_back(std::move(message));
  }
  void send(v1::GenerateResponse& message) {
    if (!prompt_ids_.empty() && !message.has_usage() && prompt_sent_.insert(message.index()).second)
      message.mutable_prompt_token_ids()->Assign(prompt_ids_.begin(), prompt_ids_.end());
    call_->send(message.SerializeAsString());
  }
  void finish() { call_->finish(*end_); }
  void cancel() {
    std::unique_ptr<Generation> generation;  // destroyed outside the lock: it waits for observer calls
    {
      std::lock_guard lock(mutex_);
      is_cancelled_ = true;
      generation = std::move(generation_);
    }
  }

  InferenceService& service_;
  const std::shared_ptr<GrpcCall> call_;
  const std::function<void(const std::string&)> refused_;
  std::mutex mutex_;
  std::unique_ptr<Generation> generation_;
  std::vector<TokenId> prompt_ids_;
  std::set<int> prompt_sent_;
  std::deque<v1::GenerateResponse> early_;
  std::optional<GrpcStatus> end_;
  bool is_started_ = false;
  bool has_answered_ = false;  // with more than an error
  bool is_cancelled_ = false;
};

}  // namespace

GrpcStatus to_grpc_status(const Error& error) {
  GrpcStatus status{code_of(error.kind), error.message, {{"serval-code", error.code}}};
  if (!error.param.empty()) status.metadata.emplace_back("serval-param", percent_encoded(error.param));
  if (error.retry_after_s > 0) {
    status.metadata.emplace_back("grpc-retry-pushback-ms", std::to_string(error.retry_after_s * 1000));
  }
  return status;
}

Error malformed_message() {
  return {ErrorKind::kInvalidRequest, "malformed_message",
          "The message is not of the method's type, or a text in it is not UTF-8.", ""};
}

std::vector<GrpcMethod> inference_methods(InferenceService& service, std::function<void(const std::string& code)> refused) {
  const std::string name = "/serval.v1.Inference/";
  const auto refuse = [refused](GrpcCall& call, const Error& error) {
    if (refused) refused(error.code);
    call.finish(to_grpc_status(error));
  };
  return {
      {.path = name + "Generate",
       .is_long = true,
       .run =
           [&service, refused, refuse](const std::shared_ptr<GrpcCall>& call, const std::string& message) {
             v1::GenerateRequest request;
             if (!request.ParseFromString(message)) return refuse(*call, malformed_message());
             std::make_shared<GenerateStream>(service, call, refused)->start(request);
           }},
      {.path = name + "ListModels",
       .run =
           [&service, refuse](const std::shared_ptr<GrpcCall>& call, const std::string& message) {
             v1::ListModelsRequest request;
             if (!request.ParseFromString(message)) return refuse(*call, malformed_message());
             v1::ListModelsResponse response;
             for (const ModelInfo& model : service.models()) {
               v1::ModelInfo* info = response.add_models();
               info->set_id(model.id);
               info->set_created(model.created);
               info->set_max_model_len(model.max_model_len);
             }
             call->send(response.SerializeAsString());
             call->finish({});
           }},
  };
}

}  // namespace serval
