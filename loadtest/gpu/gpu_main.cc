#include "loadtest/gpu/gpu_main.h"

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <ctime>
#include <exception>
#include <fstream>
#include <ostream>
#include <sstream>
#include <stdexcept>

#include "engine/json/fields.h"
#include "engine/json/json_reader.h"
#include "kernels/base/option_table.h"
#include "kernels/base/usage.h"
#include "kernels/cuda/vendor_gemm.h"
#include "loadtest/gpu/bench.h"
#include "loadtest/gpu/hopper_probe.h"
#include "loadtest/gpu/model_bench.h"
#include "loadtest/gpu/workloads.h"
#include "tests/kernels/checks/check.h"
#include "tests/kernels/checks/fragment_dump.h"

namespace serval::gpu {
namespace {

namespace json = boost::json;

constexpr int kDone = 0, kFound = 1, kUsage = 2, kNoDevice = 3;

// As bits: which modes honour an option.
enum Mode : unsigned { kCheck = 1, kInvariance = 2, kFragments = 4, kBench = 8, kModel = 16, kProbe = 32, kLedger = 64 };

struct ModeRow {
  const char* name;
  // As the sentences name it.
  const char* command;
  Mode bit;
  const char* help;
};
constexpr ModeRow kModes[] = {
    {"check", "serval-gpu check", kCheck, "every kernel against its definition in double precision, and bits where two must agree"},
    {"invariance", "serval-gpu invariance", kInvariance, "a row alone, in company, at another index, in other chunks: the same bits"},
    {"fragments", "serval-gpu fragments", kFragments, "what each matrix instruction and conversion does, as JSON on the standard output"},
    {"bench", "serval-gpu bench", kBench, "every kernel against its floor, its prediction and its gates"},
    {"model", "serval-gpu model", kModel, "Llama-3.1-8B with random weights: time per token, time to the first one"},
    {"probe", "serval-gpu probe", kProbe, "whether wgmma and mma.sync give the same bits, and what dependent launches save"},
    {"ledger", "serval-gpu ledger", kLedger, "the tables of bench and model as Markdown, without a device"},
};

struct Options {
  Mode mode = kCheck;
  std::string mode_name, json_file, commit, compare_file;
  std::vector<std::string> result_files, only;
  double deadline_s = 0;
  bool is_small = false, is_invariant = true;
};

std::vector<OptionRow> option_rows(Options& o) {
  constexpr unsigned kRows = kCheck | kInvariance | kBench | kModel;
  return {
      {"--json", "FILE", "results so far, complete after every row", kRows | kFragments | kProbe, set_text(o.json_file)},
      {"--deadline", "SECONDS", "begin no further row after this time", kRows, set_number(o.deadline_s, 1e-3, 1e6)},
      {"--commit", "ID", "noted in the results", kRows, set_text(o.commit)},
      {"--only", "TEXT", "of check, invariance, bench and model: rows whose 'KERNEL, SHAPE' holds it, or another's TEXT", kRows,
       add_text(o.only)},
      {"--small", "", "of check and invariance: only shapes that an emulated device does in seconds", kCheck | kInvariance,
       set_flag(o.is_small)},
      {"--results", "FILE", "of ledger, any number of times: measured times from a file of --json", kLedger, add_text(o.result_files)},
      {"--compare", "FILE", "of fragments: say what differs from another dump instead of printing", kFragments, set_text(o.compare_file)},
      {"--no-invariant", "", "of model: with the vendor's matrix products", kModel, set_flag(o.is_invariant, false)},
  };
}

std::string help() {
  std::string text = "usage: serval-gpu MODE [OPTIONS]\n\n";
  for (const ModeRow& mode : kModes) {
    std::string left = std::string("  ") + mode.name;
    left.resize(15, ' ');
    text += left + mode.help + "\n";
  }
  Options options;
  return text + "\n" + options_help(option_rows(options)) +
         "\nExit codes: 0 done; 1 something is wrong or missed what it must reach; 2 the command line is wrong;\n"
         "3 there is no device for it.\n";
}

Options parse(const std::vector<std::string>& arguments) {
  if (arguments.empty()) throw UsageError("serval-gpu needs a mode; --help lists them");
  std::vector<std::string> names;
  for (const ModeRow& mode : kModes) {
    names.emplace_back(mode.name);
    if (arguments[0] != mode.name) continue;
    Options options;
    options.mode = mode.bit;
    options.mode_name = mode.name;
    const std::vector<OptionRow> rows = option_rows(options);
    const GivenOptions given = read_options(rows, {mode.command, mode.bit}, {arguments.begin() + 1, arguments.end()});
    try {
      set_options(given);
    } catch (const std::runtime_error& wrong) {
      throw UsageError(wrong.what());
    }
    return options;
  }
  throw UsageError("unknown mode '" + arguments[0] + "'" + did_you_mean(nearest_name(arguments[0], names)) + "; --help lists them");
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", std::gmtime(&now));
  return text;
}

Report open_report(const Options& options, const cuda::DeviceProperties& device) {
  return Report(options.json_file, {{"mode", options.mode_name},
                                    {"device", device.name},
                                    {"compute_capability", device.compute_capability},
                                    {"multiprocessors", device.num_sms},
                                    {"memory_bytes", device.total_bytes},
                                    {"date", today()},
                                    {"commit", options.commit}});
}

// Of checks or rows those that --only asks for. None is a mistake in the command line.
template <class Item>
std::vector<Item> chosen(std::vector<Item> items, const Options& options) {
  if (options.only.empty()) return items;
  std::erase_if(items, [&](const Item& item) {
    const std::string name = item.kernel + ", " + item.shape;
    return std::none_of(options.only.begin(), options.only.end(),
                        [&](const std::string& text) { return name.find(text) != std::string::npos; });
  });
  if (items.empty()) throw UsageError("nothing of " + options.mode_name + " holds '" + options.only.front() + "'");
  return items;
}

// A wrong finding with how far off how many numbers were, so that a tolerance can be told from a fault.
std::string sentence_of(const Finding& finding) {
  if (finding.problem().empty()) return "error " + std::to_string(finding.worst()) + " of what is allowed";
  if (finding.num_beyond() == 0) return finding.problem();
  return finding.problem() + "; " + std::to_string(finding.num_beyond()) + " of " + std::to_string(finding.num_compared()) +
         " numbers are further off than allowed, the worst by " + std::to_string(finding.worst()) + " times";
}

int run_checks(const std::vector<Check>& checks, const Options& options, Report& report, std::ostream& out) {
  const Deadline deadline(options.deadline_s);
  int wrong = 0;
  size_t done = 0;
  for (; done < checks.size() && !deadline.has_passed(); ++done) {
    const Check& check = checks[done];
    const Finding finding = run_check(check);
    const bool is_right = finding.problem().empty();
    wrong += !is_right;
    out << (is_right ? "ok     " : "WRONG  ") << check.kernel << ", " << check.shape << ": " << sentence_of(finding)
        << "\n"
        << std::flush;
    report.add({{"kernel", check.kernel},
                {"shape", check.shape},
                {"error", finding.worst()},
                {"beyond", finding.num_beyond()},
                {"problem", finding.problem()}});
  }
  out << done << " of " << checks.size() << " checks run, " << wrong << " wrong\n";
  return wrong == 0 ? kDone : kFound;
}

std::vector<Check> all_checks(Sizes sizes) {
  std::vector<Check> all;
  for (const auto family : {row_checks, gemm_checks, expert_checks, attention_checks, sampler_checks}) {
    const std::vector<Check> checks = family(sizes);
    all.insert(all.end(), checks.begin(), checks.end());
  }
  return all;
}

// The measured rows of a report, appended.
void add_results(const std::string& path, std::vector<LedgerEntry>& measured) {
  const json::object object = read_own_json_file(path);
  const Fields report(object, path);
  for (const json::value& value : report.get_array("rows")) {
    const Fields row = report.inside(value, "rows");
    const json::value* const us = row.find("measured_us");
    if (us == nullptr || !us->is_number()) continue;  // it could not be measured
    measured.push_back({row.get_string("kernel"), row.get_string("shape"), us->to_number<double>(),
                        report.get_string("date"), report.get_string("commit"), report.get_string("device")});
  }
}

// path empty: nothing is written.
void write_json(const std::string& path, const json::object& content) {
  if (path.empty()) return;
  std::ofstream file(path);
  file << json::serialize(content) << "\n";
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path);
}

int run_fragments(const Options& options, std::ostream& out) {
  const json::object dump = dump_fragments();
  write_json(options.json_file, dump);
  if (options.compare_file.empty()) {
    if (options.json_file.empty()) out << json::serialize(dump) << "\n";
    return kDone;
  }
  const json::object other = read_own_json_file(options.compare_file);
  const std::vector<std::string> differences = compare_fragments(dump, other);
  for (const std::string& difference : differences) out << difference << "\n";
  if (differences.empty()) out << "the dumps agree\n";
  return differences.empty() ? kDone : kFound;
}

int run_probe(const Options& options, std::ostream& out) {
  const json::object found = probe_hopper();
  write_json(options.json_file, found);
  out << json::serialize(found) << "\n";
  return found.contains("problem") ? kNoDevice : kDone;
}

int run_bench(const Options& options, Report& report, std::ostream& out) {
  const std::unique_ptr<cuda::VendorGemm> vendor = cuda::VendorGemm::load();
  const cuda::OwnedStream stream;
  const Measure measure_row = [&](const Row& row) {
    return measure(make_workload(row.work, vendor.get()), stream);
  };
  const int missed = run_rows(chosen(kernel_rows(), options), measure_row, Deadline(options.deadline_s), report, out);
  return missed == 0 ? kDone : kFound;
}

int run_model(const Options& options, Report& report, std::ostream& out) {
  const Deadline deadline(options.deadline_s);
  const std::vector<Row> rows = chosen(model_rows(), options);
  ModelBenchLimits limits;
  limits.is_invariant = options.is_invariant;
  ModelBench model(LlamaShape{}, limits);
  const Measure measure_row = [&](const Row& row) {
    if (const auto* decode = std::get_if<ModelDecodeWork>(&row.work))
      return model.decode(decode->batch, decode->context);
    return model.prefill(std::get<ModelPrefillWork>(row.work).length);
  };
  return run_rows(rows, measure_row, deadline, report, out) == 0 ? kDone : kFound;
}

int run(const Options& options, std::ostream& out, std::ostream& error) {
  if (options.mode == kLedger) {
    std::vector<LedgerEntry> measured;
    for (const std::string& path : options.result_files) add_results(path, measured);
    out << ledger(measured);
    return kDone;
  }
  const bool is_timed = options.mode == kBench || options.mode == kModel;
  if (const std::string problem = cuda::device_problem(); !problem.empty()) {
    error << "serval-gpu: " << problem << "\n";
    return kNoDevice;
  }
  const cuda::DeviceProperties device = cuda::device_properties();
  if ((is_timed || options.mode == kProbe) && device.is_emulated) {
    error << "serval-gpu: the device is emulated, and times on it mean nothing\n";
    return kNoDevice;
  }
  if (options.mode == kFragments) return run_fragments(options, out);
  if (options.mode == kProbe) return run_probe(options, out);
  out << device.name << ", compute capability " << device.compute_capability << ", " << device.num_sms
      << " multiprocessors\n";
  Report report = open_report(options, device);
  const Sizes sizes = options.is_small ? Sizes::kSmall : Sizes::kAll;
  if (options.mode == kCheck) return run_checks(chosen(all_checks(sizes), options), options, report, out);
  if (options.mode == kInvariance) return run_checks(chosen(invariance_checks(sizes), options), options, report, out);
  if (options.mode == kBench) return run_bench(options, report, out);
  return run_model(options, report, out);
}

}  // namespace

int gpu_main(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& error) {
  const bool asks_for_help = std::any_of(arguments.begin(), arguments.end(), [](const std::string& argument) {
    return argument == "-h" || argument == "--help";
  });
  if (asks_for_help || (!arguments.empty() && arguments[0] == "help")) {
    out << help();
    return kDone;
  }
  try {
    return run(parse(arguments), out, error);
  } catch (const UsageError& e) {
    error << "serval-gpu: " << e.what() << "\n";
    return kUsage;
  } catch (const std::exception& e) {
    error << "serval-gpu: " << e.what() << "\n";
    return kNoDevice;
  }
}

}  // namespace serval::gpu
