// Masks for constrained requests as a server makes them: on a thread of their own, a while after the draws. What may come
// next is a function of the whole output so far, so that a mask of another branch or of a rejected guess shows.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "engine/batch.h"
#include "engine/request.h"

namespace serval::testing {

class MaskMaker {
 public:
  using Sink = std::function<void(RequestId id, int index, int num_masks, uint64_t drafts, std::span<const TokenId> forced)>;
  MaskMaker(int vocab, Sink tells) : vocab_(vocab), tells_(std::move(tells)) {
    jobs_.reserve(1024);
    thread_ = std::thread([this] { work(); });
  }
  ~MaskMaker() { stop(); }

  // Nothing is told any more.
  void stop() {
    if (!thread_.joinable()) return;
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    arrived_.notify_one();
    thread_.join();
  }

  // forces: where one token alone is allowed that is a guess.
  std::shared_ptr<TokenConstraint> constraint(RequestId id, int n, bool forces) { return std::make_shared<Output>(*this, id, n, forces); }
  // The only token that is allowed; -1: there are many.
  TokenId only(uint64_t history) const { return mix(history, -2) % 3 == 0 ? static_cast<TokenId>(mix(history, -3) % static_cast<uint64_t>(vocab_)) : -1; }
  bool allows(uint64_t history, TokenId token) const {
    const TokenId only_one = only(history);
    return only_one < 0 ? mix(history, token) % 3 != 0 : token == only_one;
  }
  static uint64_t mix(uint64_t history, TokenId token) {
    history = (history ^ static_cast<uint32_t>(token)) * 0x9e3779b97f4a7c15ull;
    return history ^ history >> 31;
  }

 private:
  class Output final : public TokenConstraint, public std::enable_shared_from_this<Output> {
   public:
    Output(MaskMaker& maker, RequestId id, int n, bool forces) : maker_(maker), id_(id), forces_(forces), sequences_(n) {
      for (OneSequence& sequence : sequences_) {
        sequence.masks.resize((1 + kMaxDrafts) * words());
        fill(sequence, 0, sequence.history);
        sequence.drawn.reserve(1 + kMaxDrafts);
        sequence.drafts.reserve(kMaxDrafts);
      }
    }
    void drew(int index, std::span<const TokenId> tokens, int32_t place, std::span<const Draft> drafts) override {
      OneSequence& sequence = sequences_[index];
      SERVAL_CHECK(!sequence.is_busy && place == sequence.num_output, place, sequence.num_output);
      sequence.is_busy = true;
      sequence.num_output += static_cast<int32_t>(tokens.size());
      sequence.drawn.assign(tokens.begin(), tokens.end());
      sequence.drafts.assign(drafts.begin(), drafts.end());
      {
        const std::lock_guard lock(maker_.mutex_);
        maker_.jobs_.push_back({shared_from_this(), index});
      }
      maker_.arrived_.notify_one();
    }
    std::span<const uint32_t> mask(int index, int draft) const override {
      SERVAL_CHECK(!sequences_[index].is_busy && draft < sequences_[index].num_left, index, draft);
      return std::span(sequences_[index].masks).subspan((draft + 1) * words(), words());
    }
    void make(int index) {
      OneSequence& sequence = sequences_[index];
      for (const TokenId token : sequence.drawn) {
        SERVAL_CHECK(maker_.allows(sequence.history, token), token);
        sequence.history = mix(sequence.history, token);
      }
      fill(sequence, 0, sequence.history);
      std::array<uint64_t, kMaxDrafts> history;
      uint64_t left = 0;
      sequence.num_left = 0;
      for (size_t i = 0; i < sequence.drafts.size(); ++i) {
        const Draft draft = sequence.drafts[i];
        if (draft.parent >= 0 && (left >> draft.parent & 1) == 0) continue;
        const uint64_t before = draft.parent < 0 ? sequence.history : history[draft.parent];
        if (!maker_.allows(before, draft.token)) continue;
        history[i] = mix(before, draft.token);
        fill(sequence, ++sequence.num_left, history[i]);
        left |= uint64_t{1} << i;
      }
      std::vector<TokenId> forced;
      uint64_t behind = sequence.history;
      for (TokenId token; forces_ && left == 0 && forced.size() < kMaxForced && (token = maker_.only(behind)) >= 0;) {
        forced.push_back(token);
        behind = mix(behind, token);
        fill(sequence, ++sequence.num_left, behind);
      }
      const int num_masks = sequence.num_output + 1;
      sequence.is_busy = false;
      maker_.tells_(id_, index, num_masks, left, forced);
    }

   private:
    struct OneSequence {
      uint64_t history = 17;
      std::vector<uint32_t> masks;
      std::vector<TokenId> drawn;
      std::vector<Draft> drafts;
      int32_t num_output = 0, num_left = 0;
      std::atomic<bool> is_busy = false;
    };
    size_t words() const { return (static_cast<size_t>(maker_.vocab_) + 31) / 32; }
    void fill(OneSequence& sequence, int row, uint64_t history) const {
      uint32_t* const mask = sequence.masks.data() + row * words();
      std::fill_n(mask, words(), 0u);
      for (TokenId token = 0; token < maker_.vocab_; ++token)
        if (maker_.allows(history, token)) mask[token / 32] |= 1u << token % 32;
    }

    MaskMaker& maker_;
    const RequestId id_;
    const bool forces_;
    std::vector<OneSequence> sequences_;
  };
  struct Job {
    std::shared_ptr<Output> output;
    int index;
  };

  void work() {
    std::vector<Job> taken;
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        arrived_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
        if (stopping_) return;
        taken.assign(jobs_.begin(), jobs_.end());
        jobs_.clear();
      }
      for (const Job& job : taken) job.output->make(job.index);
      taken.clear();
    }
  }

  const int vocab_;
  const Sink tells_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<Job> jobs_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace serval::testing
