// What stands between files and names from outside and the rest: sentences fit for a terminal, and files that
// end; and names that are nearly right.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <fstream>
#include <stdexcept>

#include "kernels/base/regular_file.h"
#include "kernels/base/shown.h"
#include "kernels/base/usage.h"

namespace serval {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

TEST(Shown, EscapesWhatATerminalWouldObey) {
  EXPECT_EQ(shown("plain, caf\u00e9, \u65e5\u672c"), "plain, caf\u00e9, \u65e5\u672c");
  EXPECT_EQ(shown("a\nb\r\t\x1b[31m\x7f"), "a\\x0ab\\x0d\\x09\\x1b[31m\\x7f");
  EXPECT_EQ(shown(std::string_view("\0", 1)), "\\x00");
  EXPECT_EQ(shown("\xc2\x9b|\u2028|\u202e|\u2066|\ufeff"), "\\x9b|\\u2028|\\u202e|\\u2066|\\ufeff");
  EXPECT_EQ(shown("\xff|\xe6\x97"), "\\xff|\\xe6\\x97");
  EXPECT_EQ(shown(shown("\x1b\u202e")), shown("\x1b\u202e"));
}

TEST(Shown, IsCutAfterAWholeCharacter) {
  EXPECT_EQ(shown("abcd", 4), "abcd");
  EXPECT_EQ(shown("abcde", 4), "abcd...");
  EXPECT_EQ(shown("abc\u65e5", 5), "abc...");
  EXPECT_EQ(shown("abc\u65e5", 6), "abc\u65e5");
  EXPECT_EQ(in_quotes(std::string(1000, 'x')).size(), kMaxShownBytes + 5);
}

class RegularFile : public testing::Test {
 protected:
  RegularFile() {
    std::string pattern = (fs::temp_directory_path() / "serval-file-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~RegularFile() override { fs::remove_all(folder_); }
  static std::string complaint(const fs::path& path, size_t max_bytes = 10) {
    try {
      read_regular_file(path, max_bytes);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "";
  }
  fs::path folder_;
};

TEST_F(RegularFile, IsReadWholeUpToItsLimit) {
  std::ofstream(folder_ / "ten") << "0123456789";
  std::ofstream(folder_ / "none");
  EXPECT_EQ(read_regular_file(folder_ / "ten", 10), "0123456789");
  EXPECT_EQ(read_regular_file(folder_ / "none", 0), "");
  EXPECT_THAT(complaint(folder_ / "ten", 9), HasSubstr("ten has 10 bytes; at most 9 are supported"));
  fs::create_symlink(folder_ / "ten", folder_ / "link");
  EXPECT_EQ(read_regular_file(folder_ / "link", 10), "0123456789");
}

TEST_F(RegularFile, IsNothingElse) {
  ASSERT_EQ(::mkfifo((folder_ / "fifo").c_str(), 0600), 0);
  const int server = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  (folder_ / "socket").string().copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(server, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  for (const fs::path& path : {folder_ / "fifo", folder_ / "socket", folder_, fs::path("/dev/zero")}) {
    EXPECT_THAT(complaint(path), HasSubstr("not a regular file")) << path;
    EXPECT_THAT(complaint(path), HasSubstr(path.string()));
  }
  EXPECT_THAT(complaint(folder_ / "absent"), HasSubstr("cannot open"));
  ::close(server);
}

TEST(NearestName, IsReachedByTwoStepsOrAThirdOfTheLength) {
  const std::vector<std::string> known = {"serve", "plan", "bench peers"};
  EXPECT_EQ(nearest_name("servee", known), "serve");
  EXPECT_EQ(nearest_name("SERVE", known), "serve");
  EXPECT_EQ(nearest_name("lpan", known), "plan");
  EXPECT_EQ(nearest_name("bnech pers", known), "bench peers");
  EXPECT_EQ(nearest_name("fly", known), "");
  EXPECT_EQ(nearest_name(std::string(1 << 20, 's'), known), "");
  EXPECT_EQ(did_you_mean("serve"), " (did you mean serve?)");
  EXPECT_EQ(did_you_mean(""), "");
}

}  // namespace
}  // namespace serval
