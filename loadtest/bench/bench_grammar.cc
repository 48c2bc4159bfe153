#include "loadtest/bench/bench_grammar.h"

#include <algorithm>
#include <chrono>
#include <iomanip>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

#include "engine/grammar/grammar.h"
#include "engine/grammar/token_mask.h"
#include "engine/text/tokenizer/load_tokenizer.h"
#include "kernels/base/check.h"

namespace serval {
namespace {

constexpr size_t kKeptBytes = size_t{8} << 20;  // as the server keeps of a grammar

struct Row {
  const char* name;
  const char* schema;
  const char* text;
};
constexpr Row kRows[] = {
    {"closed object",
     R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":150},
         "email":{"type":"string","format":"email"},"tags":{"type":"array","items":{"type":"string","maxLength":40}},
         "address":{"type":"object","properties":{"street":{"type":"string","maxLength":200},"city":{"type":"string"},
         "zip":{"type":"string","pattern":"^[0-9]{5}$"}},"required":["street","city"],"additionalProperties":false}},
         "required":["name","age"],"additionalProperties":false})",
     R"({"name": "Ada Lovelace, who wrote the first program for a machine that was never built", "age": 36,
  "email": "ada.lovelace@example.org", "tags": ["mathematics", "analytical engine", "notes on a sketch"],
  "address": {"street": "12 St James's Square, near the library", "city": "London", "zip": "10001"}})"},
    {"open objects",
     R"({"type":"object","properties":{"id":{"type":"integer"},"items":{"type":"array","items":{"type":"object",
         "properties":{"sku":{"type":"string"},"count":{"type":"integer"}},"required":["sku"]}}},"required":["id","items"]})",
     R"({"id": 17, "note": "a key that the schema does not name", "items": [{"sku": "A-17", "count": 2, "colour": "red"},
  {"count": 1, "sku": "B-03", "comment": "the last one in stock"}, {"sku": "C-99"}], "total": 12.50})"},
    {"any JSON", "{}",
     R"({"a": [1, 2.5, -3e10, true, null, "text with \"quotes\" and \u00e9"], "nested": {"deep": {"deeper": ["x", {}]}},
  "long": "The quick brown fox jumps over the lazy dog, and then over the next one, and over the one after that."})"},
    {"distinct strings", R"({"type":"array","uniqueItems":true,"items":{"type":"string"}})",
     R"(["first", "second", "third one with more words", "fourth", "fifth", "sixth and last", "or not the last"])"},
    {"distinct and bounded", R"({"type":"array","uniqueItems":true,"items":{"type":"string","maxLength":250}})",
     R"(["first", "second", "third one with more words", "fourth", "fifth", "sixth and last", "or not the last"])"},
};

double microseconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

std::string figures(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  double sum = 0;
  for (const double time : times) sum += time;
  std::ostringstream out;
  out << std::fixed << std::setprecision(1) << std::setw(9) << times[times.size() / 2] << std::setw(10)
      << times[times.size() * 9 / 10] << std::setw(10) << times.back() << std::setw(10)
      << sum / static_cast<double>(times.size());
  return out.str();
}

}  // namespace

int bench_grammar(const std::filesystem::path& model, std::ostream& out) {
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(model);
  std::vector<std::string_view> bytes;
  for (TokenId id = 0; id < tokenizer->vocab_size(); ++id)
    bytes.push_back(tokenizer->is_special(id) ? std::string_view() : tokenizer->token_bytes(id));
  const auto trie = std::make_shared<const TokenTrie>(bytes, tokenizer->vocab_size());
  out << "masks of " << tokenizer->vocab_size() << " tokens, microseconds of one thread a token: median, 9 in 10, most, mean\n";
  for (const Row& row : kRows) {
    const auto begin = std::chrono::steady_clock::now();
    const auto grammar = Grammar::json_schema(row.schema);
    SERVAL_CHECK(grammar.ok(), row.name);
    out << row.name << ", compiled in " << std::fixed << std::setprecision(0)
        << microseconds(std::chrono::steady_clock::now() - begin) << " us\n";
    TokenMasks masks(grammar.value(), trie, kKeptBytes);
    std::vector<uint32_t> mask(trie->num_words());
    const std::vector<TokenId> ids = tokenizer->encode(row.text, /*add_special=*/false);
    for (const char* const which : {"  first", "  again"}) {
      GrammarMatcher matcher(grammar.value());
      std::vector<double> times;
      for (const TokenId id : ids) {
        const auto start = std::chrono::steady_clock::now();
        masks.fill(matcher, mask);
        times.push_back(microseconds(std::chrono::steady_clock::now() - start));
        SERVAL_CHECK(mask[id / 32] >> id % 32 & 1, row.name, id, tokenizer->token_bytes(id));
        SERVAL_CHECK(matcher.advance(tokenizer->token_bytes(id)), row.name, id);
      }
      out << which << figures(std::move(times)) << "\n";
    }
  }
  return 0;
}

}  // namespace serval
