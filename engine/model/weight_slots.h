// Slots: where a model's weights go, and the checkpoint's tensors that they are made of. Parts list their own
// in a SlotList; the loader, the memory plan and the search for tensors without a place all read the lists.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/model/norm.h"
#include "engine/model/tensor_names.h"
#include "kernels/backend.h"

namespace serval {

// A tensor the checkpoint must have.
struct SourceTensor {
  std::string name;
  std::vector<int64_t> shape;  // [out, in] of a matrix, [n] of a norm or bias
  // The file has the matrix as [in, out].
  bool is_transposed = false;
  // Of a matrix the rows that are wanted; -1: all.
  int64_t first_row = 0, some_rows = -1;

  std::vector<int64_t> stored_shape() const {
    return is_transposed ? std::vector<int64_t>{shape[1], shape[0]} : shape;
  }
  int64_t num_rows() const { return some_rows < 0 ? shape[0] : some_rows; }
  int64_t num_elements() const {
    int64_t n = 1;
    for (const int64_t dim : shape) n *= dim;
    return n;
  }
};

// A matrix made of one or more tensors with the same number of columns, rows in the given order; biases:
// none, or one per part.
struct LinearSlot {
  LinearWeight* target = nullptr;
  WeightFormat format = WeightFormat::kF32;  // what it is to be held as
  std::vector<SourceTensor> parts;
  std::vector<SourceTensor> biases;
};

// What becomes of a tensor's numbers, which stay as many.
using Prepare = void (*)(std::vector<float>& values, const std::vector<int64_t>& shape);

// Numbers in f32: a norm's. `offset` is added to every element; then `prepare` has them, if there is one.
struct VectorSlot {
  Buffer* target = nullptr;
  SourceTensor source;
  float offset = 0;
  Prepare prepare = nullptr;
};

using WeightSlot = std::variant<LinearSlot, VectorSlot>;

// Collects the slots of one layer, or of the frame around the layers.
class SlotList {
 public:
  // `prefix` stands before every name; format, is_transposed: of every matrix. slots and names outlive the
  // list.
  SlotList(std::vector<WeightSlot>& slots, const TensorNames& names, std::string prefix, WeightFormat format,
           bool is_transposed = false)
      : slots_(slots),
        names_(names),
        prefix_(std::move(prefix)),
        format_(format),
        is_transposed_(is_transposed) {}

  // Some of a matrix's rows, and the module they are asked for by.
  struct Rows {
    std::string_view module;
    int64_t count;
  };
  void linear(LinearWeight& target, const std::vector<Rows>& rows, int64_t columns, bool bias) {
    add(target, rows, columns, bias, format_);
  }
  // A matrix that is small and decides much: it stays plain numbers where others are rounded.
  void unrounded_linear(LinearWeight& target, const std::vector<Rows>& rows, int64_t columns, bool bias) {
    add(target, rows, columns, bias, format_of(format_row(format_).number));
  }
  struct Range {
    int64_t first, count;
  };
  // Some rows of a matrix [rows_in_all, columns] of the checkpoint.
  void some_rows(LinearWeight& target, std::string_view module, const Range& rows, int64_t rows_in_all,
                 int64_t columns);
  // A tensor that is no matrix to multiply with, by its whole name.
  void vector(Buffer& target, std::string_view tensor, std::vector<int64_t> shape, Prepare prepare = nullptr);
  // Nothing where the spec says that there is no norm.
  void norm(NormWeights& target, std::string_view module, int64_t size, const NormSpec& spec);

 private:
  void add(LinearWeight& target, const std::vector<Rows>& rows, int64_t columns, bool bias,
           WeightFormat format);
  std::string stored(std::string_view module) const { return prefix_ + std::string(names_.stored(module)); }

  std::vector<WeightSlot>& slots_;
  const TensorNames& names_;
  std::string prefix_;
  WeightFormat format_;
  bool is_transposed_;
};

}  // namespace serval
