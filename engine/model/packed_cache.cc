#include "engine/model/packed_cache.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>
#include <optional>
#include <stdexcept>
#include <system_error>

#include "engine/model/mapped_file.h"
#include "kernels/base/log.h"
#include "kernels/base/regular_file.h"

namespace serval {
namespace {

constexpr uint64_t kPrime = 0x9e3779b97f4a7c15;
constexpr size_t kPieceBytes = size_t{4} << 20, kAlignment = 64;

// Of each of two halves of a block a lane, x = rotate((x ^ word) * prime): every step can be undone, so that one changed
// word always changes the digest, and two changes cancel by chance alone.
Digest digest_of(const void* data, size_t bytes, uint64_t seed) {
  uint64_t lanes[4] = {seed ^ kPrime, seed * kPrime + 1, ~seed, seed + bytes};
  const auto take = [&](const uint64_t (&words)[4]) {
    for (int i = 0; i < 4; ++i) lanes[i] = std::rotl((lanes[i] ^ words[i]) * kPrime, 29);
  };
  const auto* p = static_cast<const std::byte*>(data);
  uint64_t words[4];
  for (; bytes >= sizeof words; bytes -= sizeof words, p += sizeof words) {
    std::memcpy(words, p, sizeof words);
    take(words);
  }
  if (bytes > 0) {
    std::memset(words, 0, sizeof words);
    std::memcpy(words, p, bytes);
    take(words);
  }
  for (int round = 0; round < 4; ++round)
    for (int i = 0; i < 4; ++i) lanes[i] = std::rotl((lanes[i] ^ lanes[(i + 1) % 4]) * kPrime, 31);
  return {lanes[0], lanes[2]};
}

template <class T>
Digest digest_of(const std::vector<T>& values) {
  return digest_of(values.data(), values.size() * sizeof(T), values.size());
}

// Of pieces that are looked at by all of the device's threads: digest(offset, bytes) is that of one.
Digest digest_in_pieces(Backend& backend, size_t bytes, const std::function<Digest(size_t, size_t)>& digest) {
  const size_t pieces = (bytes + kPieceBytes - 1) / kPieceBytes;
  std::vector<Digest> digests(pieces);
  backend.for_each_on_host(static_cast<int64_t>(pieces), [&](int64_t i) {
    const size_t begin = static_cast<size_t>(i) * kPieceBytes;
    digests[i] = digest(begin, std::min(kPieceBytes, bytes - begin));
  });
  return digest_of(digests);
}

Digest digest_of_file(Backend& backend, const MappedFile& file) {
  std::atomic<bool> is_cut{false};
  const Digest digest = digest_in_pieces(backend, file.size(), [&](size_t begin, size_t bytes) -> Digest {
    constexpr size_t kStep = size_t{256} << 10;  // stays in a core's own cache
    thread_local std::vector<std::byte> buffer(kStep);
    std::vector<Digest> steps;
    for (size_t done = 0; done < bytes; done += kStep) {
      const size_t count = std::min(kStep, bytes - done);
      try {
        file.take(begin + done, count, buffer.data());
      } catch (const std::runtime_error&) {
        is_cut = true;
        return {};
      }
      steps.push_back(digest_of(buffer.data(), count, done));
    }
    return digest_of(steps);
  });
  if (is_cut) throw std::runtime_error(file.path().string() + " was truncated while it was being read");
  return digest;
}

// What a slot is, in words: two slots with the same words of the same checkpoint hold the same.
std::string words_of(const SourceTensor& source) {
  std::string words = source.name;
  for (const int64_t dim : source.shape) words += " " + std::to_string(dim);
  for (const RowRange& range : source.rows)
    words += " rows " + std::to_string(range.first) + "+" + std::to_string(range.count) + "*" + std::to_string(range.step);
  words += source.is_transposed ? " transposed" : "";
  words += source.is_turned ? " turned" : "";
  return words + " " + std::to_string(source.index) + "/" + std::to_string(source.stack) + "; ";
}
std::string words_of(const MatrixFormat& format) {
  return std::string(format_row(format.id).name) + " " + std::to_string(format.group) + (format.has_offsets ? "o" : "") + " " +
         format_row(format.plain).name + ": ";
}
std::string words_of(const LinearSlot& slot) {
  std::string words = words_of(slot.format);
  for (const SourceTensor& part : slot.parts) words += words_of(part);
  for (const SourceTensor& bias : slot.biases) words += "bias " + words_of(bias);
  return words;
}
std::string words_of(const VectorSlot& slot) {
  std::string words = "+" + std::to_string(std::bit_cast<uint32_t>(slot.offset)) + (slot.prepare ? " prepared: " : ": ");
  for (const SourceTensor& source : slot.sources) words += words_of(source);
  return words;
}
std::string words_of(const ConstantSlot& slot) {
  const Digest digest = digest_of(slot.values);
  return "constant " + std::to_string(digest[0]) + " " + std::to_string(digest[1]) + "; ";
}
std::string words_of(const TableSlot& slot) {
  return "table " + words_of(slot.format) + std::to_string(slot.first_row) + " " + std::to_string(slot.rows) + " " +
         std::to_string(slot.columns) + "; ";
}

// What a slot's target holds.
struct HeldMatrix {
  int64_t n = 0, k = 0, group = 0;
  int64_t format = 0, has_offsets = 0;
  uint64_t offset[3] = {}, bytes[3] = {};  // in the data: codes, scales, bias; a buffer alone is the first
  Digest digest[3] = {};
};

void describe(const LinearWeight& w, HeldMatrix& held) {
  held = {w.n, w.k, w.group, static_cast<int64_t>(w.format), w.has_offsets, {}, {w.packed.bytes, w.scales.bytes, w.bias.bytes}, {}};
}
void describe(const Buffer& buffer, HeldMatrix& held) {
  held.bytes[0] = buffer.bytes;
}
std::array<const void*, 3> memory_of(const LinearWeight& w) {
  return {w.packed.data(), w.scales.data(), w.bias.data()};
}
std::array<const void*, 3> memory_of(const Buffer& buffer) {
  return {buffer.data(), nullptr, nullptr};
}

Buffer view(std::byte* data, const HeldMatrix& held, int i) {
  Buffer buffer;
  if (held.bytes[i] == 0) return buffer;
  buffer.memory = {data + held.offset[i], [](void*) {}};
  buffer.bytes = held.bytes[i];
  return buffer;
}
void fill(LinearWeight& w, const HeldMatrix& held, std::byte* data) {
  w.n = held.n;
  w.k = held.k;
  w.group = held.group;
  w.format = static_cast<WeightFormat>(held.format);
  w.has_offsets = held.has_offsets != 0;
  w.packed = view(data, held, 0);
  w.scales = view(data, held, 1);
  w.bias = view(data, held, 2);
}
void fill(Buffer& buffer, const HeldMatrix& held, std::byte* data) {
  buffer = view(data, held, 0);
}

// The file: this, the table of what is held, and at data_offset the data.
struct Header {
  char magic[8] = {'s', 'e', 'r', 'v', 'a', 'l', 'p', '1'};
  Digest made_of{}, table{};
  uint64_t num_held = 0, data_offset = 0, data_bytes = 0;
};

size_t aligned(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

Digest digest_of_data(Backend& backend, const void* data, size_t bytes) {
  return digest_in_pieces(backend, bytes, [&](size_t begin, size_t count) {
    return digest_of(static_cast<const std::byte*>(data) + begin, count, begin);
  });
}

// Whether what the table says lies in the data is there, unharmed.
bool is_sound(Backend& backend, const std::vector<HeldMatrix>& table, const std::byte* data, uint64_t data_bytes) {
  for (const HeldMatrix& held : table) {
    for (int part = 0; part < 3; ++part) {
      if (held.offset[part] > data_bytes || held.bytes[part] > data_bytes - held.offset[part]) return false;
      if (digest_of_data(backend, data + held.offset[part], held.bytes[part]) != held.digest[part]) return false;
    }
  }
  return true;
}

// A whole file in memory, its pages shared with whoever maps it too.
std::shared_ptr<std::byte> map_file(const OpenFile& file) {
  if (file.size() == 0) return nullptr;
  void* const memory = ::mmap(nullptr, file.size(), PROT_READ, MAP_SHARED | MAP_POPULATE, file.descriptor(), 0);
  if (memory == MAP_FAILED) return nullptr;
  return {static_cast<std::byte*>(memory), [size = file.size()](std::byte* p) { ::munmap(p, size); }};
}

void write_all(int descriptor, const void* data, size_t bytes) {
  const auto* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t count = ::write(descriptor, p, bytes);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) throw std::runtime_error(std::strerror(errno));
    p += count;
    bytes -= static_cast<size_t>(count);
  }
}

}  // namespace

PackedCache::PackedCache(const std::filesystem::path& folder, const std::filesystem::path& model_dir,
                         const Checkpoint& checkpoint, const std::vector<WeightSlot>& slots, Backend& backend)
    : backend_(backend) {
  static const Digest program = digest_of_file(backend, MappedFile("/proc/self/exe"));
  std::string words(backend.packed_layout());
  for (const WeightSlot& slot : slots) words += std::visit([](const auto& s) { return words_of(s); }, slot);
  std::vector<Digest> parts = {digest_of(words.data(), words.size(), 0), program};
  if (std::filesystem::is_directory(model_dir)) parts.push_back(digest_of_file(backend, MappedFile(model_dir / "config.json")));
  for (const MappedFile& file : checkpoint.files()) parts.push_back(digest_of_file(backend, file));
  made_of_ = digest_of(parts);
  // One file for each model and way to hold it: what is of an older program or checkpoint is written over.
  const std::string whose = std::filesystem::weakly_canonical(model_dir).string() + "\n" + words;
  char name[24];
  std::snprintf(name, sizeof name, "-%016llx", static_cast<unsigned long long>(digest_of(whose.data(), whose.size(), 1)[0]));
  file_ = folder / (model_dir.filename().string() + name + ".packed");
}

std::shared_ptr<void> PackedCache::load(const std::vector<WeightSlot>& slots) {
  std::error_code ignored;
  if (!std::filesystem::exists(file_, ignored)) return nullptr;
  const auto refuse = [&](const char* why) -> std::shared_ptr<void> {
    log_info("the packed cache cannot be used", {{"file", file_.string()}, {"reason", why}});
    return nullptr;
  };
  std::optional<OpenFile> opened;
  try {
    opened.emplace(file_);
  } catch (const std::runtime_error& error) {
    return refuse(error.what());
  }
  const size_t size = opened->size();
  const std::shared_ptr<std::byte> file = map_file(*opened);
  Header header;
  if (file == nullptr || size < sizeof header) return refuse("it is too short");
  const Header ours;
  std::memcpy(&header, file.get(), sizeof header);
  if (std::memcmp(header.magic, ours.magic, sizeof ours.magic) != 0) return refuse("it is none");
  if (header.made_of != made_of_) return refuse("it is of another checkpoint or program");
  const size_t table_bytes = slots.size() * sizeof(HeldMatrix);
  if (header.num_held != slots.size() || header.data_offset < sizeof header + table_bytes || header.data_offset > size ||
      header.data_offset % kAlignment != 0 || header.data_bytes != size - header.data_offset)
    return refuse("its sizes are wrong");
  std::vector<HeldMatrix> table(slots.size());
  std::memcpy(table.data(), file.get() + sizeof header, table_bytes);
  std::byte* const data = file.get() + header.data_offset;
  if (digest_of(table) != header.table || !is_sound(backend_, table, data, header.data_bytes)) return refuse("it is damaged");
  for (size_t i = 0; i < slots.size(); ++i)
    std::visit([&](const auto& slot) { fill(*slot.target, table[i], data); }, slots[i]);
  log_info("weights are mapped from the packed cache", {{"file", file_.string()}, {"mib", size >> 20}});
  return file;
}

void PackedCache::store(const std::vector<WeightSlot>& slots) const {
  std::vector<HeldMatrix> table(slots.size());
  Header header;
  header.made_of = made_of_;
  header.num_held = slots.size();
  header.data_offset = aligned(sizeof header + slots.size() * sizeof(HeldMatrix));
  std::vector<std::array<const void*, 3>> memory;
  for (size_t i = 0; i < slots.size(); ++i) {
    std::visit(
        [&](const auto& slot) {
          describe(*slot.target, table[i]);
          memory.push_back(memory_of(*slot.target));
        },
        slots[i]);
    for (int part = 0; part < 3; ++part) {
      table[i].digest[part] = digest_of_data(backend_, memory[i][part], table[i].bytes[part]);
      table[i].offset[part] = header.data_bytes;
      header.data_bytes += aligned(table[i].bytes[part]);
    }
  }
  header.table = digest_of(table);
  const std::filesystem::path unfinished = file_.string() + "." + std::to_string(::getpid());
  try {
    std::filesystem::create_directories(file_.parent_path());
    const int descriptor = ::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (descriptor < 0) throw std::runtime_error(std::strerror(errno));
    const std::unique_ptr<const int, void (*)(const int*)> closing(&descriptor, [](const int* fd) { ::close(*fd); });
    const std::byte zeros[kAlignment] = {};
    const auto pad = [&](size_t bytes) { write_all(descriptor, zeros, aligned(bytes) - bytes); };
    write_all(descriptor, &header, sizeof header);
    write_all(descriptor, table.data(), table.size() * sizeof(HeldMatrix));
    pad(sizeof header + table.size() * sizeof(HeldMatrix));
    for (size_t i = 0; i < slots.size(); ++i) {
      for (int part = 0; part < 3; ++part) {
        write_all(descriptor, memory[i][part], table[i].bytes[part]);
        pad(table[i].bytes[part]);
      }
    }
    std::filesystem::rename(unfinished, file_);
    log_info("the packed cache is written", {{"file", file_.string()}, {"mib", header.data_bytes >> 20}});
  } catch (const std::exception& error) {
    std::error_code ignored;
    std::filesystem::remove(unfinished, ignored);
    log_warn("the packed cache cannot be written", {{"file", file_.string()}, {"reason", error.what()}});
  }
}

}  // namespace serval
