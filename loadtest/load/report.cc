#include "loadtest/load/report.h"

#include <array>
#include <boost/json.hpp>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>

#include "engine/json/json_reader.h"

namespace serval::load {
namespace {

namespace json = boost::json;

std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));
std::string format(const char* pattern, ...) {
  char buffer[512];
  va_list arguments;
  va_start(arguments, pattern);
  std::vsnprintf(buffer, sizeof buffer, pattern, arguments);
  va_end(arguments);
  return buffer;
}

const std::pair<const char*, Percentiles Summary::*> kLatencies[] = {
    {"ttft_ms", &Summary::ttft_ms}, {"tpot_ms", &Summary::tpot_ms},         {"itl_ms", &Summary::itl_ms},
    {"e2e_ms", &Summary::e2e_ms},   {"send_lag_ms", &Summary::send_lag_ms},
};

json::object to_json(const Percentiles& p) {
  return {{"mean", p.mean}, {"p50", p.p50}, {"p90", p.p90}, {"p95", p.p95}, {"p99", p.p99}, {"max", p.max}};
}

// Each request in a few columns, in the order they were planned; null where a figure has no meaning.
json::object by_request(const std::vector<Outcome>& outcomes) {
  json::array at, first, last, end, output, text;
  const auto after_ms = [](const Outcome& o, double time_s) {
    return o.error.empty() && !o.token_s.empty() ? json::value((time_s - o.intended_s) * 1e3) : json::value();
  };
  for (const Outcome& o : outcomes) {
    at.push_back(o.intended_s);
    first.push_back(after_ms(o, o.token_s.empty() ? 0 : o.token_s.front()));
    last.push_back(after_ms(o, o.token_s.empty() ? 0 : o.token_s.back()));
    end.push_back(after_ms(o, o.end_s));
    output.push_back(o.output_tokens);
    text.emplace_back(o.text);  // empty unless it was to be kept
  }
  return {
      {"at_s", std::move(at)},    {"ttft_ms", std::move(first)},        {"last_token_ms", std::move(last)},
      {"e2e_ms", std::move(end)}, {"output_tokens", std::move(output)}, {"text", std::move(text)}};
}

}  // namespace

std::string report_text(const Report& r) {
  const Summary& s = r.summary;
  std::string out = format("%zu requests to %s (%s), %zu succeeded, %.2f s\n", s.num_requests, r.url.c_str(),
                           r.model.c_str(), s.num_ok, s.duration_s);
  for (const auto& [kind, count] : s.errors) {
    const auto message = s.error_messages.find(kind);
    out += "  failed: " + std::to_string(count) + " x " + kind +
           (message == s.error_messages.end() ? "" : ": " + message->second) + "\n";
  }
  out += format("  throughput   %.2f requests/s, %.1f output tokens/s, %.1f tokens/s in all\n",
                s.requests_per_s, s.output_tokens_per_s, s.total_tokens_per_s);
  if (r.slo.ttft_ms > 0 || r.slo.tpot_ms > 0) {
    out += format("  goodput      %.2f requests/s met ttft %.0f ms, tpot %.0f ms (%.1f %% of all)\n",
                  s.goodput_per_s, r.slo.ttft_ms, r.slo.tpot_ms, s.good_share * 100);
  }
  out += format("  tokens       %lld in, %lld out, %lld of the prompts cached\n",
                static_cast<long long>(s.prompt_tokens), static_cast<long long>(s.output_tokens),
                static_cast<long long>(s.cached_tokens));
  out += "               mean       p50       p90       p95       p99       max\n";
  for (const auto& [name, member] : kLatencies) {
    if (member == &Summary::itl_ms && !r.has_every_token) continue;
    const Percentiles& p = s.*member;
    out += format("  %-11s%10.2f%10.2f%10.2f%10.2f%10.2f%10.2f\n", name, p.mean, p.p50, p.p90, p.p95, p.p99,
                  p.max);
  }
  return out;
}

std::string report_json(const Report& r) {
  const Summary& s = r.summary;
  json::object out;
  out["label"] = r.label;
  out["url"] = r.url;
  out["model"] = r.model;
  out["requests"] = s.num_requests;
  out["succeeded"] = s.num_ok;
  out["duration_s"] = s.duration_s;
  out["started_ns"] = r.started_ns;
  for (const auto& [name, member] : kLatencies) {
    if (member != &Summary::itl_ms || r.has_every_token) out[name] = to_json(s.*member);
  }
  out["requests_per_s"] = s.requests_per_s;
  out["offered_per_s"] = s.offered_per_s;
  out["served_per_s"] = s.served_per_s;
  out["output_tokens_per_s"] = s.output_tokens_per_s;
  out["total_tokens_per_s"] = s.total_tokens_per_s;
  out["goodput"] = {{"requests_per_s", s.goodput_per_s},
                    {"share", s.good_share},
                    {"slo_ttft_ms", r.slo.ttft_ms},
                    {"slo_tpot_ms", r.slo.tpot_ms}};
  out["prompt_tokens"] = s.prompt_tokens;
  out["output_tokens"] = s.output_tokens;
  out["cached_tokens"] = s.cached_tokens;
  json::object errors;
  for (const auto& [kind, count] : s.errors) errors[kind] = count;
  out["errors"] = std::move(errors);
  json::object messages;
  for (const auto& [kind, message] : s.error_messages) messages[kind] = message;
  out["error_messages"] = std::move(messages);
  out["by_request"] = by_request(r.outcomes);
  json::array samples;
  for (const ServerSample& sample : r.samples) {
    samples.push_back({{"at_s", sample.at_s},
                       {"running", sample.running},
                       {"waiting", sample.waiting},
                       {"kv_usage", sample.kv_usage}});
  }
  out["server"] = std::move(samples);
  return json::serialize(out) + "\n";
}

std::vector<std::pair<std::string, double>> read_figures(const std::string& path) {
  std::vector<std::pair<std::string, double>> figures;
  for (const auto& [name, value] : read_own_json_file(path)) {
    if (value.is_number()) figures.emplace_back(name, value.to_number<double>());
    if (!value.is_object() || name == "errors") continue;
    for (const auto& [inner, number] : value.get_object()) {
      if (number.is_number())
        figures.emplace_back(std::string(name) + "." + std::string(inner), number.to_number<double>());
    }
  }
  return figures;
}

std::string compare_text(const std::string& a_path, const std::string& b_path) {
  const auto a = read_figures(a_path);
  const auto b = read_figures(b_path);
  std::string out = format("%-28s%14s%14s%10s\n", "", "A", "B", "B/A");
  for (const auto& [name, value] : a) {
    for (const auto& [other, second] : b) {
      if (name != other) continue;
      out += format("%-28s%14.3f%14.3f%10s\n", name.c_str(), value, second,
                    value != 0 ? format("%.3f", second / value).c_str() : "-");
    }
  }
  return out;
}

std::string table_text(const std::vector<Report>& reports) {
  const auto figures = [](const Summary& s) {
    const double cached =
        s.prompt_tokens ? 100.0 * static_cast<double>(s.cached_tokens) / static_cast<double>(s.prompt_tokens)
                        : 0;
    return std::array{static_cast<double>(s.num_ok),
                      s.requests_per_s,
                      s.output_tokens_per_s,
                      s.ttft_ms.p50,
                      s.ttft_ms.p99,
                      s.tpot_ms.p50,
                      s.tpot_ms.p99,
                      cached};
  };
  const auto row = [](const std::string& name, const auto& f) {
    return format("%-40s%8.0f%10.2f%12.1f%11.2f%11.2f%11.3f%11.3f%7.1f%%\n", name.substr(0, 39).c_str(), f[0],
                  f[1], f[2], f[3], f[4], f[5], f[6], f[7]);
  };
  std::string out = format("%-40s%8s%10s%12s%11s%11s%11s%11s%8s\n", "endpoint", "ok", "req/s", "out tok/s",
                           "ttft p50", "ttft p99", "tpot p50", "tpot p99", "cached");
  std::map<std::string, std::vector<Summary>> by_label;
  for (const Report& r : reports) {
    out += row(r.label, figures(r.summary));
    by_label[r.label].push_back(r.summary);
  }
  for (const auto& [label, runs] : by_label) {
    auto medians = figures(runs[0]);
    for (size_t i = 0; i < medians.size(); ++i) {
      std::vector<double> values;
      for (const Summary& run : runs) values.push_back(figures(run)[i]);
      medians[i] = percentiles(std::move(values)).p50;
    }
    out += row("median " + label, medians);
  }
  return out;
}

}  // namespace serval::load
