#include "loadtest/load/load_options.h"

#include <fstream>
#include <stdexcept>

#include "kernels/base/usage.h"

namespace serval::load {

CommandForm command_of(Form form) {
  switch (form) {
    case kBench:
      return {"serval bench", form};
    case kSearch:
      return {"serval bench --search", form};
    case kPeers:
      return {"serval bench peers", form};
    case kSimulate:
      return {"serval simulate", form};
    case kFit:
      return {"serval simulate --fit", form};
    case kFitRecording:
      return {"serval simulate --fit-recording", form};
  }
  return {"serval"};
}

std::vector<OptionRow> load_rows(LoadOptions& o) {
  constexpr unsigned kLoad = kBench | kSearch | kPeers, kAll = kLoad | kSimulate;
  constexpr unsigned kAtItsOwnPace = kAll & ~kSearch;  // a search sets the rate
  constexpr unsigned kOneReport = kBench | kSearch | kSimulate, kOneEndpoint = kBench | kSearch;
  WorkloadOptions& w = o.workload;
  return {
      {"--url", "URL", "endpoint: http://127.0.0.1:8000/v1, or grpc://127.0.0.1:8001 of a Serval", kLoad,
       add_text(o.urls)},
      {"--requests", "N", "requests to send (100)", kAll, set_number(w.num_requests, 1, 10'000'000)},
      {"--rate", "R", "open loop: requests per second", kAll, set_number(w.rate, 0, 1e6)},
      {"--ramp-to", "R", "the rate changes linearly to this one", kAtItsOwnPace,
       set_number(w.ramp_to, 0, 1e6)},
      {"--arrival", "KIND", "constant, poisson or gamma (poisson)", kAll,
       set_choice<Arrival>(
           w.arrival,
           {{"constant", Arrival::kConstant}, {"poisson", Arrival::kPoisson}, {"gamma", Arrival::kGamma}})},
      {"--cv", "C", "coefficient of variation of gamma gaps (1)", kAll, set_number(w.cv, 0.01, 100)},
      {"--concurrency", "C", "closed loop: requests kept open", kAtItsOwnPace,
       set_number(o.concurrency, 1, 100'000)},
      {"--search", "",
       "find the highest rate, from --rate on, that is served while 99 % of requests meet the SLOs, and "
       "report "
       "it; not with --ramp-to, --concurrency, --scale-rate",
       kSearch, set_flag(o.search)},
      {"--input-tokens", "I", "length of synthetic prompts (128)", kAll,
       set_number(w.input_tokens, 1, 10'000'000)},
      {"--output-tokens", "O", "output budget (64)", kAll, set_number(w.output_tokens, 1, 10'000'000)},
      {"--length-jitter", "J", "lengths vary by this share both ways", kAll,
       set_number(w.length_jitter, 0, 0.99)},
      {"--shared-prefix-tokens", "P", "tokens all synthetic prompts begin with", kAll,
       set_number(w.shared_prefix_tokens, 0, 10'000'000)},
      {"--trace", "FILE",
       "Azure csv, Mooncake jsonl, ServeGen csv or folder, ShareGPT json, jsonl or text of prompts, a "
       "recorded run; .xz and .gz too",
       kAll, set_text(o.trace)},
      {"--scale-lengths", "F", "a trace's lengths times this", kAll, set_number(w.scale_lengths, 1e-6, 1e6)},
      {"--scale-rate", "F", "a trace's clock runs this much faster", kAtItsOwnPace,
       set_number(w.scale_rate, 1e-6, 1e6)},
      {"--block-tokens", "B", "tokens of a Mooncake hash id, before scaling (512)", kAll,
       set_number(w.block_tokens, 1, 1'000'000)},
      {"--think-time", "S", "seconds between turns of a conversation", kAll,
       set_number(w.think_s, 0, 86'400)},
      {"--token-ids", "", "synthetic prompts as token ids", kAll, set_flag(w.send_token_ids)},
      {"--first-id", "ID", "smallest token id used (100)", kAll, set_number(w.first_id, 0, 1'000'000'000)},
      {"--num-ids", "N", "how many ids from there (400)", kAll, set_number(w.num_ids, 1, 1'000'000'000)},
      {"--seed", "S", "of everything random (0)", kAll, set_number(w.seed, 0, 9e15)},
      {"--warmup", "N", "requests sent first and not counted", kLoad, set_number(o.warmup, 0, 1'000'000)},
      {"--rounds", "N", "how often the endpoints take turns (3)", kPeers, set_number(o.rounds, 1, 1000)},
      {"--slo-ttft", "MS", "a good request's first token comes within this", kOneReport,
       set_number(o.slo.ttft_ms, 0, 1e9)},
      {"--slo-tpot", "MS", "... and its tokens at least this fast", kOneReport,
       set_number(o.slo.tpot_ms, 0, 1e9)},
      {"--chat", "", "use /chat/completions", kLoad, set_flag(o.chat)},
      {"--respect-eos", "", "let the model end before the budget", kLoad, set_flag(o.respect_eos)},
      {"--temperature", "T", "of sampling (0)", kLoad, set_number(o.temperature, 0, 2)},
      {"--model", "NAME", "model to ask for; the first listed otherwise", kLoad, set_text(o.model)},
      {"--api-key", "KEY", "sent as a bearer token", kLoad, set_text(o.api_key)},
      {"--timeout", "S", "of one request (600)", kLoad, set_number(o.timeout_s, 0.001, 1e6)},
      {"--max-duration", "S", "of the whole run (3600)", kLoad, set_number(o.max_duration_s, 0.001, 1e6)},
      {"--scrape-every", "S", "seconds between looks at the server's /metrics; 0: none (0.25)", kOneEndpoint,
       set_number(o.scrape_every_s, 0, 3600)},
      {"--json", "FILE", "write the figures", kOneReport, set_text(o.json)},
      {"--keep-text", "", "... with every answer's text in them", kOneEndpoint, set_flag(o.keep_text)},
      {"--html", "FILE", "write the report", kOneReport, set_text(o.html)},
      {"--record", "FILE", "write what was sent, to be replayed with --trace", kOneEndpoint,
       set_text(o.record)},
  };
}

void check_load_options(const LoadOptions& options) {
  if (options.concurrency > 0 && options.workload.rate > 0)
    throw UsageError("--rate and --concurrency exclude each other: a loop is open or closed");
  if (options.search && options.slo.ttft_ms <= 0 && options.slo.tpot_ms <= 0)
    throw UsageError("--search needs --slo-ttft or --slo-tpot");
  if (options.search && options.workload.rate <= 0) throw UsageError("--search needs --rate to start from");
  if (options.search && options.workload.num_requests < 2)
    throw UsageError("--search needs --requests of at least 2: one request has no rate");
  if (options.chat && options.workload.send_token_ids)
    throw UsageError("--chat sends text; --token-ids does not go with it");
  if (options.keep_text && options.json.empty())
    throw UsageError("--keep-text keeps the texts in the file of --json, which is missing");
}

std::vector<PlannedRequest> make_workload(const LoadOptions& options) {
  return options.trace.empty() ? synthetic_workload(options.workload)
                               : trace_workload(options.trace, options.workload);
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

}  // namespace serval::load
