// Law 3: a forward pass allocates nothing, on this thread or on the backend's own.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "engine/model/read_model.h"
#include "engine/model/transformer.h"
#include "engine/model/weight_loader.h"
#include "tests/engine/model/paged_driver.h"
#include "tests/engine/model/test_devices.h"
#include "tests/support/allocation_counter.h"

namespace serval::testing {
namespace {

TEST(Forward, AllocatesNothingFromItsFirstCallOn) {
  std::unique_ptr<Backend> backend = make_test_backend("auto");
  const auto folder = std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/models/qwen2-windows";
  ModelSpec spec = read_model_spec(folder);
  ModelWeights weights = load_weights(folder, spec, *backend);
  constexpr int kRows = 24;
  Transformer transformer(std::move(spec), std::move(weights), 64, *backend);
  Workspace workspace(transformer.spec(), kRows, 4, *backend);

  std::vector<Buffer> memory;
  std::vector<KvLayer> kv;
  for (const LayerSpec& layer : transformer.spec().layers) {
    KvLayer one{.dtype = DType::kF32, .num_blocks = 2};
    std::visit([&](const auto& mixer) { mixer.shape_kv(one); }, layer.mixer);
    memory.push_back(backend->allocate(one.block_bytes() * 2));
    one.keys = memory.back().data();
    memory.push_back(backend->allocate(one.block_bytes() * 2));
    one.values = memory.back().data();
    kv.push_back(one);
  }
  std::vector<int32_t> ids, positions, slots;
  for (int i = 0; i < kRows; ++i) {
    ids.push_back(i + 3);
    positions.push_back(i);
    slots.push_back(i);
  }
  const int32_t row_start[] = {0, kRows}, first_pos[] = {0}, table[] = {0, 1}, rows[] = {5, kRows - 1};
  const AttentionBatch attention{.num_seqs = 1,
                                 .num_rows = kRows,
                                 .row_start = row_start,
                                 .first_pos = first_pos,
                                 .block_table = table,
                                 .table_stride = 2};
  ForwardInput input{.token_ids = ids, .positions = positions, .groups = {}};
  for (KvGroupInput& group : input.groups) group = {.slots = slots.data(), .attention = attention};

  const auto context = backend->make_step_context(
      Transformer::step_limits(transformer.spec(), {.max_rows = kRows,
                                                    .max_logit_rows = 4,
                                                    .max_seqs = 1,
                                                    .max_model_len = 64,
                                                    .table_stride = 2}));
  int64_t allocated = 0;
  {
    const AllocationCounter counter;
    context->begin_step(input);
    transformer.forward(input, kv, workspace);
    transformer.logits(rows, workspace);
    allocated = counter.count();
  }
  EXPECT_EQ(allocated, 0);
  EXPECT_TRUE(std::isfinite(workspace.logits.as<float>()[0]));
}

}  // namespace
}  // namespace serval::testing
