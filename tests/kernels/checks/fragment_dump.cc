#include "tests/kernels/checks/fragment_dump.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <cmath>
#include <cstdio>

#include "loadtest/gpu/device_array.h"
#include "tests/kernels/checks/fragment_kernels.h"

namespace serval::gpu {
namespace {

namespace json = boost::json;

constexpr const char* kExponential = "exp2_fast_worst_relative_error";
constexpr double kExponentialBound = 0x1p-21;

template <class T>
json::array numbers(const std::vector<T>& values) {
  json::array all;
  for (const T value : values) all.push_back(value);
  return all;
}

// FNV-1a (Fowler, Noll, Vo) of each run of 4096 values, so that a difference has a place.
template <class T>
json::array hashes(const std::vector<T>& values) {
  constexpr size_t kRun = 4096;
  json::array all;
  for (size_t begin = 0; begin < values.size(); begin += kRun) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = begin; i < std::min(values.size(), begin + kRun); ++i) {
      for (size_t byte = 0; byte < sizeof(T); ++byte)
        hash = (hash ^ (uint64_t{values[i]} >> (8 * byte) & 0xffu)) * 0x100000001b3u;
    }
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
    all.push_back(json::value(text));
  }
  return all;
}

// All not-a-numbers are one: which of them a conversion gives is nobody's promise.
void unify_nan(std::vector<uint32_t>& floats) {
  for (uint32_t& bits : floats)
    if ((bits & 0x7fffffffu) > 0x7f800000u) bits = 0x7fc00000u;
}

// For each element of a: the places of c that it changes, each with the element of b that it was multiplied
// by, [c, b, c, b, ...].
json::array product_layout(ProductKind kind) {
  const DeviceArray<float> sums(static_cast<size_t>(a_elements(kind)) * 128);
  multiply_units(nullptr, kind, 0, sums.data());
  const std::vector<float> low = sums.download();
  multiply_units(nullptr, kind, 1, sums.data());
  const std::vector<float> high = sums.download();
  json::array layout;
  for (int a = 0; a < a_elements(kind); ++a) {
    json::array touched;
    for (int c = 0; c < 128; ++c) {
      const size_t at = static_cast<size_t>(a) * 128 + c;
      if (low[at] == 0 && high[at] == 0) continue;
      touched.push_back(c);
      touched.push_back(static_cast<int>(high[at] - 1) * 16 + static_cast<int>(low[at] - 1));
    }
    layout.push_back(std::move(touched));
  }
  return layout;
}

double exponential_error() {
  std::vector<float> in;
  for (int i = 0; i <= 126 * 64; ++i) in.push_back(-static_cast<float>(i) / 64.01f);
  const DeviceArray<float> x(in), y(in.size());
  exponentiate(nullptr, x.data(), y.data(), static_cast<int>(in.size()));
  const std::vector<float> got = y.download();
  double worst = 0;
  for (size_t i = 0; i < in.size(); ++i) {
    const double want = std::exp2(double{in[i]});
    worst = std::max(worst, std::abs(got[i] - want) / want);
  }
  return worst;
}

}  // namespace

json::object dump_fragments() {
  const cuda::DeviceProperties device = cuda::device_properties();
  json::object dump;
  dump["device"] = device.name;
  dump["compute_capability"] = device.compute_capability;
  {
    const DeviceArray<uint32_t> plain(128), transposed(128);
    load_numbered_matrices(nullptr, plain.data(), transposed.data());
    dump["ldmatrix.x4"] = numbers(plain.download());
    dump["ldmatrix.x4.trans"] = numbers(transposed.download());
  }
  dump["mma.m16n8k16.bf16"] = product_layout(ProductKind::kBf16);
  dump["mma.m16n8k16.f16"] = product_layout(ProductKind::kHalf);
  dump["mma.m16n8k32.s8"] = product_layout(ProductKind::kInt8);
  if (device.compute_capability >= 89) {
    dump["mma.m16n8k32.e4m3"] = product_layout(ProductKind::kFp8);
  } else {
    dump["mma.m16n8k32.e4m3"] = nullptr;  // such a device has no product of E4M3
  }
  {
    const DeviceArray<uint32_t> bf16(65536), half(65536), fp8(256);
    widen_all(nullptr, bf16.data(), half.data(), fp8.data());
    for (const auto& [name, array] :
         {std::pair{"float of bf16", &bf16}, {"float of f16", &half}, {"float of e4m3", &fp8}}) {
      std::vector<uint32_t> floats = array->download();
      unify_nan(floats);
      dump[name] = hashes(floats);
    }
  }
  {
    const DeviceArray<uint16_t> bf16(kNarrowed), half(kNarrowed);
    const DeviceArray<uint8_t> fp8(kNarrowed);
    narrow_all(nullptr, bf16.data(), half.data(), fp8.data());
    dump["bf16 of float"] = hashes(bf16.download());
    dump["f16 of float"] = hashes(half.download());
    dump["e4m3 of float"] = hashes(fp8.download());
  }
  dump[kExponential] = exponential_error();
  return dump;
}

std::vector<std::string> compare_fragments(const json::object& ours, const json::object& theirs) {
  std::vector<std::string> differences;
  for (const auto& [key, own] : ours) {
    const std::string name(key);
    const json::value* const other = theirs.if_contains(key);
    if (name == "device" || name == "compute_capability") continue;
    if (other == nullptr) {
      differences.push_back(name + " is not in the other dump");
    } else if (name == kExponential) {
      for (const json::value* error : {&own, other})
        if (!error->is_number() || error->to_number<double>() > kExponentialBound)
          differences.push_back(name + " is above " + std::to_string(kExponentialBound));
    } else if (own.is_array() && other->is_array() && own != *other) {
      const json::array &a = own.get_array(), &b = other->get_array();
      const auto at = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
      differences.push_back(name + " differs from entry " + std::to_string(at) + " on");
    } else if (own.is_array() != other->is_array() && !own.is_null() && !other->is_null()) {
      differences.push_back(name + " is of another kind in the other dump");
    }
  }
  return differences;
}

}  // namespace serval::gpu
