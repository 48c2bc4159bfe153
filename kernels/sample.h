// What one row of logits needs to become a token. Plain data; a backend reads it, the runner fills it.
//
// Order of operations on a row of raw logits: mask -> logit_bias -> repetition, frequency and presence
// penalties -> banned ids (-inf) -> temperature -> top_k -> top_p -> min_p -> Gumbel-max: argmax over the
// kept tokens of logit/temperature + gumbel(seed, position, token). Temperature 0 is argmax of the penalised
// logits. Equal values: lowest id wins, also where top_k or top_p must cut between them.
//
// The noise depends on (seed, position, token) alone, so a row's token does not depend on its neighbours
// (law 1). Log-probabilities are those of the raw logits (log-softmax before mask, bias, penalties and
// temperature).
#pragma once

#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/tensor.h"
#include "kernels/values.h"

namespace serval {

inline constexpr float kGreedyTemperature = 1e-5f;  // a smaller one would overflow what it divides

// How a row that was guessed before it is drawn takes the guess, where the draw need not be that of a row without guesses:
//  rejection  the first guess is drawn with probability min(1, p / q), and else a token by max(0, p - q), so that what is
//             drawn is distributed as p, whatever q guessed by (Leviathan et al. 2023; Chen et al. 2023);
//  typical    of the guesses with p > min(0.09, 0.3 exp(-entropy of p)) the most probable one is drawn, if there is one
//             (Cai et al. 2024, Medusa, section 2.3.1): what is drawn is not distributed as p.
// p is what the row draws by, temperature and filters applied. At temperature 0 the guesses change nothing. The noise is that
// of the row's seed, which must not be the one that the guesses were drawn with. Host memory; CPU only.
struct GuessRule {
  bool is_typical = false;
  const int32_t* guesses = nullptr;
  int num_guesses = 0;
  const float* drawn_by = nullptr;  // [vocab] q of the first guess; null: it was certain
};

struct SampleRow {
  float temperature = 1.0f;  // below kGreedyTemperature: 0
  int top_k = 0;             // 0: all
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;  // over prompt and output
  float presence_penalty = 0.0f;    // over output
  float frequency_penalty = 0.0f;   // over output
  uint64_t seed = 0;
  int64_t position = 0;  // position of the token being drawn
  // What penalties look at: the tokens counted for this slot (-1: none), then `recent`, all of the output. -1
  // among the recent stands for the token drawn last for `slot` before this draw.
  int32_t counts_slot = -1;
  const int32_t* recent = nullptr;
  int num_recent = 0;
  const LogitBias* logit_bias = nullptr;
  int num_logit_bias = 0;
  const int32_t* banned = nullptr;  // ids that must not be drawn (end ids below min_tokens)
  int num_banned = 0;
  const uint32_t* mask = nullptr;  // bit t set: token t allowed; null: all
  int num_top = -1;     // best tokens to report with log-probabilities; -1: not even the drawn token's
  int32_t forced = -1;  // >= 0: report this token (of a given prompt) instead of drawing one
  int32_t slot = -1;    // >= 0: the drawn token becomes this slot's last; at most one row of a call each
  const GuessRule* guess = nullptr;  // null: what was guessed changes nothing
  float* drawn_by = nullptr;         // [vocab], filled with the probabilities that the row is drawn by; CPU only

  SERVAL_HOST_DEVICE bool has_penalty() const {
    return repetition_penalty != 1.0f || presence_penalty != 0.0f || frequency_penalty != 0.0f;
  }
  SERVAL_HOST_DEVICE bool changes_logits() const {
    return mask != nullptr || num_logit_bias > 0 || num_banned > 0 || has_penalty();
  }
};

// Tokens that join those counted for a slot; the first num_prompt are of the prompt, the others of the
// output.
struct CountedTokens {
  int32_t slot = 0;
  bool restart = false;  // another sequence's slot now: forget what was counted
  const int32_t* tokens = nullptr;
  int num_tokens = 0;
  int num_prompt = 0;
};

// In the counts of a slot: the token occurs in prompt or output. Its occurrences in the output are added.
inline constexpr uint32_t kSeenToken = 0x80000000u;

struct SampleResult {
  int32_t token = -1;
  float logprob = 0;   // of `token`, raw; 0 when num_top is -1
  int rank = 0;        // 1 + how many tokens have a larger raw logit; 0 when num_top is -1
  bool finite = true;  // false: a logit was NaN or +inf, or none was finite and allowed
};

struct SampleArgs {
  Tensor logits;  // [num_rows, vocab] f32; a backend may use it as scratch
  const SampleRow* rows = nullptr;
  SampleResult* results = nullptr;  // [num_rows]
  TopLogprob* top = nullptr;        // [num_rows, top_stride], best first
  int top_stride = 0;
  const CountedTokens* counted = nullptr;  // [num_counted], a slot at most once; counted before the rows are
                                           // drawn
  int num_counted = 0;
};

}  // namespace serval
