// What the tokeniser tests share: where real cases lie, how they are read, and folders written for one test.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/tokenizer/tokenizer.h"

namespace serval::test {

// ../shared/data/NAME beside the repository; tests skip with a reason when it is absent.
std::filesystem::path shared_data(std::string_view name);

// tests/fixtures/published/NAME: a part of the same under the same names, always there.
std::filesystem::path vendored_data(std::string_view name);

std::string read_text(const std::filesystem::path& path);

// The texts of a tok-pool, in order.
std::vector<std::string> pool_texts(const std::filesystem::path& pool);

// A file with one JSON array of ids a line.
std::vector<std::vector<TokenId>> read_id_lines(const std::filesystem::path& path);

// A folder that lives as long as this object, with the files written into it.
class ModelFolder {
 public:
  explicit ModelFolder(const std::vector<std::pair<std::string, std::string>>& files = {});
  ~ModelFolder();
  ModelFolder(const ModelFolder&) = delete;
  ModelFolder& operator=(const ModelFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void write(const std::string& name, std::string_view content) const;

 private:
  std::filesystem::path path_;
};

// The sentence load_tokenizer throws for a folder with these files; "" when it loads.
std::string load_error(const std::vector<std::pair<std::string, std::string>>& files);

// A byte-level tokenizer.json with all 256 bytes, a few merges and the special tokens <|end|> and <|pad|>;
// hand-made.
std::string tiny_byte_level_json();
// A byte-fallback tokenizer.json of the sentencepiece family: ▁, letters, a few merges, <0x00>..<0xFF>,
// <unk>, <s>, </s>; hand-made.
std::string tiny_byte_fallback_json();

}  // namespace serval::test
