// A folder that looks like the /proc and /sys of some machine.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace serval {

class FakeMachine : public testing::Test {
 protected:
  FakeMachine()
      : root_(std::filesystem::temp_directory_path() /
              ("serval_machine_" + std::to_string(getpid()) + "_" +
               testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::create_directories(root_);
  }
  ~FakeMachine() override { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text << "\n";
  }

  const std::filesystem::path root_;
};

}  // namespace serval
