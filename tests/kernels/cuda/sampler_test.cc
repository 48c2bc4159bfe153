// Sampling on the emulated device against the distribution it must draw from, its edges, and its memory.
// Against the CPU row for row: checks_test.cc.
#include "kernels/cuda/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "kernels/emulation/emulation.h"
#include "kernels/emulation/runtime.h"
#include "tests/kernels/checks/sample_case.h"

namespace serval::cuda {
namespace {

using gpu::Drawn;
using gpu::plain_case;
using gpu::random_case;
using gpu::random_logits;
using gpu::same_bits;
using gpu::sample_on_cpu;
using gpu::SampleCall;
using gpu::SampleCase;
using gpu::SampleDevice;

constexpr float kInf = std::numeric_limits<float>::infinity();

class SamplerOnDevice : public testing::Test {
 protected:
  void TearDown() override { simt::set_schedule_seed(0); }
};

TEST_F(SamplerOnDevice, ARowHasTheSameBitsAloneInABatchAndAtAnyIndexAndSchedule) {
  std::mt19937_64 rng(12);
  for (const int vocab : {63, 1003, 5000}) {
    SampleDevice device(9, vocab);  // more rows than the emulated device has blocks
    for (int round = 0; round < 12; ++round) {
      const SampleCase own = random_case(rng, vocab);
      simt::set_schedule_seed(0);
      const Drawn alone = device.sample_one(own);
      for (uint64_t schedule = 0; schedule < 4; ++schedule) {
        simt::set_schedule_seed(schedule);
        const size_t index = rng() % 7;
        std::vector<SampleCase> batch;
        for (int i = 0; i < 6; ++i) batch.push_back(random_case(rng, vocab));
        batch.insert(batch.begin() + static_cast<int64_t>(index), own);
        EXPECT_TRUE(same_bits(device.sample(batch)[index], alone)) << vocab << " round " << round;
      }
    }
  }
}

// Probabilities that the filters leave, by definition.
std::vector<double> filtered_softmax(const std::vector<float>& row, const SampleRow& p) {
  const int vocab = static_cast<int>(row.size());
  std::vector<int> order(vocab);
  for (int i = 0; i < vocab; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return row[a] > row[b]; });
  const int kept = p.top_k > 0 ? std::min(p.top_k, vocab) : vocab;
  std::vector<double> weight(vocab);
  double total = 0, sum = 0, left = 0;
  for (int i = 0; i < kept; ++i)
    total += weight[order[i]] = std::exp((double{row[order[i]]} - row[order[0]]) / p.temperature);
  for (int i = 0; i < kept; ++i) {
    double& w = weight[order[i]];
    const bool is_in = i == 0 || sum < p.top_p * total;
    sum += w;
    if (!is_in || w < p.min_p) w = 0;
    left += w;
  }
  for (double& w : weight) w /= left;
  return weight;
}

TEST_F(SamplerOnDevice, DrawsFollowTheFilteredSoftmax) {
  constexpr int kDraws = 20000, kRows = 1000;
  std::mt19937_64 rng(13);
  const std::vector<float> logits = random_logits(rng, 60, 1.5f);
  SampleDevice device(kRows, 60);
  std::vector<SampleRow> settings(4);
  settings[0].temperature = 0.6f;
  settings[1].top_k = 9;
  settings[2].top_p = 0.85f;
  settings[3].min_p = 0.07f;
  for (size_t s = 0; s < settings.size(); ++s) {
    std::vector<int> counts(60);
    std::vector<SampleCase> cases(kRows, plain_case(logits));
    for (int done = 0; done < kDraws; done += kRows) {
      for (int i = 0; i < kRows; ++i) {
        cases[i].params = settings[s];
        cases[i].params.seed = 1000 * s;
        cases[i].params.position = done + i;
      }
      for (const Drawn& d : device.sample(cases)) ++counts[d.result.token];
    }
    const std::vector<double> probability = filtered_softmax(logits, settings[s]);
    double chi2 = 0, rare = 0, rare_count = 0;
    int cells = 0;
    for (int t = 0; t < 60; ++t) {
      const double expected = probability[t] * kDraws;
      if (expected == 0) {
        EXPECT_EQ(counts[t], 0) << "filtered token " << t << " was drawn";
      } else if (expected < 5) {
        rare += expected;
        rare_count += counts[t];
      } else {
        chi2 += (counts[t] - expected) * (counts[t] - expected) / expected;
        ++cells;
      }
    }
    if (rare > 0) {
      chi2 += (rare_count - rare) * (rare_count - rare) / std::max(rare, 1.0);
      ++cells;
    }
    // Four standard deviations to both sides of the mean.
    const double freedom = cells - 1;
    EXPECT_NEAR(chi2, freedom, 4 * std::sqrt(2 * freedom)) << "setting " << s << ", " << cells << " cells";
  }
}

TEST_F(SamplerOnDevice, TiesAtTheEdgeOfTopKAndTopPKeepTheLowestIds) {
  SampleDevice device(4, 3000);
  for (uint64_t seed = 0; seed < 40; ++seed) {
    std::vector<SampleCase> cases(4, plain_case(std::vector<float>(3000, 1.0f)));
    for (SampleCase& c : cases) c.params.seed = seed;
    cases[0].params.top_k = 3;
    cases[1].params.top_k = 900;       // more than the block has threads
    cases[2].params.top_p = 0.00132f;  // 4 of 3000 equal tokens reach it, 3 do not
    cases[3].params.top_p = 0;         // at least one
    const std::vector<Drawn> drawn = device.sample(cases);
    EXPECT_LT(drawn[0].result.token, 3);
    EXPECT_LT(drawn[1].result.token, 900);
    EXPECT_LT(drawn[2].result.token, 4);
    EXPECT_EQ(drawn[3].result.token, 0);
  }
}

TEST_F(SamplerOnDevice, ReportsMoreTokensThanTheBlockHasThreads) {
  std::mt19937_64 rng(17);
  SampleDevice device(1, 3000);
  SampleCase c = plain_case(random_logits(rng, 3000, 3));
  c.params.num_top = 1024;
  const Drawn got = device.sample_one(c), want = sample_on_cpu({c})[0];
  EXPECT_EQ(got.result.rank, want.result.rank);
  EXPECT_NEAR(got.result.logprob, want.result.logprob, 1e-5f);
  ASSERT_EQ(got.top.size(), 1024u);
  for (size_t i = 0; i < got.top.size(); ++i) {
    EXPECT_EQ(got.top[i].token, want.top[i].token);
    EXPECT_NEAR(got.top[i].logprob, want.top[i].logprob, 1e-5f);
  }
}

TEST_F(SamplerOnDevice, HandlesTopPJustBelowOneOnAFlatRow) {
  constexpr int kVocab = 33000;
  SampleDevice device(1, kVocab);
  SampleCase c = plain_case(std::vector<float>(kVocab, -30.0f));
  c.logits[777] = 0;
  c.params.top_p = std::nextafter(1.0f, 0.0f);
  for (c.params.seed = 0; c.params.seed < 5; ++c.params.seed)
    EXPECT_EQ(device.sample_one(c).result.token, 777);
}

TEST_F(SamplerOnDevice, KeepsTheTokenOfASlotAndReadsItAsHistory) {
  constexpr int kVocab = 300;
  std::mt19937_64 rng(14);
  SampleDevice device(3, kVocab, 4);
  SampleCase drawing = plain_case(random_logits(rng, kVocab, 2));
  drawing.params.slot = 2;
  drawing.params.seed = 5;
  const int32_t first = device.sample_one(drawing).result.token;
  EXPECT_EQ(device.sampler().last_tokens()[2], first);
  EXPECT_EQ(device.sampler().last_tokens()[1], 0) << "no draw yet";

  SampleCase next = plain_case(random_logits(rng, kVocab, 2));
  next.params.slot = 2;
  next.params.temperature = 0;
  next.logits[first] = 90;
  next.params.frequency_penalty = 100;
  next.history = {7, first, -1};  // the output so far: the last draw is known to the device alone
  next.num_prompt = 1;
  next.num_recent = 1;
  next.params.num_top = 0;
  SampleCase known = next;
  known.history.back() = first;
  const Drawn got = device.sample_one(next), want = sample_on_cpu({known})[0];
  EXPECT_NE(got.result.token, first);
  EXPECT_EQ(got.result.token, want.result.token);
  EXPECT_EQ(device.sampler().last_tokens()[2], got.result.token);

  SampleCase broken = plain_case(std::vector<float>(kVocab, -kInf));
  broken.params.slot = 2;
  EXPECT_FALSE(device.sample_one(broken).result.finite);
  EXPECT_EQ(device.sampler().last_tokens()[2], got.result.token) << "nothing was drawn";
}

TEST_F(SamplerOnDevice, DeliversSeveralLaunchesInAnyOrder) {
  constexpr int kVocab = 100;
  std::mt19937_64 rng(15);
  SampleDevice device(5, kVocab);
  for (int round = 0; round < 3; ++round) {
    std::vector<SampleCall> calls;
    std::vector<std::vector<Drawn>> want;
    std::vector<int> tickets;
    for (int i = 0; i < DeviceSampler::kMaxTickets; ++i) {
      std::vector<SampleCase> cases(1 + i, random_case(rng, kVocab));
      for (SampleCase& c : cases) c.params.seed = rng();
      want.push_back(sample_on_cpu(cases));
      calls.emplace_back(cases);
      tickets.push_back(device.launch(calls.back()));
    }
    for (const int i : {2, 0, 3, 1}) {
      device.sampler().wait_sampled(tickets[i], calls[i].results.data(), calls[i].top.data());
      const std::vector<Drawn> got = calls[i].drawn();
      for (size_t r = 0; r < got.size(); ++r) {
        EXPECT_EQ(got[r].result.token, want[i][r].result.token);
        EXPECT_EQ(got[r].result.finite, want[i][r].result.finite);
      }
    }
  }
}

TEST_F(SamplerOnDevice, LeavesNothingAllocatedAndAllocatesNothingAfterReserving) {
  const size_t before = simt::num_live_allocations();
  {
    std::mt19937_64 rng(16);
    SampleDevice device(2, 1000);
    const size_t reserved = simt::num_live_allocations();
    for (int i = 0; i < 5; ++i) device.sample({random_case(rng, 1000), random_case(rng, 1000)});
    EXPECT_EQ(simt::num_live_allocations(), reserved);
  }
  EXPECT_EQ(simt::num_live_allocations(), before);
}

TEST(SamplerOnDeviceDeathTest, RefusesListsThatWereNotReservedAndLaunchesThatNobodyDelivers) {
  SampleDevice device(2, 100, 1, 8);
  SampleCase c = plain_case(std::vector<float>(100, 0.0f));
  c.params.presence_penalty = 1;
  c.history.assign(9, 1);
  EXPECT_DEATH(device.sample_one(c), "max_list_ints");
  c.history.clear();
  SampleCall call({c});
  for (int i = 0; i < DeviceSampler::kMaxTickets; ++i) device.launch(call);
  EXPECT_DEATH(device.launch(call), "nobody delivers");
}

}  // namespace
}  // namespace serval::cuda
