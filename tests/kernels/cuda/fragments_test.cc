// The dump of fragment layouts that a GPU's is compared with: the emulation's own says what the PTX manual
// does, and the comparison notices every kind of difference.
#include "tests/kernels/checks/fragment_dump.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

namespace serval::gpu {
namespace {

namespace json = boost::json;

const json::object& emulated() {
  static const json::object dump = dump_fragments();
  return dump;
}

TEST(Fragments, SurviveAFile) {
  const json::object read = json::parse(json::serialize(emulated())).as_object();
  EXPECT_THAT(compare_fragments(read, emulated()), testing::IsEmpty());
}

TEST(Fragments, OfAProductAreTheManuals) {
  // a[0] of lane 0 holds (row 0, k 0): it meets column g's k 0, low in b[0] of lane 4g, and ends in row 0,
  // two columns each in the first registers of lanes 0..3.
  json::array expected;
  for (int column = 0; column < 8; ++column) {
    expected.push_back(column / 2 * 4 + column % 2);
    expected.push_back(column * 4 * 2 * 2);
  }
  EXPECT_EQ(emulated().at("mma.m16n8k16.bf16").at(0), json::value(expected));
  EXPECT_EQ(emulated().at("mma.m16n8k16.f16"), emulated().at("mma.m16n8k16.bf16"));
  EXPECT_EQ(emulated().at("mma.m16n8k32.s8"), emulated().at("mma.m16n8k32.e4m3"));
}

TEST(Fragments, ThatDifferAreNoticed) {
  for (const auto& [key, value] : emulated()) {
    if (!value.is_array()) continue;
    json::object other = emulated();
    json::array& entries = other[key].get_array();
    std::swap(entries.front(), entries.back());
    if (entries.front() == entries.back()) continue;
    EXPECT_THAT(compare_fragments(emulated(), other), testing::SizeIs(1)) << key;
    other.erase(key);
    EXPECT_THAT(compare_fragments(emulated(), other), testing::SizeIs(1)) << key;
    other[key] = nullptr;  // a device that cannot do it
    EXPECT_THAT(compare_fragments(emulated(), other), testing::IsEmpty()) << key;
  }
  json::object other = emulated();
  other["exp2_fast_worst_relative_error"] = 0.1;
  EXPECT_THAT(compare_fragments(emulated(), other), testing::SizeIs(1));
}

}  // namespace
}  // namespace serval::gpu
