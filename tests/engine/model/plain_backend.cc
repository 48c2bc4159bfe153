#include "tests/engine/model/plain_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "engine/model/float_convert.h"
#include "kernels/base/check.h"
#include "tests/kernels/activation_definition.h"
#include "tests/kernels/routing_definition.h"

namespace serval::testing {
namespace {

// No scratch, no draws.
class PlainStepContext final : public StepContext {
 public:
  size_t bytes() const override { return 0; }
  void begin_step(const ForwardInput&) override {}
  int sample(const SampleArgs&) override {
    SERVAL_CHECK(false, "not a kernel test");
    return 0;
  }
  void wait_sampled(int) override {}
};

class PlainBackend final : public Backend {
 public:
  std::string_view name() const override { return "plain"; }

  Buffer allocate(size_t bytes) override {
    void* memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    std::memset(memory, 0, bytes);
    Buffer buffer;
    buffer.memory = {memory, [](void* p) { std::free(p); }};
    buffer.bytes = bytes;
    return buffer;
  }

  PlainBackend(std::optional<WeightFormat> lacking, std::optional<RareOp> without)
      : lacking_(lacking), without_(without) {}
  bool supports(WeightFormat format) const override { return format != lacking_; }
  bool has(RareOp op) const override { return op != without_; }
  LinearWeight pack_linear(std::span<const LinearSource> parts, std::span<const Tensor> biases) override {
    LinearWeight w = fused_shape(parts, biases);
    w.packed = allocate(static_cast<size_t>(w.n * w.k) * sizeof(float));
    auto* to = w.packed.as<float>();
    for (const LinearSource& part : parts) {
      for (int64_t row = 0; row < part.n; ++row, to += part.k) dequantise_row(part, row, to);
    }
    if (!biases.empty()) {
      w.bias = allocate(static_cast<size_t>(w.n) * sizeof(float));
      auto* bias = w.bias.as<float>();
      for (const Tensor& part : biases) bias = std::copy_n(part.as<float>(), part.num_elements(), bias);
    }
    return w;
  }
  size_t packed_bytes(int64_t n, int64_t k, const MatrixFormat&, bool bias) const override {
    return static_cast<size_t>(n * k + (bias ? n : 0)) * sizeof(float);
  }
  DType preferred_kv_dtype(DType) const override { return DType::kF32; }
  bool takes_kv_dtype(DType kv, DType) const override { return kv == DType::kF32; }
  DType activation_dtype(DType) const override { return DType::kF32; }
  std::unique_ptr<StepContext> make_step_context(const StepLimits&) override {
    return std::make_unique<PlainStepContext>();
  }
  size_t step_context_bytes(const StepLimits&) const override { return 0; }
  void upload(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void download(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  size_t available_bytes() const override { return size_t{1} << 30; }

  void embed(const LinearWeight& table, std::span<const int32_t> ids, float scale,
             const Tensor& out) override {
    for (size_t i = 0; i < ids.size(); ++i) {
      for (int64_t j = 0; j < table.k; ++j) {
        out.as<float>()[static_cast<int64_t>(i) * table.k + j] =
            scale * table.packed.as<float>()[ids[i] * table.k + j];
      }
    }
  }

  void add_rms_norm(const Tensor& residual, const Tensor& x, const Tensor& weight, float eps,
                    const Tensor& out) override {
    const int64_t dim = residual.dim(1);
    for (int64_t r = 0; r < residual.dim(0); ++r) {
      float* row = residual.as<float>() + r * dim;
      if (x.data != nullptr) {
        for (int64_t i = 0; i < dim; ++i) row[i] += x.as<float>()[r * dim + i];
      }
      norm(row, weight.as<float>(), dim, eps, out.as<float>() + r * dim);
    }
  }
  void add_layer_norm(const Tensor& residual, const Tensor& x, const Tensor& weight, const Tensor& bias,
                      float eps, const Tensor& out) override {
    const int64_t dim = residual.dim(1);
    for (int64_t r = 0; r < residual.dim(0); ++r) {
      float* row = residual.as<float>() + r * dim;
      double mean = 0, squares = 0;
      for (int64_t i = 0; i < dim; ++i) {
        if (x.data != nullptr) row[i] += x.as<float>()[r * dim + i];
        mean += row[i] / static_cast<double>(dim);
      }
      for (int64_t i = 0; i < dim; ++i) squares += (row[i] - mean) * (row[i] - mean);
      const double scale = 1 / std::sqrt(squares / static_cast<double>(dim) + eps);
      for (int64_t i = 0; i < dim; ++i)
        out.as<float>()[r * dim + i] = static_cast<float>((row[i] - mean) * scale * (weight.data == nullptr ? 1 : weight.as<float>()[i]) +
                                                          (bias.data == nullptr ? 0 : bias.as<float>()[i]));
    }
  }
  void head_layer_norm(const Tensor& x, int64_t row_stride, const Tensor& weight, const Tensor& bias, float eps) override {
    const int64_t dim = x.dim(2);
    for (int64_t r = 0; r < x.dim(0); ++r) {
      for (int64_t h = 0; h < x.dim(1); ++h) {
        const Tensor head(x.at(r * row_stride + h * dim), DType::kF32, {1, dim});
        const Tensor own_bias = bias.data == nullptr ? Tensor() : Tensor(bias.at(h * dim), DType::kF32, {dim});
        add_layer_norm(head, {}, Tensor(weight.at(h * dim), DType::kF32, {dim}), own_bias, eps, head);
      }
    }
  }
  void clamp(const Tensor& x, float limit) override {
    for (int64_t i = 0; i < x.num_elements(); ++i)
      x.as<float>()[i] = std::clamp(x.as<float>()[i], -limit, limit);
  }
  void head_rms_norm(const Tensor& x, int64_t row_stride, const Tensor& weight, float eps) override {
    for (int64_t r = 0; r < x.dim(0); ++r) {
      for (int64_t h = 0; h < x.dim(1); ++h) {
        float* head = x.as<float>() + r * row_stride + h * x.dim(2);
        norm(head, weight.as<float>(), x.dim(2), eps, head);
      }
    }
  }

  void linear(const Tensor& x, const LinearWeight& w, const Tensor& out) override {
    SERVAL_CHECK(x.dim(1) == w.k && out.dim(1) == w.n, x.dim(1), w.k, out.dim(1), w.n);
    std::vector<float> row(static_cast<size_t>(w.k));
    std::vector<int8_t> codes(row.size());
    for (int64_t r = 0; r < x.dim(0); ++r) {
      std::copy_n(x.as<float>() + r * w.k, w.k, row.data());
      if (format_row(w.format).rounds_rows) {
        const float scale = round_row(row.data(), w.k, codes.data());
        std::transform(codes.begin(), codes.end(), row.begin(), [&](int8_t code) { return static_cast<float>(code) * scale; });
      }
      for (int64_t j = 0; j < w.n; ++j) {
        double sum = w.bias.data() == nullptr ? 0.0 : w.bias.as<float>()[j];
        for (int64_t i = 0; i < w.k; ++i)
          sum += double{row[i]} * w.packed.as<float>()[j * w.k + i];
        out.as<float>()[r * w.n + j] = static_cast<float>(sum);
      }
    }
  }

  void rope(const RopeArgs& args) override {
    const int half = args.rotary_dim / 2;
    for (int64_t r = 0; r < args.x.dim(0); ++r) {
      const float* cosines = args.cos_sin.as<float>() + int64_t{args.positions[r]} * args.rotary_dim;
      for (int64_t h = 0; h < args.x.dim(1); ++h) {
        float* head = args.x.as<float>() + r * args.row_stride + h * args.x.dim(2);
        for (int i = 0; i < half; ++i) {
          float& first = head[args.has_neighbour_pairs ? 2 * i : i];
          float& second = head[args.has_neighbour_pairs ? 2 * i + 1 : i + half];
          const float a = first, b = second, c = cosines[i], s = args.turns_back ? -cosines[half + i] : cosines[half + i];
          first = a * c - b * s;
          second = b * c + a * s;
        }
      }
    }
  }

  void write_kv(const WriteKvArgs& args) override {
    const int64_t width = args.k.dim(1) * args.k.dim(2), value_width = args.v.dim(1) * args.v.dim(2);
    for (int64_t r = 0; r < args.k.dim(0); ++r) {
      std::copy_n(args.k.as<float>() + r * args.row_stride, width,
                  static_cast<float*>(args.kv.keys) + args.slots[r] * width);
      std::copy_n(args.v.as<float>() + r * args.row_stride, value_width,
                  static_cast<float*>(args.kv.values) + args.slots[r] * value_width);
    }
  }

  void attention(const AttentionArgs& args, int64_t q_row_stride) override {
    const AttentionBatch& batch = *args.batch;
    const int64_t heads = args.q.dim(1), dim = args.q.dim(2), sharing = heads / args.kv.num_kv_heads;
    const int64_t value_dim = args.kv.value_width();
    std::vector<double> weights, sum(value_dim);
    for (int s = 0; s < batch.num_seqs; ++s) {
      for (int r = batch.row_start[s]; r < batch.row_start[s + 1]; ++r) {
        const int position = batch.first_pos[s] + r - batch.row_start[s];
        const int end = batch.first_pos[s] + batch.row_start[s + 1] - batch.row_start[s] - 1;
        const int last = !args.sees_ahead ? position : args.window > 0 ? std::min(end, position + args.window - 1) : end;
        const int first = args.window < 0    ? position - position % -args.window
                          : args.window == 0 ? 0
                                             : std::max(0, position - args.window + 1);
        for (int64_t h = 0; h < heads; ++h) {
          // Of the head's key (or value) at position p.
          const auto kv_at = [&](const void* base, int p, int64_t dim) {  // dim: that is kept
            const int block = batch.block_table[s * batch.table_stride + p / args.kv.block_size];
            SERVAL_CHECK(block >= 0, s, p);
            const int64_t slot = int64_t{block} * args.kv.block_size + p % args.kv.block_size;
            return static_cast<const float*>(base) + (slot * args.kv.num_kv_heads + h / sharing) * dim;
          };
          const int far_end = args.far_q.data == nullptr ? first : std::max(0, position - args.near + 1);
          const auto is_seen = [&](int p) {
            if (args.is_chosen && !chosen_[r][chosen_[r].size() == 1 ? 0 : h / sharing][p]) return false;
            return p >= far_end || args.num_far == 0 || p < args.num_far;
          };
          weights.clear();
          double largest = -std::numeric_limits<double>::infinity(), total = 0;
          for (int p = first; p <= last; ++p) {
            if (!is_seen(p)) {
              weights.push_back(-std::numeric_limits<double>::infinity());
              continue;
            }
            const float* q = (p < far_end ? args.far_q : args.q).as<float>() + r * q_row_stride + h * dim;
            double score = 0;
            for (int64_t i = 0; i < dim; ++i) score += double{q[i]} * kv_at(args.kv.keys, p, args.kv.head_dim)[i];
            score *= args.scale;
            if (args.soft_cap > 0) score = args.soft_cap * std::tanh(score / args.soft_cap);
            if (args.slopes.data != nullptr) score -= double{args.slopes.as<float>()[h]} * (position - p);
            weights.push_back(score);
            largest = std::max(largest, score);
          }
          if (args.sinks.data != nullptr) {
            const double sink = args.sinks.as<float>()[h];
            largest = std::max(largest, sink);
            total = std::exp(sink - largest);
          }
          for (double& w : weights) total += w = std::exp(w - largest);
          std::fill(sum.begin(), sum.end(), 0.0);
          for (int p = first; p <= last; ++p) {
            if (!is_seen(p)) continue;
            for (int64_t i = 0; i < value_dim; ++i)
              sum[i] += weights[p - first] / total * kv_at(args.kv.values, p, value_dim)[i];
          }
          std::copy_n(sum.begin(), value_dim, args.out.as<float>() + (r * heads + h) * value_dim);
        }
      }
    }
  }

  // Each row looks for the best block that is left, as often as it may choose.
  void choose_keys(const ChooseKeysArgs& args) override {
    const AttentionBatch& batch = *args.batch;
    const int64_t heads = args.q.dim(1), dim = args.q.dim(2), pieces = args.kv.num_kv_heads, piece = dim / pieces;
    const bool weighs = args.weights.data != nullptr;
    chosen_.assign(batch.num_rows, {});
    for (int s = 0; s < batch.num_seqs; ++s) {
      for (int r = batch.row_start[s]; r < batch.row_start[s + 1]; ++r) {
        const int length = batch.first_pos[s] + r - batch.row_start[s] + 1, blocks = (length + args.block - 1) / args.block;
        for (int64_t choice = 0; choice < (weighs ? 1 : heads); ++choice) {
          std::vector<double> best(blocks, -std::numeric_limits<double>::infinity());
          for (int p = 0; p < length; ++p) {
            const int64_t slot = int64_t{batch.block_table[s * batch.table_stride + p / args.kv.block_size]} *
                                     args.kv.block_size +
                                 p % args.kv.block_size;
            double score = 0;
            for (int64_t h = weighs ? 0 : choice; h < (weighs ? heads : choice + 1); ++h) {
              double dot = 0;
              for (int64_t d = 0; d < dim; ++d)
                dot += double{args.q.as<float>()[(r * heads + h) * dim + d]} *
                       static_cast<const float*>(args.kv.keys)[(slot * pieces + d / piece) * args.kv.head_dim + args.kept_from + d % piece];
              score += weighs ? args.weights.as<float>()[r * heads + h] * std::max(0.0, dot) : dot;
            }
            best[p / args.block] = std::max(best[p / args.block], score);
          }
          for (int b = std::max(0, blocks - args.local); b < blocks; ++b) best[b] = std::numeric_limits<double>::infinity();
          std::vector<bool> taken(blocks, false), positions;
          for (int n = 0; n < std::min(args.top_k, blocks); ++n) {
            int next = -1;
            for (int b = 0; b < blocks; ++b)
              if (!taken[b] && (next < 0 || best[b] > best[next])) next = b;
            taken[next] = true;
          }
          for (int p = 0; p < length; ++p) positions.push_back(taken[p / args.block]);
          chosen_[r].push_back(positions);
        }
      }
    }
  }

  void write_rows(const WriteRowsArgs& args) override {
    const int64_t width = args.x.dim(1);
    for (int64_t r = 0; r < args.x.dim(0); ++r)
      std::copy_n(args.x.as<float>() + r * width, width,
                  static_cast<float*>(args.kv.keys) + args.slots[r] * args.kv.row_floats + args.first);
  }

  // Calls visit(row, sequence, position) for every row.
  template <class Visit>
  static void for_rows(const AttentionBatch& batch, const Visit& visit) {
    for (int s = 0; s < batch.num_seqs; ++s)
      for (int r = batch.row_start[s]; r < batch.row_start[s + 1]; ++r) visit(r, s, batch.first_pos[s] + r - batch.row_start[s]);
  }
  static const float* row_of(const KvLayer& kv, const AttentionBatch& batch, int seq, int last) {
    SERVAL_CHECK(batch.block_table[seq * batch.table_stride + last / kv.block_size] >= 0, seq, last);
    return kv.row_at(batch.block_table + seq * batch.table_stride, last);
  }

  void compress_rows(const CompressRowsArgs& args) override {
    const int64_t dim = args.norm.num_elements(), width = args.overlaps ? 2 * dim : dim;
    const int span = args.to.row_span, half = static_cast<int>(args.cos_sin.dim(1)) / 2;
    for_rows(*args.batch, [&](int r, int s, int last) {
      if ((last + 1) % span != 0) return;
      std::vector<float> made(dim);
      for (int64_t d = 0; d < dim; ++d) {
        double total = 0, sum = 0;
        for (int p = std::max(0, last + 1 - (args.overlaps ? 2 : 1) * span); p <= last; ++p) {
          const int64_t at = d + (args.overlaps && p > last - span ? dim : 0);
          const float* const row = row_of(args.from, *args.batch, s, p) + args.first;
          const double weight = std::exp(double{row[width + at]} + args.bias.as<float>()[p % span * width + at]);
          total += weight;
          sum += weight * row[at];
        }
        made[d] = static_cast<float>(sum / total);
      }
      norm(made.data(), args.norm.as<float>(), dim, args.eps, made.data());
      const float* const cosines = args.cos_sin.as<float>() + int64_t{args.positions[r] - span + 1} * 2 * half;
      for (int i = 0; i < half; ++i) {
        float *const pair = &made[dim - 2 * half + 2 * i], a = pair[0], b = pair[1];
        pair[0] = a * cosines[i] - b * cosines[half + i];
        pair[1] = b * cosines[i] + a * cosines[half + i];
      }
      std::copy(made.begin(), made.end(), const_cast<float*>(row_of(args.to, *args.to_batch, s, last)) + args.to_first);
    });
  }

  // Each row looks for the best that is left, as often as it may choose.
  void choose_rows(const ChooseRowsArgs& args) override {
    const int64_t heads = args.q.dim(1), dim = args.q.dim(2);
    chosen_.assign(args.batch->num_rows, {});
    for_rows(*args.batch, [&](int r, int s, int position) {
      const int count = (position + 1) / args.kv.row_span;
      std::vector<double> scores(count);
      for (int w = 0; w < count; ++w) {
        const float* const row = row_of(args.kv, *args.batch, s, (w + 1) * args.kv.row_span - 1) + args.first;
        for (int64_t h = 0; h < heads; ++h) {
          double dot = 0;
          for (int64_t d = 0; d < dim; ++d) dot += double{args.q.as<float>()[(r * heads + h) * dim + d]} * row[d];
          scores[w] += args.weights.as<float>()[r * heads + h] * std::max(0.0, dot);
        }
      }
      std::vector<bool> taken(count, false);
      for (int n = 0; n < std::min(args.top_k, count); ++n) {
        int next = -1;
        for (int w = 0; w < count; ++w)
          if (!taken[w] && (next < 0 || scores[w] > scores[next])) next = w;
        taken[next] = true;
      }
      chosen_[r].push_back(taken);
    });
  }

  void attend_rows(const AttendRowsArgs& args) override {
    const int64_t heads = args.q.dim(1), dim = args.q.dim(2);
    for_rows(*args.near_batch, [&](int r, int s, int position) {
      std::vector<const float*> keys;
      for (int p = std::max(0, position - args.window + 1); p <= position; ++p)
        keys.push_back(row_of(args.near, *args.near_batch, s, p));
      for (int w = 0; args.far.row_floats > 0 && w < (position + 1) / args.far.row_span; ++w)
        if (!args.is_chosen || chosen_[r][0][w]) keys.push_back(row_of(args.far, *args.far_batch, s, (w + 1) * args.far.row_span - 1));
      for (int64_t h = 0; h < heads; ++h) {
        const float* const q = args.q.as<float>() + (r * heads + h) * dim;
        double total = std::exp(double{args.sinks.as<float>()[h]});
        std::vector<double> sum(dim);
        for (const float* const key : keys) {
          double dot = 0;
          for (int64_t d = 0; d < dim; ++d) dot += double{q[d]} * key[d];
          const double weight = std::exp(args.scale * dot);
          total += weight;
          for (int64_t d = 0; d < dim; ++d) sum[d] += weight * key[d];
        }
        for (int64_t d = 0; d < dim; ++d) args.out.as<float>()[(r * heads + h) * dim + d] = static_cast<float>(sum[d] / total);
      }
    });
  }

  void collapse_residuals(const MixedResidualsArgs& args, const Tensor& out) override {
    const int64_t dim = out.dim(1), n = args.residuals.dim(1) / dim, width = args.mixes.dim(1);
    const auto* const base = args.base.as<float>();
    const auto* const scale = args.scale.as<float>();
    for (int64_t r = 0; r < out.dim(0); ++r) {
      float* const mixes = args.mixes.as<float>() + r * width;
      for (int64_t i = 0; i < n; ++i)
        mixes[i] = static_cast<float>(activated(Activation::kSigmoid, double{mixes[i]} * scale[0] + base[i]) + args.eps);
      for (int64_t d = 0; d < dim; ++d) {
        double sum = 0;
        for (int64_t i = 0; i < n; ++i) sum += double{mixes[i]} * args.residuals.as<float>()[(r * n + i) * dim + d];
        out.as<float>()[r * dim + d] = static_cast<float>(sum);
      }
      if (width == n) continue;
      for (int64_t i = n; i < 2 * n; ++i)
        mixes[i] = static_cast<float>(2 * activated(Activation::kSigmoid, double{mixes[i]} * scale[1] + base[i]));
      std::vector<double> comb(n * n);
      for (int64_t i = 0; i < n; ++i) {
        double sum = 0;
        for (int64_t j = 0; j < n; ++j)
          sum += comb[i * n + j] = std::exp(double{mixes[2 * n + i * n + j]} * scale[2] + base[2 * n + i * n + j]);
        for (int64_t j = 0; j < n; ++j) comb[i * n + j] = comb[i * n + j] / sum + args.eps;
      }
      for (int round = 0; round < 2 * args.rounds - 1; ++round) {  // columns, rows, columns, ...
        for (int64_t i = 0; i < n; ++i) {
          double sum = args.eps;
          for (int64_t j = 0; j < n; ++j) sum += round % 2 == 0 ? comb[j * n + i] : comb[i * n + j];
          for (int64_t j = 0; j < n; ++j) (round % 2 == 0 ? comb[j * n + i] : comb[i * n + j]) /= sum;
        }
      }
      for (int64_t i = 0; i < n * n; ++i) mixes[2 * n + i] = static_cast<float>(comb[i]);
    }
  }
  void expand_residuals(const Tensor& residuals, const Tensor& mixes, const Tensor& x) override {
    const int64_t dim = x.dim(1), n = residuals.dim(1) / dim;
    for (int64_t r = 0; r < x.dim(0); ++r) {
      const float *const post = mixes.as<float>() + r * mixes.dim(1) + n, *const comb = post + n;
      for (int64_t d = 0; d < dim; ++d) {
        std::vector<double> made(n);
        for (int64_t i = 0; i < n; ++i) {
          made[i] = double{post[i]} * x.as<float>()[r * dim + d];
          for (int64_t j = 0; j < n; ++j) made[i] += double{comb[j * n + i]} * residuals.as<float>()[(r * n + j) * dim + d];
        }
        for (int64_t i = 0; i < n; ++i) residuals.as<float>()[(r * n + i) * dim + d] = static_cast<float>(made[i]);
      }
    }
  }

  void gated_activation(Activation act, const Tensor& gate_up, const Tensor& out) override {
    const int64_t width = out.dim(1);
    for (int64_t r = 0; r < out.dim(0); ++r) {
      for (int64_t i = 0; i < width; ++i) {
        const double g = gate_up.as<float>()[r * 2 * width + i],
                     up = gate_up.as<float>()[(r * 2 + 1) * width + i];
        out.as<float>()[r * width + i] = static_cast<float>(activated(act, g) * up);
      }
    }
  }
  void activation(Activation act, const Tensor& x, const Tensor& out) override {
    for (int64_t i = 0; i < x.num_elements(); ++i)
      out.as<float>()[i] = static_cast<float>(activated(act, x.as<float>()[i]));
  }

  void clamp_gate_up(const Tensor& gate_up, float limit, float up_offset) override {
    const int64_t width = gate_up.dim(1) / 2;
    for (int64_t i = 0; i < gate_up.num_elements(); ++i) {
      float& x = gate_up.as<float>()[i];
      x = i / width % 2 == 0 ? std::min(x, limit) : std::clamp(x, -limit, limit) + up_offset;
    }
  }
  void copy_heads(const CopyHeadsArgs& args) override {
    for (int64_t r = 0; r < args.out.dim(0); ++r) {
      for (int64_t h = 0; h < args.out.dim(1); ++h) {
        for (int64_t i = 0; i < args.out.dim(2); ++i)
          args.out.as<float>()[r * args.out_row_stride + h * args.out_head_stride + i] =
              args.x.data == nullptr ? 0 : args.x.as<float>()[r * args.x_row_stride + h * args.x_head_stride + i];
      }
    }
  }
  void head_linear(const HeadLinearArgs& args) override {
    for (int64_t r = 0; r < args.x.dim(0); ++r) {
      for (int64_t h = 0; h < args.x.dim(1); ++h) {
        const LinearWeight& w = args.heads[h];
        linear(Tensor(args.x.as<float>() + r * args.x_row_stride + h * args.x_head_stride, DType::kF32, {1, w.k}), w,
               Tensor(args.out.as<float>() + r * args.out_row_stride + h * args.out_head_stride, DType::kF32, {1, w.n}));
      }
    }
  }

  // Row by row, each expert found by looking for the best that is left: no sorting to get wrong.
  void route_experts(const RoutingRule& rule, const Tensor& logits, const Tensor& bias,
                     const ExpertRouting& routing) override {
    const int num_experts = routing.num_experts, top_k = routing.top_k;
    auto *experts = routing.experts.as<int32_t>(), *starts = routing.starts.as<int32_t>();
    for (int64_t r = 0; r < logits.dim(0); ++r) {
      const float* const named =
          routing.of_tokens.data == nullptr ? nullptr : routing.of_tokens.as<float>() + int64_t{routing.tokens[r]} * top_k;
      const std::vector<RoutedTo> chosen =
          route_row(rule, logits.as<float>() + r * num_experts, bias.as<float>(), num_experts, top_k, named);
      for (int rank = 0; rank < top_k; ++rank) {
        experts[r * top_k + rank] = chosen[rank].expert;
        routing.weights.as<float>()[r * top_k + rank] = static_cast<float>(
            chosen[rank].weight * (routing.scales.data != nullptr ? routing.scales.as<float>()[chosen[rank].expert] : 1));
      }
    }
    int32_t place = 0;
    for (int e = 0; e < num_experts; ++e) {
      starts[e] = place;
      for (int64_t i = 0; i < logits.dim(0) * top_k; ++i) {
        if (experts[i] != e) continue;
        routing.places.as<int32_t>()[i] = place;
        routing.rows.as<int32_t>()[place++] = static_cast<int32_t>(i / top_k);
      }
    }
    starts[num_experts] = place;
  }
  void dispatch_rows(const Tensor& x, const ExpertRouting& routing, const Tensor& out) override {
    gather_rows(x, {routing.rows.as<int32_t>(), static_cast<size_t>(out.dim(0))}, out);
    for (int64_t i = 0; i < out.dim(0) && routing.weighs_inputs; ++i) {
      float* const row = out.as<float>() + routing.places.as<int32_t>()[i] * out.dim(1);
      for (int64_t d = 0; d < out.dim(1); ++d) row[d] *= routing.weights.as<float>()[i];
    }
  }
  void expert_linear(const Tensor& x, std::span<const LinearWeight> experts, const ExpertRouting& routing,
                     const Tensor& out) override {
    for (int e = 0; e < routing.num_experts; ++e) {
      const int64_t begin = routing.starts.as<int32_t>()[e], end = routing.starts.as<int32_t>()[e + 1];
      linear(Tensor(x.at(begin * x.dim(1)), x.dtype, {end - begin, x.dim(1)}), experts[e],
             Tensor(out.at(begin * out.dim(1)), out.dtype, {end - begin, out.dim(1)}));
    }
  }
  void combine_experts(const Tensor& x, const ExpertRouting& routing, const Tensor& shared_gate,
                       const Tensor& out) override {
    const int64_t dim = out.dim(1);
    for (int64_t r = 0; r < out.dim(0); ++r) {
      for (int64_t i = 0; i < dim; ++i) {
        double sum = 0;
        for (int64_t j = r * routing.top_k; j < (r + 1) * routing.top_k; ++j)
          sum += (routing.weighs_inputs ? 1.0 : double{routing.weights.as<float>()[j]}) *
                 x.as<float>()[routing.places.as<int32_t>()[j] * dim + i];
        const double gate = shared_gate.data == nullptr ? 1 : 1 / (1 + std::exp(-double{shared_gate.as<float>()[r]}));
        if (x.dim(0) > routing.num_places()) sum += gate * x.as<float>()[(routing.num_places() + r) * dim + i];
        out.as<float>()[r * dim + i] = static_cast<float>(sum);
      }
    }
  }

  void gate(Activation act, const Tensor& x, int64_t x_stride, const Tensor& up, int64_t up_stride,
            const Tensor& out) override {
    for (int64_t r = 0; r < out.dim(0); ++r)
      for (int64_t i = 0; i < out.dim(1); ++i)
        out.as<float>()[r * out.dim(1) + i] = static_cast<float>(activated(act, x.as<float>()[r * x_stride + i]) *
                                                                 up.as<float>()[r * up_stride + i]);
  }
  void scaled_add(const Tensor& x, float scale, const Tensor& y, const Tensor& out) override {
    for (int64_t i = 0; i < out.num_elements(); ++i)
      out.as<float>()[i] = static_cast<float>(double{scale} * x.as<float>()[i] +
                                              (y.data == nullptr ? 0.0 : double{y.as<float>()[i]}));
  }
  // weights [n, count] by tanh of a row's modes.
  static std::vector<double> stream_factors(const StreamArgs& of, int64_t row, const Tensor& weights) {
    const int64_t count = of.modes.dim(1);
    std::vector<double> factors(weights.dim(0));
    for (size_t n = 0; n < factors.size(); ++n)
      for (int64_t i = 0; i < count; ++i)
        factors[n] += weights.as<float>()[n * count + i] * std::tanh(double{of.modes.as<float>()[row * count + i]});
    return factors;
  }
  void mix_streams(const MixStreamsArgs& args) override {
    const int64_t rows = args.of.modes.dim(0), count = args.of.modes.dim(1), dim = args.of.streams.dim(1);
    auto* const x = args.of.streams.as<float>();
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<double> c = stream_factors(args.of, r, args.weights);
      for (int64_t d = 0; d < dim; ++d) {
        std::vector<double> out(count);
        for (int64_t o = 0; o < count; ++o) {
          out[o] = x[(o * rows + r) * dim + d];
          for (int64_t i = 0; i < count; ++i) out[o] += c[o * count + i] * x[(i * rows + r) * dim + d];
        }
        for (int64_t o = 0; o < count; ++o) x[(o * rows + r) * dim + d] = static_cast<float>(out[o]);
      }
    }
  }
  void correct_streams(const CorrectStreamsArgs& args) override {
    const int64_t rows = args.of.modes.dim(0), count = args.of.modes.dim(1), dim = args.of.streams.dim(1);
    auto* const x = args.of.streams.as<float>();
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<double> c = stream_factors(args.of, r, args.weights);
      for (int64_t d = 0; d < dim; ++d) {
        const double before = args.before.as<float>()[r * dim + d], change = x[r * dim + d] - before;
        for (int64_t i = 0; i < count; ++i) {
          float& own = x[(i * rows + r) * dim + d];
          own = static_cast<float>((i == 0 ? before : double{own}) + (1 + c[i]) * change);
        }
        args.scaled.as<float>()[r * dim + d] = x[r * dim + d] * args.scale.as<float>()[d];
      }
    }
  }
  void match_size(const Tensor& x, const Tensor& target, float least) override {
    const int64_t dim = x.dim(1);
    for (int64_t r = 0; r < x.dim(0); ++r) {
      double own = 0, wanted = 0;
      for (int64_t d = 0; d < dim; ++d) {
        own += std::pow(double{x.as<float>()[r * dim + d]}, 2) / static_cast<double>(dim);
        wanted += std::pow(double{target.as<float>()[r * dim + d]}, 2) / static_cast<double>(dim);
      }
      const double factor = std::sqrt(wanted / std::max(own, double{least}));
      for (int64_t d = 0; d < dim; ++d)
        x.as<float>()[r * dim + d] = static_cast<float>(factor * x.as<float>()[r * dim + d]);
    }
  }
  void cut_rows(const Tensor& x, int64_t x_stride, float deviations) override {
    const int64_t dim = x.dim(1);
    for (int64_t r = 0; r < x.dim(0); ++r) {
      float* const row = x.as<float>() + r * x_stride;
      double mean = 0, variance = 0;
      for (int64_t d = 0; d < dim; ++d) mean += row[d] / static_cast<double>(dim);
      for (int64_t d = 0; d < dim; ++d) variance += std::pow(row[d] - mean, 2) / static_cast<double>(dim);
      for (int64_t d = 0; d < dim; ++d)
        row[d] = static_cast<float>(std::max(0.0, row[d] - mean - deviations * std::sqrt(variance)));
    }
  }
  void xielu(const Tensor& x, const Tensor& alphas, const Tensor& out) override {
    for (int64_t i = 0; i < out.num_elements(); ++i)
      out.as<float>()[i] =
          static_cast<float>(xielu_of(x.as<float>()[i], alphas.as<float>()[0], alphas.as<float>()[1]));
  }
  void soft_cap(const Tensor& x, float cap) override {
    for (int64_t i = 0; i < x.num_elements(); ++i)
      x.as<float>()[i] = static_cast<float>(cap * std::tanh(double{x.as<float>()[i]} / cap));
  }
  void causal_conv(const CausalConvArgs& args) override {
    const int64_t channels = args.out.dim(1), taps = args.weight.dim(0);
    auto* const kept = static_cast<float*>(args.kv.keys);
    for_states(args.kv, *args.batch, [&](int64_t row, int64_t before, int64_t block) {
      for (int64_t c = 0; c < channels; ++c) {
        const auto of_row = [&](const Tensor& x) {
          return x.data == nullptr ? 1.0f : x.as<float>()[row * args.x_stride + c];
        };
        double sum = args.bias.data == nullptr ? 0.0 : args.bias.as<float>()[c];
        std::vector<float> past(taps, 0.0f);
        for (int t = 0; t < taps - 1 && before >= 0; ++t) past[t] = kept[(before * (taps - 1) + t) * channels + c];
        past[taps - 1] = of_row(args.x) * of_row(args.in_gate);
        for (int t = 0; t < taps; ++t) sum += double{args.weight.as<float>()[t * channels + c]} * past[t];
        for (int t = 0; t < taps - 1; ++t) kept[(block * (taps - 1) + t) * channels + c] = past[t + 1];
        if (args.has_silu) sum /= 1 + std::exp(-sum);
        args.out.as<float>()[row * channels + c] = static_cast<float>(sum * of_row(args.out_gate));
      }
    });
  }
  void gated_scan(const GatedScanArgs& args) override {
    const int64_t channels = args.out.dim(1);
    auto* const kept = static_cast<float*>(args.kv.values);
    const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
    for_states(args.kv, *args.batch, [&](int64_t row, int64_t before, int64_t block) {
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t at = row * channels + c;
        const double a = std::exp(args.rate.as<float>()[c] *
                                  sigmoid(double{args.decay_gate.as<float>()[at]} + args.decay_bias.as<float>()[c]));
        const double input = sigmoid(double{args.in_gate.as<float>()[at]} + args.in_bias.as<float>()[c]) * args.x.as<float>()[at];
        const double next =
            before < 0 ? input : a * kept[before * channels + c] + std::sqrt(std::max(0.0, 1 - a * a)) * input;
        kept[block * channels + c] = args.out.as<float>()[at] = static_cast<float>(next);
      }
    });
  }
  void mean_scan(const MeanScanArgs& args) override {
    const int64_t channels = args.out.dim(1);
    auto* const kept = static_cast<float*>(args.kv.values);
    for_states(args.kv, *args.batch, [&](int64_t row, int64_t before, int64_t block) {
      for (int64_t c = 0; c < channels; ++c) {
        const auto at = [&](int64_t of, int n) -> float& { return kept[(of * 3 + n) * channels + c]; };
        const double k = args.k.as<float>()[row * channels + c], v = args.v.as<float>()[row * channels + c],
                     now = args.first.as<float>()[c] + k;
        const double num = before < 0 ? 0 : at(before, 0), den = before < 0 ? 0 : at(before, 1),
                     most = before < 0 ? now : at(before, 2), top = std::max(most, now);
        args.out.as<float>()[row * channels + c] = static_cast<float>(
            (std::exp(most - top) * num + std::exp(now - top) * v) / (std::exp(most - top) * den + std::exp(now - top)));
        const double faded = most + args.decay.as<float>()[c], next = before < 0 ? k : std::max(faded, k);
        at(block, 0) = static_cast<float>(std::exp(faded - next) * num + std::exp(k - next) * v);
        at(block, 1) = static_cast<float>(std::exp(faded - next) * den + std::exp(k - next));
        at(block, 2) = static_cast<float>(next);
      }
    });
  }
  void replacing_scan(const ReplacingScanArgs& args) override {
    const int64_t heads = args.v.dim(1), dim = args.v.dim(2), width = heads * dim;
    auto* const kept = static_cast<float*>(args.kv.values);
    for_states(args.kv, *args.batch, [&](int64_t row, int64_t before, int64_t block) {
      for (int64_t h = 0; h < heads; ++h) {
        const auto of = [&](const Tensor& x, int64_t n) { return double{x.as<float>()[row * width + h * dim + n]}; };
        const auto each = [&](const Tensor& x, int64_t n) { return double{x.as<float>()[h * dim + n]}; };
        std::vector<double> unit(dim), added(dim);
        double squares = args.length_eps, product = 0;
        for (int64_t n = 0; n < dim; ++n) {
          unit[n] = of(args.k, n) * each(args.key_scale, n);
          squares += unit[n] * unit[n];
          added[n] = of(args.k, n) * (1 + (of(args.rate, n) - 1) * each(args.key_rate, n));
          product += of(args.r, n) * added[n] * each(args.bonus, n);
        }
        for (int64_t j = 0; j < dim; ++j) {
          const auto at = [&](int64_t of_block, int64_t n) { return ((of_block * heads + h) * dim + n) * dim + j; };
          double held = 0, y = 0;
          for (int64_t n = 0; n < dim && before >= 0; ++n) held += kept[at(before, n)] * unit[n] / squares;
          std::vector<double> next(dim);
          for (int64_t n = 0; n < dim; ++n) {
            next[n] = (before < 0 ? 0 : kept[at(before, n)] * of(args.decay, n)) - held * unit[n] * of(args.rate, n) + added[n] * of(args.v, j);
            y += next[n] * of(args.r, n);
          }
          for (int64_t n = 0; n < dim; ++n) kept[at(block, n)] = static_cast<float>(next[n]);
          args.out.as<float>()[row * width + h * dim + j] = static_cast<float>(y);
          args.direct.as<float>()[row * width + h * dim + j] = static_cast<float>(product * of(args.v, j));
        }
      }
    });
  }
  void selective_scan(const SelectiveScanArgs& args) override {
    const int64_t channels = args.out.dim(1), num_states = args.a.dim(0);
    auto* const kept = static_cast<float*>(args.kv.values);
    for_states(args.kv, *args.batch, [&](int64_t row, int64_t before, int64_t block) {
      for (int64_t c = 0; c < channels; ++c) {
        const double u = args.u.as<float>()[row * channels + c];
        const double dt = std::log1p(std::exp(double{args.dt.as<float>()[row * channels + c]}));
        double y = args.d.as<float>()[c] * u;
        for (int n = 0; n < num_states; ++n) {
          const double h = before < 0 ? 0.0 : kept[(before * num_states + n) * channels + c];
          const double next = h * std::exp(dt * args.a.as<float>()[n * channels + c]) +
                              dt * u * args.b.as<float>()[row * args.bc_stride + c / (channels / args.heads) * args.bc_head_stride + n];
          kept[(block * num_states + n) * channels + c] = static_cast<float>(next);
          y += next * args.c.as<float>()[row * args.bc_stride + c / (channels / args.heads) * args.bc_head_stride + n];
        }
        const double gate = args.gate.as<float>()[row * args.gate_stride + c];
        args.out.as<float>()[row * channels + c] = static_cast<float>(y * gate / (1 + std::exp(-gate)));
      }
    });
  }
  void linear_scan(const LinearScanArgs& args) override {
    const int64_t heads = args.v.dim(1), values = args.v.dim(2), keys = args.k.dim(2);
    const int64_t decays = args.decay.dim(1) / heads;
    auto* const kept = static_cast<float*>(args.kv.values);
    for_states(args.kv, *args.batch, [&](int64_t row, int64_t before, int64_t block) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t key_at = row * args.qkv_stride + h * args.k.dim(1) / heads * keys;
        const double strength = args.strength.data == nullptr ? 1 : args.strength.as<float>()[row * heads + h];
        for (int64_t j = 0; j < values; ++j) {
          std::vector<double> state(keys);
          double m = 0, y = 0;
          for (int64_t n = 0; n < keys; ++n) {
            const double was = before < 0 ? 0.0 : kept[((before * heads + h) * keys + n) * values + j];
            const int64_t decay_row = args.decay.dim(0) == 1 ? 0 : row;
            state[n] = was * args.decay.as<float>()[(decay_row * heads + h) * decays + n % decays];
            m += state[n] * args.k.as<float>()[key_at + n];
          }
          const double v = args.v.as<float>()[row * args.qkv_stride + h * values + j];
          for (int64_t n = 0; n < keys; ++n) {
            state[n] += args.k.as<float>()[key_at + n] * strength * (v - (args.has_delta_rule ? m : 0));
            kept[((block * heads + h) * keys + n) * values + j] = static_cast<float>(state[n]);
            y += state[n] * args.q.as<float>()[key_at + n];
          }
          if (args.skip.data != nullptr) y += args.skip.as<float>()[h] * v / args.scale;
          args.out.as<float>()[(row * heads + h) * values + j] = static_cast<float>(args.scale * y);
        }
      }
    });
  }
  void scan_gates(const ScanGatesArgs& args) override {
    const int64_t n = args.decay.dim(1), heads = args.rate.num_elements();
    for (int64_t r = 0; r < args.decay.dim(0); ++r) {
      for (int64_t i = 0; i < n; ++i) {
        const double x = double{args.x_scale} * args.x.as<float>()[r * args.x_stride + i] +
                         (args.bias.data == nullptr ? 0 : args.bias.as<float>()[i]);
        const double softplus = x > 30 ? x : std::log1p(std::exp(x));
        const double step = std::min<double>(std::max<double>(softplus, args.least), args.most);
        const double rate = args.rate.as<float>()[i / (n / heads)];
        args.decay.as<float>()[r * n + i] = static_cast<float>(
            std::exp(args.lower_bound != 0 ? args.lower_bound * activated(Activation::kSigmoid, -rate * x) : step * rate));
        if (args.beta.data == nullptr) args.strength.as<float>()[r * n + i] = static_cast<float>(step);
      }
      for (int64_t h = 0; h < heads && args.beta.data != nullptr; ++h)
        args.strength.as<float>()[r * heads + h] = static_cast<float>(
            args.beta_scale * activated(Activation::kSigmoid, args.beta.as<float>()[r * args.beta_stride + h]));
    }
  }
  void gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) override {
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(x.as<float>() + rows[i] * x.dim(1), x.dim(1),
                  out.as<float>() + static_cast<int64_t>(i) * x.dim(1));
    }
  }
  void copy_kv_blocks(const KvLayer&, std::span<const BlockCopy>) override {
    SERVAL_CHECK(false, "not a kernel test");
  }
  void move_kv(const KvLayer&, std::span<const KvMove>) override { SERVAL_CHECK(false, "not a kernel test"); }

 private:
  static void norm(const float* x, const float* weight, int64_t dim, float eps, float* out) {
    double squares = 0;
    for (int64_t i = 0; i < dim; ++i) squares += double{x[i]} * x[i];
    const double scale = 1 / std::sqrt(squares / static_cast<double>(dim) + eps);
    for (int64_t i = 0; i < dim; ++i) out[i] = static_cast<float>(x[i] * scale * (weight == nullptr ? 1 : weight[i]));
  }

 private:
  // Calls visit(row, block of the position before, or -1, and of its own) for every row, in order.
  template <class Visit>
  static void for_states(const KvLayer& kv, const AttentionBatch& batch, const Visit& visit) {
    for (int s = 0; s < batch.num_seqs; ++s) {
      const int32_t* const table = batch.block_table + int64_t{s} * batch.table_stride;
      for (int row = batch.row_start[s]; row < batch.row_start[s + 1]; ++row) {
        const int p = batch.first_pos[s] + row - batch.row_start[s];
        visit(row, p == 0 ? -1 : table[(p - 1) / kv.block_size], table[p / kv.block_size]);
      }
    }
  }

  std::optional<WeightFormat> lacking_;
  std::optional<RareOp> without_;
  std::vector<std::vector<std::vector<bool>>> chosen_;  // of each row, of each choice: positions
};

}  // namespace

std::unique_ptr<Backend> make_plain_backend(std::optional<WeightFormat> lacking, std::optional<RareOp> without) {
  return std::make_unique<PlainBackend>(lacking, without);
}

}  // namespace serval::testing
