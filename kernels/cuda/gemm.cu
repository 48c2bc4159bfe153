#include "kernels/cuda/gemm.h"

#include <algorithm>

#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/vector.cuh"

namespace serval::cuda {
namespace {

using simt::Shared;
using simt::SharedMemory;

// Eight numbers of a row that begins at `row`, from element k0 on; zeros from element k on or when row is
// null.
template <class T>
SERVAL_DEVICE Bytes16 load_eight(const T* row, int k0, int k, bool is_aligned) {
  Bytes16 eight = {{0, 0, 0, 0}};
  if (row == nullptr || k0 >= k) return eight;
  if (is_aligned) return load_streaming(row + k0);
  SERVAL_UNROLL
  for (int i = 0; i < kVector; ++i)
    if (k0 + i < k) eight.word[i / 2] |= static_cast<uint32_t>(row[k0 + i].bits) << (16 * (i % 2));
  return eight;
}

// --- few rows: a block takes 16 weight rows, a warp the slices w, w + warps, ... of their k ---

constexpr int kSkinnyMaxWarps = 16;
constexpr int kAhead = 4;  // runs whose loads are in flight together

template <class T, class Out, int kTokenTiles>
SERVAL_DEVICE void multiply_skinny(const GemmArgs<T, Out>& args) {
  constexpr int kTokens = 8 * kTokenTiles;
  const int num_slices = (args.k + kSliceK - 1) / kSliceK;
  SharedMemory memory;
  const Shared<float> partial = memory.take<float>(num_slices * 16 * kTokens);  // [slice][token][weight row]
  const int g = simt::lane() / 4, t = simt::lane() % 4;
  const int first_row = simt::block_x() * 16;
  const bool aligned = is_vectorised(args.k);
  const int64_t k = args.k;
  const T* const low_row = first_row + g < args.n ? args.weight + (first_row + g) * k : nullptr;
  const T* const high_row = first_row + g + 8 < args.n ? args.weight + (first_row + g + 8) * k : nullptr;

  for (int slice = simt::warp(); slice < num_slices; slice += simt::num_threads() / simt::kWarp) {
    float sum[kTokenTiles][4] = {};
    const int end = (slice + 1) * kSliceK < args.k ? (slice + 1) * kSliceK : args.k;
    for (int k0 = slice * kSliceK; k0 < end; k0 += kAhead * kRun) {
      Bytes16 low[kAhead], high[kAhead], token[kAhead][kTokenTiles];
      SERVAL_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        const int at = k0 + i * kRun + 8 * t;
        low[i] = load_eight(low_row, at, end, aligned);
        high[i] = load_eight(high_row, at, end, aligned);
      }
      SERVAL_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        SERVAL_UNROLL
        for (int j = 0; j < kTokenTiles; ++j) {
          const T* const row = 8 * j + g < args.m ? args.x + (8 * j + g) * k : nullptr;
          token[i][j] = load_eight(row, k0 + i * kRun + 8 * t, end, aligned);
        }
      }
      SERVAL_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        SERVAL_UNROLL
        for (int j = 0; j < kTokenTiles; ++j) multiply_run<T>(sum[j], low[i], high[i], token[i][j]);
      }
    }
    SERVAL_UNROLL
    for (int j = 0; j < kTokenTiles; ++j) {
      SERVAL_UNROLL
      for (int i = 0; i < 4; ++i)
        partial.set((slice * kTokens + 8 * j + 2 * t + i % 2) * 16 + g + 8 * (i / 2), sum[j][i]);
    }
  }
  simt::sync_block();
  for (int i = simt::thread(); i < 16 * kTokens; i += simt::num_threads()) {
    const int row = first_row + i % 16, token = i / 16;
    if (row >= args.n || token >= args.m) continue;
    float total = 0;
    for (int slice = 0; slice < num_slices; ++slice) total += partial.get(slice * 16 * kTokens + i);
    if (args.bias != nullptr) total += args.bias[row];
    args.out[int64_t{token} * args.n + row] = from_float<Out>(total);
  }
}

template <class T, class Out, int kTokenTiles>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kSkinnyMaxWarps* simt::kWarp)
    gemm_skinny_kernel(GemmArgs<T, Out> args) {
  multiply_skinny<T, Out, kTokenTiles>(args);
}

// --- many rows: a block takes kTileRows weight rows and kTokens tokens; k runs through shared memory in
// stages ---

constexpr int kTileRows = 128;
constexpr int kStageK = 2 * kRun;
constexpr int kStages = 3;
constexpr int kTiledThreads = 256;

template <int kTokens>
struct TileShape {
  static constexpr int kTokenWarps = kTokens >= 64 ? 2 : 1;
  static constexpr int kRowWarps = kTiledThreads / simt::kWarp / kTokenWarps;
  static constexpr int kRowTiles = kTileRows / kRowWarps / 16;   // of 16 weight rows, of a warp
  static constexpr int kTokenTiles = kTokens / kTokenWarps / 8;  // of 8 tokens, of a warp
  static constexpr int kStageElements = (kTileRows + kTokens) * kStageK;
  static constexpr int kOutStride = kTileRows + 4;  // floats between tokens of the finished tile
  static constexpr size_t kPipelineBytes = kStages * kStageElements * 2;
  static constexpr size_t kOutBytes = sizeof(float) * kTokens * kOutStride;
  static constexpr size_t kSharedBytes = kPipelineBytes > kOutBytes ? kPipelineBytes : kOutBytes;
};

// Starts the copies of `num_rows` rows of a stage, [run][row][kRun]: rows lie 64 bytes apart, so that the
// eight rows of a fragment are 512 bytes in a piece and no two lanes meet in a bank.
template <class T>
SERVAL_DEVICE void load_stage(const Shared<T>& stage, const T* matrix, int first_row, int limit, int num_rows,
                              int k0, int k, bool is_aligned) {
  constexpr int kChunks = kStageK / kVector;
  for (int i = simt::thread(); i < num_rows * kChunks; i += kTiledThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    const int at = (chunk / 4 * num_rows + row) * kRun + chunk % 4 * kVector;
    const T* const from = first_row + row < limit ? matrix + int64_t{first_row + row} * k : nullptr;
    const int from_k = k0 + chunk * kVector;
    if (is_aligned) {
      const bool is_valid = from != nullptr && from_k < k;
      copy_async16(stage, at, is_valid ? from + from_k : matrix, is_valid);
    } else {
      stage.template store<Bytes16>(at, load_eight(from, from_k, k, false));
    }
  }
}

template <class T, class Out, int kTokens>
SERVAL_DEVICE void multiply_tiled(const GemmArgs<T, Out>& args, int first_token) {
  using Tile = TileShape<kTokens>;
  SharedMemory memory;
  const Shared<float> whole = memory.take<float>(static_cast<int>(Tile::kSharedBytes / sizeof(float)));
  const Shared<T> stages = SharedMemory().take<T>(kStages * Tile::kStageElements);  // the same bytes
  const bool aligned = is_vectorised(args.k);
  const int g = simt::lane() / 4, t = simt::lane() % 4;
  const int first_row = simt::block_x() * kTileRows;
  const int warp_row = simt::warp() / Tile::kTokenWarps * Tile::kRowTiles * 16;
  const int warp_token = simt::warp() % Tile::kTokenWarps * Tile::kTokenTiles * 8;
  const int num_stages = (args.k + kStageK - 1) / kStageK;

  const auto start_stage = [&](int s) {
    if (s < num_stages) {
      const int at = s % kStages * Tile::kStageElements;
      load_stage(stages.at(at, kTileRows * kStageK), args.weight, first_row, args.n, kTileRows, s * kStageK,
                 args.k, aligned);
      load_stage(stages.at(at + kTileRows * kStageK, kTokens * kStageK), args.x, first_token, args.m, kTokens,
                 s * kStageK, args.k, aligned);
    }
    copy_async_commit();
  };

  float total[Tile::kRowTiles][Tile::kTokenTiles][4] = {}, sum[Tile::kRowTiles][Tile::kTokenTiles][4] = {};
  const auto end_slice = [&] {
    SERVAL_UNROLL
    for (int i = 0; i < Tile::kRowTiles; ++i) {
      SERVAL_UNROLL
      for (int j = 0; j < Tile::kTokenTiles; ++j) {
        SERVAL_UNROLL
        for (int c = 0; c < 4; ++c) {
          total[i][j][c] += sum[i][j][c];
          sum[i][j][c] = 0;
        }
      }
    }
  };
  SERVAL_UNROLL
  for (int s = 0; s < kStages - 1; ++s) start_stage(s);
  for (int s = 0; s < num_stages; ++s) {
    copy_async_wait<kStages - 2>();
    simt::sync_block();  // stage s is there for everyone, and everyone is done with the one that is loaded
                         // next
    start_stage(s + kStages - 1);
    const Shared<T> weights = stages.at(s % kStages * Tile::kStageElements, kTileRows * kStageK);
    const Shared<T> tokens =
        stages.at(s % kStages * Tile::kStageElements + kTileRows * kStageK, kTokens * kStageK);
    SERVAL_UNROLL
    for (int run = 0; run < kStageK / kRun; ++run) {
      Bytes16 token[Tile::kTokenTiles];
      SERVAL_UNROLL
      for (int j = 0; j < Tile::kTokenTiles; ++j)
        token[j] = tokens.template load<Bytes16>((run * kTokens + warp_token + 8 * j + g) * kRun + 8 * t);
      SERVAL_UNROLL
      for (int i = 0; i < Tile::kRowTiles; ++i) {
        const int row = run * kTileRows + warp_row + 16 * i + g;
        const Bytes16 low = weights.template load<Bytes16>(row * kRun + 8 * t);
        const Bytes16 high = weights.template load<Bytes16>((row + 8) * kRun + 8 * t);
        SERVAL_UNROLL
        for (int j = 0; j < Tile::kTokenTiles; ++j) multiply_run<T>(sum[i][j], low, high, token[j]);
      }
    }
    if ((s + 1) % (kSliceK / kStageK) == 0) end_slice();
  }
  if (num_stages % (kSliceK / kStageK) != 0) end_slice();
  copy_async_wait<0>();
  simt::sync_block();  // the stages are read: their memory takes the finished tile
  SERVAL_UNROLL
  for (int i = 0; i < Tile::kRowTiles; ++i) {
    SERVAL_UNROLL
    for (int j = 0; j < Tile::kTokenTiles; ++j) {
      SERVAL_UNROLL
      for (int c = 0; c < 4; ++c) {
        whole.set(
            (warp_token + 8 * j + 2 * t + c % 2) * Tile::kOutStride + warp_row + 16 * i + g + 8 * (c / 2),
            total[i][j][c]);
      }
    }
  }
  simt::sync_block();
  constexpr int kVectors = kTileRows / kVector;
  for (int i = simt::thread(); i < kTokens * kVectors; i += kTiledThreads) {
    const int token = first_token + i / kVectors, row = first_row + i % kVectors * kVector;
    if (token >= args.m || row >= args.n) continue;
    float value[kVector];
    SERVAL_UNROLL
    for (int j = 0; j < kVector; ++j) {
      value[j] = whole.get(i / kVectors * Tile::kOutStride + i % kVectors * kVector + j);
      if (args.bias != nullptr && row + j < args.n) value[j] += args.bias[row + j];
    }
    store_vector(args.out + int64_t{token} * args.n + row, args.n - row, is_vectorised(args.n), value);
  }
}

template <class T, class Out, int kTokens>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kTiledThreads) gemm_tiled_kernel(GemmArgs<T, Out> args) {
  multiply_tiled<T, Out, kTokens>(args, simt::block_y() * kTokens);
}

// --- one product for each expert: the same two kernels, on the expert that the block finds itself in ---

template <class T>
SERVAL_DEVICE GemmArgs<T, T> expert_product(const ExpertGemmArgs<T>& args, int expert) {
  const int64_t begin = args.starts[expert];
  return {args.x + begin * args.k,
          args.weights[expert],
          args.biases[expert],
          args.out + begin * args.n,
          static_cast<int>(args.starts[expert + 1] - begin),
          args.n,
          args.k};
}

// Block y is an expert.
template <class T, int kTokenTiles>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kSkinnyMaxWarps* simt::kWarp)
    expert_gemm_skinny_kernel(ExpertGemmArgs<T> args) {
  const GemmArgs<T, T> product = expert_product(args, simt::block_y());
  if (product.m > 0) multiply_skinny<T, T, kTokenTiles>(product);
}

// Block y is a tile, counted through the experts; blocks behind the last one have nothing to do.
template <class T, int kTokens>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kTiledThreads) expert_gemm_tiled_kernel(ExpertGemmArgs<T> args) {
  int tile = simt::block_y(), expert = 0;
  for (; expert < args.num_experts; ++expert) {
    const int tiles = (args.starts[expert + 1] - args.starts[expert] + kTokens - 1) / kTokens;
    if (tile < tiles) break;
    tile -= tiles;
  }
  if (expert < args.num_experts) multiply_tiled<T, T, kTokens>(expert_product(args, expert), tile * kTokens);
}

int tiles_of(int count, int tile) {
  return (count + tile - 1) / tile;
}

template <int kTokens>
simt::LaunchShape tiled_shape(int num_tiles, int n) {
  return {.grid_x = tiles_of(n, kTileRows),
          .grid_y = num_tiles,
          .threads = kTiledThreads,
          .shared_bytes = TileShape<kTokens>::kSharedBytes};
}

template <class T, class Out, int kTokens>
void launch_tiled(simt::Stream stream, const GemmArgs<T, Out>& args) {
  simt::launch<gemm_tiled_kernel<T, Out, kTokens>>(
      stream, tiled_shape<kTokens>(tiles_of(args.m, kTokens), args.n), args);
}

simt::LaunchShape skinny_shape(int m, int num_products, int n, int k) {
  const int num_slices = tiles_of(k, kSliceK);
  return {.grid_x = tiles_of(n, 16),
          .grid_y = num_products,
          .threads = std::min(num_slices, kSkinnyMaxWarps) * simt::kWarp,
          .shared_bytes = sizeof(float) * num_slices * 16 * 8 * tiles_of(m, 8)};
}

template <class T, class Out, int kTokenTiles>
void launch_skinny(simt::Stream stream, const GemmArgs<T, Out>& args) {
  simt::launch<gemm_skinny_kernel<T, Out, kTokenTiles>>(stream, skinny_shape(args.m, 1, args.n, args.k),
                                                        args);
}

}  // namespace

template <class T, class Out>
void gemm_skinny(simt::Stream stream, const GemmArgs<T, Out>& args) {
  if (args.m <= 8) return launch_skinny<T, Out, 1>(stream, args);
  launch_skinny<T, Out, 2>(stream, args);
}

template <class T, class Out>
void gemm_tiled(simt::Stream stream, const GemmArgs<T, Out>& args) {
  if (args.m <= 32) return launch_tiled<T, Out, 32>(stream, args);
  if (args.m <= 64) return launch_tiled<T, Out, 64>(stream, args);
  launch_tiled<T, Out, 128>(stream, args);
}

template <class T, class Out>
void gemm(simt::Stream stream, const GemmArgs<T, Out>& args) {
  if (args.m <= kSkinnyRows) return gemm_skinny(stream, args);
  gemm_tiled(stream, args);
}

template <class T>
void expert_gemm(simt::Stream stream, const ExpertGemmArgs<T>& args) {
  // How the rows fall is known to the device alone. An expert has a row at most once.
  if (args.num_rows <= kSkinnyRows) {
    const simt::LaunchShape shape = skinny_shape(args.num_rows, args.num_experts, args.n, args.k);
    if (args.num_rows <= 8) return simt::launch<expert_gemm_skinny_kernel<T, 1>>(stream, shape, args);
    return simt::launch<expert_gemm_skinny_kernel<T, 2>>(stream, shape, args);
  }
  const auto launch = [&]<int kTokens>() {
    const int max_tiles = args.num_places / kTokens + std::min(args.num_experts, args.num_places);
    simt::launch<expert_gemm_tiled_kernel<T, kTokens>>(stream, tiled_shape<kTokens>(max_tiles, args.n),
                                                       args);
  };
  const int mean_rows = args.num_places / args.num_experts;
  if (mean_rows <= 32) return launch.template operator()<32>();
  if (mean_rows <= 64) return launch.template operator()<64>();
  launch.template operator()<128>();
}

#define SERVAL_INSTANTIATE(T, Out)                                          \
  template void gemm<T, Out>(simt::Stream, const GemmArgs<T, Out>&);        \
  template void gemm_skinny<T, Out>(simt::Stream, const GemmArgs<T, Out>&); \
  template void gemm_tiled<T, Out>(simt::Stream, const GemmArgs<T, Out>&);
SERVAL_INSTANTIATE(Bf16, Bf16)
SERVAL_INSTANTIATE(Bf16, float)
SERVAL_INSTANTIATE(Half, Half)
SERVAL_INSTANTIATE(Half, float)
#undef SERVAL_INSTANTIATE
template void expert_gemm<Bf16>(simt::Stream, const ExpertGemmArgs<Bf16>&);
template void expert_gemm<Half>(simt::Stream, const ExpertGemmArgs<Half>&);

}  // namespace serval::cuda
