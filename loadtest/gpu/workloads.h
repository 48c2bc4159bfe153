// The kernels of the table at their shapes, over random memory, ready to be timed.
#pragma once

#include <memory>

#include "loadtest/gpu/measure.h"
#include "loadtest/gpu/rows.h"

namespace serval::cuda {
class VendorGemm;
}

namespace serval::gpu {

// For all kinds of work but those of the whole model. `vendor` may be null when no row asks for it and
// outlives the workload. Throws std::runtime_error when the device has too little memory.
Workload make_workload(const Work& work, cuda::VendorGemm* vendor);

}  // namespace serval::gpu
