// A CUDA call that fails means a dead device or our own mistake: the process ends with the call and the
// error.
#pragma once

#include <cuda_runtime.h>

#include "kernels/base/check.h"

#define CUDA_CHECK(call)                                                                          \
  do {                                                                                            \
    const cudaError_t cuda_check_result = (call);                                                 \
    SERVAL_CHECK(cuda_check_result == cudaSuccess, cudaGetErrorString(cuda_check_result), #call); \
  } while (false)
