// What heads of the published layouts guess behind each token of an answer, held to their papers' definitions written plainly
// in PyTorch (tests/golden/make_heads_golden.py).
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <fstream>
#include <iterator>

#include "loadtest/bench/temp_folder.h"
#include "tests/engine/runner/loaded_runner.h"
#include "tests/engine/runner/runner_driver.h"

namespace serval::testing {
namespace {

namespace fs = std::filesystem;

fs::path fixture(const std::string& name) {
  return fs::path(SERVAL_SOURCE_DIR) / "tests/fixtures/heads" / name;
}
std::string text_of(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Which tokens a step verifies behind the last one.
enum class Verified { kNothing, kTheGuesses, kTheTruth };

// How often the guesses behind a token of the answer are other ones. How many positions a step has is a question of `verified`.
int count_wrong(const std::string& kind, const fs::path& heads, Verified verified) {
  const boost::json::value golden = boost::json::parse(text_of(fixture(kind) / "golden.json"));
  const auto ids = [&](const boost::json::value& list) { return boost::json::value_to<std::vector<TokenId>>(list); };
  const std::vector<TokenId> prompt = ids(golden.at("prompt")), answer = ids(golden.at("answer"));
  const boost::json::array& guesses = golden.at("guesses").as_array();
  EngineConfig config;
  config.device.num_threads = 2;
  const bool is_mtp = kind == "mtp";  // in the folder of its model
  config.speculation = kind.starts_with("eagle") || is_mtp ? "eagle" : kind.starts_with("hydra") ? "hydra" : kind;
  config.speculation_model = heads;
  config.block_size = 8;
  config.scheduler.max_num_seqs = 3;
  config.scheduler.max_num_batched_tokens = 32;
  config.scheduler.max_model_len = 64;
  config.scheduler.num_draft_tokens = static_cast<int>(guesses[0].as_array().size());
  const LoadedRunner runner(is_mtp ? heads : fixture("target"), config);
  RunnerDriver driver(*runner);
  const SeqId id = driver.add(prompt, {.temperature = 0, .max_tokens = 64, .ignore_eos = true});
  driver.step({{.seq = id, .num_tokens = 5}});
  driver.step({{.seq = id, .num_tokens = static_cast<int>(prompt.size()) - 5}});
  int wrong = 0;
  while (true) {
    const size_t told = driver.seq(id).tokens.size() - prompt.size();
    SERVAL_CHECK(told > 0 && std::equal(answer.begin(), answer.begin() + std::min(told, answer.size()), driver.seq(id).tokens.begin() + prompt.size()), told);
    if (told > answer.size()) return wrong;
    std::vector<TokenId> given;
    for (const Draft& draft : driver.output().drafts) given.push_back(draft.token);
    wrong += given != ids(guesses[told - 1]);
    if (verified == Verified::kNothing) given.clear();
    if (verified == Verified::kTheTruth) given = {answer.begin() + told, answer.begin() + std::min(told + 2, answer.size())};
    driver.step({{.seq = id, .drafts = given}});
  }
}

class HeadsGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(HeadsGolden, GuessWhatTheirDefinitionsSay) {
  for (const Verified verified : {Verified::kNothing, Verified::kTheGuesses, Verified::kTheTruth})
    EXPECT_EQ(count_wrong(GetParam(), fixture(GetParam()), verified), 0) << static_cast<int>(verified);
}

INSTANTIATE_TEST_SUITE_P(Of, HeadsGolden, ::testing::Values("medusa", "hydra", "hydra_plus", "eagle", "eagle3", "mtp", "dflash"),
                         [](const auto& info) { return std::string(info.param); });

// The measure tells another layer that is read, and another mask.
TEST(HeadsGoldens, TellAnotherConfiguration) {
  struct Change {
    const char* kind;
    std::string from, to;
  };
  for (const Change& change : {Change{"eagle3", "    0,\n    2,", "    0,\n    1,"}, {"dflash", "      0,\n      3", "      1,\n      3"},
                               {"dflash", "\"mask_token_id\": 95", "\"mask_token_id\": 94"}, {"dflash", "\"block_size\": 6", "\"block_size\": 7"}}) {
    const TempFolder folder;
    fs::copy(fixture(change.kind), folder.path(), fs::copy_options::recursive);
    std::string config = text_of(folder.path() / "config.json");
    ASSERT_NE(config.find(change.from), config.npos) << change.from;
    config.replace(config.find(change.from), change.from.size(), change.to);
    std::ofstream(folder.path() / "config.json") << config;
    EXPECT_GT(count_wrong(change.kind, folder.path(), Verified::kNothing), 5) << change.to;
  }
}

// And which of the layers for further tokens makes which guess.
TEST(HeadsGoldens, TellAnotherLayer) {
  for (const auto& [one, other] : {std::pair{"layers.5.", "layers.6."}, {"layers.6.", "layers.7."}}) {
    const TempFolder folder;
    fs::copy(fixture("mtp"), folder.path(), fs::copy_options::recursive);
    std::string file = text_of(folder.path() / "model.safetensors");
    for (size_t at = 0; (at = file.find("layers.", at)) != file.npos; ++at) {
      if (const std::string_view name(file.data() + at, 9); name == one || name == other) file.replace(at, 9, name == one ? other : one);
    }
    std::ofstream(folder.path() / "model.safetensors", std::ios::binary) << file;
    EXPECT_GT(count_wrong("mtp", folder.path(), Verified::kNothing), 15) << one;
  }
}

}  // namespace
}  // namespace serval::testing
