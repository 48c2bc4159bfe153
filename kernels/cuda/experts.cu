#include "kernels/cuda/experts.h"

#include <cmath>

#include "kernels/cuda/vector.cuh"

namespace serval::cuda {
namespace {

using simt::Shared;
using simt::SharedMemory;

constexpr int kRouteWarps = 4;  // of a block, one row each
constexpr int kLaneExperts = kMaxExperts / simt::kWarp;
constexpr int kSortThreads = 256;
constexpr int kSortWarps = kSortThreads / simt::kWarp;
constexpr int kRowThreads = 256;

// A logit as a number whose order is that of preference: NaN below everything.
SERVAL_DEVICE uint32_t preference(float logit) {
  if (logit != logit) return 0;
  const uint32_t bits = bits_of(logit + 0.0f);  // -0 is 0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// One warp a row; lane l holds the experts l, l + 32, ... The best of them all, top_k times.
SERVAL_KERNEL void SERVAL_MAX_THREADS(kRouteWarps* simt::kWarp) choose_kernel(RouteArgs args) {
  const int64_t r = int64_t{simt::block_x()} * kRouteWarps + simt::warp();
  if (r >= args.num_rows) return;  // the whole warp, and no barrier follows
  const float* const logits = args.logits + r * args.num_experts;
  uint32_t taken = 0;                      // of this lane's experts
  float best_logit = 0, sum = 0, own = 0;  // own: what lane `rank` keeps of rank `rank`
  int own_expert = 0;
  for (int rank = 0; rank < args.top_k; ++rank) {
    // Preference above, then the lower index: one number to compare. A taken expert counts as none.
    uint64_t best = 0;
    SERVAL_NO_UNROLL
    for (int i = 0; i < kLaneExperts; ++i) {
      const int e = i * simt::kWarp + simt::lane();
      if (e >= args.num_experts || (taken >> i & 1u)) continue;
      const uint64_t key = static_cast<uint64_t>(preference(logits[e])) << 32 | static_cast<uint32_t>(~e);
      best = key > best ? key : best;
    }
    SERVAL_UNROLL
    for (int mask = simt::kWarp / 2; mask > 0; mask /= 2) {
      const uint64_t other = simt::shuffle_xor(best, mask);
      best = other > best ? other : best;
    }
    const int expert = static_cast<int>(~static_cast<uint32_t>(best));
    if (expert % simt::kWarp == simt::lane()) taken |= 1u << (expert / simt::kWarp);
    const float logit = logits[expert];
    if (rank == 0) best_logit = logit;
    const float p = expf(logit - best_logit);
    sum += p;
    if (rank == simt::lane()) {
      own = p;
      own_expert = expert;
    }
  }
  if (args.rule == RoutingRule::kSoftmax) {
    sum = 0;
    for (int e = simt::lane(); e < args.num_experts; e += simt::kWarp) sum += expf(logits[e] - best_logit);
    sum = simt::warp_sum(sum);
  }
  if (simt::lane() < args.top_k) {
    args.experts[r * args.top_k + simt::lane()] = own_expert;
    args.weights[r * args.top_k + simt::lane()] = own / sum;
  }
}

// One block an expert: it counts the choices of the experts before it, then gives its own their places in the
// order of the rows.
SERVAL_KERNEL void SERVAL_MAX_THREADS(kSortThreads) sort_kernel(RouteArgs args) {
  SharedMemory memory;
  const Shared<int> warp_counts = memory.take<int>(kSortWarps);
  const int expert = simt::block_x(), num_choices = args.num_rows * args.top_k;
  // Of a flag of each thread: how many threads before this one have it, and how many in all.
  const auto count = [&](bool flag, int& before) {
    const uint32_t flags = simt::ballot(flag);
    simt::sync_block();  // the counts before have been read
    if (simt::lane() == 0) warp_counts.set(simt::warp(), simt::popcount(flags));
    simt::sync_block();
    before = simt::popcount(flags & ((1u << simt::lane()) - 1));
    int total = 0;
    for (int w = 0; w < kSortWarps; ++w) {
      const int of_warp = warp_counts.get(w);
      before += w < simt::warp() ? of_warp : 0;
      total += of_warp;
    }
    return total;
  };
  int start = 0, before = 0;
  for (int first = 0; first < num_choices; first += kSortThreads) {
    const int i = first + simt::thread();
    start += count(i < num_choices && args.experts[i] < expert, before);
  }
  int place = start;
  for (int first = 0; first < num_choices; first += kSortThreads) {
    const int i = first + simt::thread();
    const bool is_own = i < num_choices && args.experts[i] == expert;
    const int total = count(is_own, before);
    if (is_own) {
      args.places[i] = place + before;
      args.rows[place + before] = i / args.top_k;
    }
    place += total;
  }
  if (simt::thread() == 0) {
    args.starts[expert] = start;
    if (expert == args.num_experts - 1) args.starts[args.num_experts] = place;
  }
}

template <class T>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kRowThreads) combine_kernel(CombineArgs<T> args) {
  const int dim = args.dim;
  const bool aligned = is_vectorised(dim);
  const int64_t r = simt::block_x();
  const int i = (simt::block_y() * simt::num_threads() + simt::thread()) * kVector;
  if (i >= dim) return;
  float sum[kVector] = {};
  for (int j = 0; j < args.top_k; ++j) {
    const float weight = args.weights[r * args.top_k + j];
    float value[kVector];
    load_vector(args.x + int64_t{args.places[r * args.top_k + j]} * dim + i, dim - i, aligned, value);
    SERVAL_UNROLL
    for (int v = 0; v < kVector; ++v) sum[v] += multiply_rounded(weight, value[v]);
  }
  store_vector(args.out + r * dim + i, dim - i, aligned, sum);
}

}  // namespace

void route_experts(simt::Stream stream, const RouteArgs& args) {
  simt::launch<choose_kernel>(
      stream,
      {.grid_x = (args.num_rows + kRouteWarps - 1) / kRouteWarps, .threads = kRouteWarps * simt::kWarp},
      args);
  simt::launch<sort_kernel>(
      stream, {.grid_x = args.num_experts, .threads = kSortThreads, .shared_bytes = kSortWarps * sizeof(int)},
      args);
}

template <class T>
void combine_experts(simt::Stream stream, const CombineArgs<T>& args) {
  const int vectors = (args.dim + kVector - 1) / kVector;
  simt::launch<combine_kernel<T>>(
      stream,
      {.grid_x = args.num_rows, .grid_y = (vectors + kRowThreads - 1) / kRowThreads, .threads = kRowThreads},
      args);
}

template void combine_experts<Bf16>(simt::Stream, const CombineArgs<Bf16>&);
template void combine_experts<Half>(simt::Stream, const CombineArgs<Half>&);

}  // namespace serval::cuda
