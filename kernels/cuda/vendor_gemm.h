// Matrix products by the vendor's library, cuBLASLt, loaded when it is first asked for: it is hundreds of
// megabytes, and without it everything works through kernels of our own. Its sums depend on the shape it is
// called with, so it serves only where invariance (law 1) was given up.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/cuda/runtime.h"
#include "kernels/tensor.h"

namespace serval::cuda {

class VendorGemm {
 public:
  // Null, after one line of log, when the library is not there. Takes kWorkspaceBytes of device memory.
  static std::unique_ptr<VendorGemm> load();
  virtual ~VendorGemm() = default;
  // out [m, n] = x [m, k] weight [n, k]^T, f32 sums; x and weight of `type`, out of `type` or f32. False when
  // the library has no way to do it. The way chosen for a shape is kept.
  virtual bool multiply(Stream stream, DType type, DType out_type, const void* x, const void* weight,
                        void* out, int m, int n, int k) = 0;
  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;
};

}  // namespace serval::cuda
