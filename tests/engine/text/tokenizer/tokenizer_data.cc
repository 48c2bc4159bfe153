#include "tests/engine/text/tokenizer/tokenizer_data.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "engine/text/tokenizer/byte_alphabet.h"
#include "engine/text/tokenizer/load_tokenizer.h"

namespace serval::test {
namespace fs = std::filesystem;
namespace json = boost::json;

fs::path shared_data(std::string_view name) {
  return fs::path(SERVAL_SOURCE_DIR) / ".." / "shared" / "data" / name;
}

fs::path vendored_data(std::string_view name) {
  return fs::path(SERVAL_SOURCE_DIR) / "tests/fixtures/published" / name;
}

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot open " + path.string());
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

std::vector<std::string> pool_texts(const fs::path& pool) {
  std::vector<std::string> list;
  std::istringstream lines(read_text(pool / "texts.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    list.emplace_back(json::parse(line).at("text").as_string());
  }
  return list;
}

std::vector<std::vector<TokenId>> read_id_lines(const fs::path& path) {
  std::vector<std::vector<TokenId>> list;
  std::istringstream lines(read_text(path));
  for (std::string line; std::getline(lines, line);)
    list.push_back(json::value_to<std::vector<TokenId>>(json::parse(line)));
  return list;
}

ModelFolder::ModelFolder(const std::vector<std::pair<std::string, std::string>>& files) {
  std::string name = (fs::temp_directory_path() / "serval-tokenizer-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a folder like " + name);
  path_ = name;
  for (const auto& [file, content] : files) write(file, content);
}

ModelFolder::~ModelFolder() {
  fs::remove_all(path_);
}

void ModelFolder::write(const std::string& name, std::string_view content) const {
  std::ofstream file(path_ / name, std::ios::binary);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  if (!file) throw std::runtime_error("cannot write " + (path_ / name).string());
}

std::string load_error(const std::vector<std::pair<std::string, std::string>>& files) {
  const ModelFolder folder(files);
  try {
    load_tokenizer(folder.path());
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

namespace {

json::object added(int id, std::string_view content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

}  // namespace

std::string tiny_byte_level_json() {
  json::object vocab;
  for (int byte = 0; byte < 256; ++byte) vocab[byte_character(static_cast<unsigned char>(byte))] = byte;
  json::array merges;
  for (const auto& [left, right] : std::vector<std::pair<std::string, std::string>>{{"h", "e"},
                                                                                    {"l", "l"},
                                                                                    {"he", "ll"},
                                                                                    {"hell", "o"},
                                                                                    {"Ġ", "w"},
                                                                                    {"o", "r"},
                                                                                    {"Ġw", "or"},
                                                                                    {"Ã", "©"},
                                                                                    {"Ġ", "Ġ"}}) {
    merges.push_back(json::value(left + " " + right));
    vocab[left + right] = vocab.size();
  }
  const int next = static_cast<int>(vocab.size());
  const json::object byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  return json::serialize(json::object{
      {"version", "1.0"},
      {"added_tokens", json::array{added(next, "<|end|>"), added(next + 1, "<|pad|>")}},
      {"normalizer", nullptr},
      {"pre_tokenizer", byte_level},
      {"post_processor", byte_level},
      {"decoder", byte_level},
      {"model", json::object{{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}},
  });
}

std::string tiny_byte_fallback_json() {
  json::object vocab;
  const auto add = [&](const std::string& name) { vocab[name] = vocab.size(); };
  for (const char* name : {"<unk>", "<s>", "</s>"}) add(name);
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    add(name);
  }
  add("▁");
  for (char c = 'a'; c <= 'z'; ++c) add(std::string(1, c));
  json::array merges;
  for (const auto& [left, right] : std::vector<std::pair<std::string, std::string>>{
           {"▁", "h"}, {"e", "l"}, {"l", "o"}, {"▁h", "el"}, {"▁hel", "lo"}, {"▁", "w"}, {"▁", "▁"}}) {
    merges.push_back(json::array{left, right});
    add(left + right);
  }
  const auto with_string = [](const char* text) { return json::object{{"String", text}}; };
  return json::serialize(json::object{
      {"version", "1.0"},
      {"added_tokens", json::array{added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")}},
      {"normalizer",
       json::object{{"type", "Sequence"},
                    {"normalizers", json::array{json::object{{"type", "Prepend"}, {"prepend", "▁"}},
                                                json::object{{"type", "Replace"},
                                                             {"pattern", with_string(" ")},
                                                             {"content", "▁"}}}}}},
      {"pre_tokenizer", nullptr},
      {"post_processor",
       json::object{
           {"type", "TemplateProcessing"},
           {"single", json::array{json::object{{"SpecialToken", json::object{{"id", "<s>"}, {"type_id", 0}}}},
                                  json::object{{"Sequence", json::object{{"id", "A"}, {"type_id", 0}}}}}},
           {"special_tokens", json::object{{"<s>", json::object{{"id", "<s>"},
                                                                {"ids", json::array{1}},
                                                                {"tokens", json::array{"<s>"}}}}}}}},
      {"decoder",
       json::object{
           {"type", "Sequence"},
           {"decoders",
            json::array{json::object{{"type", "Replace"}, {"pattern", with_string("▁")}, {"content", " "}},
                        json::object{{"type", "ByteFallback"}}, json::object{{"type", "Fuse"}},
                        json::object{{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
      {"model", json::object{{"type", "BPE"},
                             {"unk_token", "<unk>"},
                             {"fuse_unk", true},
                             {"byte_fallback", true},
                             {"vocab", vocab},
                             {"merges", merges}}},
  });
}

}  // namespace serval::test
