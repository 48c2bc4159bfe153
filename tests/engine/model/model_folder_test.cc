#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "engine/model/model_folder.h"
#include "engine/model/safetensors.h"
#include "tests/engine/model/test_files.h"

namespace serval::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// Sets one of the cache's environment variables for a test and puts the old value back.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    ::setenv(name, value.c_str(), 1);
  }
  ~ScopedVariable() { old_ ? ::setenv(name_, old_->c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> old_;
};

class ModelFolder : public ::testing::Test {
 protected:
  // hub/models--acme--tiny as the cache's tools leave it.
  void fill_cache(const std::string& revision) {
    const auto repository = folder_.path() / "hub" / "models--acme--tiny";
    std::filesystem::create_directories(repository / "refs");
    std::filesystem::create_directories(repository / "snapshots" / "0123abcd");
    std::ofstream(repository / "refs" / "main") << revision;
    std::ofstream(repository / "snapshots" / "0123abcd" / "config.json") << "{}";
  }

  TemporaryFolder folder_;
  ScopedVariable hub_{"HF_HUB_CACHE", ""};
  ScopedVariable home_{"HF_HOME", folder_.path().string()};
};

TEST_F(ModelFolder, IsAFolderThatHoldsAConfiguration) {
  EXPECT_THAT(complaint([&] { resolve_model(folder_.path().string()); }), HasSubstr("holds no config.json"));
  folder_.write("config.json", "{}");
  EXPECT_EQ(resolve_model(folder_.path().string()), folder_.path());
}

TEST_F(ModelFolder, SaysWhatIsThereInsteadAndWhatToDo) {
  const auto gguf = folder_.write("tiny.Q4_K_M.gguf", "GGUF");
  EXPECT_EQ(resolve_model(gguf.string()), gguf);
  EXPECT_EQ(resolve_model(folder_.path().string()), gguf);
  const auto second = folder_.write("tiny.Q8_0.gguf", "GGUF");
  EXPECT_THAT(complaint([&] { resolve_model(folder_.path().string()); }),
              AllOf(HasSubstr("holds no config.json"), HasSubstr("tiny.Q4_K_M.gguf is a GGUF file: serve it by its own path")));
  std::filesystem::remove(second);
  const auto text = folder_.write("notes.txt", "");
  EXPECT_THAT(complaint([&] { resolve_model(text.string()); }), HasSubstr("is not a folder"));

  std::filesystem::remove(gguf);
  folder_.write("config.json", "{}");
  EXPECT_THAT(complaint([&] { Checkpoint checkpoint(folder_.path()); }), Not(HasSubstr("not supported")));
  folder_.write("pytorch_model-00001-of-00002.bin", "");
  EXPECT_THAT(
      complaint([&] { Checkpoint checkpoint(folder_.path()); }),
      AllOf(HasSubstr("holds neither model.safetensors"),
            HasSubstr("pytorch_model-00001-of-00002.bin is a PyTorch file"), HasSubstr("convert it")));
  EXPECT_THAT(complaint([] { resolve_model("acme/tiny"); }), HasSubstr("huggingface-cli download acme/tiny"));
}

TEST_F(ModelFolder, IsFoundByNameInTheCache) {
  fill_cache("0123abcd");
  EXPECT_EQ(resolve_model("acme/tiny"), folder_.path() / "hub/models--acme--tiny/snapshots/0123abcd");
  const ScopedVariable hub("HF_HUB_CACHE", (folder_.path() / "hub").string());
  EXPECT_EQ(resolve_model("acme/tiny"), folder_.path() / "hub/models--acme--tiny/snapshots/0123abcd");
}

TEST_F(ModelFolder, IsRefusedWhenTheCacheLeadsAstray) {
  EXPECT_THAT(complaint([] { resolve_model("acme/tiny"); }),
              HasSubstr("no complete model of that name in the cache"));
  for (const char* revision : {"", "../../0123abcd", "ffff", "/etc"}) {
    fill_cache(revision);
    EXPECT_THAT(complaint([] { resolve_model("acme/tiny"); }), HasSubstr("no complete model")) << revision;
  }
  for (const char* name : {"../x", "/nowhere/at/all", "a/b/c", "acme/..", "acme/", "a b", ""}) {
    EXPECT_THAT(complaint([&] { resolve_model(name); }), HasSubstr("there is no model folder")) << name;
  }
}

}  // namespace
}  // namespace serval::testing
