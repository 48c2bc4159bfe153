#include "engine/model/transformer.h"

#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

#include "engine/model/rope_table.h"
#include "kernels/base/check.h"

namespace serval {

Transformer::Transformer(ModelSpec spec, ModelWeights weights, int max_positions, Backend& backend)
    : spec_(std::move(spec)), weights_(std::move(weights)), backend_(backend) {
  SERVAL_CHECK(max_positions > 0 && max_positions <= spec_.max_positions, max_positions, spec_.max_positions);
  SERVAL_CHECK(weights_.layers.size() == spec_.layers.size(), weights_.layers.size(), spec_.layers.size());
  rope_memory_ = backend.allocate(planned_bytes(spec_, max_positions));
  std::vector<float> tables(rope_memory_.bytes / sizeof(float));
  size_t used = 0;
  const LengthClasses classes = spec_.length_classes();
  const int num_rows = classes.num_rows(max_positions);
  SERVAL_CHECK(classes.num_bounds == 0 || spec_.positions == PositionTable::kNone, classes.num_bounds);
  for (const RopeSpec& rope : spec_.ropes) {
    cos_sin_.emplace_back(rope_memory_.as<float>() + used, DType::kF32,
                          std::initializer_list<int64_t>{num_rows, rope.rotary_dim});
    for (int32_t i = 0; i <= classes.class_of(max_positions); ++i) {
      const int longest = i < classes.num_bounds ? std::min(classes.bounds[i], max_positions) : max_positions;
      fill_rope_table(rope.for_length(longest), longest, tables.data() + used);
      used += size_t(longest) * rope.rotary_dim;
    }
  }
  output_scales_.assign(spec_.layers.size(), 1);
  for (size_t l = 0; l < spec_.layers.size(); ++l)
    if (const Buffer& scale = weights_.layers[l].output_scale; spec_.layers[l].has_output_scale)
      backend.download(&output_scales_[l], scale.data(), sizeof(float));
  if (!tables.empty()) backend.upload(rope_memory_.data(), tables.data(), rope_memory_.bytes);
}

StepLimits Transformer::step_limits(const ModelSpec& spec, StepLimits sizes) {
  StepLimits most = sizes;
  most.max_k = spec.hidden_size;
  most.vocab = spec.vocab_size;
  most.num_kv_groups = static_cast<int>(spec.kv_groups.size());
  for (int g = 0; g < most.num_kv_groups; ++g) most.windows[g] = spec.kv_groups[g].attended_window();
  if (spec.streams.is_there()) most.need(RareOp::kStreams);
  spec.mixed.raise_limits(spec.hidden_size, most);
  for (const LayerSpec& layer : spec.layers) {
    const auto raise = [&](const auto& part) { part.raise_limits(most); };
    std::visit(raise, layer.mixer);
    std::visit(raise, layer.ffn);
  }
  return most;
}

size_t Transformer::planned_bytes(const ModelSpec& spec, int max_positions) {
  const size_t rows = spec.length_classes().num_rows(max_positions);
  size_t floats = 0;
  for (const RopeSpec& rope : spec.ropes) floats += rows * rope.rotary_dim;
  return floats * sizeof(float);
}

void Transformer::forward(const ForwardInput& in, std::span<const KvLayer> kv, Workspace& ws, int num_layers) {
  SERVAL_CHECK(kv.size() == spec_.layers.size(), kv.size(), spec_.layers.size());
  SERVAL_CHECK(in.positions.size() == in.token_ids.size(), in.positions.size(), in.token_ids.size());
  SERVAL_CHECK(spec_.num_token_types == 0 || in.token_types.size() == in.token_ids.size(), in.token_types.size(), in.token_ids.size());
  ws.start(in.num_rows());
  embed(in.token_ids, ws);
  run_layers(in, kv, ws, num_layers);
}

void Transformer::run_layers(const ForwardInput& in, std::span<const KvLayer> kv, Workspace& ws, int num_layers,
                             const Tensor& read_first) {
  Tensor pending;  // what is to be added to the residual
  Tensor h;        // what the mixer read
  if (spec_.num_token_types > 0) {
    backend_.embed(weights_.token_types, in.token_types, 1, ws.x);
    backend_.scaled_add(ws.x, 1, ws.residual, ws.residual);
  }
  if (spec_.positions != PositionTable::kNone) {
    backend_.embed(weights_.positions, in.positions, 1, ws.x);
    pending = ws.x;
  }
  if (spec_.embedding_norm.is_there()) {
    if (pending.data != nullptr) backend_.scaled_add(std::exchange(pending, {}), 1, ws.residual, ws.residual);
    add_norm(backend_, spec_.embedding_norm, weights_.embedding_norm, ws.residual, {}, ws.residual);
  }
  const LayerInputsSpec& inputs = spec_.layer_inputs;
  if (inputs.is_there()) {
    const Tensor scratch(ws.scratch.data, ws.scratch.dtype, {in.num_rows(), inputs.row_width()});
    inputs.compute(backend_, weights_.layer_inputs, in.token_ids, ws.residual, scratch, ws.layer_inputs);
  }
  const StreamsSpec& streams = spec_.streams;
  const StreamRows rows{ws.streams, ws.before, ws.low_rank, ws.residual, ws.x, ws.scratch};
  if (streams.is_there()) streams.begin(backend_, weights_.streams, rows);
  const MixedResidualsSpec& mixed = spec_.mixed;
  const MixedRows mixed_rows{ws.residuals, ws.mixes, ws.residual, ws.scratch};
  if (mixed.is_there()) mixed.begin(backend_, mixed_rows);
  if (spec_.keeps_embedding) backend_.scaled_add(ws.residual, 1, {}, ws.embedded);
  bool reads_aside = false;
  for (int l = 0; l < num_layers; ++l) {
    const LayerSpec& layer = spec_.layers[l];
    const LayerWeights& w = weights_.layers[l];
    if (const auto tapped = std::ranges::find(tapped_, l); tapped != tapped_.end()) {
      const int64_t first_row = (tapped - tapped_.begin()) * (taps_.dim(0) / std::ssize(tapped_));
      const Tensor rows(taps_.at(first_row * taps_.dim(1)), taps_.dtype, {in.num_rows(), taps_.dim(1)});
      if (pending.data != nullptr) {
        backend_.scaled_add(pending, 1, ws.residual, rows);
      } else {
        backend_.scaled_add(ws.residual, 1, {}, rows);
      }
    }
    if (streams.is_there()) streams.begin_layer(backend_, w.stream, rows);
    if (std::visit([](const auto& part) { return has_mixer(part); }, layer.mixer)) {
      if (mixed.is_there()) mixed.collapse(backend_, w.mixer_mix, mixed_rows);
      if (layer.is_beside) {
        backend_.scaled_add(pending, 1, ws.residual, ws.residual);
      } else if (std::exchange(reads_aside, false)) {
        h = add_norm(backend_, layer.mixer_norm, w.mixer_norm, ws.aside, {}, ws.h);
      } else {
        h = l == 0 && read_first.data != nullptr ? read_first : norm_before(layer, layer.mixer_norm, w.mixer_norm, pending, ws);
      }
      if (streams.is_there()) streams.read(backend_, w.stream, h, rows);
      run_mixer(l, h, ws.x, in, kv, ws);
      if (layer.is_aside) {
        backend_.scaled_add(ws.x, 1, ws.residual, ws.aside);
        reads_aside = true;
        pending = {};
        continue;
      }
      pending = finish_part(layer, layer.mixer_post_norm, w.mixer_post_norm, layer.mixer_scale, ws);
      if (streams.is_there()) {
        backend_.scaled_add(pending, 1, ws.residual, ws.residual);
        streams.add_low_rank(backend_, rows);
        pending = {};
      }
      if (mixed.is_there()) mixed.expand(backend_, mixed_rows, std::exchange(pending, {}));
    }
    if (!std::visit([](const auto& part) { return is_there(part); }, layer.ffn)) continue;
    if (mixed.is_there()) mixed.collapse(backend_, w.ffn_mix, mixed_rows);
    if (layer.is_parallel) {
      if (layer.ffn_norm.is_there()) h = add_norm(backend_, layer.ffn_norm, w.ffn_norm, ws.residual, {}, ws.h);
      backend_.scaled_add(pending, 1, ws.residual, ws.residual);
    } else {
      h = norm_before(layer, layer.ffn_norm, w.ffn_norm, pending, ws);
    }
    const FfnInput ffn_input{.h = h, .residual = ws.residual, .out = ws.x, .scratch = ws.scratch, .token_ids = in.token_ids};
    std::visit([&](const auto& part) { part.run(backend_, weights_of(part, w.ffn), ffn_input); }, layer.ffn);
    pending = finish_part(layer, layer.ffn_post_norm, w.ffn_post_norm, layer.ffn_scale, ws);
    if (mixed.is_there()) mixed.expand(backend_, mixed_rows, std::exchange(pending, {}));
    if (inputs.is_there()) {
      backend_.scaled_add(pending, 1, ws.residual, ws.residual);
      if (streams.is_there()) streams.end_layer(backend_, w.stream, rows);
      const Tensor& read = streams.is_there() ? ws.low_rank : ws.residual;
      inputs.run(backend_, w.layer_input, layer.stored_index.value_or(l), ws.layer_inputs, read, ws.scratch, ws.x);
      if (streams.is_there()) {
        streams.add_to_others(backend_, rows);
        pending = {};
      }
    }
    if (layer.has_output_scale) {
      backend_.scaled_add(pending, 1, ws.residual, ws.residual);
      backend_.scaled_add(ws.residual, output_scales_[l], {}, ws.residual);
      pending = {};
    }
  }
  if (streams.is_there()) streams.end(backend_, weights_.streams, rows);
  if (mixed.is_there()) mixed.end(backend_, weights_.head_mix, mixed_rows);
  const Tensor last = add_norm(backend_, spec_.final_norm, weights_.final_norm, ws.residual, pending, ws.h);
  if (last.data != ws.h.data) backend_.scaled_add(last, 1, {}, ws.h);
}

void Transformer::run_mixer(int l, const Tensor& h, const Tensor& out, const ForwardInput& in, std::span<const KvLayer> kv,
                            Workspace& ws) {
  const LayerSpec& layer = spec_.layers[l];
  MixerInput mixer_input{.h = h,
                         .embedded = ws.embedded,
                         .first_values = ws.first_values,
                         .out = out,
                         .scratch = ws.scratch,
                         .positions = in.positions,
                         .group = in.groups[layer.kv_group],
                         .far_queries = in.far_queries,
                         .far_keys = in.far_keys,
                         .kv = kv[layer.kv_source.value_or(l)],
                         .window = spec_.kv_groups[layer.kv_group].attended_window(),
                         .cos_sin = rotation(layer.rope),
                         .query_cos_sin = rotation(layer.query_rope.value_or(kNoRope)),
                         .query_growth = rotation(layer.query_growth.value_or(kNoRope))};
  if (layer.far_layer) {
    mixer_input.far_kv = kv[*layer.far_layer];
    mixer_input.far_group = &in.groups[spec_.layers[*layer.far_layer].kv_group];
  }
  const auto& mixer = weights_.layers[layer.weights_of.value_or(l)].mixer;
  std::visit([&](const auto& part) { part.run(backend_, weights_of(part, mixer), mixer_input); },
             layer.mixer);
}

void Transformer::write_keys(const Tensor& rows, const ForwardInput& in, std::span<const KvLayer> kv, Workspace& ws) {
  for (int l = 0; l < spec_.num_layers(); ++l) run_mixer(l, rows, {}, in, kv, ws);
}

void Transformer::tap(std::vector<int> layers, const Tensor& rows) {
  tapped_ = std::move(layers);
  taps_ = rows;
}

void Transformer::embed(std::span<const int32_t> ids, Workspace& ws) {
  if (spec_.embedding_size == 0)
    return backend_.embed(weights_.embedding, ids, spec_.embedding_scale, ws.residual);
  const Tensor narrow(ws.x.data, ws.x.dtype, {ws.x.dim(0), spec_.embedding_size});
  backend_.embed(weights_.embedding, ids, spec_.embedding_scale, narrow);
  backend_.linear(narrow, weights_.project_in, ws.residual);
}

Tensor Transformer::logits(std::span<const int32_t> rows, Workspace& ws) {
  ws.start_logits(static_cast<int>(rows.size()));
  backend_.gather_rows(ws.h, rows, ws.last);
  return run_head(ws.last, ws);
}

Tensor Transformer::all_logits(Workspace& ws) {
  ws.start_logits(static_cast<int>(ws.h.dim(0)));
  return run_head(ws.h, ws);
}

Tensor Transformer::run_head(const Tensor& h, Workspace& ws) {
  Tensor last = h;
  if (spec_.embedding_size > 0) {
    SERVAL_CHECK(h.dim(0) <= ws.max_rows(), h.dim(0), ws.max_rows());
    last = Tensor(ws.x.data, h.dtype, {h.dim(0), spec_.embedding_size});
    backend_.linear(h, weights_.project_out, last);
  }
  backend_.linear(last, weights_.head(), ws.logits);
  if (spec_.logit_scale != 1) backend_.scaled_add(ws.logits, spec_.logit_scale, {}, ws.logits);
  if (spec_.final_logit_cap > 0) backend_.soft_cap(ws.logits, spec_.final_logit_cap);
  return ws.logits;
}

Tensor Transformer::finish_part(const LayerSpec& layer, const NormSpec& post_norm, const NormWeights& weights,
                                float scale, Workspace& ws) {
  if (layer.norms_residual) {
    backend_.scaled_add(ws.x, 1, ws.residual, ws.residual);
    add_norm(backend_, post_norm, weights, ws.residual, {}, ws.residual);
    return {};
  }
  if (post_norm.is_there()) add_norm(backend_, post_norm, weights, ws.x, {}, ws.x);
  scale *= spec_.residual_scale;
  if (scale != 1) backend_.scaled_add(ws.x, scale, {}, ws.x);
  return ws.x;
}

Tensor Transformer::norm_before(const LayerSpec& layer, const NormSpec& norm, const NormWeights& weights,
                                const Tensor& pending, Workspace& ws) {
  if (!layer.keeps_normed) return add_norm(backend_, norm, weights, ws.residual, pending, ws.h);
  if (pending.data != nullptr) backend_.scaled_add(pending, 1, ws.residual, ws.residual);
  return add_norm(backend_, norm, weights, ws.residual, {}, ws.residual);
}

Tensor Transformer::rotation(int rope) const {
  return rope == kNoRope || cos_sin_.empty() ? Tensor() : cos_sin_[rope];
}

}  // namespace serval
