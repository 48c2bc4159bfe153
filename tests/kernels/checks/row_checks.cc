// Row-wise kernels against their definitions in double: norms, rotation and the write of keys and values,
// gates, embedding, gathering, the cap of logits.
#include "kernels/cuda/elementwise.h"
#include "loadtest/gpu/device_array.h"
#include "tests/kernels/activation_definition.h"
#include "tests/kernels/checks/check.h"
#include "tests/kernels/checks/invariance.h"

namespace serval::gpu {
namespace {

template <class T>
const char* type_name() {
  return std::is_same_v<T, Half> ? "f16" : "bf16";
}

template <class T>
void expect_number(Finding& finding, T got, double want, double extra, const std::string& where) {
  finding.expect_near(value_of(got), want, (std::abs(want) + extra) * 1.01 * kEpsilon<T> + 1e-6, where);
}

std::string at(int row, int column) {
  return "row " + std::to_string(row) + ", element " + std::to_string(column);
}

// --- residual + RMS norm ---

template <class T>
void check_norm(int rows, int dim, bool has_x, bool is_centred, Finding& finding) {
  std::mt19937 random(static_cast<uint32_t>(rows * 31 + dim));
  const size_t count = static_cast<size_t>(rows) * dim;
  const std::vector<T> residual = random_numbers<T>(count, random), x = random_numbers<T>(count, random);
  const std::vector<float> weight = random_numbers<float>(dim, random),
                           bias = random_numbers<float>(is_centred && has_x ? dim : 0, random);
  const DeviceArray<T> r(residual), added(x), out(count);
  const DeviceArray<float> w(weight), b(bias);
  cuda::add_norm<T>(nullptr, is_centred,
                    {r.data(), has_x ? added.data() : nullptr, w.data(), 1e-5f, out.data(), rows, dim,
                     bias.empty() ? nullptr : b.data()});
  const std::vector<T> sums = r.download(), got = out.download();
  for (int i = 0; i < rows; ++i) {
    const size_t row = static_cast<size_t>(i) * dim;
    double squares = 0, mean = 0;
    for (int d = 0; d < dim; ++d) {
      const float exact = value_of(residual[row + d]) + (has_x ? value_of(x[row + d]) : 0);
      if (sums[row + d].bits != rounded<T>(exact).bits) finding.fail("the sum of " + at(i, d) + " is wrong");
      if (is_centred) mean += double{value_of(sums[row + d])} / dim;
    }
    for (int d = 0; d < dim; ++d) squares += std::pow(value_of(sums[row + d]) - mean, 2);
    const double scale = 1 / std::sqrt(squares / dim + 1e-5);
    for (int d = 0; d < dim; ++d) {
      const double normed = (value_of(sums[row + d]) - mean) * scale * weight[d];
      // Near the mean, and where the bias takes the value away, the rounding of f32 is what is left.
      const double cancelled = (std::abs(mean) * scale * std::abs(weight[d]) + std::abs(normed)) * 1e-4;
      expect_number(finding, got[row + d], normed + (bias.empty() ? 0 : bias[d]), is_centred ? cancelled : 0,
                    at(i, d));
    }
  }
}

// --- heads ---

struct HeadShape {
  int rows, num_q, num_kv, head_dim, rotary_dim;
  bool has_norm, is_fp8;
};

constexpr int kBlockSize = 16;
constexpr int kPositions = 50;

// Rows of fused heads with room behind each row, and a cache that keeps row r at slot slot_of(r).
template <class T>
class HeadCase {
 public:
  explicit HeadCase(const HeadShape& shape)
      : s_(shape),
        heads_(shape.num_q + 2 * shape.num_kv),
        stride_(int64_t{heads_} * shape.head_dim + 8),
        random_(static_cast<uint32_t>(shape.head_dim)),
        in_(random_numbers<T>(shape.rows * stride_, random_)),
        q_norm_(random_numbers<float>(shape.head_dim, random_)),
        k_norm_(random_numbers<float>(shape.head_dim, random_)) {
    for (int p = 0; p < kPositions; ++p)
      for (int i = 0; i < s_.rotary_dim; ++i)
        angles_.push_back(i < s_.rotary_dim / 2 ? std::cos(p * 0.1f + i)
                                                : std::sin(p * 0.1f + i - s_.rotary_dim / 2));
    const int num_slots = (s_.rows / kBlockSize + 2) * kBlockSize;
    for (int r = 0; r < s_.rows; ++r) {
      positions_.push_back(r * 19 % kPositions);
      slots_.push_back(r % 5 == 3 ? -1 : num_slots - 1 - r);
    }
    cache_ = static_cast<size_t>(num_slots) * s_.num_kv * s_.head_dim;
  }

  struct Result {
    std::vector<T> rows, keys, values;
    std::vector<Fp8> small_keys, small_values;
  };

  // The kernel over rows [first, first + count).
  Result run(int first, int count) const {
    const DeviceArray<T> x(in_), keys(s_.is_fp8 ? 0 : cache_), values(s_.is_fp8 ? 0 : cache_);
    const DeviceArray<Fp8> small_keys(s_.is_fp8 ? cache_ : 0), small_values(s_.is_fp8 ? cache_ : 0);
    const DeviceArray<float> qn(q_norm_), kn(k_norm_), cos_sin(angles_);
    const DeviceArray<int32_t> pos(positions_), slot(slots_);
    cuda::QkNormRopeWriteKvArgs<T> args;
    args.q = x.data() + first * stride_;
    args.k = args.q + s_.num_q * s_.head_dim;
    args.v = args.k + s_.num_kv * s_.head_dim;
    args.rows = count;
    args.num_q = s_.num_q;
    args.num_kv = s_.num_kv;
    args.head_dim = s_.head_dim;
    args.row_stride = stride_;
    if (s_.has_norm) {
      args.q_norm = qn.data();
      args.k_norm = kn.data();
    }
    args.eps = 1e-6f;
    args.positions = pos.data() + first;
    args.cos_sin = cos_sin.data();
    args.rotary_dim = s_.rotary_dim;
    args.slots = slot.data() + first;
    args.keys = s_.is_fp8 ? static_cast<void*>(small_keys.data()) : keys.data();
    args.values = s_.is_fp8 ? static_cast<void*>(small_values.data()) : values.data();
    args.is_fp8 = s_.is_fp8;
    args.key_scale = key_scale();
    args.block_size = kBlockSize;
    cuda::qk_norm_rope_write_kv(nullptr, args);
    return {x.download(), keys.download(), values.download(), small_keys.download(), small_values.download()};
  }

  void expect_right(const Result& got, Finding& finding) const {
    for (int r = 0; r < s_.rows; ++r) {
      for (int h = 0; h < heads_; ++h) expect_head(got, r, h, finding);
      if (got.rows[(r + 1) * stride_ - 1].bits != in_[(r + 1) * stride_ - 1].bits)
        finding.fail("what lies between rows was changed behind row " + std::to_string(r));
    }
  }

  // The bits of row r, of its query heads and of what it stored.
  std::vector<unsigned> bits_of_row(const Result& result, int r) const {
    std::vector<unsigned> bits;
    for (int i = 0; i < s_.num_q * s_.head_dim; ++i) bits.push_back(result.rows[r * stride_ + i].bits);
    for (int h = 0; h < s_.num_kv && slots_[r] >= 0; ++h) {
      for (int d = 0; d < s_.head_dim; ++d) {
        const size_t at = place(r, h) + d;
        bits.push_back(s_.is_fp8 ? result.small_keys[at].bits : result.keys[at].bits);
        bits.push_back(s_.is_fp8 ? result.small_values[at].bits : result.values[at].bits);
      }
    }
    return bits;
  }

 private:
  float key_scale() const { return s_.is_fp8 ? 0.25f : 1; }
  size_t place(int r, int kv_head) const {
    return ((static_cast<size_t>(slots_[r] / kBlockSize) * s_.num_kv + kv_head) * kBlockSize +
            slots_[r] % kBlockSize) *
           s_.head_dim;
  }

  void expect_head(const Result& got, int r, int h, Finding& finding) const {
    const bool is_q = h < s_.num_q, is_v = h >= s_.num_q + s_.num_kv;
    const int kv_head = is_q ? 0 : (h - s_.num_q) % s_.num_kv;
    std::vector<double> head(s_.head_dim);
    double squares = 0;
    for (int d = 0; d < s_.head_dim; ++d) {
      head[d] = value_of(in_[r * stride_ + h * s_.head_dim + d]);
      squares += head[d] * head[d];
    }
    if (s_.has_norm && !is_v)
      for (int d = 0; d < s_.head_dim; ++d)
        head[d] *= (is_q ? q_norm_ : k_norm_)[d] / std::sqrt(squares / s_.head_dim + 1e-6);
    std::vector<double> turned = head;
    const int half = s_.rotary_dim / 2;
    for (int i = 0; i < half && !is_v; ++i) {
      const double c = angles_[positions_[r] * s_.rotary_dim + i],
                   sn = angles_[positions_[r] * s_.rotary_dim + half + i];
      turned[i] = head[i] * c - head[i + half] * sn;
      turned[i + half] = head[i + half] * c + head[i] * sn;
    }
    for (int d = 0; d < s_.head_dim; ++d) {
      const std::string where = at(r, h * s_.head_dim + d);
      double size = std::abs(head[d]);  // what rounding the normalised head to T may cost
      if (d < s_.rotary_dim) size += std::abs(head[d < half ? d + half : d - half]);
      if (is_q) {
        expect_number(finding, got.rows[r * stride_ + h * s_.head_dim + d], turned[d], size, where);
      } else if (slots_[r] >= 0 && s_.is_fp8) {
        const float scale = is_v ? 1 : key_scale();
        const Fp8 stored = (is_v ? got.small_values : got.small_keys)[place(r, kv_head) + d];
        finding.expect_near(value_of(stored) * scale, turned[d],
                            std::abs(turned[d]) / 15 + size * 0.01 + 0x1p-9f * scale, where);
      } else if (slots_[r] >= 0) {
        expect_number(finding, (is_v ? got.values : got.keys)[place(r, kv_head) + d], turned[d], size, where);
      }
    }
  }

  HeadShape s_;
  int heads_;
  int64_t stride_;
  std::mt19937 random_;
  std::vector<T> in_;
  std::vector<float> q_norm_, k_norm_, angles_;
  std::vector<int32_t> positions_, slots_;
  size_t cache_ = 0;
};

// --- gates, embedding, logits ---

template <class T>
void check_activation(int rows, int width, Activation act, Finding& finding) {
  std::mt19937 random(static_cast<uint32_t>(width));
  const std::vector<T> in = random_numbers<T>(size_t{2} * rows * width, random);
  const DeviceArray<T> x(in), out(static_cast<size_t>(rows) * width);
  cuda::activation<T>(nullptr, act, /*is_gated=*/true, x.data(), out.data(), rows, width);
  cuda::activation<T>(nullptr, act, /*is_gated=*/false, x.data(), x.data(), 2 * rows, width);
  const std::vector<T> gated = out.download(), plain = x.download();
  for (int r = 0; r < rows; ++r) {
    for (int i = 0; i < width; ++i) {
      const double gate = value_of(in[r * 2 * width + i]), up = value_of(in[r * 2 * width + width + i]);
      expect_number(finding, gated[r * width + i], serval::testing::activated(act, gate) * up, 0, at(r, i));
    }
  }
  for (int i = 0; i < 2 * rows * width; ++i)
    expect_number(finding, plain[i], serval::testing::activated(act, value_of(in[i])), 0,
                  at(i / width, i % width));
}

template <class T>
void check_embedding(int dim, Finding& finding) {
  std::mt19937 random(static_cast<uint32_t>(dim));
  const std::vector<T> table = random_numbers<T>(9 * dim, random);
  const DeviceArray<T> t(table), out(4 * dim), gathered(2 * dim), scaled(4 * dim);
  const DeviceArray<int32_t> ids(std::vector<int32_t>{8, 0, -1, -3}), last(std::vector<int32_t>{5, 1, 7}),
      rows(std::vector<int32_t>{3, 0});
  cuda::embed<T>(nullptr, t.data(), ids.data(), last.data(), 1, out.data(), 4, dim);
  cuda::embed<T>(nullptr, t.data(), ids.data(), last.data(), 5.5f, scaled.data(), 4, dim);
  cuda::gather_rows<T>(nullptr, out.data(), rows.data(), gathered.data(), 2, dim);
  const std::vector<T> embedded = out.download(), some = gathered.download(), large = scaled.download();
  const int want[] = {8, 0, 5, 7};
  for (int i = 0; i < 4 * dim; ++i) {
    if (embedded[i].bits != table[want[i / dim] * dim + i % dim].bits)
      finding.fail(at(i / dim, i % dim) + " was embedded wrong");
    expect_number(finding, large[i], 5.5 * value_of(table[want[i / dim] * dim + i % dim]), 0,
                  at(i / dim, i % dim) + " scaled");
  }
  for (int i = 0; i < 2 * dim; ++i) {
    if (some[i].bits != table[want[i / dim == 0 ? 3 : 0] * dim + i % dim].bits)
      finding.fail(at(i / dim, i % dim) + " was gathered wrong");
  }
}

void check_soft_cap(Finding& finding) {
  const std::vector<float> in = {-100, -1, 0, 2, 50};
  const DeviceArray<float> x(in);
  cuda::soft_cap(nullptr, x.data(), 5, 30);
  const std::vector<float> got = x.download();
  for (size_t i = 0; i < in.size(); ++i)
    finding.expect_near(got[i], 30 * std::tanh(in[i] / 30), 1e-5, "element " + std::to_string(i));
}

template <class T>
void check_scaled_add(int count, bool has_y, Finding& finding) {
  std::mt19937 random(3);
  const std::vector<T> x = random_numbers<T>(count, random), y = random_numbers<T>(count, random);
  const DeviceArray<T> from(x), added(y), out(x.size());
  cuda::scaled_add<T>(nullptr, from.data(), 0.75f, has_y ? added.data() : nullptr, out.data(), count);
  const std::vector<float> got = out.download_values();
  for (int i = 0; i < count; ++i) {
    const double want = 0.75 * value_of(x[i]) + (has_y ? value_of(y[i]) : 0);
    finding.expect_near(got[i], want, 0x1p-8 * std::abs(want) + 1e-6, "element " + std::to_string(i));
  }
}

template <class T>
void check_clamp(int count, Finding& finding) {
  std::mt19937 random(4);
  const std::vector<T> x = random_numbers<T>(count, random);
  const DeviceArray<T> in_place(x);
  cuda::clamp<T>(nullptr, in_place.data(), count, 0.5f);
  const std::vector<float> got = in_place.download_values();
  for (int i = 0; i < count; ++i)
    finding.expect_near(got[i], std::clamp(value_of(x[i]), -0.5f, 0.5f), 0, "element " + std::to_string(i));
}

// Heads that lie one behind the other in wider rows, each by a weight of its own.
template <class T>
void check_head_layer_norm(int heads, int dim, Finding& finding) {
  constexpr int kRows = 3;
  const int stride = (heads + 1) * dim;
  std::mt19937 random(5);
  const std::vector<T> x = random_numbers<T>(size_t{kRows} * stride, random);
  const std::vector<float> weight = random_numbers<float>(size_t(heads) * dim, random),
                           bias = random_numbers<float>(size_t(heads) * dim, random);
  const DeviceArray<T> in_place(x);
  const DeviceArray<float> w(weight), b(bias);
  cuda::add_norm<T>(nullptr, /*is_centred=*/true,
                    {.residual = in_place.data(), .x = nullptr, .weight = w.data(), .eps = 1e-5f, .out = in_place.data(),
                     .rows = kRows, .dim = dim, .bias = b.data(), .stride = stride, .heads = heads});
  const std::vector<float> got = in_place.download_values();
  for (int r = 0; r < kRows; ++r) {
    for (int h = 0; h <= heads; ++h) {
      const T* const head = &x[r * stride + h * dim];
      double mean = 0, squares = 0;
      for (int d = 0; d < dim; ++d) mean += value_of(head[d]) / double(dim);
      for (int d = 0; d < dim; ++d) squares += (value_of(head[d]) - mean) * (value_of(head[d]) - mean);
      const double scale = 1 / std::sqrt(squares / dim + 1e-5);
      for (int d = 0; d < dim; ++d) {
        const double want = h < heads ? (value_of(head[d]) - mean) * scale * weight[h * dim + d] + bias[h * dim + d] : value_of(head[d]);
        finding.expect_near(got[r * stride + h * dim + d], want, 0x1p-7 * (1 + std::abs(want)),
                            "row " + std::to_string(r) + ", head " + std::to_string(h));
      }
    }
  }
}

template <class T>
void add_all(std::vector<Check>& checks, Sizes sizes) {
  const std::string type = std::string(type_name<T>()) + " ";
  const auto add_norm = [&](int rows, int dim, bool has_x) {
    for (const bool is_centred : {false, true})
      checks.push_back(
          {is_centred ? "residual + LayerNorm" : "residual + RMSNorm",
           type + std::to_string(rows) + " x " + std::to_string(dim) + (has_x ? "" : ", nothing added"),
           [=](Finding& f) { check_norm<T>(rows, dim, has_x, is_centred, f); }});
  };
  for (const int dim : {1, 7, 64, 100, 2048, 2056})
    for (const bool has_x : {true, false}) add_norm(3, dim, has_x);
  if (sizes == Sizes::kAll) add_norm(129, 4096, true);

  std::vector<HeadShape> shapes = {{5, 4, 2, 64, 64, true, false},
                                   {5, 3, 1, 96, 96, false, false},
                                   {5, 2, 2, 128, 64, true, true},
                                   {5, 5, 1, 40, 20, false, true}};
  if (sizes == Sizes::kAll) {
    shapes.push_back({65, 32, 8, 128, 128, false, false});
    shapes.push_back({65, 32, 8, 128, 128, false, true});
  }
  for (const HeadShape& s : shapes) {
    checks.push_back({"RoPE + KV write",
                      type + std::to_string(s.rows) + " rows, " + std::to_string(s.num_q) + "/" +
                          std::to_string(s.num_kv) + " heads of " + std::to_string(s.head_dim) +
                          (s.has_norm ? ", norms" : "") + (s.is_fp8 ? ", fp8" : ""),
                      [s](Finding& f) {
                        const HeadCase<T> heads(s);
                        heads.expect_right(heads.run(0, s.rows), f);
                      }});
  }
  for (const int width : {1, 12, 64, 2056}) {
    for (const auto& [act, name] : {std::pair{Activation::kSilu, "silu"},
                                    {Activation::kGeluTanh, "gelu by tanh"},
                                    {Activation::kGelu, "gelu"},
                                    {Activation::kRelu, "relu"},
                                    {Activation::kRelu2, "relu squared"},
                                    {Activation::kGeluSigmoid, "gelu by sigmoid"},
                                    {Activation::kSigmoid, "sigmoid"},
                                    {Activation::kIdentity, "identity"}}) {
      checks.push_back({"activation", type + name + " " + std::to_string(width),
                        [=](Finding& f) { check_activation<T>(3, width, act, f); }});
    }
  }
  for (const int count : {1, 8, 2051})
    for (const bool has_y : {false, true})
      checks.push_back({"scaled add", type + std::to_string(count) + (has_y ? ", added" : ""),
                        [=](Finding& f) { check_scaled_add<T>(count, has_y, f); }});
  for (const int count : {1, 2051})
    checks.push_back({"clamp", type + std::to_string(count), [=](Finding& f) { check_clamp<T>(count, f); }});
  for (const int dim : {24, 128})
    checks.push_back({"head LayerNorm", type + "3 of " + std::to_string(dim),
                      [=](Finding& f) { check_head_layer_norm<T>(3, dim, f); }});
  for (const int dim : {3, 64})
    checks.push_back(
        {"embed, gather", type + std::to_string(dim), [dim](Finding& f) { check_embedding<T>(dim, f); }});
}

// --- law 1 ---

// A row of the norm alone, in a batch of seven and in a large one at other indices.
void check_norm_company(int dim, int large, bool is_centred, Finding& finding) {
  std::mt19937 random(5);
  const std::vector<Bf16> own = random_numbers<Bf16>(dim, random), x = random_numbers<Bf16>(dim, random);
  const std::vector<float> weight = random_numbers<float>(dim, random);
  const DeviceArray<float> w(weight);
  std::vector<float> alone;
  for (const auto& [rows, index] : {std::pair{1, 0}, {7, 3}, {large, large - 2}}) {
    std::vector<Bf16> residual = random_numbers<Bf16>(static_cast<size_t>(rows) * dim, random);
    std::vector<Bf16> added = random_numbers<Bf16>(static_cast<size_t>(rows) * dim, random);
    std::copy(own.begin(), own.end(), residual.begin() + static_cast<int64_t>(index) * dim);
    std::copy(x.begin(), x.end(), added.begin() + static_cast<int64_t>(index) * dim);
    const DeviceArray<Bf16> r(residual), a(added), out(residual.size());
    cuda::add_norm<Bf16>(nullptr, is_centred, {r.data(), a.data(), w.data(), 1e-5f, out.data(), rows, dim});
    const std::vector<float> all = out.download_values();
    const std::vector<float> row(all.begin() + static_cast<int64_t>(index) * dim,
                                 all.begin() + static_cast<int64_t>(index + 1) * dim);
    if (alone.empty()) alone = row;
    finding.expect_same(row, alone, "row " + std::to_string(index) + " of " + std::to_string(rows));
  }
}

void check_heads_company(const HeadShape& shape, Finding& finding) {
  const HeadCase<Bf16> heads(shape);
  const auto all = heads.run(0, shape.rows);
  for (const auto& [first, count] : {std::pair{0, 1}, {1, 2}, {shape.rows - 1, 1}, {2, shape.rows - 2}}) {
    const auto some = heads.run(first, count);
    for (int r = first; r < first + count; ++r)
      finding.expect_same(heads.bits_of_row(some, r), heads.bits_of_row(all, r),
                          "row " + std::to_string(r) + " among " + std::to_string(count));
  }
}

}  // namespace

std::vector<Check> row_checks(Sizes sizes) {
  std::vector<Check> checks;
  add_all<Bf16>(checks, sizes);
  add_all<Half>(checks, sizes);
  checks.push_back({"soft cap", "5", check_soft_cap});
  return checks;
}

std::vector<Check> row_invariance(Sizes sizes) {
  const int large = sizes == Sizes::kAll ? 256 : 33;
  std::vector<Check> checks;
  for (const int dim : {100, 4096})
    for (const bool is_centred : {false, true})
      checks.push_back({is_centred ? "residual + LayerNorm" : "residual + RMSNorm",
                        "any company, " + std::to_string(dim),
                        [=](Finding& f) { check_norm_company(dim, large, is_centred, f); }});
  for (const bool is_fp8 : {false, true})
    checks.push_back({"RoPE + KV write", is_fp8 ? "any company, fp8" : "any company", [=](Finding& f) {
                        check_heads_company({large, 4, 2, 128, 128, true, is_fp8}, f);
                      }});
  return checks;
}

}  // namespace serval::gpu
