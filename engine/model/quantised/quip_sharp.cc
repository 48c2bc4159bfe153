// QuIP# (Tseng et al. 2024) as its tools write it (lib/codebook/latticee8_padded12.py, and _rvq3bit.py and _rvq4bit.py beside it), at 2 bits, and
// at 3 and 4, which have a second code for what the first leaves, by a scale: eight inputs of an
// output are a point of E8P, a half of the lattice E8 less or plus a quarter. Of its 16 bits the upper name one of 256 vectors of
// magnitudes, the lower are signs, which say by their parity whether a quarter is taken or added. Four such codes, of two outputs and
// sixteen inputs, are a word of Qidxs [n, k / 32]. Behind them lie the second codes: at 4 bits as many of E8P, at 3 bits one of the 256
// shortest vectors of E8 for each eight inputs, eight to a word, [n, k / 64]. The matrix of these points lies between two of Hadamard and the
// signs SU [k] and SV [n]: W = SV * H(n) points H(k)' * SU. Queries, keys and values are one matrix, and so are up and gate, whose parts have
// fuse_scales. No kernel has such codes: plain numbers are read.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "engine/model/quantised/hadamard.h"
#include "engine/model/quantised/method.h"

namespace serval {
namespace {

using Point = std::array<float, 8>;

// Vectors of halves of a squared norm of 10 at most, in the order of their numbers, and 29 of norm 12, which have five
// times 3/2, where the bits are. The last number of a vector whose sum is odd is negative.
std::vector<Point> e8p_points() {
  constexpr uint8_t kNorm12[] = {0xf1, 0xf2, 0xf4, 0xf8, 0x37, 0x57, 0x67, 0x97, 0xa7, 0xc7, 0x3b, 0x5b, 0x6b, 0x9b, 0xab,
                                 0xcb, 0x3d, 0x5d, 0x6d, 0x9d, 0xad, 0xce, 0x3e, 0x5e, 0x6e, 0x9e, 0xae, 0xec, 0x73};
  std::vector<Point> points;
  for (int number = 0; number < 6561; ++number) {  // of base 3
    Point point;
    float norm = 0;
    for (int i = 7, rest = number; i >= 0; --i, rest /= 3) {
      point[i] = static_cast<float>(rest % 3) + 0.5f;
      norm += point[i] * point[i];
    }
    if (norm <= 10) points.push_back(point);
  }
  for (const uint8_t bits : kNorm12) {
    Point& point = points.emplace_back();
    for (int i = 0; i < 8; ++i) point[i] = (bits >> i & 1) != 0 ? 1.5f : 0.5f;
  }
  for (Point& point : points) {
    int sum = 0;
    for (const float x : point) sum += static_cast<int>(2 * x);
    if (sum / 2 % 2 != 0) point[7] = -point[7];
  }
  return points;
}

// 0, the vectors of norm 2, integers before halves and each in the order of their numbers, and all but one of those with a 2.
std::vector<Point> shortest_points() {
  std::vector<Point> points;
  const auto add_all = [&](int values, float least) {
    const int count = static_cast<int>(std::pow(values, 8));
    for (int number = 0; number < count; ++number) {
      Point point;
      float norm = 0, sum = 0;
      for (int i = 7, rest = number; i >= 0; --i, rest /= values) {
        point[i] = least + static_cast<float>(rest % values);
        norm += point[i] * point[i];
        sum += point[i];
      }
      if (norm <= 2 && static_cast<int>(sum) % 2 == 0) points.push_back(point);
    }
  };
  add_all(3, -1);
  add_all(2, -0.5f);
  for (int i = 0; i < 15; ++i) points.emplace_back(Point{})[i % 8] = i < 8 ? 2.0f : -2.0f;
  return points;
}

enum class Second : uint8_t { kNone, kShortest, kE8P };
struct Codebook {
  std::string_view name;
  int64_t version;
  int64_t words;  // for 64 inputs of an output
  Second second;
  float second_scale;  // what the second points are divided by, where the configuration has no other
};
constexpr Codebook kCodebooks[] = {{"E8P12", 1, 2, Second::kNone, 1}, {"E8P12RVQ3B", 0, 3, Second::kShortest, 2.04f}, {"E8P12RVQ4B", 1, 4, Second::kE8P, 3.45f}};

// Some rows of a matrix, all times one of fuse_scales.
struct Part {
  const char* name;
  int64_t first, count;
  int scale;
};

struct QuipSharp {
  int64_t n, k;
  Codebook codebook;  // with the configuration's own scale
  bool is_fused;
  std::string module;

  // [n, k], as the matrix is stored.
  std::vector<float> points(const Checkpoint& from) const {
    const auto words = values_in<uint64_t>(from, module + ".Qidxs");
    std::vector<float> numbers(static_cast<size_t>(n * k));
    add_e8p(words, 0, 1, numbers);
    if (codebook.second == Second::kE8P) add_e8p(words, k / 32, 1 / codebook.second_scale, numbers);
    if (codebook.second == Second::kShortest) add_shortest(words, k / 32, 1 / codebook.second_scale, numbers);
    return numbers;
  }

  // The points that each row's words say from word `first` on, times the scale.
  void add_shortest(const std::vector<uint64_t>& words, int64_t first, float scale, std::vector<float>& numbers) const {
    static const std::vector<Point> all = shortest_points();
    for (int64_t r = 0; r < n; ++r) {
      const uint64_t* const row = words.data() + r * row_words() + first;
      for (int64_t c = 0; c < k / 8; ++c) {
        const Point& point = all[row[c / 8] >> 8 * (c % 8) & 255];
        for (int i = 0; i < 8; ++i) numbers[r * k + c * 8 + i] += point[i] * scale;
      }
    }
  }
  void add_e8p(const std::vector<uint64_t>& words, int64_t first, float scale, std::vector<float>& numbers) const {
    static const std::vector<Point> all = e8p_points();
    constexpr int kSignOf[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    const int64_t own_words = k / 32;
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t c = 0; c < k / 8; ++c) {
        const int64_t pair = r / 2, columns = c / 2, place = ((pair / 8 * (k / 64) + columns / 4) * 8 + pair % 8) * 4 + columns % 4;
        const uint64_t word = words[place / own_words * row_words() + first + place % own_words];
        const int at = static_cast<int>(r % 2 + c % 2 * 2);
        uint32_t signs = 0;
        for (int j = 0; j < 8; ++j) signs |= static_cast<uint32_t>(word >> (32 + 4 * j + at) & 1) << j;
        const bool is_odd = std::popcount(signs) % 2 != 0;
        signs ^= is_odd ? 1u : 0u;
        const Point& point = all[word >> 8 * at & 255];
        for (int i = 0; i < 8; ++i) {
          const float x = (signs >> kSignOf[i] & 1) != 0 ? -point[i] : point[i];
          numbers[r * k + c * 8 + i] += (is_odd ? x - 0.25f : x + 0.25f) * scale;
        }
      }
    }
  }

  int64_t row_words() const { return k / 64 * codebook.words; }

  void read(const Checkpoint& from, const Part& part, MatrixParts& parts) const {
    std::vector<float> numbers = points(from);
    const Hadamard of_rows = *Hadamard::of(k), of_columns = *Hadamard::of(n);
    constexpr int64_t kTogether = 16;  // divides n
    std::vector<float> turned(static_cast<size_t>(k * kTogether));
    for (int64_t r = 0; r < n; r += kTogether) {
      float* const rows = numbers.data() + r * k;
      for (int64_t i = 0; i < k * kTogether; ++i) turned[i % k * kTogether + i / k] = rows[i];
      of_rows.apply(turned.data(), kTogether);
      for (int64_t i = 0; i < k * kTogether; ++i) rows[i] = turned[i % k * kTogether + i / k];
    }
    of_columns.apply(numbers.data(), k);
    const std::vector<float> inputs = numbers_in(from, module + ".SU"), outputs = numbers_in(from, module + ".SV");
    float scale = numbers_in(from, module + ".Wscale")[0];
    if (is_fused) scale *= numbers_in(from, module + ".fuse_scales")[part.scale];
    parts.numbers.resize(static_cast<size_t>(part.count * k));
    for (int64_t r = 0; r < part.count; ++r)
      for (int64_t i = 0; i < k; ++i)
        parts.numbers[r * k + i] = numbers[(part.first + r) * k + i] * inputs[i] * outputs[part.first + r] * scale;
  }

  // With the names that models ask for them by; there are as many queries as inputs.
  std::vector<Part> list_parts() const {
    if (module.ends_with(".qkv_proj"))
      return {{"q_proj", 0, k, 0}, {"k_proj", k, (n - k) / 2, 1}, {"v_proj", k + (n - k) / 2, (n - k) / 2, 2}};
    if (module.ends_with(".upgate_proj")) return {{"up_proj", 0, n / 2, 0}, {"gate_proj", n / 2, n / 2, 1}};
    return {{nullptr, 0, n, 0}};
  }
};

}  // namespace

std::vector<StoredMatrix> find_quip_sharp(const Checkpoint& checkpoint, const boost::json::object& config) {
  const std::string name = string_in(config, "codebook");
  const auto* const known = std::ranges::find(kCodebooks, name, &Codebook::name);
  if (known == std::end(kCodebooks)) throw UnsupportedQuantisation("codebook " + name.substr(0, 40));
  Codebook codebook = *known;
  const auto* const own_scale = config.if_contains("resid_scale_override");
  const float scale = own_scale != nullptr && own_scale->is_double() ? static_cast<float>(own_scale->get_double())
                                                                     : static_cast<float>(integer_in(config, "resid_scale_override", -1));
  if (scale > 0) codebook.second_scale = scale;
  if (const int64_t version = integer_in(config, "codebook_version", 0); version != codebook.version)
    throw UnsupportedQuantisation("codebook_version " + std::to_string(version));
  if (integer_in(config, "lora_rank", 0) > 0) throw UnsupportedQuantisation("lora_rank");
  if (is_set_in(config, "rescale_WH")) throw UnsupportedQuantisation("rescale_WH");
  std::vector<StoredMatrix> matrices;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    const auto module = module_of(tensor, ".Qidxs");
    if (!module) continue;
    tensor_of(checkpoint, tensor.name, "I64", 2);
    QuipSharp quip{.n = tensor.shape[0],
                   .k = tensor.shape[1] / codebook.words * 64,
                   .codebook = codebook,
                   .is_fused = false,
                   .module = *module};
    if (quip.n < 1 || quip.k < 1 || quip.n % 16 != 0 || tensor.shape[1] % codebook.words != 0)
      refuse_tensor(checkpoint, tensor, "has sizes that are no whole tiles of 16 by 64");
    if (!Hadamard::of(quip.n) || !Hadamard::of(quip.k)) refuse_tensor(checkpoint, tensor, "has sizes of which there is no matrix of Hadamard");
    const std::vector<Part> parts = quip.list_parts();
    quip.is_fused = parts.size() > 1;
    std::vector<std::string> tensors = {tensor.name};
    const auto part = [&](const char* ending, const std::vector<int64_t>& shape) {
      const TensorInfo& found = tensor_of(checkpoint, *module + ending, "F16 BF16 F32");
      if (found.shape != shape) refuse_tensor(checkpoint, found, "does not fit " + tensor.name);
      tensors.push_back(found.name);
    };
    part(".SU", {quip.k});
    part(".SV", {quip.n});
    part(".Wscale", {});
    if (quip.is_fused) part(".fuse_scales", {static_cast<int64_t>(parts.size())});
    if (checkpoint.find(*module + ".codebook_id") != nullptr) tensors.push_back(*module + ".codebook_id");
    const std::string outer = module->substr(0, module->rfind('.') + 1);
    for (const Part& rows : parts) {
      if (rows.count < 1) refuse_tensor(checkpoint, tensor, "has no rows for " + std::string(rows.name));
      matrices.push_back({.name = (rows.name == nullptr ? *module : outer + rows.name) + ".weight",
                          .how = "QuIP#",
                          .shape = {rows.count, quip.k},
                          .format = WeightFormat::kBF16,
                          .tensors = tensors,
                          .read = [quip, rows](const Checkpoint& from, int64_t, MatrixParts& to) { quip.read(from, rows, to); }});
    }
  }
  return matrices;
}

}  // namespace serval
