#include "server/openai/generation_run.h"

#include <chrono>
#include <mutex>
#include <utility>
#include <variant>
#include <vector>

#include "server/http/error_response.h"
#include "server/http/pieces.h"
#include "server/openai/openai_response.h"
#include "server/unique_id.h"

namespace serval {
namespace {

using Happening = std::variant<Delta, Usage, Error>;  // Usage: it is done

class GenerationRun;

// Takes what the delivery thread says and wakes the connection's strand, once for however much has gathered.
// Owned by the generation; refers to its run weakly, so that nothing here keeps the other alive:
// connection -> exchange -> run -> generation -> mailbox - - > run.
class Mailbox final : public GenerationObserver {
 public:
  explicit Mailbox(const std::shared_ptr<HttpExchange>& exchange) : exchange_(exchange) {}
  void set_run(const std::shared_ptr<GenerationRun>& run) { run_ = run; }  // before any call

  void on_delta(Delta&& delta) override { put(std::move(delta)); }
  void on_done(const Usage& usage) override { put(usage); }
  void on_error(const Error& error) override { put(error); }

  std::vector<Happening> take() {
    std::lock_guard lock(mutex_);
    woken_ = false;
    return std::exchange(happenings_, {});
  }

 private:
  void put(Happening happening);

  const std::weak_ptr<HttpExchange> exchange_;
  std::weak_ptr<GenerationRun> run_;
  std::mutex mutex_;
  std::vector<Happening> happenings_;
  bool woken_ = false;  // a wake-up is on its way
};

class GenerationRun : public std::enable_shared_from_this<GenerationRun> {
 public:
  GenerationRun(AnswerContext context, bool stream, std::shared_ptr<Mailbox> mailbox)
      : context_(std::move(context)), stream_(stream), mailbox_(std::move(mailbox)) {}

  // Text pool, before the run is attached.
  void set_generation(std::unique_ptr<Generation> generation) { generation_ = std::move(generation); }

  // The exchange owns the run from here on; what came before is handled now.
  void attach(const std::shared_ptr<HttpExchange>& exchange) {
    context_.prompts = &generation_->prompts();
    pieces_.resize(static_cast<size_t>(generation_->num_choices()));
    for (size_t i = 0; i < pieces_.size(); ++i) {
      pieces_[i].delta.index = static_cast<int>(i);
      if (context_.echo) pieces_[i].echoed = context_.prompt_of(static_cast<int>(i)).text;
    }
    exchange->own(shared_from_this(), [this] { return generation_->record(); });
    attached_ = true;
    drain(*exchange);
  }

  void drain(HttpExchange& exchange) {
    if (!attached_ || ended_) return;
    std::string out;
    for (Happening& happening : mailbox_->take()) {
      if (ended_) break;
      if (Delta* delta = std::get_if<Delta>(&happening)) {
        take_delta(exchange, std::move(*delta), out);
      } else if (const Usage* usage = std::get_if<Usage>(&happening)) {
        take_end(exchange, *usage, out);
      } else {
        take_error(exchange, std::get<Error>(happening), out);
      }
    }
    exchange.write(out);
    if (ended_ && exchange.stream_started()) exchange.end_stream(/*close_connection=*/failed_);
  }

 private:
  void take_delta(HttpExchange& exchange, Delta&& delta, std::string& out) {
    const FinishReason finish = delta.finish;
    if (finish != FinishReason::kNone && finish != FinishReason::kStop &&
        finish != FinishReason::kStopString && finish != FinishReason::kLength) {
      take_error(exchange,
                 {ErrorKind::kInternal, "generation_failed", "The generation ended without an answer.", ""},
                 out);
      return;
    }
    ChoicePiece& piece = pieces_[static_cast<size_t>(delta.index)];
    if (!stream_) {
      piece.delta = std::move(delta);
      return;
    }
    exchange.start_stream();
    introduce_choices(delta.index, out);
    piece.delta = std::move(delta);
    piece.num_tokens += static_cast<int64_t>(piece.delta.token_ids.size());
    const int64_t advance = context_.logprobs ? text_advance(context_, piece) : 0;
    if (piece.delta.prompt_logprobs || !piece.echoed.empty()) {
      write_in_pieces(exchange, piece, out);
    } else {
      append_chunk(out, context_, piece);
    }
    piece.text_offset += advance;
    piece.first = false;
    piece.echoed = {};
  }

  // What a first piece says of the prompt can be long.
  void write_in_pieces(HttpExchange& exchange, const ChoicePiece& piece, std::string& out) {
    exchange.write(out);
    out.clear();
    const auto written = std::make_shared<const std::pair<std::shared_ptr<GenerationRun>, ChoicePiece>>(
        shared_from_this(), piece);
    exchange.write(std::make_shared<PiecesBody>(
        written, 0, [&](std::string& chunk) { return first_chunk(chunk, context_, written->second); }));
  }

  // Clients append choices in the order their indexes first appear: nobody is introduced before those below
  // it.
  void introduce_choices(int index, std::string& out) {
    for (; introduced_ <= index; ++introduced_) {
      if (context_.chat) {
        append_role_chunk(out, context_, introduced_);
      } else if (introduced_ < index) {
        ChoicePiece empty;
        empty.delta.index = introduced_;
        empty.first = false;
        append_chunk(out, context_, empty);
      }
    }
  }

  void take_end(HttpExchange& exchange, const Usage& usage, std::string& out) {
    ended_ = true;
    if (!stream_) {
      HttpResponse response;
      response.source = std::make_shared<PiecesBody>(shared_from_this(), 0, [&](std::string& body) {
        return whole_answer(body, context_, pieces_, usage);
      });
      exchange.respond(std::move(response));
      return;
    }
    exchange.start_stream();
    if (context_.include_usage) append_usage_chunk(out, context_, usage);
    append_event(out, "[DONE]");
  }

  // Before anything was sent an error is a status; after that it is an event, and the connection ends with
  // the stream.
  void take_error(HttpExchange& exchange, const Error& error, std::string& out) {
    ended_ = failed_ = true;
    generation_->cancel();
    if (!exchange.stream_started()) {
      exchange.respond(error_response(error));
      return;
    }
    append_event(out, error_body(error));
    append_event(out, "[DONE]");
  }

  AnswerContext context_;
  const bool stream_;
  const std::shared_ptr<Mailbox> mailbox_;
  std::unique_ptr<Generation> generation_;
  std::vector<ChoicePiece>
      pieces_;  // by choice: all of it (whole answers), or the last one and what is known so far (streams)
  int introduced_ = 0;
  bool attached_ = false;
  bool ended_ = false;
  bool failed_ = false;
};

void Mailbox::put(Happening happening) {
  std::lock_guard lock(mutex_);
  happenings_.push_back(std::move(happening));
  if (woken_) return;
  const std::shared_ptr<HttpExchange> exchange = exchange_.lock();
  if (!exchange) return;
  exchange->post([run = run_, exchange = exchange_] {
    const auto alive = run.lock();
    const auto open = exchange.lock();
    if (alive && open) alive->drain(*open);
  });
  woken_ = true;
}

int64_t unix_now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

void run_generation(InferenceService& service, const std::shared_ptr<HttpExchange>& exchange,
                    OpenAiRequest request) {
  GenerateRequest& r = request.generate;
  r.whole = !request.stream;
  r.keep_prompt_ids = request.return_token_ids || request.continuous_usage;
  AnswerContext context;
  context.chat = r.kind == GenerateRequest::Kind::kChat;
  context.id = (context.chat ? "chatcmpl-" : "cmpl-") + unique_id();
  context.created = unix_now();
  context.include_usage = request.include_usage;
  context.continuous_usage = request.continuous_usage;
  context.return_token_ids = request.return_token_ids;
  context.tokens_as_ids = request.tokens_as_ids;
  context.logprobs = r.logprobs.has_value();
  context.prompt_logprobs = r.prompt_logprobs.has_value();
  context.echo = r.echo;
  context.service = &service;
  context.n = static_cast<int>(r.n.value_or(1));
  context.model = r.model;
  if (context.model.empty()) {
    if (const std::vector<ModelInfo> models = service.models(); !models.empty())
      context.model = models.front().id;
  }

  const auto mailbox = std::make_shared<Mailbox>(exchange);
  const auto run = std::make_shared<GenerationRun>(std::move(context), request.stream, mailbox);
  mailbox->set_run(run);
  Result<std::unique_ptr<Generation>> generation = service.generate(r, mailbox);
  if (!generation) {
    exchange->respond(error_response(generation.error()));
    return;
  }
  run->set_generation(std::move(*generation));
  exchange->post([run, weak = std::weak_ptr<HttpExchange>(exchange)] {
    if (const auto open = weak.lock()) run->attach(open);
  });
}

}  // namespace serval
