// What becomes of a prompt's pooled hidden row (engine/request.h, Pooling): a vector of the text, or scores. As the folder
// says: modules.json and the folders of its modules (sentence-transformers), or the head of a classifier. Constant after it
// was read; any thread.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/model_spec.h"
#include "engine/request.h"
#include "engine/text/tokenizer/tokenizer.h"
#include "server/service/inference_service.h"

namespace serval {

// y = W x + b, what is done to each number, and a LayerNorm of all.
struct PoolingLayer {
  enum class Then { kNothing, kTanh, kRelu, kGelu, kSigmoid, kSoftmax };
  int num_in = 0, num_out = 0;
  std::vector<float> weight;  // [num_out, num_in]
  std::vector<float> bias;    // [num_out], or empty
  Then then = Then::kNothing;
  std::vector<float> norm_weight, norm_bias;  // [num_out], or empty: no norm, or none with a bias
  float norm_eps = 0;

  // then_too: else without it.
  std::vector<float> apply(std::span<const float> x, bool then_too = true) const;

 private:
  void normalise(std::span<float> x) const;
};

struct PoolingHead {
  Pooling rows = Pooling::kLast;
  std::vector<PoolingLayer> layers;
  bool normalises = true;
  // One behind the other, of a classifier or of two of the vocabulary's rows; none: the model does not score. kSigmoid or
  // kSoftmax of the last makes probabilities of what it gives.
  std::vector<PoolingLayer> scores;
  std::vector<std::string> labels;  // of each score; may be fewer
  bool writes_text = true;          // the model has a head that gives words
  bool joins_texts = false;         // two texts are one prompt, as the tokenizer says (Tokenizer::encode_pair)
  // See PoolingInfo.
  std::vector<std::pair<std::string, std::string>> prompts;
  std::string usual_prompt;
  int vector_size = 0;

  int num_scores() const { return scores.empty() ? 0 : scores.back().num_out; }
  // What was asked for of the pooled row of a prompt.
  std::vector<float> numbers(const PoolRequest& wanted, std::span<const float> pooled) const;
};

// Throws std::runtime_error with a sentence that names the file and the field. Start-up only.
PoolingHead read_pooling_head(const std::filesystem::path& model, const ModelSpec& spec, const Tokenizer& tokenizer);

}  // namespace serval
