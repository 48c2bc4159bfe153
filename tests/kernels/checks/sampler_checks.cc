// Sampling on the device against sampling on the CPU, row for row, and a row's bits in any company.
#include <cmath>

#include "tests/kernels/checks/check.h"
#include "tests/kernels/checks/invariance.h"
#include "tests/kernels/checks/sample_case.h"

namespace serval::gpu {
namespace {

void expect_logprob(Finding& finding, float got, float want, const std::string& where) {
  if (std::isfinite(want)) {
    finding.expect_near(got, want, 1e-5, "the log-probability of " + where);
  } else if (got != want) {
    finding.fail("the log-probability of " + where + " is not " + std::to_string(want));
  }
}

void expect_report(Finding& finding, const Drawn& got, const Drawn& want, const std::string& where) {
  if (got.result.rank != want.result.rank) finding.fail("the rank of " + where + " is wrong");
  expect_logprob(finding, got.result.logprob, want.result.logprob, where);
  if (got.top.size() != want.top.size()) return finding.fail(where + " reports another number of tokens");
  for (size_t i = 0; i < want.top.size(); ++i) {
    if (got.top[i].token != want.top[i].token) finding.fail(where + " reports another token");
    expect_logprob(finding, got.top[i].logprob, want.top[i].logprob, where);
  }
}

// Only the last place of a sum of probabilities at the edge of top_p may tell the two apart: one draw in a
// thousand.
void compare_with_cpu(int vocab, int num_cases, Finding& finding) {
  constexpr int kRows = 20;
  std::mt19937_64 rng(static_cast<uint64_t>(vocab));
  SampleDevice device(kRows, vocab);
  int different = 0;
  for (int done = 0; done < num_cases; done += kRows) {
    std::vector<SampleCase> cases;
    for (int i = 0; i < kRows; ++i) cases.push_back(random_case(rng, vocab));
    const std::vector<Drawn> got = device.sample(cases), want = sample_on_cpu(cases);
    for (int i = 0; i < kRows; ++i) {
      const std::string where = "case " + std::to_string(done + i);
      if (got[i].result.finite != want[i].result.finite) {
        finding.fail(where + " disagrees on being finite");
      } else if (got[i].result.token != want[i].result.token) {
        ++different;
      } else {
        expect_report(finding, got[i], want[i], where);
      }
    }
  }
  if (different > num_cases / 1000)
    finding.fail(std::to_string(different) + " of " + std::to_string(num_cases) + " draws differ");
}

void check_company(int vocab, int rounds, Finding& finding) {
  std::mt19937_64 rng(12);
  SampleDevice device(9, vocab);  // more rows than the emulated device has blocks
  for (int round = 0; round < rounds; ++round) {
    const SampleCase own = random_case(rng, vocab);
    const Drawn alone = device.sample_one(own);
    for (const size_t index : {0, 3, 6}) {
      std::vector<SampleCase> batch;
      for (int i = 0; i < 6; ++i) batch.push_back(random_case(rng, vocab));
      batch.insert(batch.begin() + static_cast<int64_t>(index), own);
      if (!same_bits(device.sample(batch)[index], alone))
        finding.fail("round " + std::to_string(round) + ", index " + std::to_string(index) + " differs");
    }
  }
}

}  // namespace

std::vector<Check> sampler_checks(Sizes sizes) {
  struct Size {
    int vocab, num_cases;
  };
  std::vector<Size> table = {{1, 200}, {2, 300}, {63, 600}, {1000, 800}, {1003, 800}, {33000, 160}};
  if (sizes == Sizes::kAll) table.push_back({128256, 400});
  std::vector<Check> checks;
  for (const auto& [vocab, num_cases] : table) {
    checks.push_back({"sampling", std::to_string(num_cases) + " rows of " + std::to_string(vocab),
                      [=](Finding& f) { compare_with_cpu(vocab, num_cases, f); }});
  }
  return checks;
}

std::vector<Check> sampler_invariance(Sizes sizes) {
  std::vector<Check> checks;
  for (const int vocab : {63, 1003, 5000})
    checks.push_back({"sampling", "any company, vocabulary " + std::to_string(vocab),
                      [=](Finding& f) { check_company(vocab, 6, f); }});
  if (sizes == Sizes::kAll)
    checks.push_back(
        {"sampling", "any company, vocabulary 128256", [](Finding& f) { check_company(128256, 20, f); }});
  return checks;
}

}  // namespace serval::gpu
