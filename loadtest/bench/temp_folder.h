// A folder under the system's temporary directory that is gone when its owner is.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <string>

#include "kernels/base/check.h"

namespace serval {

class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "serval-XXXXXX").string();
    SERVAL_CHECK(mkdtemp(name.data()) != nullptr, name);
    path_ = name;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace serval
