#include "loadtest/bench/bench_engine.h"

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <condition_variable>
#include <iomanip>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/model/model_folder.h"
#include "engine/model/read_model.h"
#include "engine/runner/load_model.h"
#include "kernels/base/check.h"
#include "kernels/gumbel.h"
#include "loadtest/bench/random_model.h"
#include "loadtest/bench/temp_folder.h"

namespace serval {
namespace {

using Clock = std::chrono::steady_clock;

// A random bfloat16 model of a published shape.
struct Shape {
  const char* name;
  int vocab_size, hidden_size, num_layers, num_heads, num_kv_heads, head_dim, intermediate_size;
  bool tied_embeddings;
};
constexpr Shape kShapes[] = {
    {"110m", 32000, 768, 12, 12, 4, 64, 2048, false},
    {"1b", 128256, 2048, 16, 32, 8, 64, 8192, true},      // Llama 3.2 1B
    {"8b", 128256, 4096, 32, 32, 8, 128, 14336, false},  // Llama 3.1 8B
};

RandomModel model_of(const Shape& shape) {
  RandomModel model;
  model.dtype = DType::kBF16;
  model.vocab_size = shape.vocab_size;
  model.hidden_size = shape.hidden_size;
  model.num_layers = shape.num_layers;
  model.num_heads = shape.num_heads;
  model.num_kv_heads = shape.num_kv_heads;
  model.head_dim = shape.head_dim;
  model.intermediate_size = shape.intermediate_size;
  model.max_positions = 8192;
  model.tied_embeddings = shape.tied_embeddings;
  return model;
}

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// What the engine thread tells of the requests of one measurement. Decoding is timed while all streams run:
// from the step that gave the last of them its first token to the step that ends the first.
class Watch {
 public:
  void start(int streams) {
    const std::lock_guard lock(mutex_);
    streams_ = unfinished_ = streams;
    started_ = tokens_ = 0;
  }
  void see(const EventBatch& batch) {
    const Clock::time_point now = Clock::now();
    const std::lock_guard lock(mutex_);
    const bool all_ran = started_ == streams_ && unfinished_ == streams_;
    for (const TokenEvent& event : batch.events) {
      if (event.num_output == 1) ++started_;
      if (all_ran && event.token >= 0) ++tokens_;
      if (event.finish != FinishReason::kNone) --unfinished_;
    }
    if (all_ran) {
      end_ = now;
    } else if (started_ == streams_ && unfinished_ == streams_) {
      begin_ = now;
    }
    if (unfinished_ == 0) done_.notify_one();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return unfinished_ == 0; });
  }
  double decode_tokens_per_s() const {
    return static_cast<double>(tokens_) / std::chrono::duration<double>(end_ - begin_).count();
  }

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  int streams_ = 0, started_ = 0, unfinished_ = 0;
  int64_t tokens_ = 0;
  Clock::time_point begin_, end_;
};

EngineConfig config_for(const EngineBench& bench, EngineConfig config, const std::string& format) {
  SchedulerConfig& scheduler = config.scheduler;
  config.quantize = format;
  scheduler.max_num_seqs = *std::max_element(bench.streams.begin(), bench.streams.end());
  scheduler.max_model_len = std::max(bench.prefill + 1, bench.prompt + bench.output);
  if (scheduler.max_num_batched_tokens == 0) scheduler.max_num_batched_tokens = std::max(512, scheduler.max_num_seqs);
  scheduler.max_prefill_chunk = std::min(scheduler.max_prefill_chunk, scheduler.max_num_batched_tokens);
  scheduler.enable_prefix_cache = false;
  scheduler.step_budget_ms = 0;  // all streams have begun before the first ends
  check_scheduler_config(scheduler);
  return config;
}

class Measured {
 public:
  Measured(const std::filesystem::path& model, const EngineConfig& config, int vocab_size)
      : vocab_size_(vocab_size),
        backend_(make_backend(config.device)),
        runner_(load_model(model, config, *backend_)),
        engine_(config, runner_->plan().geometry, run_on(*runner_),
                [this](EventBatch& events) { watch_.see(events); }) {}

  double decode_tokens_per_s(int streams, int prompt, int output) {
    run(streams, prompt, output);
    return watch_.decode_tokens_per_s();
  }
  double prefill_tokens_per_s(int prompt) {
    const Clock::time_point begin = Clock::now();
    run(1, prompt, 1);
    return prompt / seconds_since(begin);
  }
  std::string device() const { return std::string(backend_->name()); }

 private:
  void run(int streams, int prompt_tokens, int output_tokens) {
    watch_.start(streams);
    for (int i = 0; i < streams; ++i) {
      Request request;
      request.id = ++requests_;
      for (int t = 0; t < prompt_tokens; ++t)
        request.prompt.push_back(static_cast<TokenId>(mix64((requests_ << 32) + t) % vocab_size_));
      request.sampling.temperature = 0;
      request.sampling.max_tokens = output_tokens;
      request.sampling.ignore_eos = true;
      SERVAL_CHECK(engine_.submit(std::move(request)).ok());
    }
    watch_.wait();
  }

  Watch watch_;
  uint64_t requests_ = 0;
  int vocab_size_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<ModelRunner> runner_;
  Engine engine_;  // last: its thread uses what stands above
};

// One line of the report: a speed of every format, each measured in turns.
struct Row {
  std::string what;  // "decode" or "prefill"
  int streams, prompt, output;
  std::vector<std::vector<double>> speeds;  // [format][turn], tokens/s
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::vector<int> numbers_of(const std::string& text) {
  std::vector<int> numbers;
  std::stringstream items(text);
  try {
    for (std::string item; std::getline(items, item, ',');)
      numbers.push_back(static_cast<int>(to_number(item, 1, 4096, /*whole=*/true)));
  } catch (const std::runtime_error&) {
    numbers.clear();
  }
  if (numbers.empty())
    throw std::runtime_error("is '" + text + "'; it must be whole numbers from 1 to 4096 with commas between");
  return numbers;
}

std::string text_of(const Row& row, const std::vector<std::string>& formats) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(1) << row.what;
  if (row.what == "decode") out << ", " << row.streams << (row.streams == 1 ? " stream" : " streams");
  out << ", prompt " << row.prompt << ": ";
  const double first = median(row.speeds[0]);
  for (size_t i = 0; i < formats.size(); ++i) {
    const double speed = median(row.speeds[i]);
    out << (i > 0 ? "; " : "") << formats[i] << std::setw(8) << speed << " tokens/s";
    if (i > 0) out << ", " << std::setprecision(2) << speed / first << std::setprecision(1) << " times as fast";
  }
  return out.str();
}

boost::json::object json_of(const Row& row, const std::vector<std::string>& formats) {
  boost::json::array by_format;
  for (size_t i = 0; i < formats.size(); ++i)
    by_format.push_back(boost::json::object{{"format", formats[i]},
                                            {"median", median(row.speeds[i])},
                                            {"tokens_per_s", boost::json::value_from(row.speeds[i])}});
  boost::json::object object = {{"what", row.what}, {"streams", row.streams}, {"prompt", row.prompt}};
  if (row.what == "decode") object["output"] = row.output;
  object["formats"] = std::move(by_format);
  return object;
}

}  // namespace

std::vector<OptionRow> bench_engine_rows(EngineBench& bench) {
  std::vector<std::pair<const char*, std::string>> shapes;
  for (const Shape& shape : kShapes) shapes.emplace_back(shape.name, shape.name);
  constexpr int kMost = 1 << 20;
  return {
      {"--model", "MODEL", "what runs; none: a random bfloat16 model", kAnyForm, set_text(bench.model)},
      {"--shape", "S", "of the random model: 110m (the default), or 1b and 8b as Llama 3 has them", kAnyForm,
       set_choice(bench.shape, std::move(shapes))},
      {"--format", "F,G", "values of quantize that are measured in turns, off being the model as it is; the first is what the "
       "others are compared with", kAnyForm,
       [&bench](const std::string& text) {
         std::stringstream items(text);
         bench.formats.clear();
         for (std::string item; std::getline(items, item, ',');) bench.formats.push_back(item);
       }},
      {"--streams", "N,M", "streams that decode together (1,8,32)", kAnyForm,
       [&bench](const std::string& text) { bench.streams = numbers_of(text); }},
      {"--prompt", "P", "tokens of a stream's prompt (32)", kAnyForm, set_number(bench.prompt, 1, kMost)},
      {"--output", "O", "tokens that a stream decodes (128)", kAnyForm, set_number(bench.output, 2, kMost)},
      {"--prefill", "P", "tokens of a lone prompt whose prefill is timed (1024); 0: none is", kAnyForm,
       set_number(bench.prefill, 0, kMost)},
      {"--turns", "T", "measurements of each, in turns, of which the median counts (3)", kAnyForm,
       set_number(bench.turns, 1, 1000)},
      {"--json", "", "all measurements as JSON", kAnyForm, set_flag(bench.json)},
  };
}

int bench_engine(const EngineBench& bench, const EngineConfig& settings, std::ostream& out) {
  const std::vector<std::string> formats = bench.formats.empty() ? std::vector{settings.quantize} : bench.formats;
  std::optional<TempFolder> made;
  std::filesystem::path folder = bench.model.empty() ? "" : resolve_model(bench.model);
  if (bench.model.empty()) {
    const Shape& shape = *std::find_if(std::begin(kShapes), std::end(kShapes),
                                       [&](const Shape& known) { return known.name == bench.shape; });
    if (!bench.json)
      out << "writing a random model: " << shape.num_layers << " layers, hidden " << shape.hidden_size << ", vocabulary "
          << shape.vocab_size << ", bfloat16\n"
          << std::flush;
    folder = made.emplace().path();
    write_random_model(folder, model_of(shape));
  }
  const ModelSpec spec = read_model_spec(folder);
  if (const int most = config_for(bench, settings, "off").scheduler.max_model_len; most > spec.max_positions)
    throw std::runtime_error("prompts and outputs have " + std::to_string(most) + " tokens; this model was made for " +
                             std::to_string(spec.max_positions));
  std::vector<std::unique_ptr<Measured>> models;
  boost::json::object load_s;
  for (const std::string& format : formats) {
    const Clock::time_point begin = Clock::now();
    models.push_back(std::make_unique<Measured>(folder, config_for(bench, settings, format), spec.vocab_size));
    load_s[format] = seconds_since(begin);
    if (!bench.json)
      out << "loaded, " << format << ": " << std::fixed << std::setprecision(2) << load_s[format].as_double() << " s\n" << std::flush;
    models.back()->decode_tokens_per_s(1, bench.prompt, std::min(bench.output, 16));  // warms caches and clocks
  }

  boost::json::array rows;
  const auto measure = [&](Row row, const auto& speed_of) {
    row.speeds.resize(models.size());
    for (int turn = 0; turn < bench.turns; ++turn)
      for (size_t i = 0; i < models.size(); ++i) row.speeds[i].push_back(speed_of(*models[i]));
    if (!bench.json) out << text_of(row, formats) << "\n" << std::flush;
    rows.push_back(json_of(row, formats));
  };
  for (const int streams : bench.streams)
    measure({"decode", streams, bench.prompt, bench.output, {}},
            [&](Measured& model) { return model.decode_tokens_per_s(streams, bench.prompt, bench.output); });
  if (bench.prefill > 0)
    measure({"prefill", 1, bench.prefill, 0, {}}, [&](Measured& model) { return model.prefill_tokens_per_s(bench.prefill); });
  if (bench.json)
    out << boost::json::object{{"model", bench.model.empty() ? bench.shape : bench.model},
                               {"device", models[0]->device()},
                               {"load_s", std::move(load_s)},
                               {"rows", std::move(rows)}}
        << "\n";
  return 0;
}

}  // namespace serval
