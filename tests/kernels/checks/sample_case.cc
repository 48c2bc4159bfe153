#include "tests/kernels/checks/sample_case.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/sample.h"

namespace serval::gpu {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

}  // namespace

std::vector<Drawn> sample_on_cpu(const std::vector<SampleCase>& cases) {
  static ThreadPool pool(1, false);
  static SampleScratch scratch;
  SampleCall call(cases);
  scratch.last_drawn.assign(8, 0);
  sample_rows(call.args(call.logits.data()), cpu::choose_kernels("auto").sample, pool, scratch);
  return call.drawn();
}

SampleCase random_case(std::mt19937_64& rng, int vocab) {
  SampleCase c;
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
  c.num_prompt = static_cast<int>(c.history.size() * (rng() % 3) / 2);
  if (rng() % 2) c.num_recent = std::min<int>(rng() % 5, static_cast<int>(c.history.size()) - c.num_prompt);
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

SampleCase plain_case(std::vector<float> logits) {
  SampleCase c;
  c.logits = std::move(logits);
  return c;
}

std::vector<float> random_logits(std::mt19937_64& rng, int vocab, float spread) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> row(vocab);
  for (float& v : row) v = normal(rng);
  return row;
}

bool same_bits(const Drawn& a, const Drawn& b) {
  return a.result.token == b.result.token && a.result.rank == b.result.rank &&
         a.result.finite == b.result.finite &&
         std::memcmp(&a.result.logprob, &b.result.logprob, sizeof(float)) == 0 &&
         a.top.size() == b.top.size() &&
         (a.top.empty() || std::memcmp(a.top.data(), b.top.data(), a.top.size() * sizeof(TopLogprob)) == 0);
}

}  // namespace serval::gpu
