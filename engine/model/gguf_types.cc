// The types of GGUF tensors: how their blocks are laid out, and what holds them. Numbers are those of the format's
// definition, d * (code - bias) and the like; scales of scales are multiplied out.
#include <cmath>

#include "engine/model/gguf.h"
#include "engine/model/gguf_blocks.h"

namespace serval {
namespace {

// 32 codes of 4 bits: those of the first half in the low bits.
void halves(const uint8_t* bytes, int bias, int8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    codes[i] = static_cast<int8_t>((bytes[i] & 15) - bias);
    codes[i + 16] = static_cast<int8_t>((bytes[i] >> 4) - bias);
  }
}

void read_q4_0(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts) {
  for_blocks<32, 18, 32, false>(blocks, n, k, parts, [](const uint8_t* b, int8_t* codes, float* scale, float*) {
    *scale = half_at(b);
    halves(b + 2, 8, codes);
  });
}

void read_q4_1(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts) {
  for_blocks<32, 20, 32, true>(blocks, n, k, parts, [](const uint8_t* b, int8_t* codes, float* scale, float* offset) {
    *scale = half_at(b);
    *offset = half_at(b + 2) + 8 * *scale;
    halves(b + 4, 8, codes);
  });
}

// The fifth bits are 32 bits of their own.
void fifths(const uint8_t* bytes, const uint8_t* high, int bias, int8_t* codes) {
  halves(bytes, bias, codes);
  const auto bits = value_at<uint32_t>(high);
  for (int i = 0; i < 32; ++i) codes[i] = static_cast<int8_t>(codes[i] + static_cast<int>((bits >> i & 1) << 4));
}

void read_q5_0(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts) {
  for_blocks<32, 22, 32, false>(blocks, n, k, parts, [](const uint8_t* b, int8_t* codes, float* scale, float*) {
    *scale = half_at(b);
    fifths(b + 6, b + 2, 16, codes);
  });
}

void read_q5_1(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts) {
  for_blocks<32, 24, 32, true>(blocks, n, k, parts, [](const uint8_t* b, int8_t* codes, float* scale, float* offset) {
    *scale = half_at(b);
    *offset = half_at(b + 2);
    fifths(b + 8, b + 4, 0, codes);
  });
}

void read_q8_0(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts) {
  for_blocks<32, 34, 32, false>(blocks, n, k, parts, [](const uint8_t* b, int8_t* codes, float* scale, float*) {
    *scale = half_at(b);
    std::memcpy(codes, b + 2, 32);
  });
}

// Blocks of 256: 16 scales and minima of 4 bits, codes of 2 bits, of 32 neighbours each in one pair of bits of 32 bytes.
void read_q2_k(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts) {
  for_blocks<256, 84, 16, true>(blocks, n, k, parts, [](const uint8_t* b, int8_t* codes, float* scales, float* offsets) {
    const float d = half_at(b + 80), least = half_at(b + 82);
    for (int g = 0; g < 16; ++g) {
      scales[g] = d * static_cast<float>(b[g] & 15);
      offsets[g] = -least * static_cast<float>(b[g] >> 4);
    }
    for (int i = 0; i < 256; ++i) codes[i] = static_cast<int8_t>(b[16 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3);
  });
}

// The third bits by themselves, where a 0 takes 4 away; 16 scales of 6 bits, their low bits first.
void read_q3_k(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts) {
  for_blocks<256, 110, 16, false>(blocks, n, k, parts, [](const uint8_t* b, int8_t* codes, float* scales, float*) {
    const uint8_t* const packed = b + 96;
    const float d = half_at(b + 108);
    for (int g = 0; g < 16; ++g) {
      const int low = g < 8 ? packed[g] & 15 : packed[g - 8] >> 4;
      const int high = packed[8 + g % 4] >> g / 4 * 2 & 3;
      scales[g] = d * static_cast<float>((low | high << 4) - 32);
    }
    for (int i = 0; i < 256; ++i) {
      const int low = b[32 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
      codes[i] = static_cast<int8_t>(low - ((b[i % 32] >> i / 32 & 1) != 0 ? 0 : 4));
    }
  });
}

// Eight scales and minima of 6 bits in 12 bytes: the first four of each whole, the high bits of the others above those.
struct SixBits {
  int scale, least;
  SixBits(const uint8_t* packed, int g)
      : scale(g < 4 ? packed[g] & 63 : (packed[g + 4] & 15) | (packed[g - 4] >> 6) << 4),
        least(g < 4 ? packed[g + 4] & 63 : packed[g + 4] >> 4 | (packed[g] >> 6) << 4) {}
};

// 64 neighbours share 32 bytes, the first half in the low bits.
int nibble_at(const uint8_t* bytes, int i) {
  return bytes[i / 64 * 32 + i % 32] >> i % 64 / 32 * 4 & 15;
}

void read_q4_k(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts) {
  for_blocks<256, 144, 32, true>(blocks, n, k, parts, [](const uint8_t* b, int8_t* codes, float* scales, float* offsets) {
    const float d = half_at(b), least = half_at(b + 2);
    for (int g = 0; g < 8; ++g) {
      const SixBits six(b + 4, g);
      scales[g] = d * static_cast<float>(six.scale);
      offsets[g] = 8 * scales[g] - least * static_cast<float>(six.least);
    }
    for (int i = 0; i < 256; ++i) codes[i] = static_cast<int8_t>(nibble_at(b + 16, i) - 8);
  });
}

void read_q5_k(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts) {
  for_blocks<256, 176, 32, true>(blocks, n, k, parts, [](const uint8_t* b, int8_t* codes, float* scales, float* offsets) {
    const float d = half_at(b), least = half_at(b + 2);
    for (int g = 0; g < 8; ++g) {
      const SixBits six(b + 4, g);
      scales[g] = d * static_cast<float>(six.scale);
      offsets[g] = -least * static_cast<float>(six.least);
    }
    for (int i = 0; i < 256; ++i)
      codes[i] = static_cast<int8_t>(nibble_at(b + 48, i) | (b[16 + i % 32] >> i / 32 & 1) << 4);
  });
}

void read_q6_k(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts) {
  for_blocks<256, 210, 16, false>(blocks, n, k, parts, [](const uint8_t* b, int8_t* codes, float* scales, float*) {
    const float d = half_at(b + 208);
    for (int g = 0; g < 16; ++g) scales[g] = d * static_cast<float>(static_cast<int8_t>(b[192 + g]));
    for (int i = 0; i < 256; ++i) {
      const int in = i % 128, low = b[i / 128 * 64 + in % 64] >> in / 64 * 4 & 15;
      const int high = b[128 + i / 128 * 32 + in % 32] >> in / 32 * 2 & 3;
      codes[i] = static_cast<int8_t>((low | high << 4) - 32);
    }
  });
}

constexpr CodeTable kUnevenLevels = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

void read_iq4_nl(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts) {
  parts.table = kUnevenLevels;
  for_blocks<32, 18, 32, false>(blocks, n, k, parts, [](const uint8_t* b, int8_t* codes, float* scale, float*) {
    *scale = half_at(b);
    halves(b + 2, 0, codes);
  });
}

void read_iq4_xs(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts) {
  parts.table = kUnevenLevels;
  for_blocks<256, 136, 32, false>(blocks, n, k, parts, [](const uint8_t* b, int8_t* codes, float* scales, float*) {
    const float d = half_at(b);
    const auto high = value_at<uint16_t>(b + 2);
    for (int g = 0; g < 8; ++g) {
      const int scale = (b[4 + g / 2] >> g % 2 * 4 & 15) | (high >> 2 * g & 3) << 4;
      scales[g] = d * static_cast<float>(scale - 32);
      halves(b + 8 + g * 16, 0, codes + g * 32);
    }
  });
}

// Of E2M1, doubled.
constexpr CodeTable kDoubledE2M1 = {0, 1, 2, 3, 4, 6, 8, 12, -0.0f, -1, -2, -3, -4, -6, -8, -12};

void read_mxfp4(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts) {
  parts.table = kDoubledE2M1;
  for_blocks<32, 17, 32, false>(blocks, n, k, parts, [](const uint8_t* b, int8_t* codes, float* scale, float*) {
    *scale = std::ldexp(0.5f, b[0] - 127);
    halves(b + 1, 0, codes);
  });
}

// -1, 0 and 1: five in a byte, as the digits of a number of base 3 that is a fraction of 256.
void read_tq1_0(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts) {
  for_blocks<256, 54, 256, false>(blocks, n, k, parts, [](const uint8_t* b, int8_t* codes, float* scale, float*) {
    *scale = half_at(b + 52);
    static constexpr uint8_t kPowers[] = {1, 3, 9, 27, 81};
    // `count` bytes, which have their first digits first.
    const auto read = [&codes](const uint8_t* bytes, int count, int digits) {
      for (int i = 0; i < count * digits; ++i)
        *codes++ = static_cast<int8_t>((static_cast<uint8_t>(bytes[i % count] * kPowers[i / count]) * 3 >> 8) - 1);
    };
    read(b, 32, 5);
    read(b + 32, 16, 5);
    read(b + 48, 4, 4);
  });
}

void read_tq2_0(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts) {
  for_blocks<256, 66, 256, false>(blocks, n, k, parts, [](const uint8_t* b, int8_t* codes, float* scale, float*) {
    *scale = half_at(b + 64);
    for (int i = 0; i < 256; ++i) codes[i] = static_cast<int8_t>((b[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) - 1);
  });
}

const GgufType kTypes[] = {
    {0, "F32", 1, 4, WeightFormat::kF32, nullptr},
    {1, "F16", 1, 2, WeightFormat::kF16, nullptr},
    {2, "Q4_0", 32, 18, {WeightFormat::kInt4, 32}, read_q4_0},
    {3, "Q4_1", 32, 20, {WeightFormat::kInt4, 32, true}, read_q4_1},
    {6, "Q5_0", 32, 22, {WeightFormat::kInt8Groups, 32}, read_q5_0},
    {7, "Q5_1", 32, 24, {WeightFormat::kInt8Groups, 32, true}, read_q5_1},
    {8, "Q8_0", 32, 34, {WeightFormat::kInt8Groups, 32}, read_q8_0},
    {10, "Q2_K", 256, 84, {WeightFormat::kInt4, 16, true}, read_q2_k},
    {11, "Q3_K", 256, 110, {WeightFormat::kInt4, 16}, read_q3_k},
    {12, "Q4_K", 256, 144, {WeightFormat::kInt4, 32, true}, read_q4_k},
    {13, "Q5_K", 256, 176, {WeightFormat::kInt8Groups, 32, true}, read_q5_k},
    {14, "Q6_K", 256, 210, {WeightFormat::kInt8Groups, 16}, read_q6_k},
    {16, "IQ2_XXS", 256, 66, {{WeightFormat::kTable4, 32}, &kIq2Levels}, read_iq2_xxs},
    {17, "IQ2_XS", 256, 74, {{WeightFormat::kTable4, 16}, &kIq2Levels}, read_iq2_xs},
    {18, "IQ3_XXS", 256, 98, {{WeightFormat::kTable4, 32}, &kIq3XxsLevels}, read_iq3_xxs},
    {19, "IQ1_S", 256, 50, {{WeightFormat::kTable4, 32}, &kIq1Levels}, read_iq1_s},
    {20, "IQ4_NL", 32, 18, {{WeightFormat::kTable4, 32}, &kUnevenLevels}, read_iq4_nl},
    {21, "IQ3_S", 256, 110, {{WeightFormat::kTable4, 32}, &kIq3SLevels}, read_iq3_s},
    {22, "IQ2_S", 256, 82, {{WeightFormat::kTable4, 16}, &kIq2Levels}, read_iq2_s},
    {23, "IQ4_XS", 256, 136, {{WeightFormat::kTable4, 32}, &kUnevenLevels}, read_iq4_xs},
    {29, "IQ1_M", 256, 56, {{WeightFormat::kTable4, 16}, &kIq1Levels}, read_iq1_m},
    {30, "BF16", 1, 2, WeightFormat::kBF16, nullptr},
    {34, "TQ1_0", 256, 54, {WeightFormat::kInt4, 256}, read_tq1_0},
    {35, "TQ2_0", 256, 66, {WeightFormat::kInt4, 256}, read_tq2_0},
    {39, "MXFP4", 32, 17, {{WeightFormat::kTable4, 32}, &kDoubledE2M1}, read_mxfp4},
};

// Of types that are known by name alone.
constexpr std::pair<uint32_t, std::string_view> kOthers[] = {
    {9, "Q8_1"}, {15, "Q8_K"}, {24, "I8"}, {25, "I16"}, {26, "I32"}, {27, "I64"}, {28, "F64"}, {40, "NVFP4"},
};

}  // namespace

const GgufType* find_gguf_type(uint32_t id) {
  for (const GgufType& type : kTypes)
    if (type.id == id) return &type;
  return nullptr;
}

std::string gguf_type_name(uint32_t id) {
  if (const GgufType* type = find_gguf_type(id)) return std::string(type->name);
  for (const auto& [other, name] : kOthers)
    if (other == id) return std::string(name);
  return std::to_string(id);
}

}  // namespace serval
