// A model folder made smaller: the layers' matrices rounded, stored as compressed-tensors has them, so that Serval and
// transformers load it; everything else as it was.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/model/weight_loader.h"

namespace serval {

// By the name of a matrix's tensor: of each of its inputs the sum of the squares that it had on some text.
using InputPowers = std::map<std::string, std::vector<double>>;

// `format`: int8 or fp8 (a scale for each output), int4 or int8_g32 (for each 32 inputs), int4_g128 or int8_g128 (for each
// 128). `out` must not exist yet, or be empty.
// `observe`, asked when all else is known to be right: scales are then those under which a matrix's answers on that text
// differ least, as if its inputs had nothing to do with each other (as AWQ searches its clipping; Lin et al. 2023): they may
// be less than the largest weight asks for.
// Throws std::runtime_error with one sentence. progress: bytes of the checkpoint read, and in all.
void quantise_folder(const std::filesystem::path& model, const std::filesystem::path& out, const std::string& format,
                     const Progress& progress = {}, const std::function<InputPowers()>& observe = {});

}  // namespace serval
