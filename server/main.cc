// `serval`: picks the subcommand, reads the settings, and turns whatever the world got wrong at start into
// one sentence.

#include <unistd.h>

#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backend.h"
#include "kernels/base/log.h"
#include "kernels/base/shown.h"
#include "kernels/cpu/dispatch.h"
#include "loadtest/bench_engine.h"
#include "loadtest/bench_kernels.h"
#include "loadtest/bench_main.h"
#include "loadtest/bench_overhead.h"
#include "loadtest/simulate_main.h"
#include "server/app.h"
#include "server/config.h"
#include "server/version.h"

namespace {

// 1 is a measuring command's own "no" (serval simulate: too few replicas).
constexpr int kUsageExit = 2;        // the command line cannot be understood
constexpr int kCannotStartExit = 3;  // a setting, a model file or the machine is not as it must be

constexpr const char* kUsage =
    "usage: serval COMMAND [OPTIONS]\n"
    "\n"
    "  serve MODEL [--config FILE] [settings]   answer HTTP and gRPC until SIGTERM\n"
    "  plan MODEL [--config FILE] [settings]    print the memory plan without loading the model\n"
    "  config [--config FILE] [settings]        print the settings in effect; --markdown documents them all\n"
    "  bench kernels|engine [settings]          measure this machine's kernels or the engine without HTTP\n"
    "  bench --url URL [options]                load against an endpoint; serval bench --help\n"
    "  bench peers --url URL --url URL ...      the same load against several, in turns\n"
    "  bench overhead                           what the load harness itself costs\n"
    "  simulate --cost FILE [options]           what a fleet would do; serval simulate --help\n"
    "  version                                  the version and how it was built; also --version\n"
    "\n"
    "MODEL is a Hugging Face folder, or the name of one in the local Hugging Face cache.\n"
    "Exit codes: 0 done, or stopped by a signal; 1 a simulation's answer is no; 2 the command line is "
    "wrong;\n"
    "3 a setting, the model or the machine is.\n"
    "\n"
    "Every setting is --name VALUE, --name=VALUE, or --name / --no-name for flags; or SERVAL_NAME in the "
    "environment:\n";

// Takes `name VALUE` or `name=VALUE` out of the arguments.
std::string take_option(std::vector<std::string>& arguments, const std::string& name) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].starts_with(name + "=")) {
      const std::string value = arguments[i].substr(name.size() + 1);
      arguments.erase(arguments.begin() + i);
      return value;
    }
    if (arguments[i] == name) {
      if (i + 1 == arguments.size()) throw serval::UsageError(name + " needs a value");
      const std::string value = arguments[i + 1];
      arguments.erase(arguments.begin() + i, arguments.begin() + i + 2);
      return value;
    }
  }
  return "";
}

bool take_flag(std::vector<std::string>& arguments, const std::string& name) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] != name) continue;
    arguments.erase(arguments.begin() + i);
    return true;
  }
  return false;
}

std::string one_positional(const std::vector<std::string>& rest, const std::string& command,
                           const std::string& what) {
  if (rest.size() != 1)
    throw serval::UsageError("serval " + command + " takes one " + what + "; --help shows how");
  return rest[0];
}

// How this binary came to be, a fact a line.
std::string build_facts() {
  std::string text;
  if (*serval::kRevision) text += std::string("revision: ") + serval::kRevision + "\n";
  text += std::string("compiler: ") + serval::kCompiler + ", " + serval::kBuildType + "\n";
  text += "instruction sets that run here:";
  for (const std::string& isa : serval::cpu::runnable_isas()) text += " " + isa;
  const std::string problem = serval::cuda_problem();
  return text + "\nCUDA: " + (problem.empty() ? "ready" : problem) + "\n";
}

// What a file or an argument put into the sentence reaches the terminal as one line of bounded length.
void say(const std::exception& error) {
  std::cerr << "serval: " << serval::shown(error.what(), serval::kMostSentenceBytes) << "\n";
}

// `signals`: made for `serve` alone; every other command is ended by a signal as usual.
int run(std::vector<std::string> arguments, std::optional<serval::StopSignals>& signals) {
  if (arguments.size() >= 2 && arguments[0] == "bench" && arguments[1].starts_with("--")) {
    if (arguments[1] == "--help") {
      std::cout << serval::bench_load_help();
      return 0;
    }
    return serval::bench_load({arguments.begin() + 1, arguments.end()});
  }
  if (arguments.size() >= 2 && arguments[0] == "bench" && arguments[1] == "peers") {
    if (take_flag(arguments, "--help")) {
      std::cout << serval::bench_load_help();
      return 0;
    }
    return serval::bench_peers({arguments.begin() + 2, arguments.end()});
  }
  if (!arguments.empty() && arguments[0] == "simulate") {
    if (arguments.size() == 1 || arguments[1] == "--help") {
      std::cout << serval::simulate_help();
      return 0;
    }
    return serval::simulate_main({arguments.begin() + 1, arguments.end()});
  }
  if (arguments.empty() || take_flag(arguments, "--help") || arguments[0] == "help") {
    std::cout << kUsage << serval::knob_help();
    return 0;
  }
  const std::string command = arguments[0];
  arguments.erase(arguments.begin());
  if (command == "version" || command == "--version") {
    std::cout << "serval " << serval::kVersion << "\n" << build_facts();
    return 0;
  }
  const bool markdown = command == "config" && take_flag(arguments, "--markdown");
  serval::ServerConfig config;
  if (const std::string file = take_option(arguments, "--config"); !file.empty())
    serval::load_yaml_file(file, config);
  for (const std::string& complaint : serval::load_environment(environ, config)) serval::log_warn(complaint);
  const std::vector<std::string> rest = serval::parse_arguments(arguments, config);
  if (command == "serve") {
    serval::serve(one_positional(rest, command, "MODEL"), std::move(config), *signals);
    return 0;
  }
  if (command == "plan") {
    std::cout << serval::plan_text(one_positional(rest, command, "MODEL"), std::move(config));
    return 0;
  }
  if (command == "config") {
    std::cout << (markdown ? serval::knob_markdown() : serval::dump_yaml(config));
    return 0;
  }
  if (command == "bench") {
    const std::string what = one_positional(rest, command, "of kernels, engine, overhead");
    if (what == "kernels") return serval::bench_kernels(config.engine.device, std::cout);
    if (what == "engine") return serval::bench_engine(config.engine.device, std::cout);
    if (what == "overhead") return serval::bench_overhead(std::cout);
    throw serval::UsageError("serval bench knows kernels, engine, overhead and peers, not '" + what + "'");
  }
  throw serval::UsageError("unknown command '" + command + "'; serval --help lists them");
}

}  // namespace

int main(int argc, char** argv) {
  std::optional<serval::StopSignals> signals;
  if (argc > 1 && std::string_view(argv[1]) == "serve") signals.emplace();
  try {
    return run(std::vector<std::string>(argv + 1, argv + argc), signals);
  } catch (const serval::UsageError& error) {
    say(error);
    return kUsageExit;
  } catch (const std::exception& error) {
    say(error);
    return kCannotStartExit;
  }
}
