// One HTTP/2 connection, the server's side: frames and header compression are nghttp2's, every bound is ours, whether or not the
// peer has acknowledged our SETTINGS (RFC 9113). Knows nothing of gRPC: what a stream carries is its handler's. One thread, the
// I/O context's, but for post() and executor().
#pragma once

#include <nghttp2/nghttp2.h>

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

  int max_streams = 1024;            // open at once; more are refused
  size_t max_header_bytes = 16 << 10;  // of a request, 32 more for each field (RFC 9113 6.5.2); beyond it 431
  int max_fields = 100;              // the same
  Duration header_timeout{10'000};       // for the connection's first frames, and for a request's head
  Duration body_timeout{30'000};         // longest pause while a request goes on
  Duration body_total_timeout{300'000};  // for a whole request, until it is answered
  Duration idle_timeout{60'000};         // without a stream
  Duration write_stall_timeout{30'000};  // nothing taken although there is something to send: of a stream, and of all
  Duration linger_timeout{1'000};        // after our last frame, for the client to read it
};

using H2Fields = std::vector<std::pair<std::string, std::string>>;

struct H2Request {
  std::string method, path;
  H2Fields fields;  // the others, pseudo fields left out
};

enum class H2End {
  kDone,    // all of the answer went out
  kGone,    // the client reset it, or left
  kStalled  // it was ended because its reader took nothing, or too little
};

// What a stream carries: the application's side. Every call is on the connection's thread.
class H2Stream {
 public:
  virtual ~H2Stream() = default;
  virtual void on_data(std::string_view bytes) = 0;
  virtual void on_end() = 0;               // the request is whole
  virtual void on_timeout() = 0;           // it does not come: answer, or be reset at the next timeout
  virtual void on_sent(size_t bytes) = 0;  // of what write() was given, into the connection's output
  virtual void on_closed(H2End end) = 0;   // nothing follows
};

class H2Connection : public std::enable_shared_from_this<H2Connection> {
 public:
  using Clock = std::chrono::steady_clock;
  // Makes the handler of a stream whose request's head has come; or answers with respond() and gives none.
  using Open = std::function<std::shared_ptr<H2Stream>(H2Connection& connection, int32_t stream, H2Request request)>;
  // Once, when it is closed; `flooded`: because the peer asked for work without end.
  using Closed = std::function<void(H2Connection&, bool flooded)>;

  // `keep`: what must live as long as this, the socket's context and `limits` among it.
  H2Connection(std::shared_ptr<void> keep, boost::asio::ip::tcp::socket socket, const H2Limits& limits, Open open, Closed closed);
  ~H2Connection();
  H2Connection(const H2Connection&) = delete;
  H2Connection& operator=(const H2Connection&) = delete;

  void start();
  // No further streams; closes when those that run have ended.
  void drain();
  void close();
  size_t num_streams() const { return streams_.size(); }
  Clock::time_point idle_since() const { return idle_since_; }

  // Any thread: runs `work` on the connection's, or never. `work` should own nothing that owns the server's parts.
  void post(std::function<void()> work);

  // Of a stream that has not ended; ignored otherwise. A head goes out once and first.
  void respond(int32_t stream, const H2Fields& head, bool is_all);
  void write(int32_t stream, std::string_view bytes);
  void end(int32_t stream, H2Fields trailers);  // after what was written
  void cut(int32_t stream);                     // its reader is too slow

 private:
  struct Stream;
  using Streams = std::map<int32_t, std::unique_ptr<Stream>>;

  static H2Connection& self(void* user_data) { return *static_cast<H2Connection*>(user_data); }
  void make_session();
  int on_begin_headers(const nghttp2_frame& frame);
  int on_header(const nghttp2_frame& frame, std::string_view name, std::string_view value);
  int on_frame(const nghttp2_frame& frame);
  void on_request(int32_t id, Stream& stream);
  int on_data(int32_t id, std::string_view bytes);
  int on_sent(const nghttp2_frame& frame);
  int on_stream_closed(int32_t id);
  ssize_t read_output(int32_t id, uint8_t* to, size_t most, uint32_t* flags);

  Stream* find(int32_t id);
  void glitch();
  void end_streams();
  void receive();
  void on_readable();
  void on_received(std::string_view bytes);
  void pump();
  void on_written(size_t bytes);
  void last_frame_is_out();
  void tick();
  void check_stream(int32_t id, Stream& stream, Clock::time_point now);
  template <class Work>
  void guarded(Work&& work) noexcept;

  const std::shared_ptr<void> keep_;
  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer timer_;
  const H2Limits& limits_;
  const Open open_;
  const Closed closed_;
  nghttp2_session* session_ = nullptr;
  Streams streams_;
  std::string output_;
  size_t output_pos_ = 0;
  bool greeted_ = false;    // the peer's first frames have come
  bool is_inside_ = false;  // nghttp2 runs: it must not be entered again
  bool receiving_ = false;
  bool writing_ = false;
  bool is_ending_ = false;     // told to go away: nothing is read any more
  bool is_unused_ = false;     // it ends while it has no stream
  bool is_lingering_ = false;  // our last frame is out; what comes is thrown away
  bool is_flooded_ = false;
  bool is_closed_ = false;
  double glitches_ = 0;
  Clock::time_point glitches_at_, started_at_, idle_since_, written_at_, linger_until_;
};

}  // namespace serval
