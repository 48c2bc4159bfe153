// A model folder made smaller: the layers' matrices rounded, stored as compressed-tensors has them, so that Serval and
// transformers load it; everything else as it was.
#pragma once

#include <filesystem>
#include <string>

#include "engine/model/weight_loader.h"

namespace serval {

// `format`: int8 or fp8 (a scale for each output), int4 or int8_g32 (for each 32 inputs), int4_g128 or int8_g128 (for each
// 128). `out` must not exist yet, or be empty.
// Throws std::runtime_error with one sentence. progress: bytes of the checkpoint read, and in all.
void quantise_folder(const std::filesystem::path& model, const std::filesystem::path& out, const std::string& format,
                     const Progress& progress = {});

}  // namespace serval
