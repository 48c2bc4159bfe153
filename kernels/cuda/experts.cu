#include "kernels/cuda/experts.h"

#include <cmath>

#include "kernels/cuda/vector.cuh"

namespace serval::cuda {
namespace {

using simt::Shared;
using simt::SharedMemory;

constexpr int kRouteWarps = 4;  // of a block, one row each
static_assert(kMaxExperts <= 32 * simt::kWarp && kMaxExpertGroups <= simt::kWarp);
constexpr int kSortThreads = 256;
constexpr int kSortWarps = kSortThreads / simt::kWarp;
constexpr int kRowThreads = 256;

// A key as a number whose order is that of preference: NaN below everything else, and 0 below NaN.
SERVAL_DEVICE uint32_t preference(float key) {
  if (key != key) return 1;
  const uint32_t bits = bits_of(key + 0.0f);  // -0 is 0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The best of the indices [begin, end), lane l having looked at l, l + 32, ...: of equally good ones the lowest. Every
// lane learns it. prefer(i) is called on index i's lane; 0: it is not to be had.
template <class Prefer>
SERVAL_DEVICE int best_of(int begin, int end, const Prefer& prefer) {
  // Preference above, then the lower index: one number to compare.
  uint64_t best = 0;
  SERVAL_NO_UNROLL
  for (int e = begin / simt::kWarp * simt::kWarp + simt::lane(); e < end; e += simt::kWarp) {
    const uint64_t own = e < begin ? 0 : prefer(e);
    const uint64_t key = own == 0 ? 0 : own << 32 | static_cast<uint32_t>(~e);
    best = key > best ? key : best;
  }
  SERVAL_UNROLL
  for (int mask = simt::kWarp / 2; mask > 0; mask /= 2) {
    const uint64_t other = simt::shuffle_xor(best, mask);
    best = other > best ? other : best;
  }
  return static_cast<int>(~static_cast<uint32_t>(best));
}

// The scores of a row's experts (RoutingRule), each from its logit.
struct Scores {
  RoutingRule::Score kind;
  float top = 0;  // of softmax: the highest logit, and what probabilities are divided by
  float sum = 1;

  SERVAL_DEVICE float of(float logit) const {
    if (kind == RoutingRule::Score::kSigmoid) return 1.0f / (1.0f + expf(-logit));
    if (kind == RoutingRule::Score::kSqrtSoftplus) return sqrtf(logit > 20.0f ? logit : log1pf(expf(logit)));
    return expf(logit - top) / sum;
  }
};

// One warp a row; lane l holds the experts l, l + 32, ...
SERVAL_KERNEL void SERVAL_MAX_THREADS(kRouteWarps* simt::kWarp) choose_kernel(RouteArgs args) {
  const int64_t r = int64_t{simt::block_x()} * kRouteWarps + simt::warp();
  if (r >= args.num_rows) return;  // the whole warp, and no barrier follows
  const RoutingRule rule = args.rule;
  const int num_experts = args.num_experts;
  const float* const logits = args.logits + r * num_experts;
  Scores scores{rule.score};
  // A score grows with its logit: without a bias and sums of two, logits are in the same order.
  const bool by_score = args.bias != nullptr || (rule.by_best_two && rule.num_groups > 1);
  if (rule.score == RoutingRule::Score::kSoftmax) {
    scores.top = logits[best_of(0, num_experts, [&](int e) { return preference(logits[e]); })];
    // Where only the chosen ones' shares matter, the others do not come into them.
    if (by_score || !rule.renormalise || rule.least_sum > 0) {
      float sum = 0;
      for (int e = simt::lane(); e < num_experts; e += simt::kWarp) sum += expf(logits[e] - scores.top);
      scores.sum = simt::warp_sum(sum);
    }
  }
  const auto key_of = [&](int e) {
    return (by_score ? scores.of(logits[e]) : logits[e]) + (args.bias != nullptr ? args.bias[e] : 0.0f);
  };
  uint32_t groups = ~0u;  // that have experts to choose from
  const int group_size = num_experts / rule.num_groups;
  if (rule.num_groups > 1) {
    float own_group = 0;  // lane g: how good group g is
    for (int g = 0; g < rule.num_groups; ++g) {
      const int begin = g * group_size, end = begin + group_size;
      const int best = best_of(begin, end, [&](int e) { return preference(key_of(e)); });
      float score = key_of(best);
      if (rule.by_best_two)
        score += key_of(best_of(begin, end, [&](int e) { return e == best ? 0u : preference(key_of(e)); }));
      if (g == simt::lane()) own_group = score;
    }
    groups = 0;
    for (int i = 0; i < rule.groups_chosen; ++i)
      groups |= 1u << best_of(0, rule.num_groups, [&](int g) { return groups >> g & 1u ? 0u : preference(own_group); });
  }
  uint32_t taken = 0;  // of this lane's experts
  const auto is_there = [&](int e) {
    return (taken >> (e / simt::kWarp) & 1u) == 0 && (groups >> (e / group_size % 32) & 1u) != 0;
  };
  float total = 0, own = 0;  // own: what lane `rank` keeps of rank `rank`
  int own_expert = 0;
  for (int rank = 0; rank < args.top_k; ++rank) {
    const int expert = best_of(0, num_experts, [&](int e) { return is_there(e) ? preference(key_of(e)) : 0u; });
    float score = 0;
    if (rule.score == RoutingRule::Score::kNearest) {
      const float most = logits[expert];
      for (int e = simt::lane(); e < num_experts; e += simt::kWarp) {
        if (is_there(e) && !((most - logits[e]) / fmaxf(fabsf(logits[e]), most) > rule.nearness))
          score += expf(logits[e] - most);
      }
      score = 1.0f / simt::warp_sum(score);
    } else {
      score = scores.of(logits[expert]);
    }
    if (expert % simt::kWarp == simt::lane()) taken |= 1u << (expert / simt::kWarp);
    total += score;
    if (rank == simt::lane()) {
      own = score;
      own_expert = expert;
    }
  }
  if (simt::lane() < args.top_k) {
    const float factor = rule.renormalise ? 1.0f / (total < rule.least_sum ? rule.least_sum : total) : 1.0f;
    args.experts[r * args.top_k + simt::lane()] = own_expert;
    args.weights[r * args.top_k + simt::lane()] = own * factor * rule.scale * (args.scales != nullptr ? args.scales[own_expert] : 1.0f);
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
SERVAL_KERNEL void SERVAL_MAX_THREADS(kRowThreads) dispatch_weighted_kernel(DispatchArgs<T> args) {
  const int dim = args.dim;
  const bool aligned = is_vectorised(dim);
  const int64_t r = simt::block_x();
  const int i = (simt::block_y() * simt::num_threads() + simt::thread()) * kVector;
  if (i >= dim) return;
  float value[kVector];
  load_vector(args.x + r * dim + i, dim - i, aligned, value);
  for (int j = 0; j < args.top_k; ++j) {
    const float weight = args.weights[r * args.top_k + j];
    float weighted[kVector];
    SERVAL_UNROLL
    for (int v = 0; v < kVector; ++v) weighted[v] = multiply_rounded(weight, value[v]);
    store_vector(args.out + int64_t{args.places[r * args.top_k + j]} * dim + i, dim - i, aligned, weighted);
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
  const auto add = [&](int64_t place, float weight) {
    float value[kVector];
    load_vector(args.x + place * dim + i, dim - i, aligned, value);
    SERVAL_UNROLL
    for (int v = 0; v < kVector; ++v) sum[v] += multiply_rounded(weight, value[v]);
  };
  for (int j = 0; j < args.top_k; ++j)
    add(args.places[r * args.top_k + j], args.weights != nullptr ? args.weights[r * args.top_k + j] : 1.0f);
  if (args.has_shared) {
    const float gate = args.shared_gate != nullptr ? 1.0f / (1.0f + expf(-args.shared_gate[r])) : 1.0f;
    add(int64_t{args.num_rows} * args.top_k + r, gate);
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

namespace {
simt::LaunchShape shape_of_rows(int num_rows, int dim) {
  const int vectors = (dim + kVector - 1) / kVector;
  return {.grid_x = num_rows, .grid_y = (vectors + kRowThreads - 1) / kRowThreads, .threads = kRowThreads};
}
}  // namespace

template <class T>
void dispatch_weighted(simt::Stream stream, const DispatchArgs<T>& args) {
  simt::launch<dispatch_weighted_kernel<T>>(stream, shape_of_rows(args.num_rows, args.dim), args);
}

template <class T>
void combine_experts(simt::Stream stream, const CombineArgs<T>& args) {
  simt::launch<combine_kernel<T>>(stream, shape_of_rows(args.num_rows, args.dim), args);
}

template void dispatch_weighted<Bf16>(simt::Stream, const DispatchArgs<Bf16>&);
template void dispatch_weighted<Half>(simt::Stream, const DispatchArgs<Half>&);
template void combine_experts<Bf16>(simt::Stream, const CombineArgs<Bf16>&);
template void combine_experts<Half>(simt::Stream, const CombineArgs<Half>&);

}  // namespace serval::cuda
