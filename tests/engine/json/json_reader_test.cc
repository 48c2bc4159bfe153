// Matrix A2: the JSON layer and its codes.
#include "engine/json/json_reader.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cmath>
#include <string>

#include "engine/json/json_writer.h"
#include "kernels/base/utf8.h"

namespace serval {
namespace {

std::string code_of(const std::string& text, const JsonLimits& limits = {}) {
  const auto result = read_json_object(text, limits);
  return result ? "" : result.error().code;
}

std::string nested(int depth) {  // `depth` containers, the object itself included
  return "{\"a\":" + std::string(static_cast<size_t>(depth - 1), '[') +
         std::string(static_cast<size_t>(depth - 1), ']') + "}";
}

TEST(JsonReader, RefusesWhatIsNotOneJsonObject) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "invalid_json"},
      {" ", "invalid_json"},
      {"nonsense", "invalid_json"},
      {"{\"a\":1", "invalid_json"},
      {"{\"a\":", "invalid_json"},
      {"{\"a\":1}x", "invalid_json"},
      {"{\"a\":1}{}", "invalid_json"},
      {"\xef\xbb\xbf{\"a\":1}", "invalid_json"},
      {"{\"a\":1/*c*/}", "invalid_json"},
      {"{\"a\":1}//c", "invalid_json"},
      {"{\"a\":1,}", "invalid_json"},
      {"{\"a\":[1,]}", "invalid_json"},
      {"{'a':1}", "invalid_json"},
      {"{a:1}", "invalid_json"},
      {"{\"a\":NaN}", "invalid_json"},
      {"{\"a\":Infinity}", "invalid_json"},
      {"{\"a\":01}", "invalid_json"},
      {"{\"a\":+1}", "invalid_json"},
      {"{\"a\":.5}", "invalid_json"},
      {"{\"a\":1.}", "invalid_json"},
      {"{\"a\":\"\n\"}", "invalid_json"},
      {"{\"a\":\"\\x\"}", "invalid_json"},
      {"{\"a\":\"\xff\"}", "invalid_json"},
      {"{\"a\":\"\xc0\xaf\"}", "invalid_json"},
      {"{\"a\":\"\xed\xa0\x80\"}", "invalid_json"},
      {"{\"a\":\"\xf4\x90\x80\x80\"}", "invalid_json"},
      {"{\"\xff\":1}", "invalid_json"},
      {"{\"a\":\"\\ud800\"}", "invalid_json"},
      {"{\"a\":\"\\udc00\\ud800\"}", "invalid_json"},
      {std::string("{\"a\":\0}", 7), "invalid_json"},
      {"1", "invalid_type"},
      {"null", "invalid_type"},
      {"\"a\"", "invalid_type"},
      {"[{}]", "invalid_type"},
      {"true", "invalid_type"},
      {" {\"a\" : 1 } \n", ""},
      {"{}", ""},
      {"{\"a\":\"\\ud83d\\ude00 \xf0\x9f\x98\x80 \\u0000\"}", ""},
  };
  for (const auto& [text, code] : cases) EXPECT_EQ(code_of(text), code) << text;
}

TEST(JsonReader, DepthHoldsToTheLevel) {
  EXPECT_EQ(code_of(nested(63)), "");
  EXPECT_EQ(code_of(nested(64)), "");
  EXPECT_EQ(code_of(nested(65)), "json_too_deep");
  EXPECT_EQ(code_of(std::string(1'000'000, '[')), "json_too_deep");
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_EQ(code_of(objects), "json_too_deep");
}

TEST(JsonReader, TheNumberOfValuesHoldsToTheValue) {
  const JsonLimits limits{.max_values = 4};  // the object counts
  EXPECT_EQ(code_of("{\"a\":1,\"b\":2,\"c\":3}", limits), "");
  EXPECT_EQ(code_of("{\"a\":1,\"b\":2,\"c\":3,\"d\":4}", limits), "json_too_large");
  EXPECT_EQ(code_of("{\"a\":[1,2,3]}", limits), "json_too_large");
}

TEST(JsonReader, ADuplicateKeyIsNamedAtAnyDepth) {
  for (const auto& [text, key] :
       {std::pair<std::string, std::string>{R"({"model":"a","model":"b"})", "model"},
        {R"({"x":{"y":[{"k":1,"k":1}]}})", "k"},
        {R"({"a":{"b":1},"b":2,"a":3})", "a"},
        {R"({"a":1,"\u0061":2})", "a"},
        {R"({"":1,"":2})", ""}}) {
    const auto result = read_json_object(text);
    ASSERT_FALSE(result.ok()) << text;
    EXPECT_EQ(result.error().code, "duplicate_key");
    EXPECT_EQ(result.error().param, key);
  }
  EXPECT_EQ(code_of(R"({"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]})"), "");
}

TEST(JsonReader, ALongDuplicateKeyIsNamedShortly) {
  const std::string key(100'000, 'k');
  const auto result = read_json_object("{\"" + key + "\":1,\"" + key + "\":2}");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, "duplicate_key");
  EXPECT_LT(result.error().param.size() + result.error().message.size(), 256u);
}

TEST(JsonReader, NumbersKeepWhatReadersMustSee) {
  const auto result = read_json_object(
      R"({"a":-0,"b":9223372036854775807,"c":9223372036854775808,"d":18446744073709551616,"e":1e400,"f":-0.0})");
  ASSERT_TRUE(result.ok());
  const boost::json::object& o = result.value();
  EXPECT_TRUE(o.at("a").is_double() && std::signbit(o.at("a").get_double()));
  EXPECT_EQ(o.at("b").as_int64(), INT64_MAX);
  EXPECT_EQ(o.at("c").as_uint64(), 9223372036854775808u);
  EXPECT_DOUBLE_EQ(o.at("d").as_double(), 18446744073709551616.0);
  EXPECT_TRUE(std::isinf(o.at("e").as_double()));
  EXPECT_TRUE(std::signbit(o.at("f").as_double()));
}

TEST(JsonReader, AgreesWithTheTreeParserOnWhatItAccepts) {
  for (const std::string text :
       {R"({"a":[1,2.5,"x",null,true,{"b":{}}],"c":"\u00e9\n","d":[[],[[]]],"":{"":""}})",
        R"({"long":"0123456789"})",
        R"({"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]})"}) {
    const auto result = read_json_object(text);
    ASSERT_TRUE(result.ok()) << text;
    EXPECT_EQ(boost::json::value(result.value()), boost::json::parse(text));
  }
}

TEST(JsonReader, OfAKeyTwiceTheLastCountsWhereItIsAllowed) {
  const auto result = read_json_object(R"({"a":1,"b":{"c":1,"c":[2]},"a":3})", {.last_key_counts = true});
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(boost::json::value(result.value()), boost::json::parse(R"({"a":3,"b":{"c":[2]}})"));
}

TEST(JsonReader, AFilesSizeSaysHowManyValuesItMayHave) {
  std::string zeros = "{\"a\":[0";
  while (zeros.size() < 3'000'000) zeros += ",0";
  try {
    parse_json_file(zeros + "]}", "the file");
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("the file has more values than"), std::string::npos) << error.what();
  }
  EXPECT_TRUE(read_json_object(zeros + "]}", kOwnJson).ok());
}

// --- the other direction ---

TEST(JsonWriter, WhateverItIsGivenTheResultIsJson) {
  std::string out;
  JsonWriter json(out);
  json.begin_object();
  json.member("text",
              std::string("a\"\\\n\t\x01\x7f\xc3\xa9\xff\xc3\xe2\x82\xf0\x9f\x98\x80\xed\xa0\x80\0", 21));
  json.key("inf").number(INFINITY).key("minus").number(-INFINITY).key("nan").number(NAN).key("tiny").number(
      1e-38f);
  json.key("whole")
      .number(-2)
      .key("list")
      .begin_array()
      .integer(INT64_MIN)
      .boolean(true)
      .null()
      .begin_object()
      .end_object()
      .end_array();
  json.end_object();
  const boost::json::value parsed = boost::json::parse(out);
  EXPECT_EQ(parsed.at("inf"), 9999.0);
  EXPECT_EQ(parsed.at("minus"), -9999.0);
  EXPECT_EQ(parsed.at("nan"), -9999.0);
  EXPECT_EQ(parsed.at("whole"), -2.0);
  EXPECT_EQ(static_cast<float>(parsed.at("tiny").as_double()), 1e-38f);
  EXPECT_EQ(parsed.at("list").at(0), INT64_MIN);
  EXPECT_EQ(out.find('\n'), std::string::npos);
  EXPECT_EQ(std::string_view(parsed.at("text").as_string()).substr(0, 9), "a\"\\\n\t\x01\x7f\xc3\xa9");
}

TEST(JsonWriter, EveryByteStringSurvivesOrBecomesReplacementCharacters) {
  for (int a = 0; a < 256; ++a) {
    for (const int b : {0, 0x22, 0x41, 0x80, 0x9f, 0xa0, 0xbf, 0xc2, 0xff}) {
      const std::string bytes{static_cast<char>(a), static_cast<char>(b)};
      std::string out;
      JsonWriter(out).string(bytes);
      const boost::json::value parsed = boost::json::parse(out);
      if (is_valid_utf8(bytes)) {
        EXPECT_EQ(std::string_view(parsed.as_string()), bytes);
      }
    }
  }
}

}  // namespace
}  // namespace serval
