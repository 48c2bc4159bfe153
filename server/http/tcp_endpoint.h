// Where a listener listens and who a peer is, for both faces.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstdint>
#include <string>

namespace serval {

// Opens, binds and listens, without blocking later; throws std::runtime_error with a sentence that names `face` ("HTTP").
// Port 0 takes a free one.
void listen_on(boost::asio::ip::tcp::acceptor& acceptor, const boost::asio::ip::tcp::endpoint& endpoint, const std::string& face);
// An address, or a name of one; throws std::runtime_error with a sentence.
boost::asio::ip::tcp::endpoint resolve_endpoint(boost::asio::io_context& io, const std::string& host, uint16_t port,
                                                const std::string& face);

// Throws std::runtime_error with a sentence unless only this machine reaches the endpoint, or it is guarded: its
// callers show keys, or everybody may call.
void refuse_open_endpoint(const boost::asio::ip::tcp::endpoint& endpoint, const std::string& host, bool is_guarded);

// What tells clients apart: an IPv4 address, or the network that one IPv6 client has to itself.
std::string client_address(const boost::asio::ip::tcp::endpoint& peer);

}  // namespace serval
