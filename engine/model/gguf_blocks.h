// What the readers of GGUF's blocks share. Private to engine/model.
#pragma once

#include <cstdint>
#include <cstring>

#include "engine/model/stored_matrix.h"
#include "kernels/float_bits.h"

namespace serval {

// At any alignment.
template <class T>
T value_at(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

inline float half_at(const uint8_t* p) {
  return half_to_float(value_at<uint16_t>(p));
}

// Calls read(block, codes, scales, offsets) for each block, with the places of what it has.
template <int kBlock, int kBlockBytes, int kGroup, bool kHasOffsets, class Read>
void for_blocks(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts, const Read& read) {
  constexpr int kGroups = kBlock / kGroup;
  const int64_t count = n * k / kBlock;
  parts.codes.resize(static_cast<size_t>(n * k));
  parts.scales.resize(static_cast<size_t>(count * kGroups));
  if (kHasOffsets) parts.offsets.resize(parts.scales.size());
  for (int64_t b = 0; b < count; ++b)
    read(blocks + b * kBlockBytes, reinterpret_cast<int8_t*>(parts.codes.data()) + b * kBlock, parts.scales.data() + b * kGroups,
         kHasOffsets ? parts.offsets.data() + b * kGroups : nullptr);
}

// Types whose neighbours are points of a grid (gguf_grids.cc): as GgufType::read, and what their codes stand for.
extern const CodeTable kIq2Levels, kIq3XxsLevels, kIq3SLevels, kIq1Levels;
void read_iq2_xxs(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts);
void read_iq2_xs(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts);
void read_iq2_s(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts);
void read_iq3_xxs(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts);
void read_iq3_s(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts);
void read_iq1_s(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts);
void read_iq1_m(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts);

}  // namespace serval
