#include "server/grpc/h2_connection.h"

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <cstring>
#include <new>

namespace serval {
namespace {

namespace asio = boost::asio;

constexpr size_t kReadBytes = 16 << 10;
constexpr size_t kOutputBytes = 64 << 10;      // given to the socket at a time
constexpr size_t kMaxQueuedFrames = 256;      // of our own making (acknowledgements, resets): beyond it nothing is read
constexpr size_t kMaxAcknowledgements = 1000;  // of PING and SETTINGS in line: more than one reading can make
// Frames that ask for work and give none (resets, refused streams, PING, SETTINGS, PRIORITY, empty DATA): so many at once, and so many
// more each second. A client that cancels all it has, now and then, stays far below.
constexpr double kMaxGlitches = 2000;
constexpr double kGlitchesPerSecond = 200;
constexpr std::chrono::milliseconds kLongestTick{1000};
constexpr std::chrono::milliseconds kShortestTick{10};

std::vector<nghttp2_nv> fields_of(const H2Fields& fields) {
  const auto bytes = [](const std::string& text) { return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data())); };
  std::vector<nghttp2_nv> all;
  for (const auto& [name, value] : fields)
    all.push_back({bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE});
  return all;
}

// The library is C: nothing may be thrown through it.
template <class Work>
int shielded(Work&& work) noexcept {
  try {
    return work();
  } catch (const std::exception&) {
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  }
}

// Out of memory is the only failure of a submission that is not the stream's having ended meanwhile.
void submitted(int result) {
  if (result == NGHTTP2_ERR_NOMEM) throw std::bad_alloc();
}

std::string_view text(const uint8_t* bytes, size_t size) {
  return {reinterpret_cast<const char*>(bytes), size};
}

}  // namespace

struct H2Connection::Stream {
  H2Request request;
  size_t header_bytes = 0;
  int num_fields = 0;
  std::shared_ptr<H2Stream> handler;
  bool has_head = false;     // of the request
  bool is_whole = false;     // the request
  bool is_answered = false;  // the head of the answer is on its way
  bool is_ended = false;     // nothing more will be written
  bool is_late = false;      // its handler was told that it does not come
  bool is_stalled = false;
  std::string output;
  size_t output_pos = 0;
  H2Fields trailers;
  Clock::time_point opened_at = Clock::now(), moved_at = opened_at;

  bool has_output() const { return output_pos < output.size(); }
};

H2Connection::H2Connection(std::shared_ptr<void> keep, asio::ip::tcp::socket socket, const H2Limits& limits, Open open, Closed closed)
    : keep_(std::move(keep)),
      socket_(std::move(socket)),
      timer_(socket_.get_executor()),
      limits_(limits),
      open_(std::move(open)),
      closed_(std::move(closed)),
      glitches_at_(Clock::now()),
      started_at_(glitches_at_),
      idle_since_(glitches_at_),
      written_at_(glitches_at_) {}

H2Connection::~H2Connection() {
  nghttp2_session_del(session_);
}

// What a handler throws (memory, in effect) ends this connection and nothing else.
template <class Work>
void H2Connection::guarded(Work&& work) noexcept {
  try {
    if (!is_closed_) work();
  } catch (const std::exception&) {
    close();
  }
}

void H2Connection::make_session() {
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_option* option = nullptr;
  if (nghttp2_session_callbacks_new(&callbacks) != 0) throw std::bad_alloc();
  const std::unique_ptr<nghttp2_session_callbacks, decltype(&nghttp2_session_callbacks_del)> held(callbacks, nghttp2_session_callbacks_del);
  if (nghttp2_option_new(&option) != 0) throw std::bad_alloc();
  const std::unique_ptr<nghttp2_option, decltype(&nghttp2_option_del)> held_option(option, nghttp2_option_del);
  nghttp2_session_callbacks_set_on_begin_headers_callback(
      callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* user) {
        return shielded([&] { return self(user).on_begin_headers(*frame); });
      });
  nghttp2_session_callbacks_set_on_header_callback(
      callbacks, [](nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size, const uint8_t* value,
                    size_t value_size, uint8_t, void* user) {
        return shielded([&] { return self(user).on_header(*frame, text(name, name_size), text(value, value_size)); });
      });
  nghttp2_session_callbacks_set_on_frame_recv_callback(
      callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* user) {
        return shielded([&] { return self(user).on_frame(*frame); });
      });
  // Streams beyond the limit that the peer has not acknowledged yet are refused by the library, and end here.
  nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(
      callbacks, [](nghttp2_session*, const nghttp2_frame*, int, void* user) {
        return shielded([&] {
          self(user).glitch();
          return 0;
        });
      });
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
      callbacks, [](nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t size, void* user) {
        return shielded([&] { return self(user).on_data(id, text(data, size)); });
      });
  nghttp2_session_callbacks_set_on_frame_send_callback(
      callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* user) {
        return shielded([&] { return self(user).on_sent(*frame); });
      });
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, [](nghttp2_session*, int32_t id, uint32_t, void* user) {
    return shielded([&] { return self(user).on_stream_closed(id); });
  });
  nghttp2_option_set_no_closed_streams(option, 1);
  nghttp2_option_set_max_outbound_ack(option, kMaxAcknowledgements);
  nghttp2_option_set_stream_reset_rate_limit(option, UINT64_MAX, UINT64_MAX);  // glitch() counts them, with others
  if (nghttp2_session_server_new2(&session_, callbacks, this, option) != 0) throw std::bad_alloc();
}

void H2Connection::start() {
  guarded([this] {
    make_session();
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, static_cast<uint32_t>(limits_.max_streams)},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<uint32_t>(limits_.max_header_bytes)}};
    submitted(nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings)));
    receive();
    pump();
    tick();
  });
}

void H2Connection::post(std::function<void()> work) {
  asio::post(socket_.get_executor(), [weak = weak_from_this(), work = std::move(work)] {
    const std::shared_ptr<H2Connection> self = weak.lock();
    if (!self) return;
    self->guarded([&] {
      work();
      self->pump();
    });
  });
}

// --- what comes in ---

void H2Connection::receive() {
  if (receiving_ || is_closed_ || (is_ending_ && !is_lingering_)) return;
  if (!is_lingering_ && nghttp2_session_get_outbound_queue_size(session_) > kMaxQueuedFrames) return;
  receiving_ = true;
  // Waiting without a buffer: an idle connection costs no more than this object and the library's.
  socket_.async_wait(asio::ip::tcp::socket::wait_read, [self = shared_from_this()](boost::system::error_code error) {
    self->receiving_ = false;
    self->guarded([&] { error ? self->close() : self->on_readable(); });
  });
}

void H2Connection::on_readable() {
  thread_local std::array<char, kReadBytes> buffer;
  boost::system::error_code error;
  const size_t bytes = socket_.read_some(asio::buffer(buffer), error);
  if (error == asio::error::would_block) return receive();
  if (error) return close();
  if (!is_ending_) on_received({buffer.data(), bytes});
  receive();
}

void H2Connection::on_received(std::string_view bytes) {
  is_inside_ = true;
  const ssize_t taken = nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  is_inside_ = false;
  // A preface that is none, or more acknowledgements than anybody reads: the library has given up on the peer.
  if (taken == NGHTTP2_ERR_FLOODED || taken == NGHTTP2_ERR_BAD_CLIENT_MAGIC || taken == NGHTTP2_ERR_NOMEM ||
      taken == NGHTTP2_ERR_CALLBACK_FAILURE)
    return close();
  if (taken < 0) submitted(nghttp2_session_terminate_session(session_, NGHTTP2_PROTOCOL_ERROR));
  pump();
}

H2Connection::Stream* H2Connection::find(int32_t id) {
  const auto found = streams_.find(id);
  return found == streams_.end() ? nullptr : found->second.get();
}

int H2Connection::on_begin_headers(const nghttp2_frame& frame) {
  if (frame.headers.cat != NGHTTP2_HCAT_REQUEST || is_ending_) return 0;
  const int32_t id = frame.hd.stream_id;
  if (static_cast<int>(streams_.size()) >= limits_.max_streams) {
    glitch();
    return nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM);
  }
  streams_.emplace(id, std::make_unique<Stream>());
  return 0;
}

int H2Connection::on_header(const nghttp2_frame& frame, std::string_view name, std::string_view value) {
  Stream* const stream = find(frame.hd.stream_id);
  if (!stream || stream->has_head) return 0;
  stream->header_bytes += name.size() + value.size() + 32;
  if (stream->header_bytes > limits_.max_header_bytes || ++stream->num_fields > limits_.max_fields) return 0;  // said in on_request
  if (name == ":method") {
    stream->request.method = value;
  } else if (name == ":path") {
    stream->request.path = value;
  } else if (!name.starts_with(':')) {
    stream->request.fields.emplace_back(name, value);
  }
  return 0;
}

int H2Connection::on_frame(const nghttp2_frame& frame) {
  greeted_ = true;
  const bool is_last = (frame.hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  const int32_t id = frame.hd.stream_id;
  switch (frame.hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA: {
      if (frame.hd.type == NGHTTP2_DATA && frame.hd.length == 0 && !is_last) glitch();
      Stream* const stream = find(id);
      if (!stream) return 0;
      if (is_last) stream->is_whole = true;
      if (!std::exchange(stream->has_head, true)) on_request(id, *stream);
      if (is_last && stream->handler) stream->handler->on_end();
      return 0;
    }
    case NGHTTP2_RST_STREAM:
      glitch();
      return 0;
    case NGHTTP2_PING:
    case NGHTTP2_SETTINGS:
      if ((frame.hd.flags & NGHTTP2_FLAG_ACK) == 0) glitch();
      return 0;
    case NGHTTP2_PRIORITY:
      glitch();
      return 0;
    default:
      return 0;
  }
}

void H2Connection::on_request(int32_t id, Stream& stream) {
  if (stream.header_bytes > limits_.max_header_bytes || stream.num_fields > limits_.max_fields) {
    respond(id, {{":status", "431"}}, true);
    return;
  }
  stream.handler = open_(*this, id, std::move(stream.request));
}

int H2Connection::on_data(int32_t id, std::string_view bytes) {
  Stream* const stream = find(id);
  if (!stream) return 0;
  stream->moved_at = Clock::now();
  if (stream->handler) stream->handler->on_data(bytes);
  return 0;
}

int H2Connection::on_stream_closed(int32_t id) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return 0;
  const std::unique_ptr<Stream> stream = std::move(found->second);
  streams_.erase(found);
  if (streams_.empty()) idle_since_ = Clock::now();
  const H2End end = stream->is_stalled                               ? H2End::kStalled
                    : stream->is_ended && !stream->has_output() ? H2End::kDone
                                                                     : H2End::kGone;
  if (stream->handler) stream->handler->on_closed(end);
  return 0;
}

void H2Connection::end_streams() {
  for (auto& [id, stream] : std::exchange(streams_, {}))
    if (stream->handler) stream->handler->on_closed(stream->is_stalled ? H2End::kStalled : H2End::kGone);
}

// The rest of a request that was answered already is not wanted (RFC 9113 8.1). Not sooner: a stream that is being reset sends nothing.
int H2Connection::on_sent(const nghttp2_frame& frame) {
  const Stream* const stream = find(frame.hd.stream_id);
  const bool is_last = frame.hd.type == NGHTTP2_HEADERS && (frame.hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  if (!stream || !is_last || stream->is_whole) return 0;
  return nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_NO_ERROR);
}

// One too many, and the connection ends.
void H2Connection::glitch() {
  const Clock::time_point now = Clock::now();
  const std::chrono::duration<double> passed = now - std::exchange(glitches_at_, now);
  glitches_ = std::max(0.0, glitches_ - passed.count() * kGlitchesPerSecond) + 1;
  if (glitches_ <= kMaxGlitches || std::exchange(is_ending_, true)) return;
  is_flooded_ = true;
  submitted(nghttp2_session_terminate_session(session_, NGHTTP2_ENHANCE_YOUR_CALM));
}

// --- what goes out ---

void H2Connection::respond(int32_t id, const H2Fields& head, bool is_all) {
  Stream* const stream = find(id);
  if (!stream || stream->is_answered) return;
  stream->is_answered = true;
  stream->moved_at = Clock::now();
  const std::vector<nghttp2_nv> fields = fields_of(head);
  nghttp2_data_provider provider{};
  provider.source.ptr = this;
  provider.read_callback = [](nghttp2_session*, int32_t from, uint8_t* to, size_t most, uint32_t* flags, nghttp2_data_source* source,
                              void*) {
    ssize_t read = 0;
    const int problem = shielded([&] {
      read = static_cast<H2Connection*>(source->ptr)->read_output(from, to, most, flags);
      return 0;
    });
    return problem ? problem : read;
  };
  submitted(nghttp2_submit_response(session_, id, fields.data(), fields.size(), is_all ? nullptr : &provider));
  stream->is_ended = is_all;
}

void H2Connection::write(int32_t id, std::string_view bytes) {
  Stream* const stream = find(id);
  if (!stream || stream->is_ended || bytes.empty()) return;
  if (!stream->has_output()) stream->moved_at = Clock::now();
  stream->output.erase(0, std::exchange(stream->output_pos, 0));
  stream->output += bytes;
  nghttp2_session_resume_data(session_, id);
}

void H2Connection::end(int32_t id, H2Fields trailers) {
  Stream* const stream = find(id);
  if (!stream || stream->is_ended) return;
  stream->is_ended = true;
  stream->trailers = std::move(trailers);
  nghttp2_session_resume_data(session_, id);
}

void H2Connection::cut(int32_t id) {
  Stream* const stream = find(id);
  if (!stream) return;
  stream->is_stalled = true;
  submitted(nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_ENHANCE_YOUR_CALM));
}

ssize_t H2Connection::read_output(int32_t id, uint8_t* to, size_t most, uint32_t* flags) {
  Stream* const stream = find(id);
  if (!stream) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  const size_t bytes = std::min(most, stream->output.size() - stream->output_pos);
  if (bytes == 0 && !stream->is_ended) return NGHTTP2_ERR_DEFERRED;
  std::memcpy(to, stream->output.data() + stream->output_pos, bytes);
  stream->output_pos += bytes;
  stream->moved_at = Clock::now();
  if (!stream->has_output()) {
    stream->output = {};
    stream->output_pos = 0;
    if (stream->is_ended) {
      const std::vector<nghttp2_nv> trailers = fields_of(stream->trailers);
      *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
      submitted(nghttp2_submit_trailer(session_, id, trailers.data(), trailers.size()));
    }
  }
  if (bytes > 0 && stream->handler) stream->handler->on_sent(bytes);
  return static_cast<ssize_t>(bytes);
}

void H2Connection::pump() {
  if (writing_ || is_closed_ || is_inside_ || is_lingering_) return;
  if (output_pos_ == output_.size()) {
    output_.clear();
    output_pos_ = 0;
    is_inside_ = true;
    ssize_t size = 1;
    while (output_.size() < kOutputBytes) {
      const uint8_t* bytes = nullptr;
      size = nghttp2_session_mem_send(session_, &bytes);
      if (size <= 0) break;
      output_ += text(bytes, static_cast<size_t>(size));
    }
    is_inside_ = false;
    if (size < 0) return close();
    if (output_.empty()) {
      const bool is_over = !nghttp2_session_want_read(session_) && !nghttp2_session_want_write(session_);
      if (is_over || is_ending_) return last_frame_is_out();
      if (streams_.empty()) output_.shrink_to_fit();
      return;
    }
    written_at_ = Clock::now();
  }
  writing_ = true;
  socket_.async_write_some(asio::buffer(output_.data() + output_pos_, output_.size() - output_pos_),
                           [self = shared_from_this()](boost::system::error_code error, size_t bytes) {
                             self->writing_ = false;
                             self->guarded([&] { error ? self->close() : self->on_written(bytes); });
                           });
}

void H2Connection::on_written(size_t bytes) {
  output_pos_ += bytes;
  written_at_ = Clock::now();
  pump();
  receive();
}

// Closing with unread input makes the kernel send a reset, which can overtake what we said. So: say that we are done, and let the
// client close, for a bounded time.
void H2Connection::last_frame_is_out() {
  is_ending_ = is_lingering_ = true;
  end_streams();
  if (is_unused_) return close();  // whoever makes way does it now
  boost::system::error_code error;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, error);
  if (error) return close();
  linger_until_ = Clock::now() + limits_.linger_timeout;
  receive();
}

// --- life ---

// Looks at every deadline, often enough for the shortest of them.
void H2Connection::tick() {
  const Clock::time_point now = Clock::now();
  if (is_lingering_ ? now >= linger_until_ : writing_ && now - written_at_ > limits_.write_stall_timeout) return close();
  if (!greeted_ && now - started_at_ > limits_.header_timeout) return close();
  if (!is_ending_ && streams_.empty() && now - idle_since_ > limits_.idle_timeout) {
    submitted(nghttp2_session_terminate_session(session_, NGHTTP2_NO_ERROR));
    is_ending_ = is_unused_ = true;
  }
  for (const auto& [id, stream] : streams_) check_stream(id, *stream, now);
  pump();
  if (is_closed_) return;
  const auto shortest = std::min({limits_.header_timeout, limits_.body_timeout, limits_.body_total_timeout, limits_.idle_timeout,
                                  limits_.write_stall_timeout, limits_.linger_timeout});
  timer_.expires_after(std::clamp<std::chrono::milliseconds>(shortest / 4, kShortestTick, kLongestTick));
  timer_.async_wait([weak = weak_from_this()](boost::system::error_code cancelled) {
    if (const std::shared_ptr<H2Connection> self = weak.lock(); self && !cancelled) self->guarded([&] { self->tick(); });
  });
}

void H2Connection::check_stream(int32_t id, Stream& stream, Clock::time_point now) {
  const bool has_something = stream.has_output() || (stream.is_ended && stream.is_answered);
  if (has_something && now - stream.moved_at > limits_.write_stall_timeout) return cut(id);
  if (!stream.has_head) {
    // Nothing but the rest of this head may come now: the connection is of no use to anybody.
    if (now - stream.opened_at > limits_.header_timeout && !is_ending_) {
      submitted(nghttp2_session_terminate_session(session_, NGHTTP2_PROTOCOL_ERROR));
      is_ending_ = true;
    }
    return;
  }
  const bool is_late = !stream.is_whole && !stream.is_ended &&
                       (now - stream.moved_at > limits_.body_timeout ||
                        (!stream.is_answered && now - stream.opened_at > limits_.body_total_timeout));
  if (is_late && !std::exchange(stream.is_late, true) && stream.handler) stream.handler->on_timeout();
}

void H2Connection::drain() {
  guarded([this] {
    if (is_ending_) return;
    submitted(nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_), NGHTTP2_NO_ERROR,
                                    nullptr, 0));
    if (streams_.empty()) is_ending_ = is_unused_ = true;
    pump();
  });
}

void H2Connection::close() {
  if (std::exchange(is_closed_, true)) return;
  const auto keep = shared_from_this();
  timer_.cancel();
  boost::system::error_code ignored;
  socket_.close(ignored);
  end_streams();
  closed_(*this, is_flooded_);
}

}  // namespace serval
