// Sampling on the (emulated) device against sampling on the CPU, row for row, and against the distribution it
// must draw from. Each launch also asks the emulation whether anything was written where it must not be.
#include "kernels/cuda/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cpu/sample.h"
#include "tests/simt/emulation.h"
#include "tests/simt/runtime.h"

namespace serval::cuda {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Drawn {
  SampleResult result;
  std::vector<TopLogprob> top;
};

// Rows of one vocabulary with what their parameters point to.
struct Case {
  std::vector<float> logits;
  SampleRow params;
  std::vector<int32_t> history;
  std::vector<LogitBias> bias;
  std::vector<int32_t> banned;
  std::vector<uint32_t> mask;

  SampleRow row() const {
    SampleRow p = params;
    p.history = history.data();
    p.num_history = static_cast<int>(history.size());
    p.logit_bias = bias.data();
    p.num_logit_bias = static_cast<int>(bias.size());
    p.banned = banned.data();
    p.num_banned = static_cast<int>(banned.size());
    p.mask = mask.empty() ? nullptr : mask.data();
    return p;
  }
};

struct Call {
  std::vector<float> logits;
  std::vector<SampleRow> rows;
  std::vector<SampleResult> results;
  std::vector<TopLogprob> top;
  int stride = 0;

  explicit Call(const std::vector<Case>& cases) : results(cases.size()) {
    for (const Case& c : cases) {
      logits.insert(logits.end(), c.logits.begin(), c.logits.end());
      rows.push_back(c.row());
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
            .top_stride = stride};
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

std::vector<Drawn> sample_on_cpu(const std::vector<Case>& cases) {
  static ThreadPool pool(1, false);
  static SampleScratch scratch;
  Call call(cases);
  scratch.last_drawn.assign(8, 0);
  sample_rows(call.args(call.logits.data()), pool, scratch);
  return call.drawn();
}

// A device with memory for logits and a sampler.
class Device {
 public:
  Device(int max_rows, int64_t vocab, int max_slots = 4, size_t max_list_ints = 1 << 16)
      : stream_(create_stream()), sampler_(stream_) {
    sampler_.reserve(max_rows, vocab, max_slots, max_list_ints);
    logits_.reset(static_cast<float*>(allocate_device(sizeof(float) * max_rows * vocab)));
  }
  ~Device() {
    simt::check_guards();
    destroy_stream(stream_);
  }

  int launch(Call& call) {
    copy_to_device(stream_, logits_.get(), call.logits.data(), call.logits.size() * sizeof(float));
    const int ticket = sampler_.launch(call.args(logits_.get()));
    simt::check_guards();
    return ticket;
  }
  std::vector<Drawn> sample(const std::vector<Case>& cases) {
    Call call(cases);
    const int ticket = launch(call);
    sampler_.deliver(ticket, call.results.data(), call.top.data());
    return call.drawn();
  }
  Drawn sample_one(const Case& one) { return sample({one})[0]; }
  DeviceSampler& sampler() { return sampler_; }

 private:
  Stream stream_;
  DeviceSampler sampler_;
  std::unique_ptr<float, FreeDevice> logits_;
};

Case random_case(std::mt19937_64& rng, int vocab) {
  Case c;
  std::normal_distribution<float> normal(0, 0.5f + static_cast<float>(rng() % 5));
  c.logits.resize(vocab);
  for (float& v : c.logits) v = normal(rng);
  if (rng() % 4 == 0)
    for (float& v : c.logits) v = std::round(v);  // ties everywhere, -0 beside 0
  if (rng() % 6 == 0)
    for (float& v : c.logits) v = rng() % 3 == 0 ? -kInf : v;
  if (rng() % 40 == 0) c.logits[rng() % vocab] = std::copysign(std::nanf(""), rng() % 2 ? 1.0f : -1.0f);
  if (rng() % 40 == 0) c.logits[rng() % vocab] = kInf;
  SampleRow& p = c.params;
  p.seed = rng();
  p.position = static_cast<int64_t>(rng() % 5000);
  constexpr float kTemperatures[] = {0, 1e-6f, 0.3f, 0.7f, 1, 1.5f, 50};
  p.temperature = kTemperatures[rng() % 7];
  if (rng() % 2) p.top_k = 1 + static_cast<int>(rng() % (rng() % 2 ? vocab + 3 : std::min(vocab, 60)));
  if (rng() % 2) p.top_p = static_cast<float>(rng() % 1001) / 1000;
  if (rng() % 3 == 0) p.min_p = static_cast<float>(rng() % 500) / 1000;
  const auto token = [&] { return static_cast<int32_t>(rng() % vocab); };
  for (uint64_t i = rng() % 700; i > 0; --i) c.history.push_back(token());
  p.num_prompt = static_cast<int>(c.history.size() * (rng() % 3) / 2);
  if (rng() % 3 == 0) p.repetition_penalty = rng() % 2 ? 1.3f : 0.8f;
  if (rng() % 3 == 0) p.presence_penalty = 0.6f;
  if (rng() % 3 == 0) p.frequency_penalty = -0.4f;
  if (rng() % 4 == 0)
    for (uint64_t i = rng() % 30; i > 0; --i) c.bias.push_back({token(), normal(rng)});
  if (rng() % 4 == 0)
    for (uint64_t i = rng() % 4; i > 0; --i) c.banned.push_back(token());
  if (rng() % 4 == 0) {
    c.mask.resize((vocab + 31) / 32);
    for (uint32_t& word : c.mask) word = static_cast<uint32_t>(rng() | rng());
  }
  if (rng() % 3 == 0) p.num_top = std::min(vocab, static_cast<int>(rng() % 21));
  if (rng() % 20 == 0) p.forced = token();
  return c;
}

void expect_same_report(const Drawn& got, const Drawn& want) {
  EXPECT_EQ(got.result.rank, want.result.rank);
  if (std::isfinite(want.result.logprob)) {
    EXPECT_NEAR(got.result.logprob, want.result.logprob, 1e-5f);
  } else {
    EXPECT_EQ(got.result.logprob, want.result.logprob);
  }
  ASSERT_EQ(got.top.size(), want.top.size());
  for (size_t i = 0; i < want.top.size(); ++i) {
    EXPECT_EQ(got.top[i].token, want.top[i].token);
    if (std::isfinite(want.top[i].logprob)) {
      EXPECT_NEAR(got.top[i].logprob, want.top[i].logprob, 1e-5f);
    } else {
      EXPECT_EQ(got.top[i].logprob, want.top[i].logprob);
    }
  }
}

bool same_bits(const Drawn& a, const Drawn& b) {
  return a.result.token == b.result.token && a.result.rank == b.result.rank &&
         a.result.finite == b.result.finite &&
         std::memcmp(&a.result.logprob, &b.result.logprob, sizeof(float)) == 0 &&
         a.top.size() == b.top.size() &&
         (a.top.empty() || std::memcmp(a.top.data(), b.top.data(), a.top.size() * sizeof(TopLogprob)) == 0);
}

class SamplerOnDevice : public testing::Test {
 protected:
  void TearDown() override { simt::set_schedule_seed(0); }
};

TEST_F(SamplerOnDevice, DrawsAndReportsWhatTheCpuDoes) {
  struct Size {
    int vocab, num_cases;
  };
  std::mt19937_64 rng(11);
  int compared = 0, different = 0;
  for (const auto& [vocab, num_cases] :
       {Size{1, 200}, Size{2, 400}, Size{63, 1600}, Size{1000, 1600}, Size{1003, 1600}, Size{33000, 200}}) {
    constexpr int kRows = 20;
    Device device(kRows, vocab);
    for (int done = 0; done < num_cases; done += kRows) {
      simt::set_schedule_seed(rng() % 3);
      std::vector<Case> cases;
      for (int i = 0; i < kRows; ++i) cases.push_back(random_case(rng, vocab));
      const std::vector<Drawn> got = device.sample(cases), want = sample_on_cpu(cases);
      for (int i = 0; i < kRows; ++i) {
        SCOPED_TRACE(testing::Message() << "vocab " << vocab << " case " << done + i);
        ASSERT_EQ(got[i].result.finite, want[i].result.finite);
        ++compared;
        if (got[i].result.token != want[i].result.token) {
          ++different;
        } else {
          expect_same_report(got[i], want[i]);
        }
      }
    }
  }
  EXPECT_GT(compared, 5000);
  // Only the last place of a sum of probabilities at the edge of top_p may tell them apart.
  EXPECT_LE(different, compared / 1000) << different << " of " << compared;
}

Case plain_case(std::vector<float> logits) {
  Case c;
  c.logits = std::move(logits);
  return c;
}

std::vector<float> random_logits(std::mt19937_64& rng, int vocab, float spread) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> row(vocab);
  for (float& v : row) v = normal(rng);
  return row;
}

TEST_F(SamplerOnDevice, ARowHasTheSameBitsAloneInABatchAndAtAnyIndexAndSchedule) {
  std::mt19937_64 rng(12);
  for (const int vocab : {63, 1003, 5000}) {
    Device device(9, vocab);  // more rows than the emulated device has blocks
    for (int round = 0; round < 12; ++round) {
      const Case own = random_case(rng, vocab);
      simt::set_schedule_seed(0);
      const Drawn alone = device.sample_one(own);
      for (uint64_t schedule = 0; schedule < 4; ++schedule) {
        simt::set_schedule_seed(schedule);
        const size_t index = rng() % 7;
        std::vector<Case> batch;
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
  Device device(kRows, 60);
  std::vector<SampleRow> settings(4);
  settings[0].temperature = 0.6f;
  settings[1].top_k = 9;
  settings[2].top_p = 0.85f;
  settings[3].min_p = 0.07f;
  for (size_t s = 0; s < settings.size(); ++s) {
    std::vector<int> counts(60);
    std::vector<Case> cases(kRows, plain_case(logits));
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
  Device device(4, 3000);
  for (uint64_t seed = 0; seed < 40; ++seed) {
    std::vector<Case> cases(4, plain_case(std::vector<float>(3000, 1.0f)));
    for (Case& c : cases) c.params.seed = seed;
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
  Device device(1, 3000);
  Case c = plain_case(random_logits(rng, 3000, 3));
  c.params.num_top = 1024;
  expect_same_report(device.sample_one(c), sample_on_cpu({c})[0]);
}

TEST_F(SamplerOnDevice, HandlesTopPJustBelowOneOnAFlatRow) {
  constexpr int kVocab = 33000;
  Device device(1, kVocab);
  Case c = plain_case(std::vector<float>(kVocab, -30.0f));
  c.logits[777] = 0;
  c.params.top_p = std::nextafter(1.0f, 0.0f);
  for (c.params.seed = 0; c.params.seed < 5; ++c.params.seed)
    EXPECT_EQ(device.sample_one(c).result.token, 777);
}

TEST_F(SamplerOnDevice, KeepsTheTokenOfASlotAndReadsItAsHistory) {
  constexpr int kVocab = 300;
  std::mt19937_64 rng(14);
  Device device(3, kVocab, 4);
  Case drawing = plain_case(random_logits(rng, kVocab, 2));
  drawing.params.slot = 2;
  drawing.params.seed = 5;
  const int32_t first = device.sample_one(drawing).result.token;
  EXPECT_EQ(device.sampler().last_tokens()[2], first);
  EXPECT_EQ(device.sampler().last_tokens()[1], 0) << "no draw yet";

  Case next = plain_case(random_logits(rng, kVocab, 2));
  next.params.slot = 2;
  next.params.temperature = 0;
  next.logits[first] = 90;
  next.params.frequency_penalty = 100;
  next.history = {7, first, -1};  // the output so far: the last draw is known to the device alone
  next.params.num_prompt = 1;
  next.params.num_top = 0;
  Case known = next;
  known.history.back() = first;
  const Drawn got = device.sample_one(next), want = sample_on_cpu({known})[0];
  EXPECT_NE(got.result.token, first);
  EXPECT_EQ(got.result.token, want.result.token);
  EXPECT_EQ(device.sampler().last_tokens()[2], got.result.token);

  Case broken = plain_case(std::vector<float>(kVocab, -kInf));
  broken.params.slot = 2;
  EXPECT_FALSE(device.sample_one(broken).result.finite);
  EXPECT_EQ(device.sampler().last_tokens()[2], got.result.token) << "nothing was drawn";
}

TEST_F(SamplerOnDevice, DeliversSeveralLaunchesInAnyOrder) {
  constexpr int kVocab = 100;
  std::mt19937_64 rng(15);
  Device device(5, kVocab);
  for (int round = 0; round < 3; ++round) {
    std::vector<Call> calls;
    std::vector<std::vector<Drawn>> want;
    std::vector<int> tickets;
    for (int i = 0; i < DeviceSampler::kMaxTickets; ++i) {
      std::vector<Case> cases(1 + i, random_case(rng, kVocab));
      for (Case& c : cases) c.params.seed = rng();
      want.push_back(sample_on_cpu(cases));
      calls.emplace_back(cases);
      tickets.push_back(device.launch(calls.back()));
    }
    for (const int i : {2, 0, 3, 1}) {
      device.sampler().deliver(tickets[i], calls[i].results.data(), calls[i].top.data());
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
    Device device(2, 1000);
    const size_t reserved = simt::num_live_allocations();
    for (int i = 0; i < 5; ++i) device.sample({random_case(rng, 1000), random_case(rng, 1000)});
    EXPECT_EQ(simt::num_live_allocations(), reserved);
  }
  EXPECT_EQ(simt::num_live_allocations(), before);
}

TEST(SamplerOnDeviceDeathTest, RefusesListsThatWereNotReservedAndLaunchesThatNobodyDelivers) {
  Device device(2, 100, 1, 8);
  Case c = plain_case(std::vector<float>(100, 0.0f));
  c.params.presence_penalty = 1;
  c.history.assign(9, 1);
  EXPECT_DEATH(device.sample_one(c), "max_list_ints");
  c.history.clear();
  Call call({c});
  for (int i = 0; i < DeviceSampler::kMaxTickets; ++i) device.launch(call);
  EXPECT_DEATH(device.launch(call), "nobody delivers");
}

}  // namespace
}  // namespace serval::cuda
