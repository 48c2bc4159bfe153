#include "loadtest/gpu/bench.h"

#include <exception>
#include <iomanip>
#include <ostream>

namespace serval::gpu {

namespace json = boost::json;

double scale_of(const Row& row, const Ceilings& ceilings) {
  if (row.limit == Limit::kLatency) return 1;
  if (row.limit == Limit::kMemory) return ceilings.bandwidth > 0 ? kBandwidth / ceilings.bandwidth : 1;
  return ceilings.product_rate > 0 ? kProductRate / ceilings.product_rate : 1;
}

void learn(const Row& row, double us, Ceilings& ceilings) {
  if (!row.kernel.starts_with("ceiling") || us <= 0) return;
  if (const auto* copy = std::get_if<CopyWork>(&row.work)) {
    ceilings.bandwidth = 2 * copy->bytes / us * 1e6;
  } else if (const auto* gemm = std::get_if<GemmWork>(&row.work); gemm != nullptr && gemm->is_vendor) {
    ceilings.product_rate = 2.0 * gemm->m * gemm->n * gemm->k / us * 1e6;
  }
}

const char* verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kNoGate:
      return "no gate";
    case Verdict::kGood:
      return "good";
    case Verdict::kMust:
      return "must";
    case Verdict::kMissed:
      return "MISSED";
    case Verdict::kUnsteady:
      return "unsteady";
  }
  return "";
}

Verdict judge(const Row& row, const Measurement& measured, double scale) {
  if (measured.spread > kSteady) return Verdict::kUnsteady;
  if (row.must_us == 0) return Verdict::kNoGate;
  if (measured.us <= row.good_us * scale) return Verdict::kGood;
  return measured.us <= row.must_us * scale ? Verdict::kMust : Verdict::kMissed;
}

int run_rows(const std::vector<Row>& rows, const Measure& measure, const Deadline& deadline, Report& report,
             std::ostream& out) {
  Ceilings ceilings;
  int missed = 0;
  out << std::fixed << std::setprecision(1);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (deadline.has_passed()) {
      out << "the deadline has passed: " << rows.size() - i << " rows not measured\n";
      break;
    }
    const Row& row = rows[i];
    json::object result = {{"kernel", row.kernel},     {"shape", row.shape},
                           {"floor_us", row.floor_us}, {"predicted_us", row.predicted_us},
                           {"must_us", row.must_us},   {"good_us", row.good_us}};
    out << std::left << std::setw(36) << row.kernel << std::setw(22) << row.shape << std::right;
    try {
      Measurement measured = measure(row);
      if (measured.spread > kSteady) {
        const Measurement again = measure(row);
        if (again.spread < measured.spread) measured = again;
      }
      const double scale = scale_of(row, ceilings);
      const Verdict verdict = judge(row, measured, scale);
      missed += verdict == Verdict::kMissed;
      const double share = measured.us > 0 ? 100 * row.floor_us * scale / measured.us : 0;
      result["scale"] = scale;
      result["measured_us"] = measured.us;
      result["spread"] = measured.spread;
      result["launches"] = measured.launches;
      result["replays"] = measured.replays;
      result["percent_of_floor"] = share;
      result["verdict"] = verdict_name(verdict);
      out << " floor " << row.floor_us * scale << " predicted " << row.predicted_us * scale << " must "
          << row.must_us * scale << " good " << row.good_us * scale << " measured " << measured.us
          << " us +- " << 50 * measured.spread << " %, " << share << " % of floor: " << verdict_name(verdict)
          << "\n";
      learn(row, measured.us, ceilings);
    } catch (const std::exception& e) {
      result["problem"] = e.what();
      out << " not measured: " << e.what() << "\n";
    }
    out << std::flush;
    report.add(std::move(result));
  }
  return missed;
}

}  // namespace serval::gpu
