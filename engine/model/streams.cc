#include "engine/model/streams.h"

#include <cmath>
#include <string>

namespace serval {
namespace {

constexpr float kLeastSize = 1e-5f;  // of a mean square

Tensor numbers(const Buffer& buffer, std::initializer_list<int64_t> shape) {
  return Tensor(buffer.data(), DType::kF32, shape);
}

}  // namespace

void StreamsSpec::list_slots(int64_t hidden, StreamsWeights& w, SlotList& frame) const {
  w.in.resize(count - 1);
  w.out.resize(count - 1);
  for (int i = 0; i < count - 1; ++i) {
    frame.linear(w.in[i], {{"altup_projections." + std::to_string(i), hidden}}, hidden, false);
    frame.linear(w.out[i], {{"altup_unembed_projections." + std::to_string(i), hidden}}, hidden, false);
  }
}

void StreamsSpec::list_layer_slots(int64_t hidden, StreamLayerWeights& w, SlotList& layer) const {
  layer.vector(w.mode_norm.weight, "altup.router_norm.weight", {hidden}, [hidden](std::vector<float>& values, const auto&) {
    for (float& value : values) value /= static_cast<float>(hidden);
  });
  layer.unrounded_linear(w.modes, {{"altup.modality_router", count}}, hidden, false);
  layer.vector(w.mixing, "altup.prediction_coefs.weight", {int64_t{count} * count, count});
  layer.vector(w.correcting, "altup.correction_coefs.weight", {count, count});
  layer.vector(w.scale, "altup.correct_output_scale", {hidden});
  layer.linear(w.left, {{"laurel.linear_left", rank}}, hidden, false);
  layer.linear(w.right, {{"laurel.linear_right", hidden}}, rank, false);
  layer.norm(w.low_rank_norm, "laurel.post_laurel_norm", hidden, norm);
}

Tensor StreamsSpec::stream(const StreamRows& rows, int index) const {
  const int64_t num_rows = rows.residual.dim(0), hidden = rows.residual.dim(1);
  return Tensor(rows.streams.at(index * num_rows * hidden), rows.streams.dtype, {num_rows, hidden});
}

void StreamsSpec::begin(Backend& backend, const StreamsWeights& w, const StreamRows& rows) const {
  for (int i = 1; i < count; ++i) {
    backend.linear(rows.residual, w.in[i - 1], stream(rows, i));
    backend.match_size(stream(rows, i), rows.residual, kLeastSize);
  }
}

Tensor StreamsSpec::modes(Backend& backend, const StreamLayerWeights& w, const StreamRows& rows) const {
  const Tensor out(rows.scratch.data, rows.scratch.dtype, {rows.residual.dim(0), count});
  backend.scaled_add(rows.residual, 1, {}, rows.x);
  add_norm(backend, norm, w.mode_norm, rows.x, {}, rows.x);
  backend.linear(rows.x, w.modes, out);
  return out;
}

void StreamsSpec::begin_layer(Backend& backend, const StreamLayerWeights& w, const StreamRows& rows) const {
  backend.mix_streams({.of = {rows.streams, modes(backend, w, rows)},
                       .weights = numbers(w.mixing, {int64_t{count} * count, count})});
  backend.scaled_add(rows.residual, 1, {}, rows.before);
}

void StreamsSpec::read(Backend& backend, const StreamLayerWeights& w, const Tensor& h, const StreamRows& rows) const {
  const Tensor narrow(rows.scratch.data, rows.scratch.dtype, {h.dim(0), rank});
  backend.linear(h, w.left, narrow);
  backend.linear(narrow, w.right, rows.low_rank);
  add_norm(backend, norm, w.low_rank_norm, rows.low_rank, {}, rows.low_rank);
  backend.scaled_add(h, 1, rows.low_rank, rows.low_rank);
}

void StreamsSpec::add_low_rank(Backend& backend, const StreamRows& rows) const {
  backend.scaled_add(rows.low_rank, 1, rows.residual, rows.residual);
  backend.scaled_add(rows.residual, std::sqrt(0.5f), {}, rows.residual);
}

void StreamsSpec::end_layer(Backend& backend, const StreamLayerWeights& w, const StreamRows& rows) const {
  const Tensor of = modes(backend, w, rows);
  backend.correct_streams({.of = {rows.streams, of},
                           .weights = numbers(w.correcting, {count, count}),
                           .before = rows.before,
                           .scale = numbers(w.scale, {rows.residual.dim(1)}),
                           .scaled = rows.low_rank});
}

void StreamsSpec::add_to_others(Backend& backend, const StreamRows& rows) const {
  for (int i = 1; i < count; ++i) backend.scaled_add(rows.x, 1, stream(rows, i), stream(rows, i));
}

void StreamsSpec::end(Backend& backend, const StreamsWeights& w, const StreamRows& rows) const {
  backend.scaled_add(rows.residual, 1, {}, rows.before);
  for (int i = 1; i < count; ++i) {
    backend.linear(stream(rows, i), w.out[i - 1], rows.x);
    backend.match_size(rows.x, rows.residual, kLeastSize);
    backend.scaled_add(rows.x, 1, rows.before, rows.before);
  }
  backend.scaled_add(rows.before, 1.0f / static_cast<float>(count), {}, rows.residual);
}

}  // namespace serval
