#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "engine/model/model_config.h"
#include "tests/model/test_files.h"

namespace serval::testing {
namespace {

using ::testing::HasSubstr;

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
