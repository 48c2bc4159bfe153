// The law of speculation for each drafter by itself: many mixed requests, each of which is told what it is told without
// guesses, bit for bit, while sequences give way to each other, leave, share what is cached and guess for each other. One
// row a drafter. Which device and how many requests is said where this file is compiled (SERVAL_DRAFTERS_DEVICE,
// SERVAL_DRAFTERS_REQUESTS).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <random>

#include "engine/model/read_model.h"
#include "engine/model/safetensors.h"
#include "engine/runner/speculators/make_drafters.h"
#include "engine/runner/speculators/token_store.h"
#include "loadtest/bench/random_model.h"
#include "loadtest/bench/temp_folder.h"
#include "tests/engine/count_allocations.h"
#include "tests/support/head_files.h"

namespace serval::testing {
namespace {

constexpr bool kIsCpu = std::string_view(SERVAL_DRAFTERS_DEVICE) == "cpu";
constexpr int kRequests = SERVAL_DRAFTERS_REQUESTS;
// On an emulated device, which takes its time: a few requests of a small model, or many of a tiny one.
constexpr bool kIsTiny = !kIsCpu && kRequests >= 1000;
// Enough of them that some give way, whoever guesses; a sanitizer has time for a few.
constexpr bool kIsACrowd = !kIsCpu || kRequests >= 250;
#ifdef __SANITIZE_THREAD__
constexpr bool kIsSlow = true;
#else
constexpr bool kIsSlow = !kIsCpu;
#endif

// Beside the CPU: on an emulated device by a thousand requests; and by a few, as under TSan.
enum class Tried : uint8_t { kOnTheCpu, kByMany, kByAll };

struct DrafterRow {
  const char* name;
  const char* speculation;
  const char* model;  // of the shipped ones, behind the model's name; empty: it needs none
  int num_draft_tokens, width;
  uint64_t least_accepted;  // of a thousand guesses
  Tried tried;
  const char* draft_speculation = "off";
};
constexpr DrafterRow kDrafters[] = {
    {"ngram", "ngram", "", 8, 1, 100, Tried::kByAll},
    {"draft", "draft", "draft", 4, 1, kIsCpu ? 100 : 500, Tried::kOnTheCpu},
    {"draft_tree", "draft", "draft", 9, 3, 60, Tried::kByAll},
    {"auto", "auto", "draft", 6, 1, 100, Tried::kByMany},
    {"auto_eagle", "auto", "eagle3", 6, 2, 100, Tried::kOnTheCpu},
    {"lookahead", "lookahead", "", 24, 1, kIsCpu ? 5 : 0, Tried::kByAll},
    {"medusa", "medusa", "medusa", 4, 1, kIsCpu ? 10 : 0, Tried::kOnTheCpu},
    {"medusa_tree", "medusa", "medusa", 12, 3, 0, Tried::kByAll},
    {"hydra", "hydra", "hydra", 3, 1, kIsCpu ? 10 : 0, Tried::kOnTheCpu},
    {"hydra_tree", "hydra", "hydra", 9, 3, 0, Tried::kByAll},
    {"eagle", "eagle", "eagle", 4, 1, 10, Tried::kOnTheCpu},
    {"eagle_tree", "eagle", "eagle", 12, 3, kIsCpu ? 10 : 0, Tried::kByMany},
    {"eagle3", "eagle", "eagle3", 4, 1, 2, Tried::kOnTheCpu},
    {"eagle3_tree", "eagle", "eagle3", 12, 3, kIsCpu ? 2 : 0, Tried::kByAll},
    {"dflash", "dflash", "dflash", 7, 1, 10, Tried::kOnTheCpu},
    {"dflash_tree", "dflash", "dflash", 10, 2, kIsCpu ? 5 : 0, Tried::kByAll},
    {"self", "self", "", 3, 1, 0, Tried::kOnTheCpu},
    {"self_tree", "self", "", 8, 2, 0, Tried::kByAll},
    {"datastore", "datastore", "", 8, 3, 100, Tried::kByMany},
    {"merged", "ngram+datastore", "", 9, 2, 100, Tried::kOnTheCpu},
    {"grammar", "grammar", "", 8, 1, 600, Tried::kByAll},
    {"merged_with_draft", "ngram+draft", "draft", 8, 1, 60, Tried::kByMany},
    {"draft_staged", "draft", "draft", 8, 1, 60, Tried::kOnTheCpu, "ngram"},
    {"draft_tree_staged", "draft", "draft", 12, 2, 40, Tried::kOnTheCpu, "ngram"},
    {"self_staged", "self", "", 6, 1, 0, Tried::kOnTheCpu, "ngram"},
};

// Who comes, how much memory there is, and of how many tokens.
struct Crowd {
  int prompt, longer, own, output;  // tokens: prompts begin alike with `prompt` and up to three times `longer` more
  int every, long_prompt, long_output;  // on a device one in so many grows until it lacks memory
  int block, model_len, step_rows, chunk;
};
constexpr Crowd kCrowd = kIsCpu    ? Crowd{10, 9, 40, 36, 3, 10, 100, 8, 160, 160, 48}
                         : kIsTiny ? Crowd{4, 2, 8, 6, 16, 6, 40, 4, 64, 48, 16}
                                   : Crowd{10, 9, 40, 20, 3, 10, 100, 8, 160, 160, 48};
// The tiny model has fewer tokens.
constexpr TokenId id_of(uint64_t token) {
  return static_cast<TokenId>(kIsTiny ? 3 + token % 90 : token);
}

// On the CPU the demo model and its draft; on an emulated device a random model that is its own draft.
class Drafters : public ::testing::TestWithParam<DrafterRow> {
 protected:
  static const std::filesystem::path& random_model() {
    static const std::unique_ptr<TempFolder> folder = [] {
      auto made = std::make_unique<TempFolder>();
      RandomModel model;
      model.architecture = "Qwen3ForCausalLM";
      model.dtype = DType::kBF16;
      if (kIsTiny) {
        model.num_layers = 2;
        model.vocab_size = 96;
        model.hidden_size = model.intermediate_size = 32;
        model.num_heads = 2;
        model.num_kv_heads = 1;
      }
      write_random_model(made->path(), model);
      write_medusa_heads(made->path(), 3, model.hidden_size, model.vocab_size);
      write_hydra_heads(made->path() / "hydra", 3, 2, model.hidden_size, model.vocab_size);
      write_dflash(made->path() / "dflash", model.hidden_size, model.vocab_size, kIsTiny ? "[0]" : "[0,1]");
      EagleShape head{.hidden = model.hidden_size, .vocab = model.vocab_size, .num_heads = model.num_heads,
                      .num_kv_heads = model.num_kv_heads, .intermediate = kIsTiny ? 32 : 64};
      write_eagle_head(made->path() / "eagle", head);
      head.draft_vocab = kIsTiny ? 72 : 90;
      head.num_read = model.num_layers;
      head.more_config = std::string(R"(,"eagle_aux_hidden_state_layer_ids":[0,1)") + (kIsTiny ? "]" : ",2]");
      write_eagle_head(made->path() / "eagle3", head);
      return made;
    }();
    return folder->path();
  }
  static std::filesystem::path shipped(const char* name) {
    return std::filesystem::path(SERVAL_SOURCE_DIR) / "deploy/models" / name;
  }
  static std::filesystem::path model() { return kIsCpu ? shipped("serval-nano") : random_model(); }
  static std::filesystem::path draft() {
    const std::string name = GetParam().model;
    if (kIsCpu) return shipped(("serval-nano-" + name).c_str());
    return name == "draft" || name == "medusa" ? random_model() : random_model() / name;
  }

  static EngineConfig config() {
    EngineConfig config;
    config.device.device = SERVAL_DRAFTERS_DEVICE;
    config.device.num_threads = kIsCpu ? 2 : 0;
    config.device.pin_threads = false;
    config.block_size = kCrowd.block;
    config.scheduler.max_num_seqs = 12;
    config.scheduler.max_num_batched_tokens = kCrowd.step_rows;
    config.scheduler.max_prefill_chunk = kCrowd.chunk;
    config.scheduler.max_model_len = kCrowd.model_len;
    config.scheduler.max_waiting = 8 * kRequests;
    config.scheduler.mask_words = 128;  // of at most 4096 tokens
    return config;
  }

  // Texts that begin alike and repeat themselves.
  static Request request(int i) {
    std::mt19937_64 rng(i);
    Request r;
    const int first = static_cast<int>(rng() % 4);
    for (int t = 0; t < kCrowd.prompt + kCrowd.longer * first; ++t) r.prompt.push_back(id_of(100 + 37 * first + t));
    for (int t = static_cast<int>(rng() % kCrowd.own); t > 0; --t) r.prompt.push_back(id_of(300 + rng() % 150));
    const size_t half = r.prompt.size() / 2;
    if (rng() % 2 == 0) r.prompt.insert(r.prompt.end(), r.prompt.begin(), r.prompt.begin() + static_cast<int64_t>(half));
    SamplingParams& s = r.sampling;
    s.seed = rng();
    s.temperature = static_cast<float>(rng() % 4) * 0.35f;
    s.max_tokens = (kIsTiny ? 2 : 4) + static_cast<int>(rng() % kCrowd.output);
    if (!kIsCpu && i % kCrowd.every == 1) {
      r.prompt.resize(kCrowd.long_prompt, id_of(100));
      s.max_tokens = kCrowd.long_output;
    }
    s.num_logprobs = rng() % 3 == 0 ? 3 : -1;
    s.ignore_eos = rng() % 2 == 0;
    s.eos_token_ids = {2, 7, id_of(301)};
    if (rng() % 3 == 0) s.min_tokens = s.max_tokens / 2;
    if (rng() % 5 == 0) s.repetition_penalty = 1.2f;
    if (rng() % 5 == 0) s.frequency_penalty = 0.4f;
    if (rng() % 4 == 0) s.top_k = 10;
    if (rng() % 4 == 0) s.logit_bias = {{id_of(260), 2}, {id_of(310), 3}};
    if (rng() % 9 == 0) s.num_prompt_logprobs = 1;
    if (!kIsCpu) s.ignore_eos = false;  // for all the scheduler knows any token might end it
    r.n = 1 + static_cast<int>(rng() % 8 == 0) * 2;
    r.cache_salt = rng() % 5 == 0 ? "other" : "";
    if (rng() % 4 == 0) r.speculation.depth = 1 + static_cast<int>(rng() % 3);
    if (rng() % 9 == 0) r.speculation.drafters = 0;
    r.constrained = rng() % 4 == 0;
    return r;
  }
  // One that takes what the model's first layers are sure of.
  static Request exiting(Request r, float threshold) {
    r.speculation.drafters = drafter_bit(DrafterKind::kSelf);
    r.speculation.width = 1;
    r.speculation.acceptance = Acceptance::kExit;
    r.speculation.exit_threshold = threshold;
    return r;
  }

  // What is asked and answered, and the same again otherwise.
  static std::filesystem::path datastore() {
    static const TempFolder folder;
    const std::filesystem::path file = folder.path() / "store";
    if (std::filesystem::exists(file)) return file;
    std::vector<std::vector<TokenId>> texts;
    for (int i = 0; i < kRequests; ++i) {
      std::vector<TokenId>& text = texts.emplace_back(request(i).prompt);
      const Told& told = expected()[i][0];
      text.insert(text.end(), told.tokens.begin(), told.tokens.end());
      for (size_t t = 0; i % 2 == 0 && t < text.size(); t += 5) text[t] = id_of(300);
    }
    TokenStore::write(file, texts);
    return file;
  }
  static EngineConfig config_of(const DrafterRow& row) {
    EngineConfig of_row = config();
    of_row.speculation = row.speculation;
    if (row.model[0] != 0) of_row.speculation_model = draft();
    if (of_row.speculation.find("datastore") != std::string::npos) of_row.speculation_datastore = datastore();
    of_row.num_draft_layers = of_row.speculation == "self" ? 1 : 0;
    of_row.scheduler.num_draft_tokens = kIsTiny ? (row.num_draft_tokens + 2) / 3 : row.num_draft_tokens;
    of_row.draft_width = row.width;
    of_row.draft_speculation = row.draft_speculation;
    return of_row;
  }

  static const std::vector<std::vector<Told>>& expected() {
    static const std::vector<std::vector<Told>> all = [] {
      std::vector<std::vector<Told>> told;
      EngineDriver driver(model(), config(), EngineDriver::Order::kInTurn);
      std::vector<RequestId> ids;
      for (int i = 0; i < kRequests; ++i) ids.push_back(driver.submit(request(i)));
      for (const RequestId id : ids) told.push_back(driver.wait(id));
      return told;
    }();
    return all;
  }
};

std::vector<DrafterRow> rows() {
  std::vector<DrafterRow> all(std::begin(kDrafters), std::end(kDrafters));
  constexpr Tried kHere = !kIsSlow ? Tried::kOnTheCpu : kIsTiny ? Tried::kByMany : Tried::kByAll;
  std::erase_if(all, [](const DrafterRow& row) { return row.tried < kHere; });
  return all;
}

INSTANTIATE_TEST_SUITE_P(Each, Drafters, ::testing::ValuesIn(rows()),
                         [](const auto& info) { return std::string(info.param.name); });

void PrintTo(const DrafterRow& row, std::ostream* out) {
  *out << row.name;
}

TEST_P(Drafters, ChangeNoBitOfAnybody) {
  const DrafterRow& row = GetParam();
  EngineConfig config = config_of(row);
  const size_t roomy = LoadedRunner(model(), this->config())->plan().kv_cache_bytes;
  for (const auto order : {EngineDriver::Order::kInTurn, EngineDriver::Order::kOneAhead}) {
    if (!kIsCpu && order == EngineDriver::Order::kInTurn) continue;  // it takes its time
    // One or two of the longest sequences, with what a draft keeps of them.
    const bool has_heads = row.speculation == std::string("medusa") || row.speculation == std::string("hydra");
    const bool keeps_kv = row.model[0] != 0 && !has_heads;
    const double keeps_model = row.model == std::string("draft") ? 2.2 : kIsTiny && row.model == std::string("dflash") ? 3.4 : 1.8;
    const double sequences = keeps_kv ? (kIsCpu ? 2.6 : keeps_model) : (kIsCpu ? 2 : 1.1);
    config.kv_cache_bytes = static_cast<size_t>(sequences * static_cast<double>(roomy) / config.scheduler.max_num_seqs);
    std::atomic<bool> all_are_there = true;
    EngineDriver driver(model(), config, order);
    driver.on_step([&] { all_are_there.wait(false); });
    // Those that end at once make it expect short answers, and keep no memory for long ones.
    for (int i = 0; i < 4; ++i) {
      Request brief;
      brief.prompt = {1, 2, 3};
      brief.sampling.max_tokens = 1;
      driver.wait(driver.submit(brief));
    }
    // The crowd comes at once, however long the first of them take.
    all_are_there = false;
    std::vector<RequestId> ids, leaving, exits;
    const bool may_exit = kIsCpu && row.speculation == std::string("self");
    std::mt19937_64 rng(5);
    for (int i = 0; i < kRequests; ++i) {
      Request r = request(i);
      // What the client predicts is near the truth, or beside it.
      if (i % 3 == 0) {
        r.prediction = expected()[i][0].tokens;
        for (TokenId& token : r.prediction)
          if (rng() % 8 == 0) token = id_of(rng() % 450);
      }
      ids.push_back(driver.submit(std::move(r)));
      if (i % 6 == 0) leaving.push_back(driver.submit(request(kRequests + i)));
      if (may_exit && i % 4 == 0) exits.push_back(driver.submit(exiting(request(i), 0.1f * static_cast<float>(i % 3))));
    }
    all_are_there = true;
    all_are_there.notify_all();
    for (size_t i = 0; i < leaving.size(); ++i) {
      driver.wait_for_tokens(leaving[i], static_cast<int>(1 + i % 9));
      driver.abort(leaving[i]);
    }
    for (int i = 0; i < kRequests; ++i) {
      const std::vector<Told> told = driver.wait(ids[i]);
      for (size_t c = 0; c < told.size(); ++c)
        EXPECT_TRUE(told[c].same_bits(expected()[i][c]) && told[c].finish == expected()[i][c].finish)
            << "request " << i << ", choice " << c;
    }
    for (const RequestId id : leaving) driver.wait(id);
    for (const RequestId id : exits) driver.wait(id);
    const SchedulerStats stats = driver.stats().scheduler;
    EXPECT_EQ(stats.num_free_blocks + stats.num_cached_blocks, stats.num_blocks);
    EXPECT_GE(stats.num_preemptions, kIsACrowd ? 1u : 0u);
    EXPECT_GT(stats.prefix_hit_tokens, 0u);
    DrafterStats sum;
    for (int kind = 0; kind < kNumDrafters; ++kind) {
      for (int place = 0; place < DrafterStats::kPlaces; ++place) {
        sum.drafted[0] += stats.drafters[kind].drafted[place];
        sum.accepted[0] += stats.drafters[kind].accepted[place];
      }
    }
    EXPECT_EQ(sum.drafted[0], stats.num_draft_tokens);
    EXPECT_EQ(sum.accepted[0], stats.num_accepted_tokens);
    // The closed loop tries little where many decode on a model that is small.
    const bool is_auto = row.speculation == std::string("auto");
    EXPECT_GE(stats.drafters[static_cast<int>(DrafterKind::kPrediction)].accepted[0], is_auto ? 0u : 1u);
    uint64_t drafted = 0, accepted = 0;
    for (int kind = 1; kind < kNumDrafters; ++kind) {
      for (const uint64_t count : stats.drafters[kind].drafted) drafted += count;
      for (const uint64_t count : stats.drafters[kind].accepted) accepted += count;
    }
    const bool has_reason = !is_auto && (kIsCpu || row.speculation != std::string("ngram"));  // a random model hardly repeats itself
    EXPECT_GE(drafted, has_reason ? 1u * kRequests / (kIsTiny ? 8 : 1) : 0);  // answers of the tiny one are short
    EXPECT_GE(accepted * 1000, kIsACrowd ? drafted * row.least_accepted : 0);
  }
}

TEST_P(Drafters, AllocateNothing) {
  if (!kIsCpu) GTEST_SKIP() << "the emulation of the device allocates by itself";
  if (kIsSlow) GTEST_SKIP() << "TSan sees the same steps in ChangeNoBitOfAnybody";
  const DrafterRow& row = GetParam();
  EngineConfig config = config_of(row);
  const TempFolder folder;
  config.speculation_trace = folder.path() / "trace";
  std::vector<Request> requests;
  for (int i = 0; i < 30; ++i) {
    Request& r = requests.emplace_back(request(i));
    r.sampling.num_logprobs = r.sampling.num_prompt_logprobs = -1;
    r.sampling.logit_bias.clear();  // lists whose length a caller decides
    r.sampling.eos_token_ids.clear();
    r.prediction = r.prompt;
  }
  const Counted counted = count_allocations(model(), config, std::move(requests));
  const bool guesses_seldom = row.speculation == std::string("grammar");  // for a quarter of the requests
  EXPECT_GT(counted.stats.num_draft_tokens, row.speculation == std::string("auto") ? 0u : guesses_seldom ? 10u : 50u);
  EXPECT_EQ(counted.allocations, 0);
}

// A second file of tensors beside a model's own.
void add_file(const std::filesystem::path& folder, const HeadFile& more) {
  more.write(folder / "model-2.safetensors");
  std::filesystem::rename(folder / "model.safetensors", folder / "model-1.safetensors");
  std::string map;
  for (const char* file : {"model-1.safetensors", "model-2.safetensors"})
    for (const TensorInfo& tensor : read_safetensors_header(MappedFile(folder / file)))
      map += (map.empty() ? "\"" : ",\"") + tensor.name + "\":\"" + file + "\"";
  std::ofstream(folder / "model.safetensors.index.json") << "{\"metadata\":{},\"weight_map\":{" << map << "}}";
}

// A model of three layers of latent attention and experts, and behind them in its folder those that predict further tokens.
void write_model_with_mtp(const std::filesystem::path& folder, int num_further = 1) {
  RandomModel model;
  model.architecture = "DeepseekV3ForCausalLM";
  model.dtype = DType::kBF16;
  model.num_layers = 3 + num_further;
  model.num_experts = 5;
  model.more_config =
      R"(, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 40, "n_shared_experts": 1, "first_k_dense_replace": 1,
         "q_lora_rank": 48, "kv_lora_rank": 48, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 24)";
  write_random_model(folder, model);
  std::string config;
  std::getline(std::ifstream(folder / "config.json"), config, '\0');
  const std::string layers = "\"num_hidden_layers\": " + std::to_string(model.num_layers);
  config.replace(config.find(layers), layers.size(), "\"num_nextn_predict_layers\": " + std::to_string(num_further) + ", \"num_hidden_layers\": 3");
  std::ofstream(folder / "config.json") << config;
  const int hidden = model.hidden_size;
  HeadFile more;
  for (int further = 3; further < model.num_layers; ++further) {
    const std::string layer = "model.layers." + std::to_string(further) + ".";
    more.add(layer + "eh_proj.weight", {hidden, 2 * hidden}, 0.1f);
    for (const char* norm : {"enorm", "hnorm", "shared_head.norm"}) more.add(layer + norm + ".weight", {hidden}, 1);
    more.add(layer + "shared_head.head.weight", {model.vocab_size, hidden}, 0.1f);
    more.add(layer + "embed_tokens.weight", {model.vocab_size, hidden}, 0.1f);
  }
  add_file(folder, more);
}

// Keys and values in some layers, a state in the others.
RandomModel model_with_states() {
  RandomModel model;
  model.dtype = DType::kBF16;
  model.architecture = "Qwen3_5ForCausalLM";
  model.more_config = R"(, "full_attention_interval": 2, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
      "linear_key_head_dim": 16, "linear_value_head_dim": 24, "partial_rotary_factor": 0.5)";
  return model;
}

// And a layer that predicts a token more.
void write_model_with_states_and_mtp(const std::filesystem::path& folder) {
  const RandomModel model = model_with_states();
  write_random_model(folder, model);
  const int hidden = model.hidden_size, heads = model.num_heads * model.head_dim, kv_heads = model.num_kv_heads * model.head_dim;
  HeadFile more;
  more.add("mtp.fc.weight", {hidden, 2 * hidden}, 0.1f);
  for (const char* norm : {"norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden", "layers.0.input_layernorm", "layers.0.post_attention_layernorm"})
    more.add("mtp." + std::string(norm) + ".weight", {hidden});
  const std::string layer = "mtp.layers.0.";
  more.add(layer + "self_attn.q_proj.weight", {2 * heads, hidden}, 0.1f);
  more.add(layer + "self_attn.o_proj.weight", {hidden, heads}, 0.1f);
  for (const char* name : {"k_proj", "v_proj"}) more.add(layer + "self_attn." + name + ".weight", {kv_heads, hidden}, 0.1f);
  for (const char* name : {"q_norm", "k_norm"}) more.add(layer + "self_attn." + name + ".weight", {model.head_dim});
  for (const char* name : {"gate_proj", "up_proj"}) more.add(layer + "mlp." + name + ".weight", {model.intermediate_size, hidden}, 0.1f);
  more.add(layer + "mlp.down_proj.weight", {hidden, model.intermediate_size}, 0.1f);
  add_file(folder, more);
}

EngineConfig on_this_device() {
  EngineConfig config;
  config.device.device = SERVAL_DRAFTERS_DEVICE;
  config.device.num_threads = kIsCpu ? 2 : 0;
  config.scheduler.max_model_len = 120;
  if (!kIsCpu) config.scheduler.max_num_seqs = 8;
  return config;
}
std::filesystem::path head_fixture(const char* name) {
  return std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/heads" / name;
}

// A few requests, on an emulated device fewer, with guesses of heads that are not among the shipped ones and without; some
// clients nearly predict what comes.
void expect_same_bits(const std::filesystem::path& model, const char* speculation, const std::filesystem::path& heads, DrafterKind kind,
                      int width = 3) {
  SCOPED_TRACE(speculation);
  constexpr int kFew = kIsCpu ? 12 : 4, kTokens = kIsCpu ? 40 : 20, kLess = kIsCpu ? 1 : 8;
  EngineConfig config = on_this_device();
  std::vector<std::vector<Told>> told[2];
  for (const bool guesses : {false, true}) {
    if (guesses) {
      config.speculation = speculation;
      config.speculation_model = heads;
      config.scheduler.num_draft_tokens = 3 * width;
      config.draft_width = width;
    }
    EngineDriver driver(model, config);
    std::vector<RequestId> ids;
    for (int i = 0; i < kFew; ++i) {
      Request r;
      for (int t = 0; t < 5 + 3 * i; ++t) r.prompt.push_back(20 + (7 * t + i) % 70);
      r.sampling = {.temperature = 0.5f * static_cast<float>(i % 3), .seed = static_cast<uint64_t>(i), .max_tokens = kTokens};
      r.sampling.num_logprobs = 2;
      if (i % 3 == 1) r.sampling.repetition_penalty = 1.2f;
      if (guesses && i % 4 == 0) r.prediction = told[false][i][0].tokens;
      for (size_t t = 5; t < r.prediction.size(); t += 6) r.prediction[t] = 20;
      ids.push_back(driver.submit(std::move(r)));
    }
    for (const RequestId id : ids) told[guesses].push_back(driver.wait(id));
    const SchedulerStats stats = driver.stats().scheduler;
    // Which tries a few; where steps are planned ahead the first ones come too late, and on an emulated device a guess costs as much as a step.
    const bool is_auto = speculation == std::string_view("auto");
    const uint64_t least = is_auto ? 0 : kind == DrafterKind::kPrediction ? 20 / kLess : 100 / kLess;
    EXPECT_TRUE((is_auto && !kIsCpu) || (stats.drafters[static_cast<int>(kind)].drafted[0] > least) == guesses);
    EXPECT_TRUE(is_auto || (stats.num_accepted_tokens > 40 / kLess) == guesses);
  }
  for (size_t i = 0; i < told[0].size(); ++i) EXPECT_TRUE(told[1][i][0].same_bits(told[0][i][0])) << i;
}

TEST(MtpLayers, OfTheModelsOwnFolderChangeNoBit) {
  if (!kIsCpu) GTEST_SKIP() << "latent attention on the device has its law";
  const TempFolder folder;
  write_model_with_mtp(folder.path());
  expect_same_bits(folder.path(), "eagle", folder.path(), DrafterKind::kEagle);
}

// Three of them, of latent attention and experts, and plain ones, which a device takes too.
TEST(MtpLayers, BehindTheFirstChangeNoBitEither) {
  const TempFolder folder;
  if (kIsCpu) write_model_with_mtp(folder.path(), 3);
  const std::filesystem::path model = kIsCpu ? folder.path() : head_fixture("mtp");
  for (const int width : {1, 3}) expect_same_bits(model, "eagle", model, DrafterKind::kEagle, width);
  EngineConfig own;
  own.speculation = "auto";
  find_own_layers(model, read_model_spec(model), own);
  ASSERT_EQ(own.speculation_model, model.string());
  expect_same_bits(model, "auto", own.speculation_model, DrafterKind::kEagle, 1);
}

// What has no kernel on a device is said before anything runs, of a model as of one that guesses for it.
TEST(MtpLayers, OfAKindThatTheDeviceDoesNotTakeAreRefusedByName) {
  if (kIsCpu) GTEST_SKIP() << "the CPU takes them";
  const auto told = [](const std::filesystem::path& model, const char* speculation, const std::filesystem::path& guesses) -> std::string {
    EngineConfig config = on_this_device();
    config.speculation = speculation;
    config.speculation_model = guesses;
    config.scheduler.num_draft_tokens = 3;
    try {
      const LoadedRunner runner(model, config);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "";
  };
  const TempFolder latent;
  write_model_with_mtp(latent.path(), 2);
  for (const char* speculation : {"eagle", "auto"})
    EXPECT_THAT(told(latent.path(), speculation, latent.path()), ::testing::HasSubstr("DeepseekV3ForCausalLM runs on the CPU only (device: cpu): it needs"));
  EXPECT_THAT(told(head_fixture("mtp"), "draft", latent.path()), ::testing::HasSubstr("DeepseekV3ForCausalLM runs on the CPU only (device: cpu): it needs"));
  EXPECT_EQ(told(head_fixture("mtp"), "eagle", head_fixture("mtp")), "");
}

// Prompts come in chunks, some of one token, so that layers wait for their first row.
TEST(MtpLayers, AllocateNothing) {
  if (!kIsCpu || kIsSlow) GTEST_SKIP() << "as Drafters.AllocateNothing";
  const TempFolder folder;
  write_model_with_mtp(folder.path(), 3);
  EngineConfig config;
  config.device.num_threads = 2;
  config.scheduler.max_model_len = 120;
  config.scheduler.max_num_seqs = 8;
  config.scheduler.max_num_batched_tokens = 32;
  config.scheduler.max_prefill_chunk = 8;
  config.scheduler.num_draft_tokens = 5;
  config.speculation = "eagle";
  config.speculation_model = folder.path();
  std::vector<Request> requests(20);
  for (int i = 0; i < std::ssize(requests); ++i) {
    for (int t = 0; t < 1 + 3 * (i % 7); ++t) requests[i].prompt.push_back(20 + (7 * t + i) % 70);
    requests[i].sampling = {.temperature = 0.5f * static_cast<float>(i % 3), .seed = static_cast<uint64_t>(i), .max_tokens = 30};
  }
  const Counted counted = count_allocations(folder.path(), config, std::move(requests));
  EXPECT_GT(counted.stats.num_draft_tokens, 100u);
  EXPECT_EQ(counted.allocations, 0);
}

TEST(MtpLayers, GuessWhereTheSettingIsAutoAndNamesNobodyElse) {
  if (!kIsCpu) GTEST_SKIP() << "latent attention on the device has its law";
  const TempFolder folder;
  write_model_with_mtp(folder.path());
  const ModelSpec model = read_model_spec(folder.path());
  const auto folder_of = [&](const char* speculation, int num_draft_layers, const ModelSpec& of) {
    EngineConfig config;
    config.speculation = speculation;
    config.num_draft_layers = num_draft_layers;
    find_own_layers(folder.path(), of, config);
    return config.speculation_model;
  };
  EXPECT_EQ(folder_of("auto", 0, model), folder.path().string());
  EXPECT_EQ(folder_of("eagle", 0, model), folder.path().string());
  EXPECT_EQ(folder_of("ngram", 0, model), "");
  EXPECT_EQ(folder_of("auto", 1, model), "") << "its first layers are named";
  ModelSpec wider = model;
  std::get<MoeFfnSpec>(wider.layers.back().ffn).intermediate_size *= 2;
  EXPECT_EQ(folder_of("auto", 0, wider), "") << "layers of another shape are left out, as they always were";
  EXPECT_THROW(folder_of("eagle", 0, wider), std::runtime_error);
  expect_same_bits(folder.path(), "auto", folder_of("auto", 0, model), DrafterKind::kEagle, 1);

  EngineConfig config;
  config.device.num_threads = 2;
  config.scheduler.max_model_len = 120;
  config.scheduler.num_draft_tokens = 2;
  config.speculation = "auto";
  const size_t without = LoadedRunner(folder.path(), config)->plan().draft_bytes;
  find_own_layers(folder.path(), model, config);
  const LoadedRunner runner(folder.path(), config);
  EXPECT_GT(runner->plan().draft->weight_bytes, 0u);
  EXPECT_GE(runner->plan().draft_bytes, without + runner->plan().draft->total_bytes());
}

// A state does not take guesses in: those that came true are computed again, which drafters are not told twice.
TEST(GuessesOverAState, ChangeNoBit) {
  const TempFolder folder;
  RandomModel model;
  model.dtype = DType::kBF16;
  model.architecture = "Qwen3ForCausalLM";
  write_random_model(folder.path() / "draft", model);
  const std::filesystem::path target = folder.path() / "target";
  write_model_with_states_and_mtp(target);
  std::filesystem::create_directories(folder.path() / "medusa");
  write_medusa_heads(folder.path() / "medusa", 3, model.hidden_size, model.vocab_size);
  write_hydra_heads(folder.path() / "hydra", 3, 2, model.hidden_size, model.vocab_size);
  write_dflash(folder.path() / "dflash", model.hidden_size, model.vocab_size, "[0,1]");
  write_eagle_head(folder.path() / "eagle", {.hidden = model.hidden_size, .vocab = model.vocab_size, .draft_vocab = 90,
                                             .more_config = R"(,"eagle_aux_hidden_state_layer_ids":[0,1,2])"});
  expect_same_bits(target, "ngram", "", DrafterKind::kPrediction, 1);
  expect_same_bits(target, "eagle", target, DrafterKind::kEagle, 1);  // its own layer
  if (!kIsCpu) return;  // the others are tried on a device over plain layers
  expect_same_bits(target, "draft", folder.path() / "draft", DrafterKind::kDraft, 1);
  expect_same_bits(target, "medusa", folder.path() / "medusa", DrafterKind::kMedusa, 1);
  expect_same_bits(target, "hydra", folder.path() / "hydra", DrafterKind::kHydra, 1);
  expect_same_bits(target, "eagle", folder.path() / "eagle", DrafterKind::kEagle, 1);
  expect_same_bits(target, "dflash", folder.path() / "dflash", DrafterKind::kDflash, 1);
}

TEST(HydraPlus, ReadsThroughALayerOfItsOwnAndChangesNoBit) {
  expect_same_bits(head_fixture("target"), "hydra", head_fixture("hydra_plus"), DrafterKind::kHydra);
}

}  // namespace
}  // namespace serval::testing
