// A matrix that a checkpoint has in another shape than plain numbers: codes, scales, zero points under names of
// their own. What reads one puts it together as the loader wants it. Who finds them is quantised_checkpoint.cc.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/quant.h"

namespace serval {

class Checkpoint;

// A matrix [n, k] as LinearSource has one; or its numbers, where the format is of plain ones.
struct MatrixParts {
  std::vector<uint8_t> codes;          // [n, k]
  std::vector<float> scales, offsets;  // [n, groups]
  std::array<float, kTableSize> table{};
  std::vector<float> numbers;  // [n, k]
};

struct StoredMatrix {
  std::string name;            // by which models ask for it
  std::string_view how;        // "GPTQ", "Q4_K": for messages
  std::vector<int64_t> shape;  // [n, k], or [stack, n, k]
  MatrixFormat format = WeightFormat::kBF16;
  std::vector<std::string> tensors;  // of the checkpoint, that it is made of
  // The matrix of that number in the stack. Throws std::runtime_error with a sentence.
  std::function<void(const Checkpoint&, int64_t index, MatrixParts&)> read;
};

}  // namespace serval
