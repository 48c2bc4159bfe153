// The requests of a long random life of one scheduler: prompts that share beginnings, forks, salts,
// priorities, deadlines, and all ways to end.
#pragma once

#include <random>
#include <string>

#include "engine/batch.h"
#include "engine/config.h"
#include "engine/kv_geometry.h"
#include "engine/request.h"

namespace serval::testing {

// Pools this small make sequences give way to each other.
struct RandomLife {
  explicit RandomLife(uint64_t seed) : random(seed) {
    config.max_num_seqs = 8;
    config.max_num_batched_tokens = 32;
    config.max_prefill_chunk = 12;
    config.max_model_len = 80;
    config.max_waiting = 24;
    geometry.block_size = 4;
    geometry.num_groups = 2;
    geometry.groups[0] = {36, 0};
    geometry.groups[1] = {28, 10};
  }

  // The second group's layers have a recurrent state instead of a window.
  void keep_states() { geometry.groups[1] = {.num_blocks = 12, .state_span = 2 * geometry.block_size}; }

  uint64_t pick(uint64_t n) { return random() % n; }

  Request next_request(Time now) {
    Request r;
    r.id = ++last_id;
    r.flow = pick(3) == 0 ? 0 : 1 + last_id / 6;
    const auto length = static_cast<int>(1 + pick(40));
    const auto topic = static_cast<TokenId>(pick(3) * 10);
    for (int i = 0; i < length; ++i)
      r.prompt.push_back(i < length / 2 ? topic + i % 10 : static_cast<TokenId>(pick(50)));
    r.n = pick(5) == 0 ? 2 : 1;
    r.priority = static_cast<int>(pick(3));
    // Mostly short, so that nobody reserves memory for what the others grow to.
    r.sampling.max_tokens = static_cast<int>(pick(3) == 0 ? 20 + pick(13) : 1 + pick(6));
    r.sampling.min_tokens = static_cast<int>(pick(2) * pick(r.sampling.max_tokens));
    r.sampling.seed = random();
    r.sampling.eos_token_ids = {7};
    r.sampling.ignore_eos = pick(4) == 0;
    if (pick(4) == 0) r.sampling.stop_token_ids = {static_cast<TokenId>(pick(50))};
    // Longer than what a string keeps in itself.
    if (pick(3) == 0) r.cache_salt = "a salt of more than a few bytes, number " + std::to_string(pick(20));
    if (pick(10) == 0) r.deadline = now + Time{static_cast<int64_t>(pick(40))};
    return r;
  }

  SchedulerConfig config;
  BlockGeometry geometry;
  std::mt19937_64 random;
  RequestId last_id = 0;
};

}  // namespace serval::testing
