// `serval-gpu`.
#include <iostream>

#include "loadtest/gpu/gpu_main.h"

int main(int argc, char** argv) {
  return serval::gpu::gpu_main({argv + 1, argv + argc}, std::cout, std::cerr);
}
