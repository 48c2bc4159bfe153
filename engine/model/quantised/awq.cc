// AWQ (Lin et al. 2023) as AutoAWQ writes it, in one of three versions, each for a kernel of its own (that library's
// awq/modules/linear, 0.2.7). A weight is (code - zero point) * scale, of 4 bits.
//   gemm: codes [k, n / 8] and zero points [groups, n / 8], eight columns a word in an order of their own; scales [groups, n].
//   gemv: codes [n, k / 8] and zero points [n, words], eight neighbours a word from the lowest bits on; scales [n, words * 8],
//     of which those behind the groups are padding.
//   gemv_fast: codes [n / 4, k] in words of 16 bits, in the order of its kernel; scales and, as qzeros (scaled_zeros in TinyChat and
//     0.2.9), what a code of zero means, [words * 8, n].
#include "engine/model/quantised/method.h"

#include <algorithm>
#include <cctype>

namespace serval {
namespace {

struct Awq {
  int64_t n, k, groups;  // groups of a row
  int64_t kept;          // with padding
  std::string module, zeros;

  // code(row, column) of 0..15, scale(row, group), and offset(row, group): what a code of zero means.
  void fill(MatrixParts& parts, const auto& code, const auto& scale, const auto& offset) const {
    parts.codes.resize(static_cast<size_t>(n * k));
    for (int64_t r = 0; r < n; ++r)
      for (int64_t i = 0; i < k; ++i) parts.codes[r * k + i] = static_cast<uint8_t>(code(r, i) - 8);
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t g = 0; g < groups; ++g) {
        parts.scales.push_back(scale(r, g));
        parts.offsets.push_back(offset(r, g) + 8 * parts.scales.back());
      }
    }
  }

  void read_gemm(const Checkpoint& from, MatrixParts& parts) const {
    const auto words = values_in<uint32_t>(from, module + ".qweight"), zero_words = values_in<uint32_t>(from, zeros);
    const std::vector<float> scales = numbers_in(from, module + ".scales");
    constexpr int kPlace[8] = {0, 4, 1, 5, 2, 6, 3, 7};  // of a column in its word
    const auto at = [&](const std::vector<uint32_t>& of, int64_t row, int64_t column) {
      return static_cast<int>(of[(row * n + column) / 8] >> 4 * kPlace[column % 8] & 15);
    };
    fill(parts, [&](int64_t r, int64_t i) { return at(words, i, r); }, [&](int64_t r, int64_t g) { return scales[g * n + r]; },
         [&](int64_t r, int64_t g) { return -static_cast<float>(at(zero_words, g, r)) * scales[g * n + r]; });
  }

  void read_gemv(const Checkpoint& from, MatrixParts& parts) const {
    const auto words = values_in<uint32_t>(from, module + ".qweight"), zero_words = values_in<uint32_t>(from, zeros);
    const std::vector<float> scales = numbers_in(from, module + ".scales");
    const auto at = [](const std::vector<uint32_t>& of, int64_t index) { return static_cast<int>(of[index / 8] >> 4 * (index % 8) & 15); };
    fill(parts, [&](int64_t r, int64_t i) { return at(words, r * k + i); }, [&](int64_t r, int64_t g) { return scales[r * kept + g]; },
         [&](int64_t r, int64_t g) { return -static_cast<float>(at(zero_words, r * kept + g)) * scales[r * kept + g]; });
  }

  // Of 32 neighbours, those that are eight apart lie beside each other, pair by pair; then four rows of 64 of them lie one
  // behind the other, four codes a word.
  void read_gemv_fast(const Checkpoint& from, MatrixParts& parts) const {
    const auto words = values_in<uint16_t>(from, module + ".qweight");
    const std::vector<float> scales = numbers_in(from, module + ".scales"), offsets = numbers_in(from, zeros);
    const auto code = [&](int64_t r, int64_t i) {
      const int64_t in = i % 32, place = i % 64 / 32 * 32 + in % 8 / 2 * 8 + in % 2 * 4 + in / 8, at = r % 4 * 64 + place;
      return words[r / 4 * k + i / 64 * 64 + at / 4] >> 4 * (at % 4) & 15;
    };
    fill(parts, code, [&](int64_t r, int64_t g) { return scales[g * n + r]; }, [&](int64_t r, int64_t g) { return offsets[g * n + r]; });
  }
};

enum class Layout : uint8_t { kGemm, kGemv, kGemvFast };
struct Version {
  std::string_view name;
  Layout layout;
  std::string_view code_types, zero_types;
  void (Awq::*read)(const Checkpoint&, MatrixParts&) const;
};
constexpr Version kVersions[] = {{"gemm", Layout::kGemm, "I32", "I32", &Awq::read_gemm},
                                 {"gemv", Layout::kGemv, "I32", "I32", &Awq::read_gemv},
                                 {"gemv_fast", Layout::kGemvFast, "I16", "F16 BF16 F32", &Awq::read_gemv_fast}};

const Version& version_of(const boost::json::object& config) {
  const std::string said = string_in(config, "version");
  std::string name = said.empty() ? "gemm" : said;
  std::ranges::transform(name, name.begin(), [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  for (const Version& version : kVersions)
    if (version.name == name) return version;
  throw UnsupportedQuantisation("version " + said.substr(0, 40));
}

// `group`: inputs that share a scale, by the configuration; not above 0: all.
StoredMatrix awq_matrix(const Checkpoint& checkpoint, const std::string& module, const Version& version, int64_t group) {
  using Shape = std::vector<int64_t>;
  const TensorInfo& codes = tensor_of(checkpoint, module + ".qweight", version.code_types, 2);
  const TensorInfo& scales = tensor_of(checkpoint, module + ".scales", "F16 BF16 F32", 2);
  const bool is_scaled = version.layout == Layout::kGemvFast && checkpoint.find(module + ".scaled_zeros") != nullptr;
  const TensorInfo& zeros = tensor_of(checkpoint, module + (is_scaled ? ".scaled_zeros" : ".qzeros"), version.zero_types, 2);
  Awq awq{.n = codes.shape[0], .k = codes.shape[1], .groups = scales.shape[0], .kept = scales.shape[0], .module = module, .zeros = zeros.name};
  Shape scales_fit, zeros_fit;
  switch (version.layout) {
    case Layout::kGemm:
      awq.n = codes.shape[1] * 8;
      awq.k = codes.shape[0];
      scales_fit = {awq.kept, awq.n};
      zeros_fit = {awq.kept, codes.shape[1]};
      break;
    case Layout::kGemv:
      awq.k = codes.shape[1] * 8;
      awq.kept = zeros.shape[1] * 8;
      scales_fit = {awq.n, awq.kept};
      zeros_fit = {awq.n, zeros.shape[1]};
      break;
    case Layout::kGemvFast:
      awq.n = codes.shape[0] * 4;
      scales_fit = zeros_fit = {awq.kept, awq.n};
      if (awq.k % 64 != 0) refuse_tensor(checkpoint, codes, "has rows that are no whole tiles of 64");
  }
  if (version.layout != Layout::kGemm) awq.groups = group <= 0 || group >= awq.k ? 1 : awq.k % group == 0 ? awq.k / group : 0;
  if (scales.shape != scales_fit || awq.groups < 1 || awq.groups > awq.kept || awq.k % awq.groups != 0)
    refuse_tensor(checkpoint, scales, "does not fit " + codes.name);
  if (zeros.shape != zeros_fit) refuse_tensor(checkpoint, zeros, "does not fit " + scales.name);
  const int64_t inputs = awq.k / awq.groups;
  if (awq.groups > 1 && inputs % 8 != 0) refuse_tensor(checkpoint, scales, "has groups of " + std::to_string(inputs) + " inputs");
  return {.name = module + ".weight",
          .how = "AWQ",
          .shape = {awq.n, awq.k},
          .format = grouped(WeightFormat::kInt4, inputs, awq.k, true),
          .tensors = {codes.name, scales.name, zeros.name},
          .read = [awq, read = version.read](const Checkpoint& from, int64_t, MatrixParts& parts) { (awq.*read)(from, parts); }};
}

}  // namespace

std::vector<StoredMatrix> find_awq(const Checkpoint& checkpoint, const boost::json::object& config) {
  const int64_t bits = integer_in(config, "bits", integer_in(config, "w_bit", 4));
  if (bits != 4) throw UnsupportedQuantisation(std::to_string(bits) + " bit");
  const Version& version = version_of(config);
  const int64_t group = integer_in(config, "group_size", integer_in(config, "q_group_size", 128));
  std::vector<StoredMatrix> matrices;
  for (const TensorInfo& tensor : checkpoint.tensors())
    if (const auto module = module_of(tensor, ".qweight")) matrices.push_back(awq_matrix(checkpoint, *module, version, group));
  return matrices;
}

}  // namespace serval
