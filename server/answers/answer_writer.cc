#include "server/answers/answer_writer.h"

namespace serval {

std::string& AnswerSink::events() {
  exchange_.start_stream();
  return text_;
}

void AnswerSink::add_pieces(std::shared_ptr<const void> held,
                            const std::function<Pieces(std::string& out)>& write) {
  exchange_.start_stream();
  flush();
  const auto owner =
      std::make_shared<const std::pair<std::shared_ptr<const void>, std::shared_ptr<const void>>>(
          run_, std::move(held));
  exchange_.write(std::make_shared<PiecesBody>(owner, 0, write));
}

void AnswerSink::respond_in_pieces(const std::function<Pieces(std::string& out)>& write) {
  HttpResponse response;
  response.source = std::make_shared<PiecesBody>(run_, 0, write);
  exchange_.respond(std::move(response));
}

void AnswerSink::flush() {
  exchange_.write(text_);
  text_.clear();
}

}  // namespace serval
