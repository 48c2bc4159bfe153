// A matrix, or a vector, that a checkpoint has in another shape than plain numbers: codes, scales, zero points under names of
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

using CodeTable = std::array<float, kTableSize>;

struct StoredFormat : MatrixFormat {
  using MatrixFormat::MatrixFormat;
  StoredFormat(const MatrixFormat& format, const CodeTable* numbers = nullptr) : MatrixFormat(format), levels(numbers) {}
  bool operator==(const StoredFormat&) const = default;

  // What the codes of a kTable4 stand for, where the method says so: whole numbers of magnitudes below 128. Null: what a
  // table of the checkpoint says, which is the same in all of it.
  const CodeTable* levels = nullptr;
};

// A matrix [n, k] as LinearSource has one; or its numbers, where the format is of plain ones.
struct MatrixParts {
  std::vector<uint8_t> codes;          // [n, k]
  std::vector<float> scales, offsets;  // [n, groups]
  CodeTable table{};
  std::vector<float> numbers;  // [n, k]
};

struct StoredMatrix {
  std::string name;            // by which models ask for it
  std::string_view how;        // "GPTQ", "Q4_K": for messages
  std::vector<int64_t> shape;  // [n, k], or [stack, n, k]; of a vector, which has plain numbers, [n]
  StoredFormat format = WeightFormat::kBF16;
  std::vector<std::string> tensors;  // of the checkpoint, that it is made of
  // The matrix of that number in the stack. Throws std::runtime_error with a sentence.
  std::function<void(const Checkpoint&, int64_t index, MatrixParts&)> read;
};

}  // namespace serval
