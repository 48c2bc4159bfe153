// Two questions that only Hopper's hardware answers, asked before kernels are built on the answers: do wgmma and mma.sync give
// the same bits along a slice of k, and how large is the gap between two kernels of a graph with and without programmatic
// dependent launch. Knows nothing of kernels/cuda's kernels.
#pragma once

#include <boost/json/object.hpp>

namespace serval::gpu {

// rounds, values, bits_differ, worst_difference; gap_us, dependent_gap_us. "problem" instead of what could not be asked, on a
// device without these instructions. Throws std::runtime_error when the device has no memory left.
boost::json::object probe_hopper();

}  // namespace serval::gpu
