// What a feed-forward part is: the part of a layer that works on each row alone (a gated unit, experts). Each
// alternative owns a pair of files in this folder with all that is said about it, as mixers do
// (mixers/mixer.h); everybody else visits FfnSpec (model_spec.h).
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <variant>

#include "engine/model/weight_slots.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace serval {

// What it computes from and to in one layer of one step.
struct FfnInput {
  Tensor h;        // [num_rows, hidden], normalised
  Tensor residual; // the same before it was normalised
  Tensor out;      // [num_rows, hidden], of the same type
  Tensor scratch;  // scratch_width() elements a row, of the same type
  std::span<const int32_t> token_ids = {};  // [num_rows], as ForwardInput has them
};

template <class Part>
concept Ffn = requires(const Part& spec, typename Part::Weights& weights,
                       const typename Part::Weights& loaded, SlotList& slots, StepLimits& limits,
                       Backend& backend, const FfnInput& input) {
  // Lists the slots of `weights`, in the order they are to be loaded.
  spec.list_slots(int64_t{1} /* hidden */, weights, slots);
  // Elements of scratch that a row takes.
  { spec.scratch_width() } -> std::same_as<int64_t>;
  // Raises the limits to the largest calls that run() makes.
  spec.raise_limits(limits);
  // input.h -> input.out. Allocates nothing.
  spec.run(backend, loaded, input);
};

template <class Part>
struct CheckedFfn {
  static_assert(Ffn<Part>, "every answer of the concept");
  using Type = Part;
};

// A variant of feed-forward parts, each of which answers everything.
template <class... Parts>
using OneFfnOf = std::variant<typename CheckedFfn<Parts>::Type...>;

}  // namespace serval
