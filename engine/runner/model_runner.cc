#include "engine/runner/model_runner.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "engine/model/transformer.h"
#include "engine/runner/kv_cache.h"
#include "engine/runner/model_input.h"
#include "engine/runner/pooler.h"
#include "engine/runner/sampler.h"
#include "engine/runner/slot_table.h"
#include "engine/runner/speculators/draft_host.h"
#include "kernels/base/check.h"

namespace serval {
namespace {

// Nobody's prompt is computed beside.
bool decodes_alone(const Batch& batch) {
  return std::ranges::all_of(batch.seqs,
                             [](const SeqStep& step) { return step.sample && step.num_tokens == 1 + step.num_drafts; });
}

}  // namespace

struct ModelRunner::Impl {
  Impl(ModelSpec spec, ModelWeights weights, const MemoryPlan& memory_plan, Backend& device, Drafters drafters)
      : backend(device),
        plan(memory_plan),
        kv(spec, plan.kv_geometry, plan.kv_dtype, backend, plan.steps.max_seqs),
        workspace(spec, plan.steps.max_rows, plan.steps.max_logit_rows, backend),
        slots(plan.steps.max_seqs, plan.steps.max_model_len, plan.geometry),
        input(plan.steps.max_rows, plan.steps.max_seqs, plan.steps.max_branches, slots.table_stride(), plan.geometry,
              spec.long_attention),
        guessed_by(plan.steps.max_seqs, plan.kept_guesses, spec.vocab_size),
        sampler(plan.steps.max_rows, plan.steps.max_seqs, plan.steps.max_branches, guessed_by),
        pooler(plan.steps.max_seqs, spec.hidden_size),
        transformer(std::move(spec), std::move(weights), plan.steps.max_model_len, backend),
        context(backend.make_step_context(plan.steps)),
        drafting(std::move(drafters), plan.steps.max_seqs, plan.steps.max_model_len) {
    SERVAL_CHECK(kv.bytes() == plan.kv_cache_bytes && context->bytes() == plan.scratch_bytes, kv.bytes(),
                 plan.kv_cache_bytes, context->bytes(), plan.scratch_bytes);
    drafting.start({plan.steps, plan.geometry, plan.kv_dtype, backend, transformer, kv.layers(), slots, guessed_by});
  }

  void forward_and_head(const ForwardInput& step) {
    transformer.forward(step, kv.layers(), workspace);
    transformer.all_logits(workspace);
  }

  // Lets the backend see, before it serves, the steps that it wants to repeat: rows of no sequence. Each runs
  // plainly first, so that whatever is loaded or chosen at a first use is there when it is captured.
  void capture_steps() {
    for (const int rows : context->captured_rows()) {
      const ForwardInput& step = input.build({}, slots, [&](int) { return rows; });
      context->begin_step(step);
      forward_and_head(step);
      context->begin_step(step);
      context->capture(rows, [&] { forward_and_head(step); });
    }
  }

  // A sequence that is a prompt of a few tokens and leaves again. Its blocks are anybody's afterwards.
  Batch warming_prompt() const {
    constexpr int kTokens = 40;  // more rows than attention by split contexts takes
    int tokens = std::min({kTokens, plan.steps.max_rows, plan.steps.max_model_len - 1});
    for (int g = 0; g < plan.geometry.num_groups; ++g)
      tokens = std::min(tokens, plan.geometry.groups[g].num_blocks * plan.geometry.rule(g).span());
    Batch batch;
    batch.tokens.assign(tokens, 0);
    SeqStep& step = batch.seqs.emplace_back();
    step.num_tokens = tokens;
    step.sample = true;
    for (int g = 0; g < plan.geometry.num_groups; ++g) {
      step.blocks_begin[g] = static_cast<int32_t>(batch.blocks.size());
      step.num_blocks[g] = plan.geometry.rule(g).blocks_for(tokens);
      for (int b = 0; b < step.num_blocks[g]; ++b) batch.blocks.push_back(b);
    }
    Admission& newcomer = batch.admitted.emplace_back();
    newcomer.tokens = batch.tokens;
    newcomer.num_prompt = tokens;
    batch.num_admitted = 1;
    return batch;
  }

  // The KV of drafts that came true goes where their tokens stand in the text. Nobody else's step reads or writes
  // there: a sequence with drafts waits for its step, and what stands behind its tokens is its own.
  void bring_together(std::span<const Sampler::Drawn> drawn, const ModelOutput& output) {
    for (size_t i = 0; i < drawn.size(); ++i) {
      const std::span<const int32_t> accepted = sampler.accepted(drawn[i]);
      const Slot* const slot = slots.find(output.seqs[i].seq, drawn[i].slot);
      if (accepted.empty() || accepted.back() + 1 == std::ssize(accepted) || slot == nullptr) continue;
      for (int g = 0; g < plan.geometry.num_groups; ++g) {
        const auto place_of = [&](int position) {
          const int size = plan.geometry.rule(g).span();
          return slot->blocks[g][position / size] * size + position % size;
        };
        KvMove moves[kMaxDrafts];
        int count = 0;
        for (int j = 0; j < std::ssize(accepted); ++j) {
          const int from = drawn[i].first_draft_pos + accepted[j], to = drawn[i].first_draft_pos + j;
          if (from != to) moves[count++] = {place_of(from), place_of(to)};
        }
        kv.move(g, {moves, static_cast<size_t>(count)});
      }
    }
  }

  // Every row is drawn from, once, and their logits fit into the workspace.
  bool samples_every_row(const Batch& batch) const {
    if (batch.seqs.empty() || static_cast<int>(batch.tokens.size()) > workspace.max_logit_rows())
      return false;
    return std::all_of(batch.seqs.begin(), batch.seqs.end(), [&](const SeqStep& step) {
      return step.sample && step.num_tokens == 1 + step.num_drafts &&
             slots.of(step).pooling == Pooling::kNone && !(step.prompt_logprobs && step.first_pos < slots.of(step).num_prompt - 1);
    });
  }

  // Of the oldest step on its way, which is over: from the end of the one before, for all that is done between two of them counts.
  void learn_step() {
    Timed& timed = this->timed[num_waited++ % kMaxStepsInFlight];
    if (backend.is_asynchronous()) timed.end = Clock::now();
    const std::chrono::duration<double, std::milli> took = timed.end - std::exchange(last_over, timed.end);
    drafting.learn_step(timed.rows, took.count());
  }

  using Clock = std::chrono::steady_clock;
  struct Timed {
    Clock::time_point end;
    int rows = 0;  // where all decode and were there in the step before, which this one followed without a pause; else 0
  };
  std::array<Timed, kMaxStepsInFlight> timed;  // steps on their way, a ring
  uint64_t num_launched = 0, num_waited = 0;
  Clock::time_point last_over;

  Backend& backend;
  const MemoryPlan plan;
  KvCache kv;
  Workspace workspace;
  SlotTable slots;
  ModelInput input;
  GuessProbabilities guessed_by;
  Sampler sampler;
  Pooler pooler;
  Transformer transformer;
  const std::unique_ptr<StepContext> context;
  Drafting drafting;
  std::span<const Sampler::Drawn> drawn;  // of the step that was waited for last
};

ModelRunner::ModelRunner(ModelSpec spec, ModelWeights weights, const MemoryPlan& plan, Backend& backend,
                         Drafters drafters)
    : impl_(std::make_unique<Impl>(std::move(spec), std::move(weights), plan, backend, std::move(drafters))) {
  if (is_asynchronous()) warm_up();
}

// Kernels of prompts and the sampler are never captured: they are loaded here and not at the first request.
void ModelRunner::warm_up() {
  ModelOutput output;
  execute(impl_->warming_prompt(), output);
  Batch leave;
  leave.freed = {0};
  impl_->slots.update(leave);
  impl_->capture_steps();
}

ModelRunner::~ModelRunner() = default;

void ModelRunner::execute(const Batch& batch, ModelOutput& output) {
  launch(batch);
  wait(output);
  guess(output);
}

void ModelRunner::launch(const Batch& batch) {
  Impl& r = *impl_;
  Impl::Timed& timed = r.timed[r.num_launched++ % kMaxStepsInFlight];
  timed.rows = decodes_alone(batch) && batch.num_admitted == 0 ? static_cast<int>(batch.tokens.size()) : 0;
  r.slots.update(batch);
  // A step that draws from every one of its rows, decoding and verification, is the same work each time.
  const bool is_sampled_whole = r.samples_every_row(batch);
  const ForwardInput& input = r.input.build(
      batch, r.slots, [&](int rows) { return is_sampled_whole ? r.context->padded_rows(rows) : rows; });
  r.context->begin_step(input);
  r.kv.copy(batch.copies);
  r.drafting.begin_step(batch);
  Tensor all_logits;
  if (is_sampled_whole) {
    r.context->run_captured(input.num_rows(), [&] { r.forward_and_head(input); });
    r.workspace.start_logits(input.num_rows());
    all_logits = r.workspace.logits;
  } else if (!batch.seqs.empty()) {
    r.transformer.forward(input, r.kv.layers(), r.workspace);
  }
  r.sampler.begin(batch, r.slots, is_sampled_whole ? &all_logits : nullptr, r.transformer, r.workspace,
                  *r.context);
  Tensor hidden = batch.seqs.empty() ? Tensor() : r.workspace.h;
  hidden.dims[0] = input.num_rows();
  r.pooler.read(batch, r.slots, hidden, r.backend);
  r.drafting.keep(hidden);
  timed.end = Impl::Clock::now();
}

void ModelRunner::wait(ModelOutput& output) {
  output.clear();
  Impl& r = *impl_;
  r.drawn = r.sampler.collect(r.slots, *r.context, output);
  r.pooler.tell(r.slots, r.drawn, output);
  r.learn_step();
  r.bring_together(r.drawn, output);
}

void ModelRunner::guess(ModelOutput& output) {
  Impl& r = *impl_;
  r.drafting.propose(r.drawn, r.sampler, r.slots, output);
}

bool ModelRunner::is_asynchronous() const {
  return impl_->backend.is_asynchronous();
}
const MemoryPlan& ModelRunner::plan() const {
  return impl_->plan;
}
int ModelRunner::vocab_size() const {
  return impl_->transformer.spec().vocab_size;
}

}  // namespace serval
