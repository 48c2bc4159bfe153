// Rows of logits with sampling parameters, drawn on the CPU and on a device: what sampler checks and tests
// compare.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cuda/sampler.h"
#include "kernels/sample.h"

namespace serval::gpu {

struct Drawn {
  SampleResult result;
  std::vector<TopLogprob> top;
};

// Rows of one vocabulary with what their parameters point to.
struct SampleCase {
  std::vector<float> logits;
  SampleRow params;
  std::vector<int32_t> history;  // the prompt, then the output
  int num_prompt = 0;
  int num_recent = 0;  // of the output, from its end, handed over as recent and not counted
  std::vector<LogitBias> bias;
  std::vector<int32_t> banned;
  std::vector<uint32_t> mask;

  SampleRow row() const {
    SampleRow p = params;
    p.recent = history.data() + history.size() - num_recent;
    p.num_recent = num_recent;
    p.logit_bias = bias.data();
    p.num_logit_bias = static_cast<int>(bias.size());
    p.banned = banned.data();
    p.num_banned = static_cast<int>(banned.size());
    p.mask = mask.empty() ? nullptr : mask.data();
    return p;
  }
};

struct SampleCall {
  std::vector<float> logits;
  std::vector<SampleRow> rows;
  std::vector<CountedTokens> counted;  // row r's in slot r
  std::vector<SampleResult> results;
  std::vector<TopLogprob> top;
  int stride = 0;

  explicit SampleCall(const std::vector<SampleCase>& cases) : results(cases.size()) {
    for (const SampleCase& c : cases) {
      logits.insert(logits.end(), c.logits.begin(), c.logits.end());
      SampleRow& row = rows.emplace_back(c.row());
      row.counts_slot = static_cast<int32_t>(rows.size()) - 1;
      counted.push_back({.slot = row.counts_slot,
                         .restart = true,
                         .tokens = c.history.data(),
                         .num_tokens = static_cast<int>(c.history.size()) - c.num_recent,
                         .num_prompt = c.num_prompt});
      stride = std::max(stride, c.params.num_top);
    }
    top.resize(cases.size() * stride + 1);
  }
  SampleArgs args(float* memory) {
    const auto num_rows = static_cast<int64_t>(rows.size());
    return {.logits = Tensor(memory, DType::kF32, {num_rows, static_cast<int64_t>(logits.size()) / num_rows}),
            .rows = rows.data(),
            .results = results.data(),
            .top = top.data(),
            .top_stride = stride,
            .counted = counted.data(),
            .num_counted = static_cast<int>(counted.size())};
  }
  std::vector<Drawn> drawn() const {
    std::vector<Drawn> all(rows.size());
    for (size_t r = 0; r < rows.size(); ++r) {
      all[r].result = results[r];
      const auto begin = top.begin() + static_cast<int64_t>(r) * stride;
      if (results[r].finite && rows[r].num_top > 0) all[r].top.assign(begin, begin + rows[r].num_top);
    }
    return all;
  }
};

std::vector<Drawn> sample_on_cpu(const std::vector<SampleCase>& cases);

// A device with memory for logits and a sampler.
class SampleDevice {
 public:
  SampleDevice(int max_rows, int64_t vocab, int max_slots = 4, size_t max_list_ints = 1 << 16)
      : sampler_(stream_) {
    sampler_.reserve(max_rows, vocab, std::max(max_slots, max_rows), max_list_ints);
    logits_.reset(static_cast<float*>(cuda::allocate_device(sizeof(float) * max_rows * vocab)));
  }

  int launch(SampleCall& call) {
    cuda::copy_to_device(stream_, logits_.get(), call.logits.data(), call.logits.size() * sizeof(float));
    const int ticket = sampler_.launch(call.args(logits_.get()));
    return ticket;
  }
  std::vector<Drawn> sample(const std::vector<SampleCase>& cases) {
    SampleCall call(cases);
    const int ticket = launch(call);
    sampler_.wait_sampled(ticket, call.results.data(), call.top.data());
    return call.drawn();
  }
  Drawn sample_one(const SampleCase& one) { return sample({one})[0]; }
  cuda::DeviceSampler& sampler() { return sampler_; }

 private:
  const cuda::OwnedStream stream_;
  cuda::DeviceSampler sampler_;
  std::unique_ptr<float, cuda::FreeDevice> logits_;
};

// Every parameter and list switched on now and then; ties, infinities and not-a-numbers among the logits.
SampleCase random_case(std::mt19937_64& rng, int vocab);
SampleCase plain_case(std::vector<float> logits);
std::vector<float> random_logits(std::mt19937_64& rng, int vocab, float spread);

bool same_bits(const Drawn& a, const Drawn& b);

}  // namespace serval::gpu
