// What the instructions of kernels/cuda/ptx.h do on this device, as JSON: where ldmatrix puts each element,
// which elements each matrix product multiplies and where it adds them, every conversion. A dump from a GPU
// that equals the emulation's confirms the emulation.
#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <vector>

namespace serval::gpu {

boost::json::object dump_fragments();

// What differs, one sentence each; empty: the dumps agree. Parts that a device cannot do are null and are
// not compared.
std::vector<std::string> compare_fragments(const boost::json::object& ours,
                                           const boost::json::object& theirs);

}  // namespace serval::gpu
