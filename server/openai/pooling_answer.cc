#include "server/openai/pooling_answer.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <utility>

#include "engine/json/json_writer.h"
#include "server/answers/long_json.h"
#include "server/http/error_response.h"

namespace serval {
namespace {

using Kind = PoolingContext::Kind;
using Numbers = std::vector<float>;

// Of the little-endian bytes of the numbers.
std::string base64_of(const Numbers& numbers) {
  static_assert(std::endian::native == std::endian::little);
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<unsigned char> bytes(numbers.size() * sizeof(float));
  std::memcpy(bytes.data(), numbers.data(), bytes.size());
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t left = bytes.size() - i;
    const uint32_t group = bytes[i] << 16 | (left > 1 ? bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
    out += kDigits[group >> 18];
    out += kDigits[group >> 12 & 63];
    out += left > 1 ? kDigits[group >> 6 & 63] : '=';
    out += left > 2 ? kDigits[group & 63] : '=';
  }
  return out;
}

void write_numbers(JsonWriter& json, const Numbers& numbers) {
  json.begin_array();
  for (const float number : numbers) json.number(number);
  json.end_array();
}

class PoolingAnswer final : public AnswerWriter {
 public:
  explicit PoolingAnswer(PoolingContext context) : context_(std::move(context)) {}

  void begin(const Generation& generation) override { numbers_.resize(generation.num_choices()); }
  void delta(Delta&& delta, AnswerSink&) override {
    if (!delta.numbers.empty()) numbers_[delta.index] = std::move(delta.numbers);
  }
  void end(const Usage& usage, AnswerSink& sink) override {
    usage_ = usage;
    if (context_.kind == Kind::kScore || context_.kind == Kind::kRerank) score();
    sink.respond_in_pieces([this](std::string& out) { return write(out); });
  }
  void error(const Error& error, AnswerSink& sink) override { sink.respond(error_response(error)); }

 private:
  // Scores of the pairs, the best first where they are ranked.
  void score() {
    const size_t num_queries = context_.is_similarity ? context_.num_queries : 0;
    for (size_t i = num_queries; i < numbers_.size(); ++i) {
      const Numbers& own = numbers_[i];
      double score = own.back();  // of several the last speaks for the document
      if (context_.is_similarity) {
        const Numbers& query = numbers_[num_queries == 1 ? 0 : i - num_queries];
        score = 0;
        for (size_t k = 0; k < own.size(); ++k) score += static_cast<double>(own[k]) * query[k];
      }
      scores_.push_back(static_cast<float>(score));
    }
    order_.resize(scores_.size());
    std::iota(order_.begin(), order_.end(), size_t{0});
    if (context_.kind == Kind::kScore) return;
    std::ranges::stable_sort(order_, [this](size_t a, size_t b) { return scores_[a] > scores_[b]; });
    if (context_.top_n && *context_.top_n < std::ssize(order_)) order_.resize(static_cast<size_t>(*context_.top_n));
  }

  Pieces write(std::string& out) const {
    JsonWriter json(out);
    json.begin_object().member("id", context_.id);
    if (context_.kind != Kind::kRerank) json.member("object", "list").member("created", context_.created);
    json.member("model", context_.model);
    json.key(context_.kind == Kind::kRerank ? "results" : "data").begin_array();
    const bool is_scored = context_.kind == Kind::kScore || context_.kind == Kind::kRerank;
    const size_t count = is_scored ? order_.size() : numbers_.size();
    for (size_t i = 0; i < count; ++i) {
      is_scored ? write_score(json, order_[i]) : write_text(json, i);
      if (is_piece(out)) co_yield PieceEnd{};
    }
    json.end_array().key("usage").begin_object();
    json.member("prompt_tokens", usage_.prompt_tokens).member("total_tokens", usage_.prompt_tokens);
    json.end_object().end_object();
  }

  void write_text(JsonWriter& json, size_t i) const {
    const Numbers& numbers = numbers_[i];
    const bool is_embedding = context_.kind == Kind::kEmbeddings;
    json.begin_object();
    if (context_.kind == Kind::kClassify) {
      const auto best = static_cast<size_t>(std::ranges::max_element(numbers) - numbers.begin());
      json.member("index", static_cast<int64_t>(i)).key("label");
      best < context_.labels.size() ? json.string(context_.labels[best]) : json.null();
      json.key("probs");
      write_numbers(json, numbers);
      json.member("num_classes", std::ssize(numbers)).end_object();
      return;
    }
    json.member("object", is_embedding ? "embedding" : "pooling").member("index", static_cast<int64_t>(i));
    json.key(is_embedding ? "embedding" : "data");
    context_.base64 ? (void)json.string(base64_of(numbers)) : write_numbers(json, numbers);
    json.end_object();
  }

  void write_score(JsonWriter& json, size_t i) const {
    const bool is_rank = context_.kind == Kind::kRerank;
    json.begin_object().member("index", static_cast<int64_t>(i));
    if (!is_rank) json.member("object", "score");
    if (is_rank && !context_.documents.empty())
      json.key("document").begin_object().member("text", context_.documents[i]).end_object();
    json.key(is_rank ? "relevance_score" : "score").number(scores_[i]).end_object();
  }

  const PoolingContext context_;
  std::vector<Numbers> numbers_;  // by prompt
  std::vector<float> scores_;     // by pair
  std::vector<size_t> order_;     // of the pairs
  Usage usage_;
};

}  // namespace

std::unique_ptr<AnswerWriter> pooling_writer(PoolingContext context) {
  return std::make_unique<PoolingAnswer>(std::move(context));
}

}  // namespace serval
