// What is measured of one generation, for the metrics and the log.
#pragma once

#include "engine/request.h"

namespace serval {

// Times in seconds since it was received.
struct RequestRecord {
  FinishReason finish = FinishReason::kNone;  // of its last choice
  int prompt_tokens = 0;
  int output_tokens = 0;
  int max_tokens = 0;
  int n = 1;
  int drafted = 0;   // guesses that were verified
  int accepted = 0;  // of them, those that came true
  double queue_s = 0;  // until first scheduled
  double first_s = 0;  // until the first token; 0 when there was none
  double total_s = 0;
};

// As vLLM's metrics spell it.
inline const char* finished_reason(FinishReason finish) {
  switch (finish) {
    case FinishReason::kStop:
    case FinishReason::kStopString:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kNumericalError:
      return "error";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kNone:
    case FinishReason::kAborted:
      return "abort";
  }
  return "error";
}

}  // namespace serval
