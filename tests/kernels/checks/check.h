// A check of one kernel at one shape, as a value: a name, and a function that runs it on the device this
// program is linked with. The tables are run by `serval-gpu check` on a GPU and by the tests on the emulated
// device, so that there is one list of cases.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace serval::gpu {

// What a check found: the worst error as a share of what is allowed, how many numbers were further off than that, and the
// first thing that was wrong. A few numbers at less than twice what is allowed speak of a tolerance drawn too tight; many, or
// far ones, of a kernel.
class Finding {
 public:
  void expect_near(double got, double want, double allowed, const std::string& where) {
    const double error = std::abs(got - want) / allowed;
    ++num_compared_;
    if (error <= 1) {
      worst_ = std::max(worst_, error);
    } else if (got != want) {  // not-a-number too
      worst_ = std::max(worst_, std::isfinite(error) ? error : 1e9);
      ++num_beyond_;
      fail(where + " is " + std::to_string(got) + ", not " + std::to_string(want) + " within " +
           std::to_string(allowed));
    }
  }
  template <class Range>
  void expect_same(const Range& got, const Range& want, const std::string& what) {
    if (got != want) fail(what);
  }
  void fail(const std::string& problem) {
    if (problem_.empty()) problem_ = problem;
  }

  double worst() const { return worst_; }
  int64_t num_compared() const { return num_compared_; }
  int64_t num_beyond() const { return num_beyond_; }
  const std::string& problem() const { return problem_; }  // empty: passed

 private:
  double worst_ = 0;
  int64_t num_compared_ = 0, num_beyond_ = 0;
  std::string problem_;
};

struct Check {
  std::string kernel, shape;
  std::function<void(Finding&)> run;  // what it throws is a finding too
};

// kSmall: what the emulation does in seconds, every branch of every kernel. kAll adds the shapes of real
// models.
enum class Sizes { kSmall, kAll };

// Against definitions in double, and bits where two kernels must agree.
std::vector<Check> row_checks(Sizes sizes);
std::vector<Check> gemm_checks(Sizes sizes);
std::vector<Check> expert_checks(Sizes sizes);
std::vector<Check> attention_checks(Sizes sizes);
std::vector<Check> sampler_checks(Sizes sizes);

// Law 1: a row alone, in company, at another index, in other chunks.
std::vector<Check> invariance_checks(Sizes sizes);

Finding run_check(const Check& check);

}  // namespace serval::gpu
