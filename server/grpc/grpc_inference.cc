#include <algorithm>
#include <set>
#include <variant>

#include "serval/v1/inference.pb.h"
#include "server/grpc/grpc_unary.h"
#include "server/service/inference_service.h"

namespace serval {
namespace {

template <class To, class From>
void copy_optional(bool has, const From& from, std::optional<To>& to) {
  if (has) to = static_cast<To>(from);
}

TemplateValue from_proto(const v1::TemplateValue& proto) {
  switch (proto.value_case()) {
    case v1::TemplateValue::kFlag:
      return proto.flag();
    case v1::TemplateValue::kInteger:
      return proto.integer();
    case v1::TemplateValue::kNumber:
      return proto.number();
    case v1::TemplateValue::kText:
      return proto.text();
    case v1::TemplateValue::VALUE_NOT_SET:
      break;
  }
  return nullptr;
}

template <class Map>
TemplateFields fields_of(const Map& map) {
  TemplateFields fields;
  for (const auto& [name, value] : map) fields.emplace_back(name, from_proto(value));
  return fields;
}

// Takes the texts out of `proto`.
Chat from_proto(v1::Chat& proto) {
  Chat chat;
  for (v1::ChatMessage& message : *proto.mutable_messages()) {
    ChatMessage& out = chat.messages.emplace_back();
    out.role = message.role();
    if (message.has_content()) out.content = std::move(*message.mutable_content());
    for (v1::ToolCall& call : *message.mutable_tool_calls())
      out.tool_calls.push_back({call.id(), call.name(), std::move(*call.mutable_arguments())});
    out.fields = fields_of(message.fields());
  }
  chat.template_variables = fields_of(proto.template_variables());
  chat.add_generation_prompt = !proto.has_add_generation_prompt() || proto.add_generation_prompt();
  return chat;
}

// Takes the texts out of `proto`. None where nothing is asked for.
std::optional<OutputFormat> from_proto(v1::OutputFormat& proto) {
  using Kind = OutputFormat::Kind;
  OutputFormat format{.param = "output_format"};
  const auto of = [&](Kind kind, std::string* text) {
    format.kind = kind;
    format.text = std::move(*text);
    return format;
  };
  switch (proto.format_case()) {
    case v1::OutputFormat::kJsonObject:
      return proto.json_object() ? std::optional(format) : std::nullopt;
    case v1::OutputFormat::kJsonSchema:
      return of(Kind::kJsonSchema, proto.mutable_json_schema());
    case v1::OutputFormat::kRegex:
      return of(Kind::kRegex, proto.mutable_regex());
    case v1::OutputFormat::kGrammar:
      return of(Kind::kGrammar, proto.mutable_grammar());
    case v1::OutputFormat::kChoice:
      format.kind = Kind::kChoice;
      format.choices.assign(proto.choice().texts().begin(), proto.choice().texts().end());
      return format;
    case v1::OutputFormat::FORMAT_NOT_SET:
      break;
  }
  return std::nullopt;
}

// Takes the texts out of `proto`.
GenerateRequest from_proto(v1::EmbedRequest& proto) {
  GenerateRequest r;
  r.model = proto.model();
  r.prompt_param = "inputs";
  for (v1::EmbedRequest::Input& input : *proto.mutable_inputs()) {
    if (input.has_token_ids()) {
      r.prompts.emplace_back(std::vector<TokenId>(input.token_ids().ids().begin(), input.token_ids().ids().end()));
    } else {
      r.prompts.emplace_back(std::move(*input.mutable_text()));
    }
  }
  PoolRequest& pool = r.pool.emplace();
  copy_optional(proto.has_dimensions(), proto.dimensions(), pool.dimensions);
  copy_optional(proto.has_normalize(), proto.normalize(), pool.finishes);
  pool.bytes_per_number = sizeof(float);
  copy_optional(proto.has_truncate_prompt_tokens(), proto.truncate_prompt_tokens(), r.truncate_prompt_tokens);
  r.keeps_end = false;
  r.add_special_tokens = !proto.leave_out_special_tokens();
  r.keep_prompt_ids = false;
  return r;
}

// Takes the prompt out of `proto`.
GenerateRequest from_proto(v1::GenerateRequest& proto) {
  GenerateRequest r;
  r.model = proto.model();
  if (proto.prompt_case() == v1::GenerateRequest::kText) {
    r.prompts.emplace_back(std::move(*proto.mutable_text()));
  } else if (proto.prompt_case() == v1::GenerateRequest::kTokenIds) {
    r.prompts.emplace_back(
        std::vector<TokenId>(proto.token_ids().ids().begin(), proto.token_ids().ids().end()));
  } else if (proto.prompt_case() == v1::GenerateRequest::kChat) {
    r.chat = from_proto(*proto.mutable_chat());
  }
  r.keep_prompt_ids = proto.return_prompt_token_ids();
  copy_optional(proto.has_n(), proto.n(), r.n);
  copy_optional(proto.has_priority(), proto.priority(), r.priority);
  copy_optional(proto.has_cache_salt(), proto.cache_salt(), r.cache_salt);
  r.add_special_tokens = proto.add_special_tokens();
  r.format = from_proto(*proto.mutable_output_format());
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
  r.allowed_token_ids.assign(s.allowed_token_ids().begin(), s.allowed_token_ids().end());
  r.bad_words.assign(s.bad_words().begin(), s.bad_words().end());
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

// What comes of one generation, on its way to the call. Refers to it weakly: the call owns the generation, which owns this.
class Answer final : public GenerationObserver {
 public:
  Answer(const InferenceService& service, const std::shared_ptr<GrpcCall>& call) : service_(service), call_(call) {}

  // Nothing goes out before: the first message of a choice carries the prompt, if it was asked for.
  void begin(std::vector<TokenId> prompt) {
    std::lock_guard lock(mutex_);
    prompt_ = std::move(prompt);
    has_begun_ = true;
    for (v1::GenerateResponse& message : early_) send(message);
    early_ = {};
    if (end_) finish();
  }

  void on_delta(Delta&& delta) override {
    v1::GenerateResponse message;
    to_proto(delta, service_, message);
    put(std::move(message));
  }
  void on_done(const Usage& usage) override {
    v1::GenerateResponse message;
    message.mutable_usage()->set_prompt_tokens(usage.prompt_tokens);
    message.mutable_usage()->set_completion_tokens(usage.completion_tokens);
    message.mutable_usage()->set_cached_tokens(usage.cached_tokens);
    put(std::move(message));
    end({});
  }
  void on_error(const Error& error) override { end(to_status(error)); }

 private:
  void put(v1::GenerateResponse message) {
    std::lock_guard lock(mutex_);
    has_begun_ ? send(message) : early_.push_back(std::move(message));
  }
  void end(GrpcStatus status) {
    std::lock_guard lock(mutex_);
    end_ = std::move(status);
    if (has_begun_) finish();
  }
  void send(v1::GenerateResponse& message) {
    if (!prompt_.empty() && !message.has_usage() && prompt_sent_.insert(message.index()).second)
      message.mutable_prompt_token_ids()->Assign(prompt_.begin(), prompt_.end());
    if (const std::shared_ptr<GrpcCall> call = call_.lock()) call->send(message.SerializeAsString());
  }
  void finish() {
    if (const std::shared_ptr<GrpcCall> call = call_.lock()) call->finish(*end_);
  }

  const InferenceService& service_;
  const std::weak_ptr<GrpcCall> call_;
  std::mutex mutex_;
  bool has_begun_ = false;
  std::vector<TokenId> prompt_;
  std::set<int> prompt_sent_;
  std::vector<v1::GenerateResponse> early_;
  std::optional<GrpcStatus> end_;
};

// With one message.
template <class Proto>
void answer(GrpcCall& call, const Proto& response) {
  call.send(response.SerializeAsString());
  call.finish({});
}

// Vectors, gathered until all are there.
class Vectors final : public GenerationObserver {
 public:
  explicit Vectors(const std::shared_ptr<GrpcCall>& call, int count) : call_(call) {
    for (int i = 0; i < count; ++i) response_.add_vectors();
  }

  void on_delta(Delta&& delta) override {
    if (delta.numbers.empty()) return;
    response_.mutable_vectors(delta.index)->mutable_values()->Assign(delta.numbers.begin(), delta.numbers.end());
  }
  void on_done(const Usage& usage) override {
    response_.mutable_usage()->set_prompt_tokens(usage.prompt_tokens);
    response_.mutable_usage()->set_cached_tokens(usage.cached_tokens);
    if (const std::shared_ptr<GrpcCall> call = call_.lock()) answer(*call, response_);
  }
  void on_error(const Error& error) override {
    if (const std::shared_ptr<GrpcCall> call = call_.lock()) call->finish(to_status(error));
  }

 private:
  const std::weak_ptr<GrpcCall> call_;
  v1::EmbedResponse response_;
};

// Null where the request was refused, and the call with it. Gives the message's memory back as soon as it is read.
std::shared_ptr<Generation> start(InferenceService& service, const std::shared_ptr<GrpcCall>& call, GenerateRequest request,
                                  const std::shared_ptr<GenerationObserver>& observer, std::shared_ptr<GrpcMessage>& message) {
  request.client_id = call->request_id();
  request.key = call->key();
  request.timeout = std::chrono::duration_cast<Time>(call->time_left());
  Result<std::unique_ptr<Generation>> started = service.generate(std::move(request), observer);
  message.reset();
  if (!started) {
    call->finish(to_status(started.error()));
    return nullptr;
  }
  const std::shared_ptr<Generation> generation = std::move(*started);
  call->set_on_cancel([generation] { generation->cancel(); });
  return generation;
}

// What follows runs on a text thread.

void embed(InferenceService& service, const std::shared_ptr<GrpcCall>& call, std::shared_ptr<GrpcMessage> message) {
  if (call->is_gone()) return;
  v1::EmbedRequest proto;
  if (!read_message(*call, *message, proto)) return;
  const auto vectors = std::make_shared<Vectors>(call, proto.inputs_size());
  start(service, call, from_proto(proto), vectors, message);
}

void generate(InferenceService& service, const std::shared_ptr<GrpcCall>& call, std::shared_ptr<GrpcMessage> message) {
  if (call->is_gone()) return;
  v1::GenerateRequest proto;
  if (!read_message(*call, *message, proto)) return;
  const auto answer = std::make_shared<Answer>(service, call);
  const std::shared_ptr<Generation> generation = start(service, call, from_proto(proto), answer, message);
  if (!generation) return;
  answer->begin(proto.return_prompt_token_ids() ? generation->prompts().front().token_ids : std::vector<TokenId>());
}

void tokenize(InferenceService& service, const std::shared_ptr<GrpcCall>& call, std::shared_ptr<GrpcMessage> message) {
  v1::TokenizeRequest proto;
  if (!read_message(*call, *message, proto)) return;
  GenerateRequest request;
  request.model = proto.model();
  request.add_special_tokens = proto.add_special_tokens();
  if (proto.has_chat()) {
    request.chat = from_proto(*proto.mutable_chat());
  } else {
    request.prompts.emplace_back(std::move(*proto.mutable_text()));
  }
  const Result<PromptInfo> prompt = service.tokenize(std::move(request));
  message.reset();
  if (!prompt) return call->finish(to_status(prompt.error()));
  v1::TokenizeResponse response;
  response.mutable_token_ids()->Assign(prompt->token_ids.begin(), prompt->token_ids.end());
  answer(*call, response);
}

void detokenize(InferenceService& service, const std::shared_ptr<GrpcCall>& call, std::shared_ptr<GrpcMessage> message) {
  v1::DetokenizeRequest proto;
  if (!read_message(*call, *message, proto)) return;
  if (!find_model(service, proto.model())) return call->finish(to_status(model_not_found(proto.model())));
  const Result<std::string> text = service.detokenize({proto.token_ids().begin(), proto.token_ids().end()});
  message.reset();
  if (!text) return call->finish(to_status(text.error()));
  v1::DetokenizeResponse response;
  response.set_text(*text);
  answer(*call, response);
}

void list_models(const InferenceService& service, GrpcCall& call, const GrpcMessage& message) {
  v1::ListModelsRequest request;
  if (!read_message(call, message, request)) return;
  v1::ListModelsResponse response;
  for (const ModelInfo& model : service.models()) {
    v1::ModelInfo* info = response.add_models();
    info->set_id(model.id);
    info->set_created(model.created);
    info->set_max_model_len(model.max_model_len);
  }
  answer(call, response);
}

}  // namespace

GrpcMethods inference_methods(InferenceService& service, SubmitText submit) {
  using Call = std::shared_ptr<GrpcCall>;
  using Message = std::shared_ptr<GrpcMessage>;
  using Handler = void (*)(InferenceService&, const Call&, Message);
  const auto on_text_thread = [&service, submit = std::move(submit)](Handler handler) {
    return [&service, submit, handler](const Call& call) {
      return one_message(call, [&service, submit, handler](const Call& open, Message message) {
        const size_t bytes = message->bytes.size();
        // A task must not throw: out of memory is this call's misfortune.
        auto task = [&service, handler, open, message = std::move(message)]() mutable {
          try {
            handler(service, open, std::move(message));
          } catch (const std::exception&) {
            open->finish(to_status({ErrorKind::kInternal, "internal_error", "The server failed to handle this request.", ""}));
          }
        };
        if (!submit) {
          task();
        } else if (!submit(bytes, task)) {
          open->finish(to_status({ErrorKind::kOverloaded, "server_overloaded", "Too many long texts wait to be read; try again shortly.", "", 1}));
        }
      });
    };
  };
  const auto on_list = [&service](const Call& call) {
    return one_message(call, [&service](const Call& open, const Message& message) { list_models(service, *open, *message); });
  };
  return {{"serval.v1.Inference/Generate", {.begin = on_text_thread(generate)}},
          {"serval.v1.Inference/Embed", {.begin = on_text_thread(embed)}},
          {"serval.v1.Inference/Tokenize", {.begin = on_text_thread(tokenize)}},
          {"serval.v1.Inference/Detokenize", {.begin = on_text_thread(detokenize)}},
          {"serval.v1.Inference/ListModels", {.begin = on_list}}};
}

}  // namespace serval
