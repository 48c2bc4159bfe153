// The page: plain SVG drawn here, no script, no other file.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>

#include "loadtest/load/report.h"

namespace serval::load {
namespace {

constexpr double kWidth = 640, kHeight = 260, kLeft = 62, kRight = 14, kTop = 26, kBottom = 38;

std::string number(double value) {
  char text[32];
  if (value != 0 && std::abs(value) < 0.01) {
    std::snprintf(text, sizeof text, "%.1e", value);
  } else {
    std::snprintf(text, sizeof text,
                  std::abs(value) >= 100  ? "%.0f"
                  : std::abs(value) >= 10 ? "%.1f"
                                          : "%.2f",
                  value);
  }
  return text;
}

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else
      out += c;
  }
  return out;
}

// A round step that gives about five marks up to `top`.
double round_step(double top) {
  const double raw = std::max(top, 1e-9) / 5;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0, 10.0}) {
    if (raw <= factor * power) return factor * power;
  }
  return 10 * power;
}

// One chart with axes; what is drawn inside is given in data coordinates.
class Chart {
 public:
  Chart(std::string title, std::string x_name, double x_max, std::string y_name, double y_max)
      : title_(std::move(title)),
        x_name_(std::move(x_name)),
        y_name_(std::move(y_name)),
        x_max_(std::max(x_max, 1e-9)),
        y_max_(std::max(y_max, 1e-9)) {}

  double x(double value) const { return kLeft + value / x_max_ * (kWidth - kLeft - kRight); }
  double y(double value) const { return kHeight - kBottom - value / y_max_ * (kHeight - kTop - kBottom); }

  void line(const std::vector<std::pair<double, double>>& points, const std::string& colour,
            const std::string& name) {
    std::string path;
    for (const auto& [px, py] : points) path += number_pair(x(px), y(py));
    inside_ += "<polyline fill='none' stroke='" + colour + "' stroke-width='1.8' points='" + path + "'/>";
    if (!name.empty()) {
      const double at = kLeft + 8 + 110.0 * num_names_++;
      inside_ += "<rect x='" + number(at) + "' y='8' width='12' height='4' fill='" + colour + "'/><text x='" +
                 number(at + 16) + "' y='14'>" + name + "</text>";
    }
  }
  void bar(double from, double to, double at, double thickness, const std::string& colour) {
    inside_ += "<rect x='" + number2(x(from)) + "' y='" + number2(y(at)) + "' width='" +
               number2(std::max(0.6, x(to) - x(from))) + "' height='" + number2(thickness) + "' fill='" +
               colour + "'/>";
  }

  std::string svg() const {
    std::string out = "<figure><figcaption>" + title_ + "</figcaption><svg viewBox='0 0 640 260'>";
    const double x_step = round_step(x_max_), y_step = round_step(y_max_);
    for (double v = 0; v <= x_max_ * 1.0001; v += x_step) {
      out += "<line class='grid' x1='" + number2(x(v)) + "' x2='" + number2(x(v)) +
             "' y1='26' y2='222'/><text text-anchor='middle' x='" + number2(x(v)) + "' y='236'>" + number(v) +
             "</text>";
    }
    for (double v = 0; v <= y_max_ * 1.0001; v += y_step) {
      out += "<line class='grid' x1='62' x2='626' y1='" + number2(y(v)) + "' y2='" + number2(y(v)) +
             "'/><text text-anchor='end' x='56' y='" + number2(y(v) + 4) + "'>" + number(v) + "</text>";
    }
    out += "<text text-anchor='middle' x='344' y='254'>" + x_name_ +
           "</text><text text-anchor='middle' transform='translate(12 124) rotate(-90)'>" + y_name_ +
           "</text>";
    return out + inside_ + "</svg></figure>";
  }

 private:
  static std::string number2(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.2f", value);
    return text;
  }
  static std::string number_pair(double px, double py) { return number2(px) + "," + number2(py) + " "; }

  std::string title_, x_name_, y_name_, inside_;
  double x_max_, y_max_;
  int num_names_ = 0;
};

std::string latency_cdf(const std::string& title, const std::string& of, std::vector<double> values) {
  if (values.empty()) return "";
  std::sort(values.begin(), values.end());
  // The last hundredth would squeeze the rest to the left: the axis ends at p99.5, the table has the maximum.
  const double top = values[static_cast<size_t>(0.995 * static_cast<double>(values.size() - 1))];
  Chart chart(title, "milliseconds", top, "share of " + of, 1);
  std::vector<std::pair<double, double>> points{{0, 0}};
  const size_t step = std::max<size_t>(1, values.size() / 500);
  for (size_t i = 0; i < values.size() && values[i] <= top; i += step)
    points.emplace_back(values[i], static_cast<double>(i + 1) / static_cast<double>(values.size()));
  chart.line(points, "#1f6f8b", "");
  return chart.svg();
}

std::string throughput(const std::vector<Outcome>& outcomes, double end) {
  const int bins = 60;
  std::vector<double> tokens(bins, 0);
  for (const Outcome& o : outcomes) {
    for (const double at : o.token_s)
      tokens[std::min(bins - 1, static_cast<int>(at / end * bins))] += bins / end;
  }
  std::vector<std::pair<double, double>> points;
  for (int i = 0; i < bins; ++i) points.emplace_back((i + 0.5) * end / bins, tokens[i]);
  Chart chart("Output over time", "seconds", end, "tokens / s",
              *std::max_element(tokens.begin(), tokens.end()) * 1.05);
  chart.line(points, "#1f6f8b", "");
  return chart.svg();
}

// Each request a row: waiting for its first token, then generating, with a mark for every gap of more than
// twice its own median.
std::string timeline(const std::vector<Outcome>& outcomes, double end) {
  const size_t shown = std::min<size_t>(outcomes.size(), 200);
  Chart chart("Requests over time (the first " + std::to_string(shown) + "): waiting, generating, failed",
              "seconds", end, "request", static_cast<double>(shown));
  const double thickness = std::max(0.8, (kHeight - kTop - kBottom) / static_cast<double>(shown) - 0.3);
  for (size_t i = 0; i < shown; ++i) {
    const Outcome& o = outcomes[i];
    const double row = static_cast<double>(i) + 1;
    const double first = o.token_s.empty() ? o.end_s : o.token_s.front();
    chart.bar(o.intended_s, first, row, thickness, o.error.empty() ? "#d9a441" : "#b3393d");
    if (!o.token_s.empty()) chart.bar(first, o.token_s.back(), row, thickness, "#1f6f8b");
  }
  return chart.svg();
}

std::string batch(const std::vector<ServerSample>& samples, double end) {
  if (samples.empty()) return "<p>The server shows no metrics of its batch.</p>";
  std::vector<std::pair<double, double>> running, waiting;
  double top = 1;
  for (const ServerSample& s : samples) {
    running.emplace_back(std::min(s.at_s, end), s.running);
    waiting.emplace_back(std::min(s.at_s, end), s.waiting);
    top = std::max({top, s.running, s.waiting});
  }
  Chart chart("The server's batch", "seconds", end, "sequences", top * 1.1);
  chart.line(running, "#1f6f8b", "running");
  chart.line(waiting, "#d9a441", "waiting");
  return chart.svg();
}

}  // namespace

std::string report_html(const Report& r) {
  const Summary& s = r.summary;
  double end = 1e-3;
  for (const Outcome& o : r.outcomes) end = std::max(end, o.end_s);
  const Latencies seen = latencies(r.outcomes);
  std::string rows;
  const std::pair<const char*, const Percentiles*> latencies[] = {{"TTFT", &s.ttft_ms},
                                                                  {"TPOT", &s.tpot_ms},
                                                                  {"ITL", &s.itl_ms},
                                                                  {"E2E", &s.e2e_ms},
                                                                  {"send lag", &s.send_lag_ms}};
  for (const auto& [name, p] : latencies) {
    if (p == &s.itl_ms && !r.has_every_token) continue;
    rows += std::string("<tr><th>") + name + "</th>";
    for (const double v : {p->mean, p->p50, p->p90, p->p95, p->p99, p->max})
      rows += "<td>" + number(v) + "</td>";
    rows += "</tr>";
  }
  std::string errors;
  for (const auto& [kind, count] : s.errors)
    errors += "<li>" + std::to_string(count) + " × " + escape(kind) +
              (s.error_messages.contains(kind) ? ": " + escape(s.error_messages.at(kind)) : "") + "</li>";
  return "<!doctype html><html lang='en'><meta charset='utf-8'><title>Load report</title><style>"
         "body{font:15px/1.45 system-ui,sans-serif;max-width:1320px;margin:2em auto;padding:0 1em;color:#222}"
         "h1{font-size:1.3em}code{background:#f3f1ec;padding:.1em .3em}table{border-collapse:collapse}"
         "td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}th{text-align:left}"
         ".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(520px,1fr));gap:1em}figure{margin:"
         "0}"
         "figcaption{font-weight:600;margin:.5em 0}svg text{font:11px "
         "system-ui,sans-serif;fill:#555}.grid{stroke:#e5e2db}"
         "</style><h1>Load report: " +
         escape(r.model) + "</h1><p><code>" + escape(r.label) + "</code></p><p>" +
         std::to_string(s.num_requests) + " requests to " + escape(r.url) + ", " + std::to_string(s.num_ok) +
         " succeeded in " + number(s.duration_s) + " s: " + number(s.requests_per_s) + " requests/s, " +
         number(s.output_tokens_per_s) + " output tokens/s, goodput " + number(s.goodput_per_s) +
         " requests/s (" + number(s.good_share * 100) + " %). Prompt tokens " +
         std::to_string(s.prompt_tokens) + ", of them cached " + std::to_string(s.cached_tokens) + ".</p>" +
         (errors.empty() ? "" : "<p>Failed:</p><ul>" + errors + "</ul>") +
         "<table><tr><th>ms</th><th>mean</th><th>p50</th><th>p90</th><th>p95</th><th>p99</th><th>max</th></"
         "tr>" +
         rows + "</table><div class='plots'>" + latency_cdf("Time to first token", "requests", seen.ttft) +
         latency_cdf("Time per output token", "requests", seen.tpot) +
         (r.has_every_token ? latency_cdf("Inter-token latency", "gaps", seen.itl) : "") +
         latency_cdf("End to end", "requests", seen.e2e) +
         (r.has_every_token ? throughput(r.outcomes, end) + batch(r.samples, end) : "") +
         timeline(r.outcomes, end) + "</div></html>\n";
}

}  // namespace serval::load
