// A checkpoint as models ask for it: quantised matrices, which tools store in several tensors each, have one name and
// one shape (stored_matrix.h). The configuration says by which method; a method is a row of the table in the .cc.
#pragma once

#include <boost/json/value.hpp>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/model/safetensors.h"
#include "engine/model/stored_matrix.h"

namespace serval {

// Of config.json; the last three are those of mlx-lm, Any-Precision and QuIP#.
inline constexpr std::string_view kQuantisationFields[] = {"quantization_config", "compression_config", "quantization", "anyprec",
                                                           "quip_params"};

// What a model's config.json says of quantised weights. `value` null: they are plain numbers.
struct Quantisation {
  std::string_view field;
  const boost::json::value* value = nullptr;
};
Quantisation find_quantisation(const boost::json::object& config);
// Throws std::runtime_error with a sentence where no method of the table has that name.
void check_method(const std::filesystem::path& file, const Quantisation& said);
// What a method that is in the table rounds the layers' matrices to while they are loaded, whose files have plain numbers; nothing
// where they have codes. Throws std::runtime_error with a sentence, by the method's name and width.
std::optional<MatrixFormat> find_rounding(const std::filesystem::path& file, const Quantisation& said);

class QuantisedCheckpoint {
 public:
  // Of a folder, or of a GGUF file. Throws std::runtime_error with one sentence: what Checkpoint throws, or that the method is not supported, by its name
  // and width, or which tensor is not what the method says.
  explicit QuantisedCheckpoint(const std::filesystem::path& model_dir);

  const Checkpoint& tensors() const { return tensors_; }
  const std::vector<StoredMatrix>& matrices() const { return matrices_; }

 private:
  struct Opened {
    Checkpoint tensors;
    std::vector<StoredMatrix> matrices;
  };
  static Opened open_gguf(const std::filesystem::path& path);
  QuantisedCheckpoint(const std::filesystem::path& model_dir, Opened opened);

  Checkpoint tensors_;
  std::vector<StoredMatrix> matrices_;
};

}  // namespace serval
