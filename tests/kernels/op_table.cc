#include "tests/kernels/op_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "kernels/float_bits.h"
#include "tests/kernels/activation_definition.h"

namespace serval::testing {
namespace {

constexpr int kMaxRows = 160, kMaxLen = 640, kBlockSize = 16, kVocab = 501;

// Values as the device stores them, and as the reference reads them.
struct Values {
  Tensor tensor;
  std::vector<double> exact;
};

// Moves numbers to and from a backend in the type it computes with.
class Bench {
 public:
  Bench(Backend& backend, WeightFormat weights, uint32_t seed)
      : backend_(backend),
        number_(format_row(weights).number),
        type_(backend.activation_dtype(number_)),
        random_(seed) {}

  DType type() const { return type_; }      // of activations
  DType number() const { return number_; }  // of the weights, or of what they would be dequantised to
  double tolerance() const { return precision_of(type_).relative; }
  std::mt19937& random() { return random_; }

  Values numbers(std::initializer_list<int64_t> shape, DType type, float scale = 1) {
    Values values;
    int64_t count = 1;
    for (const int64_t d : shape) count *= d;
    std::normal_distribution<float> normal(0, scale);
    std::vector<std::byte> bytes(count * dtype_bytes(type));
    for (int64_t i = 0; i < count; ++i) {
      const float value = normal(random_) * (random_() % 97 == 0 ? 8 : 1);
      values.exact.push_back(store(value, type, bytes.data() + i * dtype_bytes(type)));
    }
    values.tensor = Tensor(place(bytes.size()), type, shape);
    backend_.upload(values.tensor.data, bytes.data(), bytes.size());
    return values;
  }
  Values numbers(std::initializer_list<int64_t> shape) { return numbers(shape, type_); }
  // Some of the rows of a matrix, which lie apart, as a matrix.
  Tensor rows_of(const Values& values, const std::vector<int64_t>& rows) {
    const Tensor& all = values.tensor;
    const size_t bytes = all.dim(1) * dtype_bytes(all.dtype);
    std::vector<std::byte> host(all.num_bytes()), picked(rows.size() * bytes);
    backend_.download(host.data(), all.data, host.size());
    for (size_t i = 0; i < rows.size(); ++i)
      std::memcpy(picked.data() + i * bytes, host.data() + rows[i] * bytes, bytes);
    const Tensor tensor(place(picked.size()), all.dtype, {static_cast<int64_t>(rows.size()), all.dim(1)});
    backend_.upload(tensor.data, picked.data(), picked.size());
    return tensor;
  }

  // Not-a-number until an op writes it.
  Tensor poison(std::initializer_list<int64_t> shape, DType type) {
    Tensor tensor(nullptr, type, shape);
    const std::vector<std::byte> bytes(tensor.num_bytes(), std::byte{0xff});
    tensor.data = place(bytes.size());
    backend_.upload(tensor.data, bytes.data(), bytes.size());
    return tensor;
  }

  std::vector<double> read(const Tensor& tensor) {
    std::vector<std::byte> bytes(tensor.num_bytes());
    backend_.download(bytes.data(), tensor.data, bytes.size());
    std::vector<double> values;
    for (int64_t i = 0; i < tensor.num_elements(); ++i)
      values.push_back(load(tensor.dtype, bytes.data() + i * dtype_bytes(tensor.dtype)));
    return values;
  }

  std::vector<int32_t> read_ints(const Tensor& tensor) {
    std::vector<int32_t> values(tensor.num_elements());
    backend_.download(values.data(), tensor.data, tensor.num_bytes());
    return values;
  }

  LinearWeight weight(int64_t n, int64_t k, WeightFormat format, bool has_bias, std::vector<double>& exact,
                      std::vector<double>& bias) {
    std::normal_distribution<float> normal(0, 0.2f);
    std::vector<float> drawn(n * k), scales(n);
    for (float& value : drawn) value = normal(random_);
    std::vector<std::byte> codes(code_bytes(format, n, k));
    LinearSource part{.format = format, .n = n, .k = k, .data = codes.data(), .scales = scales.data()};
    if (format == WeightFormat::kInt8) {
      auto* const int8 = reinterpret_cast<int8_t*>(codes.data());
      quantise_int8(Tensor(drawn.data(), DType::kF32, {n, k}), int8, scales.data());
      for (int64_t i = 0; i < n * k; ++i) exact.push_back(double{scales[i / k]} * int8[i]);
    } else {
      const DType type = format_row(format).number;
      for (int64_t i = 0; i < n * k; ++i)
        exact.push_back(store(drawn[i], type, codes.data() + i * dtype_bytes(type)));
    }
    std::vector<float> biases;
    for (int64_t i = 0; i < n && has_bias; ++i) biases.push_back(normal(random_));
    bias.assign(biases.begin(), biases.end());
    std::vector<uint16_t> rounded;
    if (!backend_.supports(part.format)) {  // a loader hands over what it is held as
      for (double& value : exact) {
        rounded.push_back(float_to_bf16(static_cast<float>(value)));
        value = bf16_to_float(rounded.back());
      }
      part = source_of(Tensor(rounded.data(), DType::kBF16, {n, k}));
    }
    const Tensor added(biases.data(), DType::kF32, {n});
    return has_bias ? backend_.pack_linear({&part, 1}, {&added, 1}) : backend_.pack_linear({&part, 1}, {});
  }

 private:
  static double store(float value, DType type, std::byte* to) {
    if (type == DType::kF32) {
      std::memcpy(to, &value, 4);
      return value;
    }
    const uint16_t bits = type == DType::kBF16 ? float_to_bf16(value) : float_to_half(value);
    std::memcpy(to, &bits, 2);
    return load(type, to);
  }
  static double load(DType type, const std::byte* from) {
    if (type == DType::kF32) {
      float value;
      std::memcpy(&value, from, 4);
      return value;
    }
    uint16_t bits;
    std::memcpy(&bits, from, 2);
    return type == DType::kBF16 ? bf16_to_float(bits) : half_to_float(bits);
  }
  void* place(size_t bytes) {
    memory_.push_back(backend_.allocate(std::max<size_t>(bytes, 16)));
    return memory_.back().data();
  }

  Backend& backend_;
  DType number_, type_;
  std::mt19937 random_;
  std::vector<Buffer> memory_;
};

void expect_near(const std::vector<double>& got, const std::vector<double>& want,
                 const std::vector<double>& size, double tolerance, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    // A NaN compares with nothing: the negated test catches it.
    if (!(std::abs(got[i] - want[i]) <= tolerance * (std::abs(want[i]) + size[i]) + 1e-6)) {
      ADD_FAILURE() << what << ", element " << i << ": " << got[i] << " instead of " << want[i];
      return;
    }
  }
}

void check_linear(Backend& backend, WeightFormat weights, int64_t m, int64_t n, int64_t k, bool has_bias) {
  Bench bench(backend, weights, static_cast<uint32_t>(m * 7 + n * 3 + k));
  std::vector<double> weight, bias;
  const LinearWeight w = bench.weight(n, k, weights, has_bias, weight, bias);
  const Values x = bench.numbers({m, k});
  for (const DType out_type : {bench.type(), DType::kF32}) {
    const Tensor out = bench.poison({m, n}, out_type);
    backend.linear(x.tensor, w, out);
    std::vector<double> want, size;
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = has_bias ? bias[j] : 0, terms = std::abs(sum);
        for (int64_t d = 0; d < k; ++d) {
          const double v = weight[j * k + d];
          sum += x.exact[i * k + d] * v;
          terms += std::abs(x.exact[i * k + d] * v);
        }
        want.push_back(sum);
        size.push_back(terms);
      }
    }
    // The bf16 dot products of a CPU round the activations too.
    const bool rounds_x = backend.name() == "cpu-avx512bf16" && bench.number() == DType::kBF16;
    const double tolerance = rounds_x ? 0x1p-8 : precision_of(out_type).relative;
    // Sums in f32 err by the size of their terms; rounding the sum errs by the size of the sum.
    for (double& terms : size) terms *= rounds_x ? 1 : 1e-6 / tolerance;
    expect_near(bench.read(out), want, size, tolerance,
                "linear " + std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k));
  }
}

enum class Norm { kRms, kLayer, kLayerWithBias };

void check_norm(Backend& backend, WeightFormat weights, int64_t rows, int64_t dim, bool has_x, Norm norm) {
  Bench bench(backend, weights, static_cast<uint32_t>(rows + dim));
  const Values residual = bench.numbers({rows, dim}), x = bench.numbers({rows, dim}),
               weight = bench.numbers({dim}, DType::kF32), bias = bench.numbers({dim}, DType::kF32);
  const Tensor out = bench.poison({rows, dim}, bench.type());
  const bool is_centred = norm != Norm::kRms, has_bias = norm == Norm::kLayerWithBias;
  const Tensor added_x = has_x ? x.tensor : Tensor();
  if (is_centred) {
    backend.add_layer_norm(residual.tensor, added_x, weight.tensor, has_bias ? bias.tensor : Tensor(), 1e-5f,
                           out);
  } else {
    backend.add_rms_norm(residual.tensor, added_x, weight.tensor, 1e-5f, out);
  }
  const std::vector<double> sums = bench.read(residual.tensor);
  std::vector<double> want, size;
  for (int64_t r = 0; r < rows; ++r) {
    const double* const row = &sums[r * dim];
    const double mean = is_centred ? std::accumulate(row, row + dim, 0.0) / static_cast<double>(dim) : 0;
    double squares = 0;
    for (int64_t d = 0; d < dim; ++d) squares += (row[d] - mean) * (row[d] - mean);
    const double scale = 1 / std::sqrt(squares / static_cast<double>(dim) + 1e-5);
    for (int64_t d = 0; d < dim; ++d) {
      want.push_back((row[d] - mean) * scale * weight.exact[d] + (has_bias ? bias.exact[d] : 0));
      // Near the mean the difference carries the rounding of both.
      size.push_back(is_centred ? std::abs(mean) * scale * std::abs(weight.exact[d]) : 0);
    }
  }
  std::vector<double> added;
  for (int64_t i = 0; i < rows * dim; ++i) added.push_back(residual.exact[i] + (has_x ? x.exact[i] : 0));
  expect_near(sums, added, std::vector<double>(rows * dim, 0.0), bench.tolerance(), "residual");
  expect_near(bench.read(out), want, size, bench.tolerance(), "norm");
}

void check_activation(Backend& backend, WeightFormat weights, int64_t rows, int64_t width) {
  Bench bench(backend, weights, 5);
  const Values in = bench.numbers({rows, 2 * width});
  const Tensor plain_in(in.tensor.data, bench.type(), {2 * rows, width});  // the same numbers, not gated
  for (const Activation act : kActivations) {
    const std::string name = "activation " + std::to_string(static_cast<int>(act));
    const Tensor gated = bench.poison({rows, width}, bench.type()),
                 plain = bench.poison({2 * rows, width}, bench.type());
    backend.gated_activation(act, in.tensor, gated);
    backend.activation(act, plain_in, plain);
    std::vector<double> want_gated, want_plain;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < width; ++i)
        want_gated.push_back(activated(act, in.exact[r * 2 * width + i]) *
                             in.exact[r * 2 * width + width + i]);
    for (const double x : in.exact) want_plain.push_back(activated(act, x));
    const double tolerance = std::max(bench.tolerance(), 1e-5);
    const std::vector<double> size(2 * rows * width, 0.02);  // an exponential's own error
    expect_near(bench.read(gated), want_gated, size, tolerance, "gated " + name);
    expect_near(bench.read(plain), want_plain, size, tolerance, name);
  }
}

// --- routed experts ---

enum class Logits { kRandom, kAllAlike, kOneFavourite, kSomeNaN };

struct ExpertCase {
  int rows, num_experts, top_k;
  Logits logits;
  RoutingRule rule = RoutingRule::kSoftmaxRenormalised;
};

std::vector<float> router_logits(const ExpertCase& c, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> logits;
  for (int r = 0; r < c.rows; ++r) {
    for (int e = 0; e < c.num_experts; ++e) {
      float logit = normal(random);
      if (c.logits == Logits::kAllAlike) logit = e % 3 == 1 ? 0.0f : -0.0f;
      if (c.logits == Logits::kOneFavourite && e == c.num_experts - 1) logit += 20;
      if (c.logits == Logits::kSomeNaN && (r % 3 == 0 || (r % 3 == 1 && e % 2 == 0))) logit = std::nanf("");
      logits.push_back(logit);
    }
  }
  return logits;
}

// A row's experts by the definition: the higher logit first, of equal ones the lower index, NaN last.
std::vector<int32_t> experts_of(const float* logits, const ExpertCase& c) {
  std::vector<int32_t> order(c.num_experts);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    if (std::isnan(logits[a]) || std::isnan(logits[b]))
      return !std::isnan(logits[a]) && std::isnan(logits[b]);
    return logits[a] > logits[b];
  });
  order.resize(c.top_k);
  return order;
}

// Routing against its definition, then a product of each expert's rows and the weighted sum, in double.
void check_experts(Backend& backend, WeightFormat weights, const ExpertCase& c) {
  constexpr int64_t kIn = 72, kOut = 41;
  Bench bench(backend, weights, static_cast<uint32_t>(c.rows * 31 + c.num_experts));
  const std::vector<float> logits = router_logits(c, bench.random());
  const Tensor device_logits = bench.poison({c.rows, c.num_experts}, DType::kF32);
  backend.upload(device_logits.data, logits.data(), device_logits.num_bytes());
  const auto bytes = static_cast<int64_t>(ExpertRouting::bytes(c.rows, c.num_experts, c.top_k));
  const ExpertRouting routing(bench.poison({bytes / 4}, DType::kF32).data, c.rows, c.num_experts, c.top_k);
  backend.route_experts(c.rule, device_logits, routing);

  std::vector<int32_t> experts, starts = {0}, rows, places(c.rows * c.top_k);
  for (int r = 0; r < c.rows; ++r) {
    const std::vector<int32_t> own = experts_of(&logits[r * c.num_experts], c);
    experts.insert(experts.end(), own.begin(), own.end());
  }
  for (int e = 0; e < c.num_experts; ++e) {
    for (size_t i = 0; i < experts.size(); ++i) {
      if (experts[i] != e) continue;
      places[i] = static_cast<int32_t>(rows.size());
      rows.push_back(static_cast<int32_t>(i) / c.top_k);
    }
    starts.push_back(static_cast<int32_t>(rows.size()));
  }
  ASSERT_EQ(bench.read_ints(routing.experts), experts);
  ASSERT_EQ(bench.read_ints(routing.starts), starts);
  ASSERT_EQ(bench.read_ints(routing.rows), rows);
  ASSERT_EQ(bench.read_ints(routing.places), places);
  const std::vector<double> shares = bench.read(routing.weights);
  for (int r = 0; r < c.rows; ++r) {
    const float* const row = &logits[r * c.num_experts];
    double sum = 0;
    for (int e = 0; e < c.num_experts; ++e) {
      const bool counts = c.rule == RoutingRule::kSoftmax ||
                          std::count(&experts[r * c.top_k], &experts[r * c.top_k] + c.top_k, e) > 0;
      if (counts) sum += std::exp(row[e] - row[experts[r * c.top_k]]);
    }
    for (int j = 0; j < c.top_k; ++j) {
      const double want = std::exp(row[experts[r * c.top_k + j]] - row[experts[r * c.top_k]]) / sum;
      const double got = shares[r * c.top_k + j];
      EXPECT_TRUE(std::isnan(want) ? std::isnan(got) : std::abs(got - want) <= 1e-5 * want)
          << "row " << r << ", rank " << j << ": " << got << " instead of " << want;
    }
  }

  const Values x = bench.numbers({c.rows, kIn});
  std::vector<LinearWeight> packed;
  std::vector<std::vector<double>> exact(c.num_experts);
  std::vector<double> none;
  for (int e = 0; e < c.num_experts; ++e)
    packed.push_back(bench.weight(kOut, kIn, weights, false, exact[e], none));
  const Tensor dispatched = bench.poison({c.rows * c.top_k, kIn}, bench.type()),
               products = bench.poison({c.rows * c.top_k, kOut}, bench.type()),
               out = bench.poison({c.rows, kOut}, bench.type());
  backend.dispatch_rows(x.tensor, routing, dispatched);
  backend.expert_linear(dispatched, packed, routing, products);
  backend.combine_experts(products, routing, out);
  const std::vector<double> got = bench.read(out);
  std::vector<double> want, size;
  for (int r = 0; r < c.rows; ++r) {
    for (int64_t n = 0; n < kOut; ++n) {
      double sum = 0, terms = 0;
      for (int j = 0; j < c.top_k; ++j) {
        const int e = experts[r * c.top_k + j];
        double dot = 0;
        for (int64_t d = 0; d < kIn; ++d) {
          const double w = exact[e][n * kIn + d];
          dot += x.exact[r * kIn + d] * w;
          terms += std::abs(shares[r * c.top_k + j] * x.exact[r * kIn + d] * w);
        }
        sum += shares[r * c.top_k + j] * dot;
      }
      if (std::isnan(sum)) {
        EXPECT_TRUE(std::isnan(got[r * kOut + n]));
        sum = terms = 0;
      } else {
        EXPECT_FALSE(std::isnan(got[r * kOut + n])) << "row " << r << " has a neighbour's NaN";
      }
      want.push_back(sum);
      size.push_back(terms);
    }
  }
  std::vector<double> numbers = got;
  for (double& value : numbers) value = std::isnan(value) ? 0 : value;
  // Sums in f32, rounded to the activation's type before they are weighted; on one CPU, of rounded
  // activations.
  const bool rounds_x = backend.name() == "cpu-avx512bf16" && bench.number() == DType::kBF16;
  expect_near(numbers, want, size, rounds_x ? 0x1p-8 : bench.tolerance(), "experts");
}

// Heads are prepared and stored, then attended to: sequences of which each has `past` positions stored by an
// earlier step and `rows` new ones.
struct Seq {
  int past, rows;
};

void check_attention(Backend& backend, WeightFormat weights, const std::vector<Seq>& seqs, int heads,
                     int kv_heads, int head_dim, int window, bool is_rotated = true, float soft_cap = 0,
                     bool has_sinks = false) {
  Bench bench(backend, weights, static_cast<uint32_t>(heads * 100 + head_dim + window));
  const auto context = backend.make_step_context(op_table_limits());
  const DType kv_type = backend.preferred_kv_dtype(bench.number());
  int num_blocks = 2;
  for (const Seq& s : seqs) num_blocks += (s.past + s.rows + kBlockSize - 1) / kBlockSize;
  KvLayer kv{.dtype = kv_type,
             .num_blocks = num_blocks,
             .block_size = kBlockSize,
             .num_kv_heads = kv_heads,
             .head_dim = head_dim};
  const int64_t cache = static_cast<int64_t>(kv.block_bytes() * num_blocks / dtype_bytes(kv_type));
  kv.keys = bench.poison({cache}, kv_type).data;
  kv.values = bench.poison({cache}, kv_type).data;

  std::vector<int32_t> free(num_blocks);
  std::iota(free.begin(), free.end(), 0);
  std::shuffle(free.begin(), free.end(), bench.random());
  const int stride = kMaxLen / kBlockSize;
  std::vector<int32_t> table(seqs.size() * stride, -1);
  for (size_t s = 0; s < seqs.size(); ++s) {
    for (int b = 0; b * kBlockSize < seqs[s].past + seqs[s].rows; ++b) {
      table[s * stride + b] = free.back();
      free.pop_back();
    }
  }
  const int rotary = is_rotated ? head_dim / 2 * 2 : 0;
  std::vector<float> angles;
  for (int p = 0; p < kMaxLen; ++p)
    for (int i = 0; i < rotary; ++i)
      angles.push_back(i < rotary / 2 ? std::cos(p / std::pow(100.0, i / 8.0))
                                      : std::sin(p / std::pow(100.0, (i - rotary / 2) / 8.0)));
  const Tensor cos_sin = is_rotated ? bench.poison({kMaxLen, rotary}, DType::kF32) : Tensor();
  if (is_rotated) backend.upload(cos_sin.data, angles.data(), angles.size() * sizeof(float));
  const Values q_norm = bench.numbers({head_dim}, DType::kF32),
               k_norm = bench.numbers({head_dim}, DType::kF32), sinks = bench.numbers({heads}, DType::kF32);

  const int64_t width = int64_t{heads + 2 * kv_heads} * head_dim;
  // keys[s][pos][h][d], values likewise, as the definition makes them
  std::vector<std::vector<double>> keys(seqs.size()), values(seqs.size());
  const auto step = [&](bool is_past) {
    std::vector<int32_t> ids, positions, slots, row_start = {0}, first_pos;
    for (size_t s = 0; s < seqs.size(); ++s) {
      const int first = is_past ? 0 : seqs[s].past, count = is_past ? seqs[s].past : seqs[s].rows;
      first_pos.push_back(first);
      for (int p = first; p < first + count; ++p) {
        ids.push_back(0);
        positions.push_back(p);
        slots.push_back(table[s * stride + p / kBlockSize] * kBlockSize + p % kBlockSize);
      }
      row_start.push_back(static_cast<int32_t>(ids.size()));
    }
    const auto rows = static_cast<int64_t>(ids.size());
    if (rows == 0) return;
    ForwardInput input{.token_ids = ids, .positions = positions, .groups = {}};
    input.groups[0] = {.slots = slots.data(),
                       .attention = {.num_seqs = static_cast<int>(seqs.size()),
                                     .num_rows = static_cast<int>(rows),
                                     .row_start = row_start.data(),
                                     .first_pos = first_pos.data(),
                                     .block_table = table.data(),
                                     .table_stride = stride}};
    input.groups[1] = input.groups[0];
    context->begin_step(input);
    const Values qkv = bench.numbers({rows, width});
    const auto head_at = [&](int64_t element, int count) {
      return Tensor(qkv.tensor.at(element), bench.type(), {rows, count, head_dim});
    };
    backend.qk_norm_rope_write_kv({.q = head_at(0, heads),
                           .k = head_at(int64_t{heads} * head_dim, kv_heads),
                           .v = head_at(int64_t{heads + kv_heads} * head_dim, kv_heads),
                           .row_stride = width,
                           .q_norm = q_norm.tensor,
                           .k_norm = k_norm.tensor,
                           .eps = 1e-6f,
                           .positions = positions.data(),
                           .cos_sin = cos_sin,
                           .rotary_dim = rotary,
                           .slots = slots.data(),
                           .kv = kv});
    // The definition, from the numbers that went in.
    const auto prepared = [&](int64_t row, int64_t head, const std::vector<double>* norm) {
      std::vector<double> x(qkv.exact.begin() + row * width + head * head_dim,
                            qkv.exact.begin() + row * width + (head + 1) * head_dim);
      if (norm == nullptr) return x;
      double squares = 0;
      for (const double v : x) squares += v * v;
      for (int d = 0; d < head_dim; ++d) x[d] *= (*norm)[d] / std::sqrt(squares / head_dim + 1e-6);
      const std::vector<double> before = x;
      for (int i = 0; i < rotary / 2; ++i) {
        const double c = angles[positions[row] * rotary + i],
                     sn = angles[positions[row] * rotary + rotary / 2 + i];
        x[i] = before[i] * c - before[i + rotary / 2] * sn;
        x[i + rotary / 2] = before[i + rotary / 2] * c + before[i] * sn;
      }
      return x;
    };
    for (size_t s = 0; s < seqs.size(); ++s) {
      for (int r = row_start[s]; r < row_start[s + 1]; ++r) {
        for (int h = 0; h < kv_heads; ++h) {
          const std::vector<double> k = prepared(r, heads + h, &k_norm.exact),
                                    v = prepared(r, heads + kv_heads + h, nullptr);
          keys[s].insert(keys[s].end(), k.begin(), k.end());
          values[s].insert(values[s].end(), v.begin(), v.end());
        }
      }
    }
    if (is_past) return;
    const Tensor out = bench.poison({rows, int64_t{heads} * head_dim}, bench.type());
    const float scale = 1 / std::sqrt(static_cast<float>(head_dim)) / 4;
    backend.attention({.q = head_at(0, heads),
                       .kv = kv,
                       .batch = &input.groups[0].attention,
                       .scale = scale,
                       .soft_cap = soft_cap,
                       .window = window,
                       .sinks = has_sinks ? sinks.tensor : Tensor(),
                       .out = out},
                      width);
    std::vector<double> want, size;
    for (size_t s = 0; s < seqs.size(); ++s) {
      for (int r = row_start[s]; r < row_start[s + 1]; ++r) {
        for (int h = 0; h < heads; ++h) {
          const std::vector<double> q = prepared(r, h, &q_norm.exact);
          const int own = positions[r], first = window > 0 ? std::max(0, own - window + 1) : 0,
                    kv_head = h / (heads / kv_heads);
          std::vector<double> logits, sum(head_dim, 0.0);
          for (int p = first; p <= own; ++p) {
            double dot = 0;
            for (int d = 0; d < head_dim; ++d)
              dot += q[d] * keys[s][(int64_t{p} * kv_heads + kv_head) * head_dim + d];
            dot *= scale;
            logits.push_back(soft_cap > 0 ? soft_cap * std::tanh(dot / soft_cap) : dot);
          }
          double most = *std::max_element(logits.begin(), logits.end()), total = 0, largest = 0;
          if (has_sinks) {
            most = std::max(most, sinks.exact[h]);
            total = std::exp(sinks.exact[h] - most);
          }
          for (int p = first; p <= own; ++p) {
            const double weight = std::exp(logits[p - first] - most);
            total += weight;
            for (int d = 0; d < head_dim; ++d) {
              const double v = values[s][(int64_t{p} * kv_heads + kv_head) * head_dim + d];
              sum[d] += weight * v;
              largest = std::max(largest, std::abs(v));
            }
          }
          for (const double v : sum) {
            want.push_back(v / total);
            size.push_back(largest);  // rounded queries and keys move weights between values
          }
        }
      }
    }
    const double rounding = std::max(bench.tolerance(), precision_of(kv_type).relative);
    expect_near(bench.read(out), want, size, std::max(4 * rounding, 1e-5), "attention");
  };
  step(true);
  step(false);
}

// A branch of a tree of drafts stands apart: it has the bits of the same tokens in a row, before its places are left
// and after they come together again.
void check_branch(Backend& backend, WeightFormat weights, int window) {
  constexpr int kHeads = 4, kKvHeads = 2, kDim = 64, kStart = 60, kDepth = 20, kTokens = kStart + 64;
  Bench bench(backend, weights, static_cast<uint32_t>(11 + window));
  const auto context = backend.make_step_context(op_table_limits());
  KvLayer kv{.dtype = backend.preferred_kv_dtype(bench.number()),
             .num_blocks = kTokens / kBlockSize + 2,
             .block_size = kBlockSize,
             .num_kv_heads = kKvHeads,
             .head_dim = kDim};
  const auto cache = static_cast<int64_t>(kv.block_bytes() * kv.num_blocks / dtype_bytes(kv.dtype));
  kv.keys = bench.poison({cache}, kv.dtype).data;
  kv.values = bench.poison({cache}, kv.dtype).data;
  std::vector<int32_t> table(kMaxLen / kBlockSize, -1);
  for (int b = 0; b * kBlockSize < kTokens; ++b) table[b] = kv.num_blocks - 1 - b;
  const auto place = [&](int p) { return table[p / kBlockSize] * kBlockSize + p % kBlockSize; };
  const Values q = bench.numbers({1, kHeads, kDim}), k = bench.numbers({kTokens, kKvHeads, kDim}),
               v = bench.numbers({kTokens, kKvHeads, kDim});
  const auto step = [&](int first, int rows, uint64_t mask, const auto& run) {
    std::vector<int32_t> ids(rows), positions(rows), slots(rows);
    for (int r = 0; r < rows; ++r) positions[r] = first + r, slots[r] = place(first + r);
    const std::vector<int32_t> row_start = {0, rows};
    const int32_t tree_start = kStart;
    ForwardInput input{.token_ids = ids, .positions = positions, .groups = {}};
    input.groups[0] = {.slots = slots.data(),
                       .attention = {.num_seqs = 1,
                                     .num_rows = rows,
                                     .row_start = row_start.data(),
                                     .first_pos = &first,
                                     .block_table = table.data(),
                                     .table_stride = static_cast<int>(table.size()),
                                     .tree_masks = mask != 0 ? &mask : nullptr,
                                     .tree_start = &tree_start}};
    input.groups[1] = input.groups[0];
    context->begin_step(input);
    run(input);
  };
  step(0, kTokens, 0, [&](const ForwardInput& input) {
    backend.write_kv({.k = k.tensor,
                      .v = v.tensor,
                      .row_stride = kKvHeads * kDim,
                      .slots = input.groups[0].slots,
                      .kv = kv});
  });
  const auto attended = [&](uint64_t mask) {
    const Tensor out = bench.poison({1, kHeads * kDim}, bench.type());
    step(kStart + kDepth - 1, 1, mask, [&](const ForwardInput& input) {
      backend.attention({.q = q.tensor,
                         .kv = kv,
                         .batch = &input.groups[0].attention,
                         .scale = 0.1f,
                         .window = window,
                         .out = out},
                        kHeads * kDim);
    });
    return bench.read(out);
  };
  const auto in_a_row = attended(0);
  uint64_t mask = 0;
  while (std::popcount(mask) < kDepth) mask |= uint64_t{1} << bench.random()() % 64;
  std::vector<KvMove> apart, together;  // a place is left before another's token comes
  for (int bit = 0, i = 0; bit < 64; ++bit) {
    if ((mask >> bit & 1) != 0) together.push_back({place(kStart + bit), place(kStart + i++)});
  }
  for (size_t i = together.size(); i-- > 0;) apart.push_back({together[i].to, together[i].from});
  backend.move_kv(kv, apart);
  EXPECT_EQ(attended(mask), in_a_row);
  EXPECT_NE(attended(0), in_a_row);
  backend.move_kv(kv, together);
  EXPECT_EQ(attended(0), in_a_row);
}

void check_soft_cap(Backend& backend, WeightFormat weights) {
  Bench bench(backend, weights, 13);
  for (const float cap : {0.3f, 50.0f}) {
    const Values x = bench.numbers({5, 37}, DType::kF32);
    backend.soft_cap(x.tensor, cap);
    std::vector<double> want, size(x.exact.size(), cap);
    for (const double value : x.exact) want.push_back(cap * std::tanh(value / cap));
    expect_near(bench.read(x.tensor), want, size, 1e-6, "soft cap");
  }
}

// A recurrent layer: sequences of which each has `past` positions computed by an earlier step and `rows` new ones;
// then all of them in one step from anew, and the last ones again from the last snapshot, which must give the same
// bits.
void check_recurrence(Backend& backend, WeightFormat weights, const std::vector<Seq>& seqs, int64_t channels,
                      int span, bool has_bias) {
  Bench bench(backend, weights, static_cast<uint32_t>(channels + span));
  const auto context = backend.make_step_context(op_table_limits());
  std::vector<int64_t> begin = {0};  // of each sequence's positions among all
  for (const Seq& s : seqs) begin.push_back(begin.back() + s.past + s.rows);
  const int64_t total = begin.back();
  const Values x_gate = bench.numbers({total, 2 * channels}), bc = bench.numbers({total, 2 * kScanStates}),
               dt = bench.numbers({total, channels}, DType::kF32, 2),
               weight = bench.numbers({kConvTaps, channels}, DType::kF32, 0.5f),
               bias = bench.numbers({channels}, DType::kF32), d = bench.numbers({channels}, DType::kF32);
  Values a = bench.numbers({kScanStates, channels}, DType::kF32);
  std::vector<float> negative;
  for (double& value : a.exact) negative.push_back(static_cast<float>(value = -std::abs(value) - 0.01));
  for (size_t i = 0; i < negative.size(); ++i) a.exact[i] = negative[i];
  backend.upload(a.tensor.data, negative.data(), negative.size() * sizeof(float));

  const int stride = kMaxLen / kBlockSize;
  KvLayer kv{.block_size = span, .state_channels = static_cast<int>(channels)};
  const auto blocks_of = [&](const Seq& s) { return (s.past + s.rows + span - 1) / span; };
  for (const Seq& s : seqs) kv.num_blocks += blocks_of(s);
  std::vector<int32_t> free(kv.num_blocks), table(seqs.size() * stride, -1);
  std::iota(free.begin(), free.end(), 0);
  std::shuffle(free.begin(), free.end(), bench.random());
  for (size_t s = 0; s < seqs.size(); ++s) {
    for (int b = 0; b < blocks_of(seqs[s]); ++b) {
      table[s * stride + b] = free.back();
      free.pop_back();
    }
  }
  std::vector<double> conv(total * channels), scan(total * channels);
  const auto forget = [&] {
    kv.keys = bench.poison({static_cast<int64_t>(kv.key_bytes()) / 4 * kv.num_blocks}, DType::kF32).data;
    kv.values = bench.poison({static_cast<int64_t>(kv.value_bytes()) / 4 * kv.num_blocks}, DType::kF32).data;
  };
  // Positions from `first` on of each sequence, `count` of them.
  const auto step = [&](const auto& first, const auto& count) {
    std::vector<int32_t> ids, positions, slots, row_start = {0}, first_pos, tables;
    std::vector<int64_t> rows;
    for (size_t s = 0; s < seqs.size(); ++s) {
      if (count(seqs[s]) == 0) continue;
      first_pos.push_back(first(seqs[s]));
      tables.insert(tables.end(), &table[s * stride], &table[s * stride] + stride);
      for (int p = first(seqs[s]); p < first(seqs[s]) + count(seqs[s]); ++p) {
        ids.push_back(0);
        positions.push_back(p);
        slots.push_back(-1);
        rows.push_back(begin[s] + p);
      }
      row_start.push_back(static_cast<int32_t>(ids.size()));
    }
    const auto num_rows = static_cast<int64_t>(ids.size());
    ForwardInput input{.token_ids = ids, .positions = positions, .groups = {}};
    input.groups[0] = {.slots = slots.data(),
                       .attention = {.num_seqs = static_cast<int>(first_pos.size()),
                                     .num_rows = static_cast<int>(num_rows),
                                     .row_start = row_start.data(),
                                     .first_pos = first_pos.data(),
                                     .block_table = tables.data(),
                                     .table_stride = stride}};
    input.groups[1] = input.groups[0];
    context->begin_step(input);
    const Tensor in = bench.rows_of(x_gate, rows), b_c = bench.rows_of(bc, rows);
    const Tensor convolved = bench.poison({num_rows, channels}, bench.type()),
                 out = bench.poison({num_rows, channels}, bench.type());
    const auto half = [&](const Tensor& both, int which) {
      const int64_t width = both.dim(1) / 2;
      return Tensor(both.at(which * width), both.dtype, {num_rows, width});
    };
    backend.causal_conv({.x = half(in, 0),
                         .x_stride = 2 * channels,
                         .weight = weight.tensor,
                         .bias = has_bias ? bias.tensor : Tensor(),
                         .kv = kv,
                         .batch = &input.groups[0].attention,
                         .out = convolved});
    backend.selective_scan({.u = convolved,
                            .dt = bench.rows_of(dt, rows),
                            .b = half(b_c, 0),
                            .c = half(b_c, 1),
                            .bc_stride = 2 * kScanStates,
                            .gate = half(in, 1),
                            .gate_stride = 2 * channels,
                            .a = a.tensor,
                            .d = d.tensor,
                            .kv = kv,
                            .batch = &input.groups[0].attention,
                            .out = out});
    const std::vector<double> u = bench.read(convolved), y = bench.read(out);
    for (int64_t r = 0; r < num_rows; ++r) {
      std::copy_n(u.begin() + r * channels, channels, conv.begin() + rows[r] * channels);
      std::copy_n(y.begin() + r * channels, channels, scan.begin() + rows[r] * channels);
    }
  };
  forget();
  step([](const Seq&) { return 0; }, [](const Seq& s) { return s.past; });
  step([](const Seq& s) { return s.past; }, [](const Seq& s) { return s.rows; });
  const std::vector<double> conv_in_two = conv, scan_in_two = scan;
  forget();
  step([](const Seq&) { return 0; }, [](const Seq& s) { return s.past + s.rows; });
  EXPECT_EQ(conv, conv_in_two) << "where a prompt is cut changes the convolution";
  EXPECT_EQ(scan, scan_in_two) << "where a prompt is cut changes the scan";
  const auto snapshot = [&](const Seq& s) { return (s.past + s.rows - 1) / span * span; };
  step(snapshot, [&](const Seq& s) { return s.past + s.rows - snapshot(s); });
  EXPECT_EQ(conv, conv_in_two) << "a snapshot is not what the convolution had come to";
  EXPECT_EQ(scan, scan_in_two) << "a snapshot is not what the scan had come to";

  const auto silu = [](double v) { return v / (1 + std::exp(-v)); };
  std::vector<double> want_conv, want_scan, conv_size, scan_size;
  for (size_t s = 0; s < seqs.size(); ++s) {
    std::vector<double> state(kScanStates * channels, 0.0);
    for (int64_t p = begin[s]; p < begin[s + 1]; ++p) {
      for (int64_t c = 0; c < channels; ++c) {
        double sum = has_bias ? bias.exact[c] : 0, size = std::abs(sum);
        for (int t = 0; t < kConvTaps; ++t) {
          const int64_t from = p - kConvTaps + 1 + t;
          if (from < begin[s]) continue;
          const double term = weight.exact[t * channels + c] * x_gate.exact[from * 2 * channels + c];
          sum += term;
          size += std::abs(term);
        }
        want_conv.push_back(silu(sum));
        conv_size.push_back(size);
        // From what the device's own convolution came to.
        const double u = conv[p * channels + c], step_size = std::log1p(std::exp(dt.exact[p * channels + c]));
        double y = d.exact[c] * u, terms = std::abs(y);
        for (int n = 0; n < kScanStates; ++n) {
          double& h = state[n * channels + c];
          h = h * std::exp(step_size * a.exact[n * channels + c]) +
              step_size * u * bc.exact[p * 2 * kScanStates + n];
          const double term = h * bc.exact[p * 2 * kScanStates + kScanStates + n];
          y += term;
          terms += std::abs(term);
        }
        const double gate = silu(x_gate.exact[p * 2 * channels + channels + c]);
        want_scan.push_back(y * gate);
        scan_size.push_back(terms * std::abs(gate));
      }
    }
  }
  const double tolerance = std::max(bench.tolerance(), 1e-5);
  for (double& size : conv_size) size *= 1e-5 / tolerance;
  for (double& size : scan_size) size *= 1e-4 / tolerance;  // what each step's decay errs by, over many steps
  expect_near(conv, want_conv, conv_size, tolerance, "causal_conv");
  expect_near(scan, want_scan, scan_size, tolerance, "selective_scan");
}

void check_rows(Backend& backend, WeightFormat weights) {
  Bench bench(backend, weights, 9);
  const auto context = backend.make_step_context(op_table_limits());
  std::vector<double> table, none;
  const LinearWeight w = bench.weight(37, 72, weights, false, table, none);
  const std::vector<int32_t> ids = {36, 0, 5}, positions = {0, 1, 2}, slots = {0, 1, 2}, row_start = {0, 3},
                             first_pos = {0}, blocks = {0}, rows = {2, 2, 0};
  ForwardInput input{.token_ids = ids, .positions = positions, .groups = {}};
  input.groups[0] = {.slots = slots.data(),
                     .attention = {.num_seqs = 1,
                                   .num_rows = 3,
                                   .row_start = row_start.data(),
                                   .first_pos = first_pos.data(),
                                   .block_table = blocks.data(),
                                   .table_stride = 1}};
  input.groups[1] = input.groups[0];
  context->begin_step(input);
  const Tensor out = bench.poison({3, 72}, bench.type()), some = bench.poison({3, 72}, bench.type());
  backend.embed(w, ids, 1.0f, out);
  backend.gather_rows(out, rows, some);
  std::vector<double> want, gathered, size(3 * 72, 0.0);
  for (const int32_t id : ids)
    want.insert(want.end(), table.begin() + id * 72, table.begin() + (id + 1) * 72);
  expect_near(bench.read(out), want, size, bench.tolerance(), "embed");
  const Tensor scaled = bench.poison({3, 72}, bench.type());
  backend.embed(w, ids, 2.5f, scaled);
  std::vector<double> larger = want;
  for (double& value : larger) value *= 2.5;
  expect_near(bench.read(scaled), larger, size, bench.tolerance(), "scaled embed");
  for (const int32_t r : rows)
    gathered.insert(gathered.end(), want.begin() + r * 72, want.begin() + (r + 1) * 72);
  expect_near(bench.read(some), gathered, size, bench.tolerance(), "gather");
}

// The draw itself is tried in sample_test.cc and sampler_test.cc; here, that tokens, log-probabilities and
// the token drawn last come out of the backend.
void check_sample(Backend& backend, WeightFormat weights) {
  Bench bench(backend, weights, 10);
  const auto context = backend.make_step_context(op_table_limits());
  const Values logits = bench.numbers({3, kVocab}, DType::kF32);
  std::vector<SampleRow> rows(3);
  for (int i = 0; i < 3; ++i) {
    rows[i].num_top = 2;
    rows[i].temperature = 0;
    rows[i].slot = i;
  }
  std::vector<SampleResult> results(3);
  std::vector<TopLogprob> top(6);
  context->wait_sampled(context->sample({.logits = logits.tensor,
                                  .rows = rows.data(),
                                  .results = results.data(),
                                  .top = top.data(),
                                  .top_stride = 2}));
  for (int i = 0; i < 3; ++i) {
    const auto row = logits.exact.begin() + i * kVocab;
    const auto best = std::max_element(row, row + kVocab);
    double sum = 0;
    for (int t = 0; t < kVocab; ++t) sum += std::exp(row[t] - *best);
    EXPECT_EQ(results[i].token, best - row);
    EXPECT_EQ(results[i].rank, 1);
    EXPECT_NEAR(results[i].logprob, -std::log(sum), 1e-5);
    EXPECT_EQ(top[2 * i].token, results[i].token);
    EXPECT_GE(top[2 * i].logprob, top[2 * i + 1].logprob);
  }
}

// More lists than a backend may have room for at once.
void check_sample_biased(Backend& backend, WeightFormat weights) {
  Bench bench(backend, weights, 11);
  const auto context = backend.make_step_context(op_table_limits());
  const Values logits = bench.numbers({kMaxRows, kVocab}, DType::kF32);
  std::vector<LogitBias> biases(static_cast<size_t>(kMaxRows) * kVocab);
  std::vector<SampleRow> rows(kMaxRows);
  for (int i = 0; i < kMaxRows; ++i) {
    for (int t = 0; t < kVocab; ++t) biases[i * kVocab + t] = {t, t == 3 * i % kVocab ? 100.0f : 0.0f};
    rows[i].temperature = 0;
    rows[i].logit_bias = biases.data() + i * kVocab;
    rows[i].num_logit_bias = kVocab;
  }
  std::vector<SampleResult> results(kMaxRows);
  context->wait_sampled(context->sample({.logits = logits.tensor, .rows = rows.data(), .results = results.data()}));
  for (int i = 0; i < kMaxRows; ++i) EXPECT_EQ(results[i].token, 3 * i % kVocab);
}

// Histories longer than a backend may have room for at once, then a step that adds to what was counted.
void check_sample_penalised(Backend& backend, WeightFormat weights) {
  constexpr int kRows = 4, kRepeats = 40;
  Bench bench(backend, weights, 12);
  const auto context = backend.make_step_context(op_table_limits());
  std::vector<std::vector<int32_t>> histories(kRows);
  std::vector<CountedTokens> counted(kRows);
  std::vector<SampleRow> rows(kRows);
  const auto target = [](int row) { return 5 + 3 * row; };
  const int32_t spare = 1;
  for (int i = 0; i < kRows; ++i) {
    for (int repeat = 0; repeat < kRepeats; ++repeat)
      for (int t = 0; t < kVocab; ++t)
        if (t != target(i) && t != spare) histories[i].push_back(t);
    counted[i] = {.slot = i,
                  .restart = true,
                  .tokens = histories[i].data(),
                  .num_tokens = static_cast<int>(histories[i].size())};
    rows[i].temperature = 0;
    rows[i].presence_penalty = 100;
    rows[i].counts_slot = i;
    rows[i].recent = &spare;
    rows[i].num_recent = 1;
  }
  std::vector<SampleResult> results(kRows);
  const auto draw = [&] {
    const Values logits = bench.numbers({kRows, kVocab}, DType::kF32);
    context->wait_sampled(context->sample({.logits = logits.tensor,
                                    .rows = rows.data(),
                                    .results = results.data(),
                                    .counted = counted.data(),
                                    .num_counted = kRows}));
  };
  draw();
  for (int i = 0; i < kRows; ++i) EXPECT_EQ(results[i].token, target(i)) << "the only token not seen";
  std::vector<int32_t> targets(kRows);
  for (int i = 0; i < kRows; ++i) {
    targets[i] = target(i);
    counted[i] = {.slot = i, .tokens = &targets[i], .num_tokens = 1};
    rows[i].num_recent = 0;
  }
  draw();
  for (int i = 0; i < kRows; ++i) EXPECT_EQ(results[i].token, spare) << "recent tokens are not counted";
}

}  // namespace

OpPrecision precision_of(DType activation) {
  if (activation == DType::kF32) return {1e-5};
  return {activation == DType::kBF16 ? 1.01 * 0x1p-8 : 1.01 * 0x1p-11};
}

StepLimits op_table_limits() {
  return {.max_rows = 700,
          .max_logit_rows = kMaxRows,
          .max_seqs = 16,
          .max_branches = 1,
          .max_model_len = kMaxLen,
          .table_stride = kMaxLen / kBlockSize,
          .num_heads = 4,
          .num_kv_heads = 2,
          .head_dim = 128,
          .max_k = 1100,
          .vocab = kVocab,
          .num_kv_groups = 1};
}

const std::vector<OpCase>& op_table() {
  static const std::vector<OpCase> table = [] {
    std::vector<OpCase> cases;
    for (const auto& [m, n, k] : std::vector<std::tuple<int, int, int>>{{1, 16, 32},
                                                                        {1, 33, 172},
                                                                        {2, 17, 8},
                                                                        {7, 130, 1032},
                                                                        {16, 65, 520},
                                                                        {17, 48, 72},
                                                                        {63, 40, 100},
                                                                        {129, 50, 64}}) {
      for (const bool has_bias : {false, true}) {
        cases.push_back({"linear_" + std::to_string(m) + "_" + std::to_string(n) + "_" + std::to_string(k) +
                             (has_bias ? "_bias" : ""),
                         [=](Backend& b, WeightFormat w) { check_linear(b, w, m, n, k, has_bias); }});
      }
    }
    for (const int dim : {1, 7, 64, 200, 1030}) {
      for (const bool has_x : {false, true})
        for (const Norm norm : {Norm::kRms, Norm::kLayer, Norm::kLayerWithBias})
          cases.push_back({"norm_" + std::to_string(dim) + (has_x ? "_added" : "") + "_" +
                               std::to_string(static_cast<int>(norm)),
                           [=](Backend& b, WeightFormat w) { check_norm(b, w, 3, dim, has_x, norm); }});
    }
    for (const int width : {1, 12, 65, 300})
      cases.push_back({"activation_" + std::to_string(width),
                       [=](Backend& b, WeightFormat w) { check_activation(b, w, 3, width); }});
    for (const ExpertCase& c : {ExpertCase{1, 8, 2, Logits::kRandom},
                                {7, 8, 2, Logits::kRandom, RoutingRule::kSoftmax},
                                {16, 5, 3, Logits::kAllAlike},
                                {17, 8, 2, Logits::kOneFavourite},
                                {40, 33, 2, Logits::kSomeNaN},
                                {150, 4, 1, Logits::kOneFavourite},
                                {150, 4, 4, Logits::kRandom, RoutingRule::kSoftmax},
                                {3, 130, 16, Logits::kSomeNaN},
                                {6, 1, 1, Logits::kRandom}})
      cases.push_back({"experts_" + std::to_string(c.rows) + "_" + std::to_string(c.num_experts) + "_" +
                           std::to_string(c.top_k),
                       [=](Backend& b, WeightFormat w) { check_experts(b, w, c); }});
    const std::vector<Seq> ragged = {{0, 1}, {17, 1}, {255, 2}, {0, 37}, {300, 5}};
    for (const int head_dim : {8, 64, 96, 128})
      cases.push_back({"attention_dim_" + std::to_string(head_dim), [=](Backend& b, WeightFormat w) {
                         check_attention(b, w, ragged, 4, 2, head_dim, 0);
                       }});
    for (const int window : {1, 20, 270})
      cases.push_back({"attention_window_" + std::to_string(window),
                       [=](Backend& b, WeightFormat w) { check_attention(b, w, ragged, 4, 2, 64, window); }});
    cases.push_back({"attention_unrotated", [=](Backend& b, WeightFormat w) {
                       check_attention(b, w, ragged, 4, 2, 64, 0, /*is_rotated=*/false);
                     }});
    for (const int window : {0, 15})
      cases.push_back({"branch_window_" + std::to_string(window),
                       [=](Backend& b, WeightFormat w) { check_branch(b, w, window); }});
    cases.push_back({"attention_soft_cap", [=](Backend& b, WeightFormat w) {
                       check_attention(b, w, ragged, 4, 2, 64, 40, true, 0.5f);
                     }});
    cases.push_back({"attention_sinks", [=](Backend& b, WeightFormat w) {
                       check_attention(b, w, ragged, 4, 2, 64, 0, true, 0, true);
                     }});
    cases.push_back({"attention_soft_cap_and_sinks", [=](Backend& b, WeightFormat w) {
                       check_attention(b, w, ragged, 4, 2, 64, 40, true, 2, true);
                     }});
    cases.push_back({"soft_cap", check_soft_cap});
    for (const auto& [channels, span, has_bias] :
         std::vector<std::tuple<int, int, bool>>{{1, 16, true}, {37, 32, true}, {200, 64, false}}) {
      cases.push_back({"recurrence_" + std::to_string(channels), [=](Backend& b, WeightFormat w) {
                         check_recurrence(b, w, {{3, 1}, {0, 37}, {2 * span, 1}, {2 * span - 1, span + 2}, {90, 5}},
                                          channels, span, has_bias);
                       }});
    }
    cases.push_back({"rows", check_rows});
    cases.push_back({"sample", check_sample});
    cases.push_back({"sample_biased", check_sample_biased});
    cases.push_back({"sample_penalised", check_sample_penalised});
    return cases;
  }();
  return table;
}

}  // namespace serval::testing
