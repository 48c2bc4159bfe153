// The framing that both dialects share: what comes first in a stream, what last, and what of a choice is kept.
#include "server/openai/openai_answer.h"

#include <algorithm>
#include <vector>

#include "server/http/error_response.h"
#include "server/openai/answer_format.h"
#include "server/answers/long_json.h"

namespace serval {
namespace {

void append_event(std::string& out, std::string_view data) {
  out += "data: ";
  out += data;
  out += "\n\n";
}

std::vector<ChoicePiece> pieces_of(const Generation& generation, const AnswerFormat& format) {
  std::vector<ChoicePiece> pieces(static_cast<size_t>(generation.num_choices()));
  for (size_t i = 0; i < pieces.size(); ++i) {
    pieces[i].delta.index = static_cast<int>(i);
    const size_t prompt = i / static_cast<size_t>(format.context.num_drawn);
    if (format.context.echo) pieces[i].echoed = (*format.prompts)[prompt].text;
  }
  return pieces;
}

int64_t num_calls(const Delta& delta) {
  return std::ranges::count(delta.parts, PartKind::kCall, &MessagePart::kind);
}

class WholeAnswer final : public AnswerWriter {
 public:
  explicit WholeAnswer(std::unique_ptr<AnswerFormat> format) : format_(std::move(format)) {}

  void begin(const Generation& generation) override {
    format_->prompts = &generation.prompts();
    choices_ = pieces_of(generation, *format_);
  }
  void delta(Delta&& delta, AnswerSink&) override {
    ChoicePiece& choice = choices_[static_cast<size_t>(delta.index)];
    choice.num_calls = num_calls(delta);
    choice.delta = std::move(delta);
  }
  void end(const Usage& usage, AnswerSink& sink) override {
    if (format_->context.num_drawn > format_->context.n) keep_best();
    sink.respond_in_pieces([&](std::string& body) { return format_->whole(body, choices_, usage); });
  }
  void error(const Error& error, AnswerSink& sink) override { sink.respond(error_response(error)); }

 private:
  // Of each prompt's choices, by the mean of their tokens' log-probabilities; the first of equals.
  void keep_best() {
    const int drawn = format_->context.num_drawn, n = format_->context.n;
    const auto mean = [](const ChoicePiece& piece) {
      double sum = 0;
      for (const TokenLogprob& token : piece.delta.logprobs) sum += token.logprob;
      return sum / static_cast<double>(std::max<size_t>(piece.delta.logprobs.size(), 1));
    };
    std::vector<ChoicePiece> best;
    for (auto prompt = choices_.begin(); prompt != choices_.end(); prompt += drawn) {
      std::stable_sort(prompt, prompt + drawn, [&](const ChoicePiece& a, const ChoicePiece& b) { return mean(a) > mean(b); });
      for (auto choice = prompt; choice != prompt + n; ++choice) {
        choice->delta.index = static_cast<int>(best.size());
        if (!format_->context.logprobs) choice->delta.logprobs.clear();
        best.push_back(std::move(*choice));
      }
    }
    choices_ = std::move(best);
  }

  const std::unique_ptr<AnswerFormat> format_;
  std::vector<ChoicePiece> choices_;
};

class StreamedAnswer final : public AnswerWriter {
 public:
  explicit StreamedAnswer(std::unique_ptr<AnswerFormat> format) : format_(std::move(format)) {}

  void begin(const Generation& generation) override {
    format_->prompts = &generation.prompts();
    last_ = pieces_of(generation, *format_);
  }

  void delta(Delta&& delta, AnswerSink& sink) override {
    std::string& out = sink.events();
    // Clients append choices in the order their indexes first appear: nobody is introduced before those below
    // it.
    for (; introduced_ <= delta.index; ++introduced_)
      format_->introduce(out, introduced_, /*has_text=*/introduced_ == delta.index);
    ChoicePiece& piece = last_[static_cast<size_t>(delta.index)];
    piece.delta = std::move(delta);
    piece.num_tokens += static_cast<int64_t>(piece.delta.token_ids.size());
    piece.num_calls += num_calls(piece.delta);
    const int64_t advance = format_->context.logprobs ? format_->text_advance(piece) : 0;
    if (piece.delta.prompt_logprobs || !piece.echoed.empty()) {
      // What a first piece says of the prompt can be long.
      const auto held = std::make_shared<const ChoicePiece>(piece);
      sink.add_pieces(held, [&](std::string& chunk) { return format_->chunk(chunk, *held); });
    } else {
      write_all(format_->chunk(out, piece));
    }
    piece.text_offset += advance;
    piece.first = false;
    piece.echoed = {};
  }

  void end(const Usage& usage, AnswerSink& sink) override {
    std::string& out = sink.events();
    if (format_->context.include_usage) format_->usage_chunk(out, usage);
    append_event(out, "[DONE]");
  }

  // Before anything was sent an error is a status; after that it is an event.
  void error(const Error& error, AnswerSink& sink) override {
    if (!sink.has_begun()) {
      sink.respond(error_response(error));
      return;
    }
    append_event(sink.events(), error_body(error));
    append_event(sink.events(), "[DONE]");
  }

 private:
  const std::unique_ptr<AnswerFormat> format_;
  // By choice: its last piece, and what is known of it so far.
  std::vector<ChoicePiece> last_;
  int introduced_ = 0;
};

std::unique_ptr<AnswerWriter> writer_of(std::unique_ptr<AnswerFormat> format, bool stream) {
  if (stream) return std::make_unique<StreamedAnswer>(std::move(format));
  return std::make_unique<WholeAnswer>(std::move(format));
}

}  // namespace

std::unique_ptr<AnswerWriter> completion_writer(AnswerContext context, bool stream) {
  return writer_of(completion_format(std::move(context)), stream);
}

std::unique_ptr<AnswerWriter> chat_writer(AnswerContext context, bool stream) {
  return writer_of(chat_format(std::move(context)), stream);
}

}  // namespace serval
