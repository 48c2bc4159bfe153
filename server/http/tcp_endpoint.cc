#include "server/http/tcp_endpoint.h"

#include <stdexcept>

namespace serval {
namespace asio = boost::asio;
using asio::ip::tcp;

void listen_on(tcp::acceptor& acceptor, const tcp::endpoint& endpoint, const std::string& face) {
  boost::system::error_code error;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (!error) acceptor.non_blocking(true, error);
  if (error) {
    throw std::runtime_error("cannot listen on " + endpoint.address().to_string() + " port " + std::to_string(endpoint.port()) +
                             " for " + face + ": " + error.message());
  }
}

tcp::endpoint resolve_endpoint(asio::io_context& io, const std::string& host, uint16_t port, const std::string& face) {
  boost::system::error_code error;
  const asio::ip::address address = asio::ip::make_address(host, error);
  if (!error) return {address, port};
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, error);
  if (error || found.empty()) throw std::runtime_error("cannot resolve the " + face + " host " + host);
  return *found.begin();
}

void refuse_open_endpoint(const tcp::endpoint& endpoint, const std::string& host, bool is_guarded) {
  if (endpoint.address().is_loopback() || is_guarded) return;
  throw std::runtime_error("refusing to listen on " + host +
                           " without API keys: set api_keys, or insecure to serve everybody");
}

std::string client_address(const tcp::endpoint& peer) {
  const asio::ip::address address = peer.address();
  if (address.is_v4() || address.to_v6().is_v4_mapped()) {
    const auto bytes = address.is_v4() ? address.to_v4().to_bytes()
                                       : asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6()).to_bytes();
    return std::string(bytes.begin(), bytes.end());
  }
  const auto bytes = address.to_v6().to_bytes();
  return std::string(bytes.begin(), bytes.begin() + 8);
}

}  // namespace serval
