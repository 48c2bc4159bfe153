// The tokenizer of a GGUF file against that of the folder it was made from, and against ids that other people's code made.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <fstream>
#include <sstream>

#include "engine/model/gguf_model.h"
#include "loadtest/bench/temp_folder.h"
#include "server/service/served_model.h"

namespace serval {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

const fs::path kData = fs::path(SERVAL_SOURCE_DIR) / "../shared/data";

std::vector<json::value> lines_of(const fs::path& file) {
  std::vector<json::value> lines;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
  return lines;
}

// A file of metadata alone.
class GgufWriter {
 public:
  void add_text(const std::string& key, const std::string& value) {
    add_key(key, 8);
    add_string(body_, value);
  }
  void add_texts(const std::string& key, const std::vector<std::string>& values) {
    add_array(key, 8, values.size());
    for (const std::string& value : values) add_string(body_, value);
  }
  void add_numbers(const std::string& key, const std::vector<int32_t>& values) {
    add_array(key, 5, values.size());
    for (const int32_t value : values) add(body_, value);
  }
  void write(const fs::path& path) const {
    std::string head = "GGUF";
    add(head, uint32_t{3});
    add(head, uint64_t{0});
    add(head, num_keys_);
    std::ofstream(path, std::ios::binary) << head << body_;
  }

 private:
  template <class T>
  static void add(std::string& to, T value) {
    to.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  static void add_string(std::string& to, const std::string& text) {
    add(to, uint64_t{text.size()});
    to += text;
  }
  void add_key(const std::string& key, uint32_t type) {
    ++num_keys_;
    add_string(body_, key);
    add(body_, type);
  }
  void add_array(const std::string& key, uint32_t type, size_t count) {
    add_key(key, 9);
    add(body_, type);
    add(body_, uint64_t{count});
  }

  std::string body_;
  uint64_t num_keys_ = 0;
};

TEST(GgufTokenizer, SaysWhatTheFolderOfTheSameModelSays) {
  const fs::path folder = kData / "model-stories260K";
  if (!fs::exists(folder)) GTEST_SKIP() << "there is no " << folder;
  const ServedModel hf = read_served_model((folder / "hf").string());
  const ServedModel gguf = read_served_model((folder / "stories260K-f32.gguf").string());
  EXPECT_EQ(gguf.name, "stories260K-f32");
  EXPECT_EQ(gguf.defaults.eos_token_ids, hf.defaults.eos_token_ids);
  EXPECT_EQ(gguf.defaults.bos_token_id, hf.defaults.bos_token_id);
  int num_texts = 0;
  for (const json::value& line : lines_of(kData / "tok-pool/texts.jsonl")) {
    const std::string text(line.at("text").as_string());
    ASSERT_EQ(gguf.tokenizer->encode(text, true), hf.tokenizer->encode(text, true)) << text;
    ++num_texts;
  }
  EXPECT_GT(num_texts, 100);
  const std::vector<TokenId> ids = hf.tokenizer->encode("Once upon a time, there was", true);
  EXPECT_EQ(gguf.tokenizer->decode(ids, true), hf.tokenizer->decode(ids, true));
}

TEST(GgufTokenizer, GivesTheIdsOfAByteLevelVocabulary) {
  const fs::path folder = kData / "tok-qwen2";
  if (!fs::exists(folder)) GTEST_SKIP() << "there is no " << folder;
  std::ifstream in(folder / "tokenizer.json");
  std::stringstream text;
  text << in.rdbuf();
  const json::value file = json::parse(text.str());
  const json::object& vocab = file.at("model").at("vocab").as_object();
  std::vector<std::string> tokens(vocab.size() + file.at("added_tokens").as_array().size());
  std::vector<int32_t> types(tokens.size(), 1);
  for (const auto& [token, id] : vocab) tokens.at(static_cast<size_t>(id.as_int64())) = std::string(token);
  for (const json::value& token : file.at("added_tokens").as_array()) {
    tokens.at(static_cast<size_t>(token.at("id").as_int64())) = std::string(token.at("content").as_string());
    types.at(static_cast<size_t>(token.at("id").as_int64())) = 3;
  }
  std::vector<std::string> merges;
  for (const json::value& merge : file.at("model").at("merges").as_array()) merges.emplace_back(merge.as_string());
  GgufWriter writer;
  writer.add_text("tokenizer.ggml.model", "gpt2");
  writer.add_text("tokenizer.ggml.pre", "qwen2");
  writer.add_texts("tokenizer.ggml.tokens", tokens);
  writer.add_numbers("tokenizer.ggml.token_type", types);
  writer.add_texts("tokenizer.ggml.merges", merges);
  const TempFolder temp;
  writer.write(temp.path() / "model.gguf");
  const auto tokenizer = load_gguf_tokenizer(GgufFile(temp.path() / "model.gguf"), 200000);
  const auto expected = lines_of(folder / "qwen2.pool.ids.jsonl");
  const auto texts = lines_of(kData / "tok-pool/texts.jsonl");
  ASSERT_EQ(expected.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string one(texts[i].at("text").as_string());
    ASSERT_EQ(tokenizer->encode(one, false, true), json::value_to<std::vector<TokenId>>(expected[i])) << one;
  }
}

}  // namespace
}  // namespace serval
