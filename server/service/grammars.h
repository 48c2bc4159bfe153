// The grammars that requests are held to: compiled on a thread of low priority and kept by their texts; and the masks of
// what is drawn under them, made on a thread beside the engine's.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "engine/request.h"
#include "engine/text/tokenizer/tokenizer.h"
#include "kernels/base/status.h"
#include "server/service/inference_service.h"

namespace serval {

class ServiceMetrics;

class Grammars {
 public:
  // tells: masks for the first so many output tokens of a request's sequence are there; on a thread of its own.
  using MaskReadySink = std::function<void(RequestId id, int index, int num_masks)>;
  // vocab_size: width of a mask. What is made for the vocabulary is made at the first use.
  Grammars(std::shared_ptr<const Tokenizer> tokenizer, int vocab_size, std::vector<TokenId> end_ids,
           ServiceMetrics& metrics, MaskReadySink tells);
  ~Grammars();

  struct Compiled;
  // Waits while it is compiled, unless it is kept. Errors name the format's field; too many that wait: kOverloaded.
  Result<std::shared_ptr<Compiled>> compile(const OutputFormat& format);
  // Of a request with n sequences, with the first mask of each. Before the request is submitted. What is free does not end.
  std::shared_ptr<TokenConstraint> constraint(std::shared_ptr<Compiled> compiled, const FreeText& before, RequestId id, int n);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serval
