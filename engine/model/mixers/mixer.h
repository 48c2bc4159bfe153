// What a mixer is: the part of a layer that lets rows see each other (attention, a recurrence). Each
// alternative owns a pair of files in this folder with all that is said about it: its spec, its weights,
// which tensors they are made of, its scratch, what it keeps of a sequence, and its block function. Everybody
// else visits MixerSpec (model_spec.h), so that a mixer without an answer does not compile.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <variant>

#include "engine/model/weight_slots.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace serval {

// What a mixer computes from and to in one layer of one step.
struct MixerInput {
  Tensor h;                            // [num_rows, hidden], normalised
  Tensor embedded;                     // [num_rows, hidden]: what the layers began with (ModelSpec::keeps_embedding)
  Tensor first_values;                 // the same, left by the first layer for those behind (ModelSpec::keeps_first_values)
  Tensor out;                          // [num_rows, hidden], of the same type; data null: keys and values alone are to be written (GqaSpec)
  Tensor scratch;                      // scratch_width() elements a row, of the same type
  std::span<const int32_t> positions;  // [num_rows], into cos_sin
  const KvGroupInput& group;           // the layer's
  // Rows of cos_sin of each row as a query of far keys, and as such a key (AttentionArgs::far_q); empty: there are none.
  std::span<const int32_t> far_queries, far_keys;
  KvLayer kv;
  // Of the layer that keeps what the mixer has compressed (LayerSpec::far_layer); null: there is none.
  KvLayer far_kv = {};
  const KvGroupInput* far_group = nullptr;
  int window = 0;  // of the layer's group (AttentionArgs)
  Tensor cos_sin;        // the layer's rotation [rows, rotary_dim] f32 by position: cosines, then sines
  Tensor query_cos_sin;  // that of queries, where it is another one
  Tensor query_growth;   // [max_positions, 2] f32: what queries are multiplied by, then 0; data null: nothing
};

// Multiplies queries, [rows, heads, dim] with row_stride elements between rows, by what grows with their positions.
inline void grow_queries(Backend& backend, const MixerInput& in, const Tensor& q, int64_t row_stride) {
  if (in.query_growth.data == nullptr) return;
  backend.rope({.x = Tensor(q.data, q.dtype, {q.dim(0), q.dim(1) * q.dim(2) / 2, 2}),
                .row_stride = row_stride,
                .positions = in.positions.data(),
                .cos_sin = in.query_growth,
                .rotary_dim = 2});
}

template <class Part>
concept Mixer = requires(const Part& spec, typename Part::Weights& weights,
                         const typename Part::Weights& loaded, SlotList& slots, KvLayer& kv,
                         StepLimits& limits, Backend& backend, const MixerInput& input) {
  // Lists the slots of `weights`, in the order they are to be loaded.
  spec.list_slots(int64_t{1} /* hidden */, weights, slots);
  // Elements of scratch that a row takes.
  { spec.scratch_width() } -> std::same_as<int64_t>;
  // Sets what the layer keeps of a position: the heads and their size.
  spec.shape_kv(kv);
  // Raises the limits to the largest calls that run() makes.
  spec.raise_limits(limits);
  // input.h -> input.out. Allocates nothing.
  spec.run(backend, loaded, input);
};

template <class Part>
struct CheckedMixer {
  static_assert(Mixer<Part>, "every answer of the concept");
  using Type = Part;
};

// A variant of mixers, each of which answers everything.
template <class... Parts>
using OneMixerOf = std::variant<typename CheckedMixer<Parts>::Type...>;

}  // namespace serval
