#include "loadtest/load/packed_file.h"

#include <lzma.h>
#include <zlib.h>

#include <fstream>
#include <stdexcept>
#include <string_view>
#include <vector>

namespace serval::load {
namespace {

constexpr std::string_view kXzMagic(
    "\xFD"
    "7zXZ\0",
    6);
constexpr std::string_view kGzipMagic("\x1F\x8B", 2);
constexpr size_t kChunk = 1 << 18;

[[noreturn]] void too_large(const std::string& path, size_t max_bytes) {
  throw std::runtime_error(path + " holds more than " + std::to_string(max_bytes >> 20) + " MiB");
}

std::string read_whole(const std::string& path, size_t max_bytes) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
  if (size < 0) throw std::runtime_error("cannot read " + path);
  if (static_cast<size_t>(size) > max_bytes) too_large(path, max_bytes);
  std::string bytes(static_cast<size_t>(size), '\0');
  file.seekg(0);
  if (!file.read(bytes.data(), size)) throw std::runtime_error("cannot read " + path);
  return bytes;
}

std::string unpack_xz(const std::string& path, const std::string& packed, size_t max_bytes) {
  constexpr uint64_t kMemory = 256 << 20;  // more than the largest preset needs
  lzma_stream stream = LZMA_STREAM_INIT;
  if (lzma_stream_decoder(&stream, kMemory, LZMA_CONCATENATED) != LZMA_OK)
    throw std::runtime_error(path + ": liblzma does not start");
  stream.next_in = reinterpret_cast<const uint8_t*>(packed.data());
  stream.avail_in = packed.size();
  std::string text;
  std::vector<uint8_t> chunk(kChunk);
  lzma_ret state = LZMA_OK;
  while (state == LZMA_OK && text.size() <= max_bytes) {
    stream.next_out = chunk.data();
    stream.avail_out = chunk.size();
    state = lzma_code(&stream, LZMA_FINISH);
    text.append(reinterpret_cast<char*>(chunk.data()), chunk.size() - stream.avail_out);
  }
  lzma_end(&stream);
  if (text.size() > max_bytes) too_large(path, max_bytes);
  if (state != LZMA_STREAM_END) throw std::runtime_error(path + " is damaged: not a whole .xz file");
  return text;
}

std::string unpack_gzip(const std::string& path, const std::string& packed, size_t max_bytes) {
  constexpr int kGzipOnly = 16;
  z_stream stream{};
  if (inflateInit2(&stream, MAX_WBITS + kGzipOnly) != Z_OK)
    throw std::runtime_error(path + ": zlib does not start");
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  std::string text;
  std::vector<Bytef> chunk(kChunk);
  int state = Z_OK;
  while (state == Z_OK && text.size() <= max_bytes) {
    stream.next_out = chunk.data();
    stream.avail_out = static_cast<uInt>(chunk.size());
    state = inflate(&stream, Z_NO_FLUSH);
    text.append(reinterpret_cast<char*>(chunk.data()), chunk.size() - stream.avail_out);
    // A file may be several packed ones in a row.
    if (state == Z_STREAM_END && stream.avail_in > 0) state = inflateReset(&stream);
  }
  inflateEnd(&stream);
  if (text.size() > max_bytes) too_large(path, max_bytes);
  if (state != Z_STREAM_END) throw std::runtime_error(path + " is damaged: not a whole .gz file");
  return text;
}

}  // namespace

std::string read_packed_file(const std::string& path, size_t max_bytes) {
  std::string bytes = read_whole(path, max_bytes);
  if (bytes.starts_with(kXzMagic)) return unpack_xz(path, bytes, max_bytes);
  if (bytes.starts_with(kGzipMagic)) return unpack_gzip(path, bytes, max_bytes);
  return bytes;
}

}  // namespace serval::load
