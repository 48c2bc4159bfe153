// `serval bench engine`: how fast scheduler, runner and kernels generate together, without HTTP: a model of the user's,
// or a random one made for the run in the temporary directory.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "engine/config.h"
#include "kernels/base/option_table.h"

namespace serval {

struct EngineBench {
  std::string model;  // folder, file or name; empty: a random one
  std::string shape = "110m";
  std::vector<std::string> formats;  // of EngineConfig::quantize; none: that of the settings
  std::vector<int> streams = {1, 8, 32};
  int prompt = 32, output = 128;
  int prefill = 1024;
  int turns = 3;
  bool json = false;
};

// The rows refer to `bench`.
std::vector<OptionRow> bench_engine_rows(EngineBench& bench);

// Prints the time to load, decode speed at each number of streams, and prefill speed, as medians; returns the exit code.
// The settings' sizes of sequences are replaced by those that are measured; there is no prefix cache.
// Throws std::runtime_error with a sentence for what load_model() refuses, and for a model too short for the prompts.
int bench_engine(const EngineBench& bench, const EngineConfig& settings, std::ostream& out);

}  // namespace serval
