// Marks the few functions that a host and a device both run, in headers that know of neither. With the CUDA
// compiler they are compiled for both; anywhere else they are plain inline functions.
#pragma once

#if defined(__CUDACC__)
#define SERVAL_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SERVAL_HOST_DEVICE inline
#endif
