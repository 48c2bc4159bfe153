// Bad HTTP and the exact answer (reliability table 3.1 and matrix A1), over a real socket: each case as one
// piece, byte by byte, and pipelined behind a good request. After each the server must still answer a good
// request.
#include "tests/server/http/http_fixture.h"

namespace serval::testing {
namespace {

struct Case {
  const char* name;
  std::string request;
  int status;
  const char* code;
  bool closes = true;
};

const std::string kHost = "Host: a\r\n";
const std::string kJson = "Content-Type: application/json\r\n";
const std::string kPost = "POST /v1/completions HTTP/1.1\r\n" + kHost + kJson;

std::string with_header(const std::string& fields) {
  return "GET /version HTTP/1.1\r\n" + kHost + fields + "\r\n";
}
std::string chunked(const std::string& body) {
  return kPost + "Transfer-Encoding: chunked\r\n\r\n" + body;
}
std::string repeat(const std::string& text, int n) {
  std::string result;
  for (int i = 0; i < n; ++i) result += text;
  return result;
}

std::vector<Case> cases() {
  const std::string smuggled = "GET /version HTTP/1.1\r\nHost: evil\r\n\r\n";
  return {
      // Transfer codings.
      {"chunked not last", kPost + "Transfer-Encoding: chunked, gzip\r\n\r\n" + smuggled, 400,
       "malformed_http"},
      {"unknown coding gzip", kPost + "Transfer-Encoding: gzip\r\n\r\n" + smuggled, 501, "malformed_http"},
      {"unknown coding xchunked", kPost + "Transfer-Encoding: xchunked\r\n\r\n" + smuggled, 501,
       "malformed_http"},
      {"chunked twice", kPost + "Transfer-Encoding: chunked, chunked\r\n\r\n" + smuggled, 400,
       "malformed_http"},
      {"gzip then chunked", kPost + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501,
       "malformed_http"},
      {"coding in HTTP/1.0",
       "POST /v1/completions HTTP/1.0\r\n" + kHost + kJson + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
       400, "malformed_http"},
      {"two coding fields",
       kPost + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
       "malformed_http"},
      {"empty coding", kPost + "Transfer-Encoding:\r\n\r\n", 400, "malformed_http"},
      {"coding with underscore", kPost + "Transfer_Encoding: chunked\r\n\r\n", 400, "malformed_http"},
      {"length with underscore", with_header("Content_Length: 5\r\n"), 400, "malformed_http"},
      // Lengths.
      {"length and chunked", kPost + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
       "malformed_http"},
      {"chunked and length", kPost + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400,
       "malformed_http"},
      {"length list", kPost + "Content-Length: 5, 5\r\n\r\nabcde", 400, "malformed_http"},
      {"two equal lengths", kPost + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde", 400,
       "malformed_http"},
      {"two lengths", kPost + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", 400, "malformed_http"},
      {"length +5", kPost + "Content-Length: +5\r\n\r\nabcde", 400, "malformed_http"},
      {"length -5", kPost + "Content-Length: -5\r\n\r\nabcde", 400, "malformed_http"},
      {"length 0x5", kPost + "Content-Length: 0x5\r\n\r\nabcde", 400, "malformed_http"},
      {"length 2^64", kPost + "Content-Length: 18446744073709551616\r\n\r\nabcde", 400, "malformed_http"},
      {"empty length", kPost + "Content-Length:\r\n\r\n", 400, "malformed_http"},
      // Host.
      {"no host", "GET /version HTTP/1.1\r\n\r\n", 400, "malformed_http"},
      {"two hosts", "GET /version HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "malformed_http"},
      {"host with path", "GET /version HTTP/1.1\r\nHost: a/?x=\r\n\r\n", 400, "malformed_http"},
      {"host with user", "GET /version HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "malformed_http"},
      {"host with bad port", "GET /version HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400, "malformed_http"},
      {"empty host", "GET /version HTTP/1.1\r\nHost:\r\n\r\n", 400, "malformed_http"},
      // Folding.
      {"folded length", kPost + "Content-Length:\r\n 5\r\n\r\nabcde", 400, "malformed_http"},
      {"folded coding", kPost + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400, "malformed_http"},
      {"folded host", "GET /version HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n", 400, "malformed_http"},
      {"folded other field", with_header("X-A: b\r\n c\r\n"), 200, "", false},
      // Syntax.
      {"four empty lines first", repeat("\r\n", 4) + "GET /version HTTP/1.1\r\nHost: a\r\n\r\n", 200, "", false},
      {"five empty lines first", repeat("\r\n", 5) + "GET /version HTTP/1.1\r\nHost: a\r\n\r\n", 400,
       "malformed_http"},
      {"bare LF first", "\nGET /version HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_http"},
      {"bare LF", "GET /version HTTP/1.1\nHost: a\n\n", 400, "malformed_http"},
      {"bare CR", "GET /version HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400, "malformed_http"},
      {"NUL in target", std::string("GET /ver\0sion HTTP/1.1\r\nHost: a\r\n\r\n", 35), 400, "malformed_http"},
      {"control byte in value", with_header("X-A: \x01\r\n"), 400, "malformed_http"},
      {"space before colon", with_header("X-A : b\r\n"), 400, "malformed_http"},
      {"space before the first field", "GET /version HTTP/1.1\r\n X-A: b\r\nHost: a\r\n\r\n", 400,
       "malformed_http"},
      {"bad byte in name", with_header("X(A: b\r\n"), 400, "malformed_http"},
      {"no version", "GET /version\r\nHost: a\r\n\r\n", 400, "malformed_http"},
      {"no version, with space", "GET / \r\n\r\n", 400, "malformed_http"},
      {"HTTP/9.9", "GET /version HTTP/9.9\r\nHost: a\r\n\r\n", 400, "malformed_http"},
      {"HTTP/1.2", "GET /version HTTP/1.2\r\nHost: a\r\n\r\n", 400, "malformed_http"},
      {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed_http"},
      {"TLS hello", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11), 400, "malformed_http"},
      // Targets and routes.
      {"byte 0xff in target", "GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_http"},
      {"fragment in target", "GET /version#x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_http"},
      {"no slash", "GET version HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_http"},
      {"absolute form", "GET http://a/version HTTP/1.1\r\nHost: a\r\n\r\n", 200, "", false},
      {"absolute form, other authority", "GET http://b/version HTTP/1.1\r\nHost: a\r\n\r\n", 400,
       "malformed_http"},
      {"absolute form, no path", "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", 404, "unknown_url", false},
      {"query", "GET /version?x=1 HTTP/1.1\r\nHost: a\r\n\r\n", 200, "", false},
      {"dot segments", "GET /v1/../version HTTP/1.1\r\nHost: a\r\n\r\n", 404, "unknown_url", false},
      {"dot segments behind models", "GET /v1/models/../../etc HTTP/1.1\r\nHost: a\r\n\r\n", 404,
       "unknown_url", false},
      {"escaped dot segments", "GET /v1/models/%2e%2e/x HTTP/1.1\r\nHost: a\r\n\r\n", 404, "unknown_url",
       false},
      {"escaped path", "GET /%76ersion HTTP/1.1\r\nHost: a\r\n\r\n", 404, "unknown_url", false},
      {"escaped slash", "GET /v1%2fmodels HTTP/1.1\r\nHost: a\r\n\r\n", 404, "unknown_url", false},
      {"double slash", "GET //v1/models HTTP/1.1\r\nHost: a\r\n\r\n", 404, "unknown_url", false},
      {"upper case path", "GET /V1/models HTTP/1.1\r\nHost: a\r\n\r\n", 404, "unknown_url", false},
      {"path parameter", "GET /v1/models;a=b HTTP/1.1\r\nHost: a\r\n\r\n", 404, "unknown_url", false},
      {"unknown path", "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404, "unknown_url", false},
      {"trailing slash without alias", "GET /version/ HTTP/1.1\r\nHost: a\r\n\r\n", 404, "unknown_url",
       false},
      {"trailing slash with alias", "GET /v1/models/ HTTP/1.1\r\nHost: a\r\n\r\n", 200, "", false},
      // Methods.
      {"GET on a POST route", "GET /v1/completions HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed",
       false},
      {"POST on metrics", "POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed", false},
      {"lower-case method", "get /version HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed", false},
      {"unknown method, known path", "BREW /version HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed",
       false},
      {"unknown method, unknown path", "BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n", 501, "method_not_allowed",
       false},
      {"lower-case method, unknown path", "get /pot HTTP/1.1\r\nHost: a\r\n\r\n", 501, "method_not_allowed",
       false},
      // Expectations and upgrades.
      {"unknown expectation", with_header("Expect: foo\r\n"), 417, "malformed_http"},
      {"upgrade", with_header("Connection: upgrade\r\nUpgrade: h2c\r\n"), 200, "", false},
      // Bodies.
      {"no body", "POST /v1/completions HTTP/1.1\r\nHost: a\r\n\r\n", 400, "empty_body", false},
      {"length 0", kPost + "Content-Length: 0\r\n\r\n", 400, "empty_body", false},
      {"chunked nothing", chunked("0\r\n\r\n"), 400, "empty_body", false},
      {"body on a GET route", "GET /version HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", 413,
       "content_too_large"},
      {"length over the limit", kPost + "Content-Length: 8388609\r\n\r\n", 413, "content_too_large"},
      {"chunk over the limit", chunked("800001\r\n"), 413, "content_too_large"},
      {"chunk size 0x", chunked("0x5\r\nabcde\r\n0\r\n\r\n"), 400, "malformed_http"},
      {"negative chunk size", chunked("-5\r\nabcde\r\n0\r\n\r\n"), 400, "malformed_http"},
      {"huge chunk size", chunked("fffffffffffffffff\r\n"), 400, "malformed_http"},
      {"largest chunk size", chunked("ffffffffffffffff\r\n"), 413, "content_too_large"},
      {"blank chunk size", chunked("\r\nabcde\r\n0\r\n\r\n"), 400, "malformed_http"},
      {"space after chunk size", chunked("5 \r\nabcde\r\n0\r\n\r\n"), 400, "malformed_http"},
      {"bad chunk terminator", chunked("5\r\nabcdeX\r\n0\r\n\r\n"), 400, "malformed_http"},
      {"LF in chunk extension", chunked("5;a=\nb\r\nabcde\r\n0\r\n\r\n"), 400, "malformed_http"},
      {"bare LF after chunk size", chunked("5\nabcde\r\n0\r\n\r\n"), 400, "malformed_http"},
      {"long chunk extension", chunked("5;" + std::string(5000, 'x') + "\r\n"), 400, "malformed_http"},
      {"request as trailer", chunked("2\r\n{}\r\n0\r\n" + smuggled), 400, "malformed_http"},
      {"words as trailer", chunked("2\r\n{}\r\n0\r\nGET / HTTP/1.1\r\n\r\n"), 400, "malformed_http"},
      {"text/plain",
       "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
       415, "unsupported_media_type"},
      {"no media type", "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", 415,
       "unsupported_media_type"},
      {"charset utf-16",
       "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json; "
       "charset=utf-16\r\nContent-Length: 2\r\n\r\n{}",
       415, "unsupported_media_type"},
      {"charset utf-8",
       "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: Application/JSON; "
       "charset=\"UTF-8\"\r\nContent-Length: 2\r\n\r\n{}",
       400, "invalid_prompt", false},
      {"compressed", kPost + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415,
       "unsupported_media_type"},
      // Limits.
      {"long request line", "GET /" + std::string(8192, 'a') + " HTTP/1.1\r\nHost: a\r\n\r\n", 414,
       "uri_too_long"},
      {"large header block", with_header("X-A: " + std::string(16384, 'a') + "\r\n"), 431,
       "headers_too_large"},
      {"too many fields", with_header(repeat("a:b\r\n", 100)), 431, "headers_too_large"},
      {"1001 fields", with_header(repeat("a:\r\n", 1001)), 431, "headers_too_large"},
      {"two authorizations", with_header("Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"), 400,
       "malformed_http"},
  };
}

class HttpMatrix : public HttpTest {
 protected:
  void expect_answer(RawHttpClient& client, const Case& c) {
    const auto response = client.read_response();
    ASSERT_TRUE(response.has_value());
    EXPECT_EQ(response->status, c.status) << response->body;
    if (*c.code) {
      EXPECT_EQ(error_code(*response), c.code) << response->body;
      EXPECT_EQ(response->field("content-type"), "application/json");
    }
    EXPECT_EQ(response->field("connection"), c.closes ? "close" : "");
    if (c.status == 405) {
      EXPECT_NE(response->field("allow"), "");
    }
    // Nothing of a refused request may be taken for another request.
    if (c.closes) {
      EXPECT_TRUE(client.closed_by_server()) << client.received();
    }
  }
};

TEST_F(HttpMatrix, AnswersEachCaseAsWritten) {
  start();
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    RawHttpClient client(server->port());
    client.send(c.request);
    expect_answer(client, c);
    EXPECT_EQ(ask(get("/version")).status, 200);
  }
}

TEST_F(HttpMatrix, AnswersTheSameWhenBytesComeOneByOne) {
  start();
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    RawHttpClient client(server->port());
    client.send_byte_by_byte(c.request);
    expect_answer(client, c);
  }
}

TEST_F(HttpMatrix, AnswersTheSameBehindAGoodRequest) {
  start();
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    RawHttpClient client(server->port());
    client.send(get("/version") + c.request);
    const auto good = client.read_response();
    ASSERT_TRUE(good.has_value());
    EXPECT_EQ(good->status, 200);
    expect_answer(client, c);
  }
}

TEST_F(HttpMatrix, LimitsOfTheHeadHoldToTheByte) {
  HttpConfig config;
  config.head = {.max_request_line_bytes = 64, .max_header_bytes = 128, .max_fields = 4};
  start(config);
  const auto line_of = [](size_t bytes) {
    const std::string frame = "GET /version? HTTP/1.1";
    return "GET /version?" + std::string(bytes - frame.size(), 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n";
  };
  EXPECT_EQ(ask(line_of(63)).status, 200);
  EXPECT_EQ(ask(line_of(64)).status, 200);
  EXPECT_EQ(ask(line_of(65)).status, 414);
  const auto headers_of = [](size_t bytes) {
    const std::string frame = "Host: a\r\nX: \r\n\r\n";
    return "GET /version HTTP/1.1\r\nHost: a\r\nX: " + std::string(bytes - frame.size(), 'x') + "\r\n\r\n";
  };
  EXPECT_EQ(ask(headers_of(127)).status, 200);
  EXPECT_EQ(ask(headers_of(128)).status, 200);
  EXPECT_EQ(ask(headers_of(129)).status, 431);
  EXPECT_EQ(ask(get("/version", repeat("a: b\r\n", 3))).status, 200);  // Host is the fourth
  EXPECT_EQ(ask(get("/version", repeat("a: b\r\n", 4))).status, 431);
}

TEST_F(HttpMatrix, LimitsOfTheBodyHoldToTheByte) {
  HttpConfig config;
  config.body = {.max_bytes = 64, .max_extension_bytes = 16, .max_trailer_bytes = 32, .max_chunks = 4};
  start(config);
  const auto json_of = [](size_t bytes) { return "{\"prompt\":\"" + std::string(bytes - 13, 'x') + "\"}"; };
  const auto chunks_of = [](const std::string& body, size_t size, const std::string& extension = "") {
    std::string out;
    for (size_t i = 0; i < body.size(); i += size) {
      const std::string piece = body.substr(i, size);
      char hex[16];
      std::snprintf(hex, sizeof(hex), "%zx", piece.size());
      out += hex + extension + "\r\n" + piece + "\r\n";
    }
    return chunked(out + "0\r\n\r\n");
  };
  for (const size_t bytes : {63u, 64u}) {
    EXPECT_EQ(ask(post("/v1/completions", json_of(bytes))).status, 200);
    EXPECT_EQ(ask(chunks_of(json_of(bytes), 32)).status, 200);
  }
  EXPECT_EQ(ask(post("/v1/completions", json_of(65))).status, 413);
  EXPECT_EQ(ask(chunks_of(json_of(65), 32)).status, 413);
  EXPECT_EQ(ask(chunks_of(json_of(40), 10)).status, 200);              // 4 chunks
  EXPECT_EQ(ask(chunks_of(json_of(41), 10)).status, 400);              // 5
  EXPECT_EQ(ask(chunks_of(json_of(40), 20, ";234567=")).status, 200);  // 2 x 8 bytes
  EXPECT_EQ(ask(chunks_of(json_of(40), 20, ";2345678=")).status, 400);
  const auto with_trailer = [](size_t bytes) {
    return chunked("e\r\n{\"prompt\":\"x\"}\r\n0\r\nX:" + std::string(bytes - 6, 'y') + "\r\n\r\n");
  };
  EXPECT_EQ(ask(with_trailer(32)).status, 200);
  EXPECT_EQ(ask(with_trailer(33)).status, 400);
}

TEST_F(HttpMatrix, TrailersNeverBecomeHeaders) {
  HttpConfig config;
  config.api_keys = {"secret"};
  start(config);
  const std::string body =
      "e\r\n{\"prompt\":\"x\"}\r\n0\r\nAuthorization: Bearer secret\r\nX-Request-Id: forged\r\n\r\n";
  EXPECT_EQ(ask(chunked(body)).status, 401);
  const RawResponse answered =
      ask(kPost + "Authorization: Bearer secret\r\nTransfer-Encoding: chunked\r\n\r\n" + body);
  EXPECT_EQ(answered.status, 200);
  EXPECT_NE(answered.field("x-request-id"), "forged");
}

TEST_F(HttpMatrix, OneByteChunksAreCounted) {
  start();
  RawHttpClient client(server->port());
  std::string many = chunked("");
  for (int i = 0; i < 70'000; ++i) many += "1\r\n \r\n";
  client.send(many);
  const auto response = client.read_response();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->status, 400);
  EXPECT_EQ(error_code(*response), "content_too_large");
}

}  // namespace
}  // namespace serval::testing
