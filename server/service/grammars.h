// What requests hold their output to, grammars and lists of tokens: grammars are compiled on a thread of low priority and kept
// by their texts; the masks of what may be drawn are made on a thread beside the engine's.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/request.h"
#include "engine/text/tokenizer/tokenizer.h"
#include "kernels/base/status.h"
#include "server/service/inference_service.h"

namespace serval {

class ServiceMetrics;

// Of a request, beside or without a grammar.
struct TokenLists {
  std::vector<TokenId> allowed;              // empty: all
  std::vector<std::vector<TokenId>> banned;  // what the output never holds, each of at least one token

  bool empty() const { return allowed.empty() && banned.empty(); }
};

class Grammars {
 public:
  // tells: masks for the first so many output tokens of a request's sequence are there, and behind the guesses in the set,
  // which are all that may be verified of those it had; where there are none, those that the form makes; on a thread of its own.
  using MaskReadySink = std::function<void(RequestId id, int index, int num_masks, uint64_t drafts, std::span<const TokenId> forced)>;
  // tells: a request's sequence may draw nothing any more; on the same thread. It must be ended.
  using DeadEndSink = std::function<void(RequestId id, const Error& why)>;
  // vocab_size: width of a mask. What is made for the vocabulary is made at the first use.
  Grammars(std::shared_ptr<const Tokenizer> tokenizer, int vocab_size, std::vector<TokenId> end_ids,
           ServiceMetrics& metrics, MaskReadySink tells, DeadEndSink tells_end);
  ~Grammars();

  struct Compiled;
  // Waits while it is compiled, unless it is kept. Errors name the format's field; too many that wait: kOverloaded.
  Result<std::shared_ptr<Compiled>> compile(const OutputFormat& format);
  // Of a request with n sequences, with the first mask of each. Before the request is submitted. compiled: null where
  // there are only lists. An error where nothing may be drawn at all.
  // What may stand before the form is free and does not end. most_forced: guesses at most where the form leaves one text alone.
  Result<std::shared_ptr<TokenConstraint>> constraint(std::shared_ptr<Compiled> compiled, const FreeText& before, const TokenLists& lists, RequestId id, int n, int most_forced);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serval
