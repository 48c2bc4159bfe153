// Answers in the Responses dialect: a list of items, whole or as typed events. What has ended is put into the store.
#pragma once

#include <memory>
#include <string>

#include "server/answers/answer_writer.h"
#include "server/responses/responses_request.h"

namespace serval {

// What every form of a response repeats.
struct ResponseContext {
  std::string id;
  // Unix seconds.
  int64_t created = 0;
  std::string model;
  boost::json::object repeated;
  // Kept with it; a store of null keeps nothing.
  ResponseStore* store = nullptr;
  StoredResponse stored;
};

std::unique_ptr<AnswerWriter> responses_writer(ResponseContext context, bool stream);

}  // namespace serval
