// One HTTP/2 connection, the server's side: frames and header compression are nghttp2's, every bound is ours, whether or not the
// peer has acknowledged our SETTINGS (RFC 9113). Knows nothing of gRPC: what a stream carries is its handler's. One thread, the
// I/O context's, but for post().
#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace serval {

struct H2Limits {
  using Duration = std::chrono::milliseconds;

  int max_concurrent_streams = 128;       // more are refused
  size_t max_header_bytes = 8 << 10;      // of a request, names and values; beyond it 431
  int max_glitches = 1000;                // frames that ask for work and give none, at once; a tenth more each second. Beyond it
                                          // the connection ends with ENHANCE_YOUR_CALM
  Duration preface_timeout{10'000};       // for the first frames
  Duration request_timeout{300'000};      // for a request to be whole, from its head on
  Duration idle_timeout{60'000};          // without a stream, or of a stream whose request goes on and says nothing
  Duration write_stall_timeout{30'000};   // nothing taken although there is something to send: of a stream, and of all
};

using H2Fields = std::vector<std::pair<std::string, std::string>>;

struct H2Request {
  std::string method, path;
  H2Fields fields;  // the others, pseudo fields left out
};

// What a stream carries: the application's side. Every call is on the connection's thread.
class H2Stream {
 public:
  virtual ~H2Stream() = default;
  virtual void on_data(std::string_view bytes) = 0;
  virtual void on_end() = 0;                // the request is whole
  virtual void on_sent(size_t bytes) = 0;   // of what write() was given, into the connection's output
  virtual void on_closed() = 0;             // nothing follows: ended by either side, or the connection is gone
};

class H2Connection : public std::enable_shared_from_this<H2Connection> {
 public:
  using Clock = std::chrono::steady_clock;
  // Makes the handler of a stream whose request has come; it may answer at once. `has_body`: more than the head will come.
  using Open = std::function<std::shared_ptr<H2Stream>(H2Connection& connection, int32_t stream, H2Request request, bool has_body)>;
  using Closed = std::function<void(H2Connection&)>;

  H2Connection(boost::asio::ip::tcp::socket socket, const H2Limits& limits, Open open, Closed closed);
  ~H2Connection();

  void start();
  // No further streams; closes when those that run have ended.
  void drain();
  void close();
  bool is_idle() const { return streams_.empty(); }
  Clock::time_point idle_since() const { return idle_since_; }

  // Any thread: runs `work` on the connection's, or never.
  void post(std::function<void()> work);

  // Of a stream that has not ended; ignored otherwise. A head goes out once and first.
  void respond(int32_t stream, const H2Fields& head, bool is_all);
  void write(int32_t stream, std::string_view bytes);
  void end(int32_t stream, H2Fields trailers);  // after what was written
  void reset(int32_t stream, uint32_t error_code);

 private:
  struct Stream;

  static H2Connection& self(void* user_data) { return *static_cast<H2Connection*>(user_data); }
  void make_session();
  int on_begin_headers(const nghttp2_frame& frame);
  int on_header(const nghttp2_frame& frame, std::string_view name, std::string_view value);
  int on_frame(const nghttp2_frame& frame);
  void on_request(int32_t id, Stream& stream, bool has_body);
  int on_data(int32_t id, std::string_view bytes);
  int on_stream_closed(int32_t id);
  ssize_t read_output(int32_t id, uint8_t* to, size_t most, uint32_t* flags);

  Stream* find(int32_t id);
  void glitch();
  void receive();
  void on_received(size_t bytes);
  void pump();
  void on_written(size_t bytes);
  void tick();
  template <class Work>
  void guarded(Work&& work) noexcept;

  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer timer_;
  const H2Limits limits_;
  const Open open_;
  const Closed closed_;
  nghttp2_session* session_ = nullptr;
  std::map<int32_t, std::unique_ptr<Stream>> streams_;
  std::array<uint8_t, 16 << 10> input_;
  std::string output_;
  size_t output_pos_ = 0;
  bool greeted_ = false;     // the peer's first frames have come
  bool is_inside_ = false;   // a callback of nghttp2 runs: output waits
  bool receiving_ = false;
  bool writing_ = false;
  bool is_ending_ = false;   // told to go away: nothing is read any more
  bool is_closed_ = false;
  double glitches_ = 0;
  Clock::time_point glitches_at_, started_at_, idle_since_, written_at_;
};

}  // namespace serval
