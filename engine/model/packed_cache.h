// A model's weights as a backend has packed them, in a file that the next start maps instead of packing them again. What
// the file was made of (every byte of the checkpoint, the program, the shapes) and what is in it are held against digests
// before anything is used: a file that is damaged or of something else is left alone, and written anew. Start-up only.
//
// The digests tell accidents, not attackers: who can write to the folder of the files can write weights.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/safetensors.h"
#include "engine/model/weight_slots.h"

namespace serval {

using Digest = std::array<uint64_t, 2>;

class PackedCache {
 public:
  // folder: made where there is none. model_dir: where the checkpoint is from. The backend has a packed_layout().
  PackedCache(const std::filesystem::path& folder, const std::filesystem::path& model_dir, const Checkpoint& checkpoint,
              const std::vector<WeightSlot>& slots, Backend& backend);

  // Fills the slots' targets from the file and returns what they lie in, which outlives them; null where there is no file
  // that can be used, which is said in the log unless there is none at all.
  std::shared_ptr<void> load(const std::vector<WeightSlot>& slots);
  // Writes the file of the slots' targets. That it could not be written is said in the log.
  void store(const std::vector<WeightSlot>& slots) const;

  const std::filesystem::path& file() const { return file_; }

 private:
  Backend& backend_;
  std::filesystem::path file_;
  Digest made_of_;
};

}  // namespace serval
