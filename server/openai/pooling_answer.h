// Answers of vectors and scores, each whole. Private to server/openai.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/answers/answer_writer.h"

namespace serval {

struct PoolingContext {
  enum class Kind { kEmbeddings, kPooling, kClassify, kScore, kRerank };
  Kind kind = Kind::kEmbeddings;
  std::string id, model;
  int64_t created = 0;  // unix seconds
  bool base64 = false;
  std::vector<std::string> labels;
  // Of a score or a rerank: whether each is the similarity of two vectors (else a number of its own), of the first
  // `num_queries` prompts and of those behind them.
  bool is_similarity = false;
  int num_queries = 1;
  std::vector<std::string> documents;  // told with a rerank; empty: they are not
  std::optional<int64_t> top_n;
};

std::unique_ptr<AnswerWriter> pooling_writer(PoolingContext context);

}  // namespace serval
