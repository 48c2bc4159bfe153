// Fields: types, ranges, what was asked, and one sentence for two kinds of readers.
#include "engine/json/fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <functional>

namespace serval {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

boost::json::object parsed(const char* text) {
  return boost::json::parse(text).as_object();
}

// "code param: message" of what `ask` throws; "" when it does not.
std::string error_of(const std::function<void()>& ask) {
  try {
    ask();
  } catch (const FieldError& refused) {
    return refused.error().code + " " + refused.error().param + ": " + refused.error().message;
  }
  return "";
}

TEST(Fields, NullIsAbsentAndAbsentIsMissingWhereItMustBeThere) {
  const auto object = parsed(R"({"null": null, "n": 5})");
  const Fields fields(object);
  EXPECT_EQ(fields.find("null"), nullptr);
  EXPECT_EQ(fields.find_int("absent", 0, 9), std::nullopt);
  EXPECT_EQ(fields.get_int("n", 0, 9), 5);
  EXPECT_EQ(error_of([&] { fields.get_int("null", 0, 9); }), "invalid_value null: null is missing.");
  EXPECT_EQ(error_of([&] { fields.get_string("absent"); }), "invalid_value absent: absent is missing.");
}

TEST(Fields, AWholeNumberIsAnIntegerHoweverItIsSpelled) {
  const auto object = parsed(R"({"a": 2.0, "b": 1e3, "c": 1.5, "d": 1e18, "e": 18446744073709551615, "f": "1"})");
  const Fields fields(object);
  EXPECT_EQ(fields.find_integer("a"), 2);
  EXPECT_EQ(fields.find_int("b", 0, 1000), 1000);
  EXPECT_THAT(error_of([&] { fields.find_int("b", 0, 999); }), HasSubstr("b must be an integer from 0 to 999, not 1E3"));
  EXPECT_EQ(error_of([&] { fields.find_integer("c"); }), "invalid_type c: c must be an integer.");
  for (const char* field : {"d", "e"})
    EXPECT_THAT(error_of([&] { fields.find_integer(field); }), HasSubstr("value_out_of_range")) << field;
  EXPECT_EQ(error_of([&] { fields.find_integer("f"); }), "invalid_type f: f must be an integer.");
}

TEST(Fields, InnerObjectsNameTheWay) {
  const auto object = parsed(R"({"rope": {"factor": "x"}, "list": [{"id": 1}, 2]})");
  const Fields fields(object, "config.json");
  const Fields rope = fields.get_object("rope");
  try {
    rope.find_number("factor", 0, 1);
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "config.json: rope.factor must be a number, not \"x\"");
  }
  const auto& list = fields.get_array("list");
  EXPECT_EQ(fields.inside(list[0], "list[0]").get_int("id", 0, 9), 1);
  EXPECT_THAT(error_of([&] { fields.inside(list[1], "list[1]"); }), HasSubstr("list[1] must be an object, not 2"));
  EXPECT_THAT(error_of([&] { fields.get_array("rope"); }), HasSubstr("rope must be an array, not an object"));
}

TEST(Fields, WhatNobodyAskedForIsListedInOrder) {
  const auto object = parsed(R"({"z": 1, "asked": 2, "in": {"x": 1, "y": 2}, "nothing": null, "ignored": 3})");
  const Fields fields(object);
  fields.find_integer("asked");
  fields.find("not there");
  fields.ignore({"ignored"});
  const Fields inner = fields.get_object("in");
  inner.find("y");
  EXPECT_THAT(fields.unknown(), ElementsAre("z", "nothing"));
  EXPECT_THAT(inner.unknown(), ElementsAre("in.x"));
}

TEST(Fields, TextsAndListsAreBoundedToTheByte) {
  const auto object = parsed(R"({"a": "1234", "b": ["12", "1234"], "c": [1, 2.0], "d": [true]})");
  const Fields fields(object);
  EXPECT_EQ(fields.find_string("a", 4), "1234");
  EXPECT_THAT(error_of([&] { fields.find_string("a", 3); }), HasSubstr("string_too_long a"));
  EXPECT_THAT(fields.find_strings("a", 4), ElementsAre("1234"));
  EXPECT_THAT(fields.find_strings("b", 4), ElementsAre("12", "1234"));
  EXPECT_THAT(error_of([&] { fields.find_strings("b", 3); }), HasSubstr("string_too_long b"));
  EXPECT_THAT(fields.find_integers("c"), ElementsAre(1, 2));
  EXPECT_THAT(error_of([&] { fields.find_integers("d"); }), HasSubstr("invalid_type d"));
  EXPECT_TRUE(fields.find_strings("absent", 1).empty());
}

}  // namespace
}  // namespace serval
