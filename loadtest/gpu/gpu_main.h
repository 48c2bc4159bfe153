// `serval-gpu`: the command line over checks and measurements of the device that this program is linked with.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace serval::gpu {

// Exit code: 0 done; 1 a check found something, dumps differ, or a row missed what it must reach; 2 the
// command line is wrong; 3 there is no device for it.
int gpu_main(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& error);

}  // namespace serval::gpu
