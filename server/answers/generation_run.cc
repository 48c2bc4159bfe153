#include "server/answers/generation_run.h"

#include <mutex>
#include <utility>
#include <variant>
#include <vector>


namespace serval {
namespace {

using GenerationEvent = std::variant<Delta, Usage, Error>;  // Usage: it is done

class GenerationRun;

// Takes what the delivery thread says and wakes the connection's strand, once for however much has gathered.
// Owned by the generation; refers to its run weakly, so that nothing here keeps the other alive:
// connection -> exchange -> run -> generation -> inbox - - > run.
class StreamInbox final : public GenerationObserver {
 public:
  explicit StreamInbox(const std::shared_ptr<HttpExchange>& exchange) : exchange_(exchange) {}
  void set_run(const std::shared_ptr<GenerationRun>& run) { run_ = run; }  // before any call

  void on_delta(Delta&& delta) override { put(std::move(delta)); }
  void on_done(const Usage& usage) override { put(usage); }
  void on_error(const Error& error) override { put(error); }

  std::vector<GenerationEvent> take() {
    std::lock_guard lock(mutex_);
    woken_ = false;
    return std::exchange(events_, {});
  }

 private:
  void put(GenerationEvent event);

  const std::weak_ptr<HttpExchange> exchange_;
  std::weak_ptr<GenerationRun> run_;
  std::mutex mutex_;
  std::vector<GenerationEvent> events_;
  bool woken_ = false;  // a wake-up is on its way
};

class GenerationRun : public std::enable_shared_from_this<GenerationRun> {
 public:
  GenerationRun(std::unique_ptr<AnswerWriter> writer, std::shared_ptr<StreamInbox> inbox)
      : inbox_(std::move(inbox)), writer_(std::move(writer)) {}

  // Text pool, before the run is attached.
  void set_generation(std::unique_ptr<Generation> generation) { generation_ = std::move(generation); }

  // There is no generation: nothing else was or will be said.
  void refuse(const Error& error, HttpExchange& exchange) {
    AnswerSink sink(exchange, shared_from_this());
    writer_->error(error, sink);
  }

  // The exchange owns the run from here on; what came before is handled now.
  void attach(const std::shared_ptr<HttpExchange>& exchange) {
    writer_->begin(*generation_);
    exchange->own(shared_from_this(), [this] { return generation_->record(); });
    attached_ = true;
    drain(*exchange);
  }

  void drain(HttpExchange& exchange) {
    if (!attached_ || ended_) return;
    AnswerSink sink(exchange, shared_from_this());
    for (GenerationEvent& event : inbox_->take()) {
      if (ended_) break;
      if (Delta* delta = std::get_if<Delta>(&event)) {
        take_delta(std::move(*delta), sink);
      } else if (const Usage* usage = std::get_if<Usage>(&event)) {
        ended_ = true;
        writer_->end(*usage, sink);
      } else {
        take_error(std::get<Error>(event), sink);
      }
    }
    sink.flush();
    if (ended_ && exchange.stream_started()) exchange.end_stream(/*close_connection=*/failed_);
  }

 private:
  void take_delta(Delta&& delta, AnswerSink& sink) {
    const FinishReason finish = delta.finish;
    if (finish != FinishReason::kNone && finish != FinishReason::kStop &&
        finish != FinishReason::kStopString && finish != FinishReason::kLength) {
      take_error({ErrorKind::kInternal, "generation_failed", "The generation ended without an answer.", ""}, sink);
      return;
    }
    writer_->delta(std::move(delta), sink);
  }

  void take_error(const Error& error, AnswerSink& sink) {
    ended_ = failed_ = true;
    generation_->cancel();
    writer_->error(error, sink);
  }

  const std::shared_ptr<StreamInbox> inbox_;
  std::unique_ptr<Generation> generation_;
  const std::unique_ptr<AnswerWriter> writer_;
  bool attached_ = false;
  bool ended_ = false;
  bool failed_ = false;
};

void StreamInbox::put(GenerationEvent event) {
  std::lock_guard lock(mutex_);
  events_.push_back(std::move(event));
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

}  // namespace

void run_generation(InferenceService& service, const std::shared_ptr<HttpExchange>& exchange,
                    GenerateRequest request, std::unique_ptr<AnswerWriter> writer) {
  const auto inbox = std::make_shared<StreamInbox>(exchange);
  const auto run = std::make_shared<GenerationRun>(std::move(writer), inbox);
  inbox->set_run(run);
  Result<std::unique_ptr<Generation>> generation = service.generate(std::move(request), inbox);
  if (!generation) {
    run->refuse(generation.error(), *exchange);
    return;
  }
  run->set_generation(std::move(*generation));
  exchange->post([run, weak = std::weak_ptr<HttpExchange>(exchange)] {
    if (const auto open = weak.lock()) run->attach(open);
  });
}

}  // namespace serval
