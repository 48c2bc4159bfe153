// What a model's matrices are multiplied with on a text: what `serval quantize --text` weighs errors by.
#pragma once

#include <string>

#include "engine/model/quantise_folder.h"

namespace serval {

// Runs the model on the CPU over the first 32768 tokens of the file, 512 at a time. A matrix that no token came to (of an
// expert that was not chosen) is not among them. Throws std::runtime_error with a sentence: what loading the model throws, or
// that the file cannot be read, or is of no token.
InputPowers observe_inputs(const std::string& model, const std::string& text_file);

}  // namespace serval
