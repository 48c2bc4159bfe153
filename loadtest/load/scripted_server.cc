#include "loadtest/load/scripted_server.h"

#include <algorithm>
#include <boost/asio.hpp>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <thread>

namespace serval::load {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

std::string chunk(const std::string& text) {
  char size[16];
  std::snprintf(size, sizeof size, "%zx\r\n", text.size());
  return size + text + "\r\n";
}

int max_tokens_of(const std::string& body) {
  const size_t at = body.find("\"max_tokens\":");
  return at == std::string::npos ? 1 : std::atoi(body.c_str() + at + 13);
}

}  // namespace

struct ScriptedServer::Impl : std::enable_shared_from_this<Impl> {
  Impl(std::function<Script(int)> chosen, bool is_serial)
      : script(std::move(chosen)),
        serial(is_serial),
        acceptor(io, {asio::ip::make_address("127.0.0.1"), 0}) {}

  struct Connection : std::enable_shared_from_this<Connection> {
    explicit Connection(Impl& owner) : impl(owner), socket(owner.io), timer(owner.io) {}

    void read_head() {
      asio::async_read_until(socket, asio::dynamic_buffer(input), "\r\n\r\n",
                             [self = shared_from_this()](error_code failed, size_t size) {
                               if (!failed) self->read_body(size);
                             });
    }
    void read_body(size_t head_size) {
      size_t length = 0;
      const size_t at = input.find("Content-Length: ");
      if (at != std::string::npos && at < head_size)
        length = std::strtoul(input.c_str() + at + 16, nullptr, 10);
      const size_t have = std::min(input.size() - head_size, length);
      asio::async_read(socket, asio::dynamic_buffer(input), asio::transfer_exactly(length - have),
                       [self = shared_from_this(), head_size, length](error_code failed, size_t) {
                         if (failed) return;
                         const std::string head = self->input.substr(0, head_size),
                                           body = self->input.substr(head_size, length);
                         self->input.erase(0, head_size + length);
                         self->answer(head, body);
                       });
    }
    void answer(const std::string& head, const std::string& body) {
      if (head.starts_with("GET")) {
        const bool models = head.find("/models") != std::string::npos;
        const std::string text = models ? R"({"object":"list","data":[{"id":"scripted"}]})" : "";
        return write("HTTP/1.1 " + std::string(models ? "200 OK" : "404 Not Found") +
                         "\r\nContent-Length: " + std::to_string(text.size()) + "\r\n\r\n" + text,
                     [self = shared_from_this()] { self->read_head(); });
      }
      {
        std::lock_guard lock(impl.mutex);
        record = impl.records.size();
        impl.records.push_back({Clock::now(), {}});
      }
      left = max_tokens_of(body);
      total = left;
      how = impl.script(static_cast<int>(record));
      impl.waiting.push_back(shared_from_this());
      if (!impl.serial || impl.waiting.size() == 1) begin();
    }
    void begin() {
      if (how.status != 200) {
        return write("HTTP/1.1 " + std::to_string(how.status) +
                         " X\r\nContent-Length: " + std::to_string(how.body.size()) + "\r\n\r\n" + how.body,
                     [self = shared_from_this()] { self->over(); });
      }
      write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            [self = shared_from_this()] { self->next(self->how.first_delay); });
    }
    void next(std::chrono::microseconds delay) {
      timer.expires_after(delay);
      timer.async_wait([self = shared_from_this()](error_code) { self->send_token(); });
    }
    void send_token() {
      {
        std::lock_guard lock(impl.mutex);
        impl.records[record].tokens.push_back(Clock::now());
      }
      const bool last = --left == 0;
      std::string text = chunk("data: {\"choices\":[{\"text\":\"x\",\"finish_reason\":null}]}\n\n");
      if (last) {
        text += chunk("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":" +
                      std::to_string(total) + ",\"prompt_tokens_details\":{\"cached_tokens\":2}}}\n\n") +
                chunk("data: [DONE]\n\n") + "0\r\n\r\n";
      }
      write(text, [self = shared_from_this(), last] {
        if (self->how.drop_after_first_token) return self->over();
        last ? self->over() : self->next(self->how.token_delay);
      });
    }
    void over() {
      std::erase(impl.waiting, shared_from_this());
      if (impl.serial && !impl.waiting.empty()) impl.waiting.front()->begin();
      if (how.drop_after_first_token) return socket.close();
      read_head();
    }
    template <class Then>
    void write(std::string text, Then then) {
      output = std::move(text);
      asio::async_write(socket, asio::buffer(output),
                        [self = shared_from_this(), then](error_code failed, size_t) {
                          if (!failed) then();
                        });
    }

    Impl& impl;
    tcp::socket socket;
    asio::steady_timer timer;
    std::string input, output;
    Script how;
    size_t record = 0;
    int left = 0, total = 0;
  };

  void accept() {
    auto connection = std::make_shared<Connection>(*this);
    acceptor.async_accept(connection->socket, [this, connection](error_code failed) {
      if (failed) return;
      connection->socket.set_option(tcp::no_delay(true));
      connection->read_head();
      accept();
    });
  }

  std::function<Script(int)> script;
  const bool serial;
  asio::io_context io{1};
  tcp::acceptor acceptor;
  std::deque<std::shared_ptr<Connection>> waiting;
  mutable std::mutex mutex;
  std::vector<Record> records;
  std::thread thread;
};

ScriptedServer::ScriptedServer(std::function<Script(int)> script, bool serial)
    : impl_(std::make_shared<Impl>(std::move(script), serial)) {
  impl_->accept();
  impl_->thread = std::thread([impl = impl_.get()] { impl->io.run(); });
}

ScriptedServer::~ScriptedServer() {
  impl_->io.stop();
  impl_->thread.join();
  impl_->waiting.clear();
}

std::string ScriptedServer::url() const {
  return "http://127.0.0.1:" + std::to_string(impl_->acceptor.local_endpoint().port()) + "/v1";
}

std::vector<ScriptedServer::Record> ScriptedServer::records() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->records;
}

}  // namespace serval::load
