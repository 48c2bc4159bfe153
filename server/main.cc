// `serval`: finds the command in a table, reads the settings, and turns whatever the world got wrong at start
// into one sentence.

#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/architectures/architecture_list.h"
#include "kernels/backend.h"
#include "kernels/base/log.h"
#include "kernels/base/option_table.h"
#include "kernels/base/shown.h"
#include "kernels/base/usage.h"
#include "kernels/cpu/dispatch.h"
#include "loadtest/bench/bench_engine.h"
#include "loadtest/bench/bench_grammar.h"
#include "loadtest/bench/bench_kernels.h"
#include "loadtest/load/bench_main.h"
#include "loadtest/load/bench_overhead.h"
#include "loadtest/load/run_batch.h"
#include "loadtest/simulate/simulate_main.h"
#include "server/api_document.h"
#include "server/app.h"
#include "server/config.h"
#include "server/datastore_command.h"
#include "server/grammar_command.h"
#include "server/version.h"

namespace {

using Arguments = std::vector<std::string>;

// 1 is a measuring command's own "no".
constexpr int kUsageExit = 2;        // the command line cannot be understood
constexpr int kCannotStartExit = 3;  // a setting, a file, the machine or an endpoint is not as it must be

struct Command {
  const char* name;  // a word, or two
  const char* synopsis;
  const char* help;
  std::string (*options)();           // the rest of the command's page; null: nothing
  int (*run)(const Arguments& rest);  // what follows the name; returns the exit code
};
const std::vector<Command>& commands();

struct Settings {
  serval::ServerConfig config;  // what is in effect
  Arguments words;              // arguments that are no settings
};
// `command`: as the user wrote it. `more`: rows that are not settings.
Settings settings_of(const char* command, bool takes_words, const Arguments& arguments,
                     std::vector<serval::OptionRow> more = {}) {
  Settings settings;
  std::string file;
  std::vector<serval::OptionRow> rows = serval::setting_rows(settings.config);
  rows.push_back(
      {"--config", "FILE", "reads settings from YAML", serval::kAnyForm, [](const std::string&) {}});
  std::move(more.begin(), more.end(), std::back_inserter(rows));
  const serval::GivenOptions given =
      serval::read_options(rows, {.name = command, .takes_words = takes_words}, arguments);
  // The command line wins over the environment, and that over the file.
  if (const std::optional<std::string> path = given.value_of("--config"); path && !path->empty())
    serval::load_yaml_file(*path, settings.config);
  for (const std::string& complaint : serval::load_environment(environ, settings.config))
    serval::log_warn(complaint);
  serval::set_options(given);
  settings.words = given.words;
  return settings;
}

std::string one_model(const Arguments& words, const std::string& command) {
  if (words.size() != 1)
    throw serval::UsageError("serval " + command + " takes one MODEL; serval " + command +
                             " --help shows how");
  return words[0];
}

// Of a command without options.
void nothing(const Arguments& arguments, const char* command) {
  serval::take_options({}, {command}, arguments);
}

int run_serve(const Arguments& rest) {
  serval::StopSignals signals;  // before there is another thread
  Settings settings = settings_of("serval serve", /*takes_words=*/true, rest);
  serval::serve(one_model(settings.words, "serve"), std::move(settings.config), signals);
  return 0;
}

int run_plan(const Arguments& rest) {
  Settings settings = settings_of("serval plan", /*takes_words=*/true, rest);
  std::cout << serval::plan_text(one_model(settings.words, "plan"), std::move(settings.config));
  return 0;
}

int run_quantize(const Arguments& rest) {
  std::string format = "int4", text;
  const std::vector<serval::OptionRow> rows = {{"--format", "F", "", serval::kAnyForm, serval::set_text(format)},
                                               {"--text", "FILE", "", serval::kAnyForm, serval::set_text(text)}};
  const serval::GivenOptions given = serval::read_options(rows, {.name = "serval quantize", .takes_words = true}, rest);
  serval::set_options(given);
  if (given.words.size() != 2)
    throw serval::UsageError("serval quantize takes MODEL and OUT; serval quantize --help shows how");
  serval::quantize(given.words[0], given.words[1], format, text);
  return 0;
}

int run_config(const Arguments& rest) {
  bool markdown = false;
  const Settings settings = settings_of(
      "serval config", /*takes_words=*/false, rest,
      {{"--markdown", "", "documents all settings", serval::kAnyForm, serval::set_flag(markdown)}});
  std::cout << (markdown ? serval::knob_markdown() : serval::dump_yaml(settings.config));
  return 0;
}

int run_api(const Arguments& rest) {
  bool markdown = false;
  serval::take_options({{"--markdown", "", "the table of fields, as in docs/api.md", serval::kAnyForm, serval::set_flag(markdown)}},
                       {"serval api"}, rest);
  std::cout << (markdown ? serval::api_markdown() : serval::openapi_json(serval::kVersion) + "\n");
  return 0;
}

int run_models(const Arguments& rest) {
  bool json = false;
  bool markdown = false;
  serval::take_options(
      {{"--json", "", "the same as JSON", serval::kAnyForm, serval::set_flag(json)},
       {"--markdown", "", "as docs/models.md", serval::kAnyForm, serval::set_flag(markdown)}},
      {"serval models"}, rest);
  std::cout << (json ? serval::models_json() : markdown ? serval::models_markdown() : serval::models_text());
  return 0;
}

int run_bench(const Arguments& arguments) {
  if (!arguments.empty() && arguments[0].starts_with("-")) return serval::bench_load(arguments);
  constexpr std::string_view kPrefix = "bench ";
  std::string forms;
  Arguments names;
  for (const Command& command : commands()) {
    if (!std::string_view(command.name).starts_with(kPrefix)) continue;
    names.emplace_back(command.name + kPrefix.size());
    forms += ", " + names.back();
  }
  const std::string wrong =
      arguments.empty()
          ? ""
          : ", not '" + arguments[0] + "'" + serval::did_you_mean(serval::nearest_name(arguments[0], names));
  throw serval::UsageError("serval bench takes --url URL [options]" + forms + wrong +
                           "; serval bench --help shows how");
}

int run_bench_kernels(const Arguments& rest) {
  const Settings settings = settings_of("serval bench kernels", /*takes_words=*/false, rest);
  return serval::bench_kernels(settings.config.engine.device, std::cout);
}

int run_bench_engine(const Arguments& rest) {
  serval::EngineBench bench;
  const Settings settings =
      settings_of("serval bench engine", /*takes_words=*/false, rest, serval::bench_engine_rows(bench));
  return serval::bench_engine(bench, settings.config.engine, std::cout);
}

int run_bench_grammar(const Arguments& rest) {
  return serval::bench_grammar(one_model(rest, "bench grammar"), std::cout);
}

int run_bench_overhead(const Arguments& arguments) {
  nothing(arguments, "serval bench overhead");
  return serval::bench_overhead(std::cout);
}

// How this binary came to be, a fact a line.
int run_version(const Arguments& arguments) {
  nothing(arguments, "serval version");
  std::cout << "serval " << serval::kVersion << "\n";
  if (*serval::kRevision) std::cout << "revision: " << serval::kRevision << "\n";
  std::cout << "compiler: " << serval::kCompiler << ", " << serval::kBuildType
            << "\ninstruction sets that run here:";
  for (const std::string& isa : serval::cpu::runnable_isas()) std::cout << " " << isa;
  const std::string problem = serval::cuda_problem();
  std::cout << "\nCUDA: " << (problem.empty() ? "ready" : problem) << "\n";
  return 0;
}

// The command whose name the arguments begin with, which it takes out; of two, the longer one.
const Command& take_command(Arguments& arguments) {
  Arguments names;
  for (size_t num_words = std::min<size_t>(2, arguments.size()); num_words > 0; --num_words) {
    const std::string given = num_words == 2 ? arguments[0] + " " + arguments[1] : arguments[0];
    for (const Command& command : commands()) {
      names.emplace_back(command.name);
      if (given != command.name) continue;
      arguments.erase(arguments.begin(), arguments.begin() + static_cast<std::ptrdiff_t>(num_words));
      return command;
    }
  }
  names.insert(names.end(), {"--help", "--version"});
  const std::string what = arguments[0].starts_with("-") ? "option " : "command ";
  throw serval::UsageError("unknown " + what + "'" + arguments[0] + "'" +
                           serval::did_you_mean(serval::nearest_name(arguments[0], names)) +
                           "; serval --help lists the commands");
}

std::string usage_line(const Command& command) {
  return std::string("serval ") + command.name + (*command.synopsis ? " " : "") + command.synopsis + "\n";
}

// A command's own page; those whose names begin with its name are listed on it.
std::string page(const Command& command) {
  std::string text = "usage: " + usage_line(command);
  for (const Command& other : commands()) {
    if (std::string(other.name).starts_with(std::string(command.name) + " "))
      text += "       " + usage_line(other);
  }
  text += "\n" + std::string(command.help) + ".\n";
  return command.options ? text + "\n" + command.options() : text;
}

std::string front_page() {
  std::string text = "usage: serval COMMAND [OPTIONS]\n\n";
  for (const Command& command : commands()) {
    std::string left = std::string("  ") + command.name + " " + command.synopsis;
    left.resize(std::max<size_t>(left.size() + 1, 42), ' ');
    text += left + command.help + "\n";
  }
  return text +
         "\nserval COMMAND --help shows a command's own options (also -h, and serval help COMMAND);\n"
         "serval --version, or -v, is serval version.\n"
         "\nMODEL is a Hugging Face folder, or the name of one in the local Hugging Face cache.\n"
         "Exit codes: 0 done, or stopped by a signal; 1 a measurement's answer is no: a request failed, no "
         "rate or\n"
         "fleet meets the SLOs; 2 the command line cannot be understood; 3 a setting, a file, the machine or "
         "an\n"
         "endpoint is not as it must be.\n";
}

int run_help(const Arguments& rest) {
  if (rest.empty()) {
    std::cout << front_page();
    return 0;
  }
  Arguments arguments = rest;
  const Command& command = take_command(arguments);
  nothing(arguments, "serval help");
  std::cout << page(command);
  return 0;
}

std::string settings_page() {
  return "--config FILE reads settings from YAML. Every setting is --name VALUE, --name=VALUE, or --name / "
         "--no-name\n"
         "for flags; or SERVAL_NAME in the environment:\n" +
         serval::knob_help();
}

std::string device_page() {
  return "Settings are those of serval serve; --device, --isa, --threads and --pin-threads matter here.\n";
}

std::string bench_engine_page() {
  serval::EngineBench bench;
  return serval::options_help(serval::bench_engine_rows(bench)) +
         "\nSettings are those of serval serve; quantize, kv_dtype, block_size, max_num_batched_tokens, max_prefill_chunk and those\n"
         "of the device matter here.\n";
}

std::string quantize_page() {
  return "OUT is a folder in the layout of compressed-tensors, which transformers loads too; the embedding, the head and\n"
         "what chooses experts stay as they are.\n\n"
         "  --format F  int4 (the default): 4 bits with a scale for each 32 inputs; int4_g128: for each 128; int8, fp8: with a scale\n"
         "              for each output; int8_g32, int8_g128: 8 bits with a scale for each 32 or 128 inputs\n"
         "  --text F    choose the scales under which the layers' answers on this text differ least; runs the model on the CPU\n";
}

const std::vector<Command>& commands() {
  static const std::vector<Command> table = {
      {"serve", "MODEL [settings]", "answer HTTP and gRPC until SIGTERM", settings_page, run_serve},
      {"plan", "MODEL [settings]", "print the memory plan without loading the model", settings_page,
       run_plan},
      {"quantize", "MODEL OUT [--format F] [--text F]", "write the model's folder with its layers' matrices rounded", quantize_page,
       run_quantize},
      {"config", "[--markdown] [settings]", "print the settings in effect; --markdown documents them all",
       settings_page, run_config},
      {"api", "[--markdown]", "the OpenAPI document, or what each field of each request means here", nullptr, run_api},
      {"models", "[--json | --markdown]", "list what models are served, and the check behind each", nullptr,
       run_models},
      {"bench", "--url URL [options]", "load against an OpenAI-compatible endpoint, or a Serval's gRPC",
       serval::bench_load_help, run_bench},
      {"bench peers", "--url URL --url URL [...]", "the same load against several endpoints, in turns",
       serval::bench_peers_help, serval::bench_peers},
      {"bench --compare", "A.json B.json", "two reports side by side", nullptr, serval::bench_compare},
      {"bench kernels", "[settings]", "measure this machine's kernels", device_page, run_bench_kernels},
      {"bench engine", "[options] [settings]", "measure the engine without HTTP", bench_engine_page, run_bench_engine},
      {"bench grammar", "FOLDER", "measure the masks of a vocabulary under grammars", nullptr, run_bench_grammar},
      {"bench overhead", "", "measure what the load harness itself costs", nullptr, run_bench_overhead},
      {"simulate", "--cost FILE [options]", "what a fleet would do, by a cost model that --fit measures",
       serval::simulate_help, serval::simulate_main},
      {"run-batch", "--input FILE --output FILE [options]", "send the requests of a file to a server, and write their answers",
       serval::run_batch_help, serval::run_batch},
      {"grammar", "--schema FILE --instances FILE",
       "which texts a schema, a regular expression or a grammar accepts", serval::grammar_help,
       serval::run_grammar},
      {"datastore", "--model FOLDER --texts FILE --out FILE", "make of texts what speculation_datastore looks into",
       serval::datastore_help, serval::run_datastore},
      {"version", "", "the version and how it was built", nullptr, run_version},
      {"help", "[COMMAND]", "this page, or a command's", nullptr, run_help},
  };
  return table;
}

int run(Arguments arguments) {
  if (arguments.empty()) return run_help({});
  const auto is_help = [](const std::string& word) { return word == "-h" || word == "--help"; };
  if (is_help(arguments[0])) arguments[0] = "help";
  if (arguments[0] == "-v" || arguments[0] == "--version") arguments[0] = "version";
  const Command& command = take_command(arguments);
  if (std::any_of(arguments.begin(), arguments.end(), is_help)) {
    std::cout << page(command);
    return 0;
  }
  return command.run(arguments);
}

// What a file or an argument put into the sentence reaches the terminal as one line of bounded length.
void say(const std::exception& error) {
  std::cerr << "serval: " << serval::shown(error.what(), serval::kMaxSentenceBytes) << "\n";
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const serval::UsageError& error) {
    say(error);
    return kUsageExit;
  } catch (const std::exception& error) {
    say(error);
    return kCannotStartExit;
  }
}
