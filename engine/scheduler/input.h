// What a scheduler is told from outside, as one value: the engine's inbox carries it, Scheduler::take decides
// what becomes of it, a recording has a line for each. A new input is one alternative here and what take() does
// with it. Knows nothing of steps: what a step is and what came of it are next_batch() and apply().
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <tuple>
#include <variant>

#include "engine/scheduler/sequence.h"

namespace serval {

// kName begins its line of a recording, kFields follow it.

// A request joins the line. The scheduler has a place for it.
struct Add {
  std::unique_ptr<RequestState> request_state;
  static constexpr std::string_view kName = "add";
  static constexpr std::tuple kFields{&Add::request_state};
};

// Every sequence of the request ends. Unknown ids are ignored.
struct Abort {
  RequestId request = 0;
  static constexpr std::string_view kName = "abort";
  static constexpr std::tuple kFields{&Abort::request};
};

// The text layer saw a stop string in a sequence of the request, which ends. Unknown ones are ignored.
struct StopMatched {
  RequestId request = 0;
  int32_t index = 0;
  static constexpr std::string_view kName = "stop";
  static constexpr std::tuple kFields{&StopMatched::request, &StopMatched::index};
};

// The masks of a sequence's first `num_masks` output tokens have been made, and those behind the guesses that it had then:
// `drafts` is the set of those that may be verified, the others are dropped. Where none is left there may be others, which the
// form itself makes, one behind the other. Unknown ones are ignored.
struct MaskReady {
  RequestId request = 0;
  int32_t index = 0;
  int32_t num_masks = 0;
  uint64_t drafts = ~uint64_t{0};
  int32_t num_forced = 0;
  TokenId forced[kMaxForced] = {};
  static constexpr std::string_view kName = "mask";
  static constexpr std::tuple kFields{&MaskReady::request, &MaskReady::index, &MaskReady::num_masks, &MaskReady::drafts,
                                      &MaskReady::num_forced, &MaskReady::forced};
};

using SchedulerInput = std::variant<Add, Abort, StopMatched, MaskReady>;

}  // namespace serval
