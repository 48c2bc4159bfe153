#include "engine/model/other_formats.h"

#include "kernels/base/shown.h"

namespace serval {

namespace fs = std::filesystem;

std::string other_format(const fs::path& file) {
  const std::string name = shown(file.filename().string());
  const std::string extension = file.extension().string();
  if (extension == ".gguf") {
    return name + " is a GGUF file: serve it by its own path";
  }
  if (extension == ".bin" || extension == ".pt" || extension == ".pth") {
    return name +
           " is a PyTorch file, which is not supported: convert it, in Python with transformers' "
           "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER, safe_serialization=True)";
  }
  return "";
}

std::string other_format_in(const fs::path& folder) {
  fs::path first;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored)) {
    const fs::path& file = entry.path();
    if (!other_format(file).empty() && (first.empty() || file < first)) first = file;
  }
  return first.empty() ? "" : other_format(first);
}

}  // namespace serval
