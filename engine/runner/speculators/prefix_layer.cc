#include "engine/runner/speculators/prefix_layer.h"

#include <utility>

#include "kernels/base/check.h"

namespace serval {

PrefixLayer::PrefixLayer(const DraftPlan& plan, ModelSpec spec, ModelWeights weights)
    : plan_(plan), loaded_(std::make_unique<Loaded>(Loaded{std::move(spec), std::move(weights)})) {}

StepLimits PrefixLayer::limits_of(const ModelSpec& spec, const StepLimits& steps) {
  return Transformer::step_limits(spec, {.max_rows = steps.max_rows,
                                         .max_logit_rows = 1,
                                         .max_seqs = steps.max_seqs,
                                         .max_model_len = steps.max_model_len,
                                         .table_stride = steps.table_stride});
}

StepLimits PrefixLayer::context_limits(const StepLimits& limits) {
  StepLimits with_list = limits;
  with_list.max_rows *= 2;
  return with_list;
}

size_t PrefixLayer::planned_bytes(const ModelSpec& spec, const StepLimits& limits, const StepLimits& steps,
                                  const BlockGeometry& geometry, const Backend& backend) {
  const DType type = backend.activation_dtype(spec.weight_dtype);
  return Transformer::planned_bytes(spec, limits.max_model_len) +
         Workspace::planned_bytes(spec, limits.max_rows, limits.max_logit_rows, type) +
         FollowedSteps::planned_bytes(0, spec, steps, backend) + DraftKv::planned_table_bytes(limits.max_seqs) +
         ModelInput::planned_bytes(limits.max_rows, limits.max_seqs, 0, limits.table_stride, geometry, {});
}

void PrefixLayer::start(const DraftHost& host) {
  backend_ = &host.backend;
  slots_ = &host.slots;
  const StepLimits& limits = plan_.steps;
  const ModelSpec& spec = loaded_->spec;
  kv_.emplace(spec, plan_, host.backend, host.steps.max_seqs);
  steps_.start(host, {});
  context_ = host.backend.make_step_context(context_limits(limits));
  SERVAL_CHECK(context_->bytes() == plan_.scratch_bytes, context_->bytes(), plan_.scratch_bytes);
  input_.emplace(limits.max_rows, limits.max_seqs, 0, limits.table_stride, host.geometry, host.transformer.spec().long_attention);
  ws_.emplace(spec, limits.max_rows, limits.max_logit_rows, host.backend);
  layer_.emplace(std::move(loaded_->spec), std::move(loaded_->weights), limits.max_model_len, host.backend);
  loaded_.reset();
}

Tensor PrefixLayer::run() {
  if (steps_.batch().seqs.empty()) return {};
  step_ = kv_->input_of(input_->build(steps_.batch(), *slots_, [](int rows) { return rows; }));
  context_->begin_step(step_);
  ws_->start(step_.num_rows());
  backend_->gather_rows(steps_.kept(), steps_.rows(), ws_->residual);
  layer_->run_layers(step_, kv_->layers(), *ws_, 1);
  return ws_->h;
}

}  // namespace serval
