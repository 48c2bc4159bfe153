#include "engine/runner/pooler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "engine/model/float_convert.h"

namespace serval {
namespace {

constexpr int kRowsAtOnce = 64;  // brought from the device

// Of what was summed up over so many rows.
double divisor(Pooling pooling, double num_rows) {
  switch (pooling) {
    case Pooling::kMean: return num_rows;
    case Pooling::kMeanSqrtLen: return std::sqrt(num_rows);
    case Pooling::kWeightedMean: return num_rows * (num_rows + 1) / 2;
    default: return 1;
  }
}

}  // namespace

Pooler::Pooler(int max_seqs, int hidden_size)
    : hidden_size_(hidden_size),
      sums_(static_cast<size_t>(max_seqs) * hidden_size),
      rows_(static_cast<size_t>(kRowsAtOnce) * hidden_size),
      stored_rows_(rows_.size()) {}

size_t Pooler::planned_bytes(int max_seqs, int hidden_size) {
  return hidden_size * (static_cast<size_t>(max_seqs) * sizeof(double) + 2 * kRowsAtOnce * sizeof(float));
}

void Pooler::read(const Batch& batch, const SlotTable& slots, const Tensor& hidden, Backend& backend) {
  int first_row = 0;
  for (const SeqStep& step : batch.seqs) {
    const Slot& slot = slots.of(step);
    const int rows = step.num_tokens;
    const int row_begin = std::exchange(first_row, first_row + rows);
    if (slot.pooling == Pooling::kNone) continue;
    int begin = 0, end = rows;
    if (slot.pooling == Pooling::kLast) begin = step.sample ? rows - 1 : rows;
    if (slot.pooling == Pooling::kFirst) end = step.first_pos == 0 ? 1 : 0;
    double* const sum = &sums_[static_cast<size_t>(step.slot) * hidden_size_];
    const bool is_max = slot.pooling == Pooling::kMax;
    if (step.first_pos == 0) std::fill_n(sum, hidden_size_, is_max ? -std::numeric_limits<double>::infinity() : 0.0);
    if (slot.pooling == Pooling::kLast && begin < end) std::fill_n(sum, hidden_size_, 0.0);
    const size_t row_bytes = static_cast<size_t>(hidden_size_) * dtype_bytes(hidden.dtype);
    for (int first = row_begin + begin; first < row_begin + end; first += kRowsAtOnce) {
      const int count = std::min(kRowsAtOnce, row_begin + end - first);
      backend.download(stored_rows_.data(), static_cast<const char*>(hidden.data) + first * row_bytes, count * row_bytes);
      convert(stored_rows_.data(), hidden.dtype, rows_.data(), DType::kF32, static_cast<size_t>(count) * hidden_size_);
      for (int r = 0; r < count; ++r) {
        const float* const row = &rows_[static_cast<size_t>(r) * hidden_size_];
        const double weight = slot.pooling == Pooling::kWeightedMean ? step.first_pos + first + r - row_begin + 1 : 1;
        for (int i = 0; i < hidden_size_; ++i) sum[i] = is_max ? std::max<double>(sum[i], row[i]) : sum[i] + weight * row[i];
      }
    }
  }
}

void Pooler::tell(const SlotTable& slots, std::span<const Sampler::Drawn> drawn, ModelOutput& output) const {
  for (size_t i = 0; i < drawn.size(); ++i) {
    SeqOutput& out = output.seqs[i];
    const Slot* const slot = slots.find(out.seq, drawn[i].slot);
    if (out.num_tokens == 0 || slot == nullptr || slot->pooling == Pooling::kNone) continue;
    const double* const sum = &sums_[static_cast<size_t>(drawn[i].slot) * hidden_size_];
    const double count = divisor(slot->pooling, slot->num_prompt);
    out.pooled_begin = static_cast<int32_t>(output.pooled.size());
    out.num_pooled = hidden_size_;
    for (int k = 0; k < hidden_size_; ++k) {
      const auto value = static_cast<float>(sum[k] / count);
      out.failed |= !std::isfinite(value);
      output.pooled.push_back(value);
    }
  }
}

}  // namespace serval
