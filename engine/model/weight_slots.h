// Slots: where a model's weights go, and the checkpoint's tensors that they are made of. Parts list their own
// in a SlotList; the loader, the memory plan and the search for tensors without a place all read the lists.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/model/norm.h"
#include "engine/model/tensor_names.h"
#include "kernels/backend.h"

namespace serval {

// Every step-th row from `first` on, `count` of them.
struct RowRange {
  int64_t first, count, step = 1;
};

// A tensor the checkpoint must have.
struct SourceTensor {
  std::string name;
  std::vector<int64_t> shape;  // [out, in] of a matrix, [n] of a norm or bias
  // The file has the matrix as [in, out].
  bool is_transposed = false;
  // The rows that are wanted (numbers, where it is no matrix), in this order; empty: all as they are.
  std::vector<RowRange> rows = {};
  // Those rows are the columns of what is wanted.
  bool is_turned = false;
  // The file has `stack` such tensors in one, and this is number `index`; 0: it stands alone.
  int64_t stack = 0, index = 0;
  // The file has integers (I64 or I32), from 0 on and below this; 0: it has numbers.
  int64_t integers_below = 0;

  std::vector<int64_t> stored_shape() const {
    std::vector<int64_t> dims = is_transposed ? std::vector<int64_t>{shape[1], shape[0]} : shape;
    if (stack > 0) dims.insert(dims.begin(), stack);
    return dims;
  }
  int64_t num_rows() const { return is_turned ? shape[1] : chosen_rows(); }
  int64_t num_columns() const { return is_turned ? chosen_rows() : shape[1]; }
  int64_t chosen_rows() const {
    int64_t n = rows.empty() ? shape[0] : 0;
    for (const RowRange& range : rows) n += range.count;
    return n;
  }
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
  MatrixFormat format = WeightFormat::kF32;  // what it is to be held as
  std::vector<SourceTensor> parts;
  std::vector<SourceTensor> biases;
};

// What becomes of a tensor's numbers, which stay as many.
using Prepare = std::function<void(std::vector<float>& values, const std::vector<int64_t>& shape)>;

// Numbers in f32: a norm's; of several tensors, one behind the other. `offset` is added to every element; then `prepare`
// has them, if there is one, by the shape in which the first dimensions are added.
struct VectorSlot {
  Buffer* target = nullptr;
  std::vector<SourceTensor> sources;
  float offset = 0;
  Prepare prepare = {};

  std::vector<int64_t> shape() const {
    std::vector<int64_t> all = sources.front().shape;
    for (size_t i = 1; i < sources.size(); ++i) all[0] += sources[i].shape[0];
    return all;
  }
  int64_t num_elements() const {
    int64_t n = 0;
    for (const SourceTensor& source : sources) n += source.num_elements();
    return n;
  }
};

// Numbers in f32 that no checkpoint has: they follow from the model's shape.
struct ConstantSlot {
  Buffer* target = nullptr;
  std::vector<float> values;
};

// A matrix that no checkpoint has: `fill` writes its row of that number, rows from first_row on.
struct TableSlot {
  LinearWeight* target = nullptr;
  WeightFormat format = WeightFormat::kF32;
  int64_t first_row = 0, rows = 0, columns = 0;
  void (*fill)(int64_t row, std::span<float> out) = nullptr;
};

using WeightSlot = std::variant<LinearSlot, VectorSlot, ConstantSlot, TableSlot>;

// Collects the slots of one layer, or of the frame around the layers.
class SlotList {
 public:
  // `prefix` stands before every name; format, is_transposed: of every matrix. slots and names outlive the
  // list.
  SlotList(std::vector<WeightSlot>& slots, const TensorNames& names, std::string prefix, MatrixFormat format,
           bool is_transposed = false)
      : slots_(slots),
        names_(names),
        prefix_(std::move(prefix)),
        format_(format),
        is_transposed_(is_transposed) {}

  const TensorNames& names() const { return names_; }

  // The same list for modules of another of the checkpoint's layers.
  SlotList of_layer(int stored) const {
    SlotList list = *this;
    list.prefix_ = std::string(names_.layers) + "." + std::to_string(stored) + ".";
    return list;
  }

  // Some of a matrix's rows, and the module they are asked for by. A module asked for twice gives its rows twice.
  struct Rows {
    std::string_view module;
    int64_t count;
    // Of the tensor that begins here, where its rows lie otherwise than they are asked for.
    std::vector<RowRange> stored = {};
  };
  void linear(LinearWeight& target, const std::vector<Rows>& rows, int64_t columns, bool bias) {
    add(target, rows, columns, bias, format_);
  }
  // A matrix that is small and decides much: it stays plain numbers where others are rounded.
  void unrounded_linear(LinearWeight& target, const std::vector<Rows>& rows, int64_t columns, bool bias) {
    add(target, rows, columns, bias, unrounded());
  }
  // A matrix that is held in f32, by its whole name.
  void exact_linear(LinearWeight& target, std::string_view tensor, int64_t rows, int64_t columns);
  // A matrix [rows, columns] for each of so many heads, which one tensor has by its whole name; with their biases, by theirs.
  void head_linears(std::vector<LinearWeight>& targets, std::string_view tensor, int heads, int64_t rows, int64_t columns,
                    std::string_view biases = {});
  // Expert `index` of so many: modules are asked for with a star in the number's place (TensorNames::modules).
  struct Expert {
    int index, count;
  };
  void expert_linear(LinearWeight& target, const Expert& expert, const std::vector<Rows>& rows, int64_t columns,
                     bool bias);
  // Some rows of a matrix [rows_in_all, columns] of the checkpoint.
  void some_rows(LinearWeight& target, std::string_view module, std::vector<RowRange> rows, int64_t rows_in_all,
                 int64_t columns) {
    some_rows(target, module, std::move(rows), rows_in_all, columns, format_);
  }
  void some_unrounded_rows(LinearWeight& target, std::string_view module, std::vector<RowRange> rows, int64_t rows_in_all,
                           int64_t columns) {
    some_rows(target, module, std::move(rows), rows_in_all, columns, unrounded());
  }
  // The same as the columns of a matrix [columns, rows].
  void some_turned_rows(LinearWeight& target, std::string_view module, std::vector<RowRange> rows,
                        int64_t rows_in_all, int64_t columns) {
    some_rows(target, module, std::move(rows), rows_in_all, columns);
    std::get<LinearSlot>(slots_.back()).parts[0].is_turned = true;
  }
  // Some columns of a matrix [rows, columns_in_all].
  void some_columns(LinearWeight& target, std::string_view module, std::vector<RowRange> columns, int64_t columns_in_all,
                    int64_t rows) {
    some_turned_rows(target, module, std::move(columns), columns_in_all, rows);
    std::get<LinearSlot>(slots_.back()).parts[0].is_transposed = true;
  }
  // A whole matrix, its rows in another order.
  void reordered_linear(LinearWeight& target, std::string_view module, std::vector<RowRange> rows, int64_t columns,
                        bool bias);
  struct HeadRows {
    int num_kv_heads, head_dim;
    // The first so many dimensions of a head are stored as pairs that rotate together (GPT-J), and are brought to where
    // the halves of a rotation are. Queries and keys alone.
    int interleaved_dims;
  };
  // The matrix of three modules, queries, keys and values of heads: where they are stored as one tensor, its rows
  // lie as the family's row says.
  void qkv(LinearWeight& target, const std::vector<Rows>& rows, int64_t columns, bool bias, const HeadRows& heads);
  // A tensor that is no matrix to multiply with, by its whole name.
  void vector(Buffer& target, std::string_view tensor, std::vector<int64_t> shape, Prepare prepare = nullptr);
  // Integers below `limit`, held as f32.
  void integers(Buffer& target, std::string_view tensor, std::vector<int64_t> shape, int64_t limit);
  struct NamedShape {
    std::string tensor;
    std::vector<int64_t> shape;
  };
  void vectors(Buffer& target, const std::vector<NamedShape>& tensors, Prepare prepare = {});
  void constant(Buffer& target, std::vector<float> values);
  void table(LinearWeight& target, int64_t first_row, int64_t rows, int64_t columns,
             void (*fill)(int64_t row, std::span<float> out)) {
    slots_.emplace_back(TableSlot{&target, unrounded(), first_row, rows, columns, fill});
  }
  // A weight [head_dim] for each head: a tensor [num_heads, head_dim], or one for each (TensorNames). is_interleaved: as
  // HeadRows has all of a head.
  void head_norms(Buffer& target, std::string_view module, int num_heads, int head_dim, bool is_interleaved);
  // Nothing where the spec says that there is no norm.
  void norm(NormWeights& target, std::string_view module, int64_t size, const NormSpec& spec);

 private:
  WeightFormat unrounded() const { return format_of(format_row(format_.id).number); }
  void some_rows(LinearWeight& target, std::string_view module, std::vector<RowRange> rows, int64_t rows_in_all,
                 int64_t columns, MatrixFormat format);
  void add(LinearWeight& target, const std::vector<Rows>& rows, int64_t columns, bool bias,
           MatrixFormat format);
  std::string stored(std::string_view module) const { return prefix_ + names_.stored(module); }

  std::vector<WeightSlot>& slots_;
  const TensorNames& names_;
  std::string prefix_;
  MatrixFormat format_;
  bool is_transposed_;
};

}  // namespace serval
