// Runs rows of the table and says what each measured against its floor, its prediction and its gates.
#pragma once

#include <functional>
#include <iosfwd>
#include <vector>

#include "loadtest/gpu/measure.h"
#include "loadtest/gpu/report.h"
#include "loadtest/gpu/rows.h"

namespace serval::gpu {

// What this machine was found to do; 0: not measured yet. Floors and gates are those of an H200 and are
// scaled by it, so that another card is judged by what it can do; latencies are not.
struct Ceilings {
  double bandwidth = 0;     // bytes/s, of a copy
  double product_rate = 0;  // FLOP/s, of cuBLASLt at 8192^3
};
double scale_of(const Row& row, const Ceilings& ceilings);
// Takes a ceiling from a row that measures one.
void learn(const Row& row, double us, Ceilings& ceilings);

enum class Verdict { kNoGate, kGood, kMust, kMissed, kUnsteady };
const char* verdict_name(Verdict verdict);
Verdict judge(const Row& row, const Measurement& measured, double scale);

// How a row is measured: throws std::runtime_error when it cannot be.
using Measure = std::function<Measurement(const Row&)>;

// Runs rows in order until the deadline; prints a line and adds to the report for each. What cannot be
// measured is said and passed over. Returns how many missed what they must reach.
int run_rows(const std::vector<Row>& rows, const Measure& measure, const Deadline& deadline, Report& report,
             std::ostream& out);

}  // namespace serval::gpu
