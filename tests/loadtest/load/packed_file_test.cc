#include "loadtest/load/packed_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <stdexcept>

namespace serval::load {
namespace {

// "serval\n" twice over: packed by xz and by gzip.
constexpr unsigned char kXz[] = {0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46,
                                 0x02, 0x00, 0x21, 0x01, 0x16, 0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3,
                                 0x01, 0x00, 0x0d, 0x73, 0x65, 0x72, 0x76, 0x61, 0x6c, 0x0a, 0x73, 0x65,
                                 0x72, 0x76, 0x61, 0x6c, 0x0a, 0x00, 0x00, 0x00, 0xf3, 0xde, 0xa1, 0xe3,
                                 0x1e, 0xa7, 0x4b, 0x29, 0x00, 0x01, 0x26, 0x0e, 0x08, 0x1b, 0xe0, 0x04,
                                 0x1f, 0xb6, 0xf3, 0x7d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5a};
constexpr unsigned char kGzip[] = {0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03,
                                   0x2b, 0x4e, 0x2d, 0x2a, 0x4b, 0xcc, 0xe1, 0x2a, 0x86, 0x50,
                                   0x00, 0xeb, 0x74, 0x4a, 0xb7, 0x0e, 0x00, 0x00, 0x00};

template <size_t kSize>
std::string bytes(const unsigned char (&data)[kSize]) {
  return {reinterpret_cast<const char*>(data), kSize};
}

std::string unpacked(const std::string& content, size_t max_bytes = 1000) {
  const std::string path =
      testing::TempDir() + "/packed-" + std::to_string(getpid());  // tests run side by side
  std::ofstream(path, std::ios::binary) << content;
  struct Remove {
    const std::string& path;
    ~Remove() { std::remove(path.c_str()); }
  } remove{path};
  return read_packed_file(path, max_bytes);
}

TEST(PackedFile, IsReadWhateverItIsPackedWith) {
  EXPECT_EQ(unpacked("plain\n"), "plain\n");
  EXPECT_EQ(unpacked(""), "");
  EXPECT_EQ(unpacked(bytes(kXz)), "serval\nserval\n");
  EXPECT_EQ(unpacked(bytes(kGzip)), "serval\nserval\n");
  EXPECT_EQ(unpacked(bytes(kXz) + bytes(kXz)), "serval\nserval\nserval\nserval\n");
  EXPECT_EQ(unpacked(bytes(kGzip) + bytes(kGzip)), "serval\nserval\nserval\nserval\n");
}

TEST(PackedFile, ADamagedOneIsAnErrorAtEveryCut) {
  for (const std::string& whole : {bytes(kXz), bytes(kGzip)}) {
    for (size_t cut = 6; cut < whole.size(); ++cut)
      EXPECT_THROW(unpacked(whole.substr(0, cut)), std::runtime_error) << cut;
  }
  EXPECT_THROW(read_packed_file("/no/such/file", 10), std::runtime_error);
}

TEST(PackedFile, WhatItUnpacksToIsBounded) {
  EXPECT_THROW(unpacked("0123456789", 9), std::runtime_error);
  EXPECT_THROW(unpacked(bytes(kXz), 13), std::runtime_error);
  EXPECT_THROW(unpacked(bytes(kGzip), 13), std::runtime_error);
}

}  // namespace
}  // namespace serval::load
