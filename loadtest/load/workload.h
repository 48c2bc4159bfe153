// What to send and when: a list of requests with intended send times, made from a trace file or from
// distributions. Pure data; the same seed gives the same workload.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace serval::load {

struct PlannedRequest {
  double at_s = 0;                 // intended send time since the start (open loop); ignored in closed loop
  std::string prompt;              // text; or
  std::vector<int32_t> token_ids;  // ids, when not empty
  int output_tokens = 16;
  // Multi-turn: the request waits for `after` (an earlier entry's index) to finish, then think_s; -1: for
  // nothing.
  int after = -1;
  double think_s = 0;
};

enum class Arrival : uint8_t { kConstant, kPoisson, kGamma };

struct WorkloadOptions {
  int num_requests = 100;
  uint64_t seed = 0;
  // Arrivals: used when the trace has no times of its own, or when rate is given. 0: all at once (closed loop
  // paces itself).
  double rate = 0;     // requests per second
  double ramp_to = 0;  // > 0: the rate changes linearly from rate to ramp_to over the run
  Arrival arrival = Arrival::kPoisson;
  double cv = 1;  // of the gaps, for gamma: 3 is bursty
  // Lengths: synthetic prompts; a trace's own lengths are scaled.
  int input_tokens = 128;
  int output_tokens = 64;
  double length_jitter = 0;  // lengths are uniform in mean * (1 +- jitter)
  double scale_lengths = 1;
  double scale_rate = 1;  // a trace's clock runs this much faster
  int shared_prefix_tokens = 0;
  // Token ids of synthetic and hashed prompts come from [first_id, first_id + num_ids).
  bool send_token_ids = false;
  int first_id = 100;
  int num_ids = 400;
  int block_tokens = 512;  // Mooncake: tokens a hash id stands for, before scaling
  double think_s = 0;      // between turns of a conversation
};

// Prompts of random words (about one token a word), or of token ids; arrivals by rate.
std::vector<PlannedRequest> synthetic_workload(const WorkloadOptions& options);

// Reads a trace by what it looks like: Azure LLM 2023 csv (TIMESTAMP,ContextTokens,GeneratedTokens), Mooncake
// jsonl (hash_ids become shared prefixes), ServeGen windows (servegen.h; of a folder, all clients together),
// ShareGPT-like json ([{"conversations": [...]}]), jsonl of prompts ("prompt", "question", "messages" or
// "turns"), recorded runs, plain text (a prompt a line). A file may be packed as .xz or .gz. At most
// num_requests. Throws std::runtime_error with a sentence naming the line.
std::vector<PlannedRequest> trace_workload(const std::string& path, const WorkloadOptions& options);

// Gives requests their send times by rate, arrival process and seed (first at 0).
void assign_arrivals(const WorkloadOptions& options, std::vector<PlannedRequest>& requests);

}  // namespace serval::load
