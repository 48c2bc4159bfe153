"""One barrier, wait, fence, place or swizzle constant less in the CUDA kernels, and a check on the emulated device must fail: the
emulation sees what it claims to see."""

C = "kernels/cuda/"
SOURCES = [C + name for name in ("attention.cu", "elementwise.cu", "experts.cu", "gemm.cu", "sampler.cu")] + [
    "tests/kernels/cuda/attention_test.cc", "tests/kernels/cuda/checks_test.cc"]

ATTENTION = "Attention/*:Invariance/*attention*:AttentionTile.*"
GEMM = "Gemm/*:Invariance/*gemm*"
ROWS = "Rows/*"
EXPERTS = "Experts/*routing*"
SAMPLER = "Sampler/*:-*33000*"

MUTATIONS = [
    (C + "attention.cu", "«simt::sync_warp();»  // the stage has been read: the next turn fills it", "", ATTENTION),
    (C + "attention.cu", "«copy_async_wait<1>();»\n      simt::sync_warp();", "", ATTENTION),
    (C + "attention.cu", "copy_async_wait<1>();\n      «simt::sync_warp();»", "", ATTENTION),
    (C + "attention.cu", "«simt::sync_block();»  // the stage has been read: the next turn fills it", "", ATTENTION),
    (C + "attention.cu", "copy_async_wait<1>();\n      «simt::sync_block();»", "", ATTENTION),
    (C + "attention_tile.cuh", "^ «(key / 2 % 4)»", "(key / 4 % 4)", ATTENTION),
    (C + "attention_tile.cuh", "tile_offset(value_key, value_dim + 16)", "tile_offset(value_key, value_dim + 8)", ATTENTION),
    (C + "gemm.cu", "copy_async_wait<kStages - 2>();", "copy_async_wait<kStages - 1>();", GEMM),
    (C + "gemm.cu", "«simt::sync_block();»  // stage s is there", "", GEMM),
    (C + "gemm.cu", "«simt::sync_block();»  // the stages are read", "", GEMM),
    (C + "gemm.cu", "«simt::sync_block();»\n  for (int i = simt::thread(); i < 16 * kTokens", "", GEMM),
    (C + "gemm.cu", "(chunk / 4 * num_rows + row) * kRun", "(chunk / 4 * num_rows + (row ^ 1)) * kRun", GEMM),
    (C + "elementwise.cu", "«simt::sync_warp();»  // the head before has been read", "", ROWS),
    (C + "elementwise.cu", "+ args.eps);\n    «simt::sync_warp();»", "", ROWS),
    (C + "experts.cu", "«simt::sync_block();»  // the counts before have been read", "", EXPERTS),
    (C + "experts.cu", "simt::popcount(flags));\n    «simt::sync_block();»", "", EXPERTS),
    (C + "experts.cu", "w < simt::warp() ? of_warp : 0", "w <= simt::warp() ? of_warp : 0", EXPERTS),
    (C + "experts.cu", "static_cast<uint32_t>(~e)", "static_cast<uint32_t>(e)", EXPERTS),
    (C + "experts.cu", "1u << (expert / simt::kWarp)", "1u << (expert % simt::kWarp)", EXPERTS),
    (C + "block_select.cuh", "space.warp_values.set(simt::warp(), value);\n  «simt::sync_block();»", "", SAMPLER),
    (C + "block_select.cuh", "    });\n    «simt::sync_block();»", "", SAMPLER),
    (C + "sample_kernel.cuh", "  });\n  «simt::sync_block();»\n  for (int i = simt::thread(); i < num_top", "", SAMPLER),
]
