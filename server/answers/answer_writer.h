// How an API dialect tells a client of one generation. The run of a generation knows only this; a dialect knows
// neither threads nor connections: it gives its answer, in order, to a sink.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "server/http/http_exchange.h"
#include "server/service/inference_service.h"
#include "server/http/pieces.h"

namespace serval {

// Where an answer goes: one response, or a stream of events that begins with the first of them. What was gathered
// goes out with flush(). On the connection's strand.
class AnswerSink {
 public:
  // `run` owns whatever bodies refer to that are made while they are sent.
  AnswerSink(HttpExchange& exchange, std::shared_ptr<const void> run) : exchange_(exchange), run_(std::move(run)) {}

  bool has_begun() const { return exchange_.stream_started(); }
  // Begins a stream if need be; what is appended goes to it.
  std::string& events();
  // What can be long, made while it is sent. `held`: what `write` refers to beside the run's own.
  void add_pieces(std::shared_ptr<const void> held, const std::function<Pieces(std::string& out)>& write);
  // The whole answer instead of a stream.
  void respond(HttpResponse response) { exchange_.respond(std::move(response)); }
  void respond_in_pieces(const std::function<Pieces(std::string& out)>& write);
  void flush();

 private:
  HttpExchange& exchange_;
  const std::shared_ptr<const void> run_;
  std::string text_;
};

// begin() comes first and once; then pieces; then one of end() and error(), and nothing after it.
class AnswerWriter {
 public:
  virtual ~AnswerWriter() = default;
  // `generation` outlives the writer.
  virtual void begin(const Generation& generation) = 0;
  // A piece of one choice, as GenerationObserver has it.
  virtual void delta(Delta&& delta, AnswerSink& sink) = 0;
  // Every choice has ended.
  virtual void end(const Usage& usage, AnswerSink& sink) = 0;
  // The generation failed, or there is none (begin() was not called then, and the thread is any); where a stream has begun its connection is closed after what this says.
  virtual void error(const Error& error, AnswerSink& sink) = 0;
};

}  // namespace serval
