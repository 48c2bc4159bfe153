// A model folder on a backend of its own, for tests that have one model.
#pragma once

#include <memory>
#include <utility>

#include "engine/runner/load_model.h"

namespace serval::testing {

class LoadedRunner {
 public:
  LoadedRunner(const std::filesystem::path& folder, const EngineConfig& config,
               std::unique_ptr<Speculator> speculator = nullptr)
      : backend_(make_backend(config.device)),
        runner_(load_model(folder, config, *backend_, std::move(speculator))) {}
  ModelRunner& operator*() const { return *runner_; }
  ModelRunner* operator->() const { return runner_.get(); }

 private:
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<ModelRunner> runner_;
};

}  // namespace serval::testing
