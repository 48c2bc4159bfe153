// Where attention over a long context is cut, as arithmetic that host and device share.
//
// The heads of a token that share a KV head are packed: packed row r of a sequence is token r / heads_per_kv,
// head r % heads_per_kv of the KV head. Keys are cut at absolute multiples of kChunkKeys. A row's result is
// its chunks' results merged in ascending order, and a chunk's is that of its tiles in ascending order,
// whoever computes them: so a row has the same bits in a decode step that is split over the whole device, in
// a chunk of a prompt, or as a draft that is verified. (Flash-Decoding, Dao et al. 2023, with a split that
// depends on the row's own position alone.)
#pragma once

#include <cstdint>

namespace serval {

inline constexpr int kTileKeys = 32;       // keys of one step of the online softmax
inline constexpr int kChunkKeys = 256;     // keys whose result is merged as one
inline constexpr int kItemRows = 16;       // packed rows of a work item of a split sequence
inline constexpr int kTileQueryRows = 64;  // packed rows of a work item of one that is not split
inline constexpr int kMaxSplitRows = 64;  // packed rows up to which a sequence may be split

constexpr int tiles_of(int count, int size) {
  return (count + size - 1) / size;
}

// First position that a row at `position` sees (AttentionArgs::window).
constexpr int first_seen(int position, int window) {
  if (window < 0) return position / -window * -window;
  return window > 0 && position >= window ? position - window + 1 : 0;
}

// Chunks that rows at positions first_pos .. first_pos + rows - 1 see between them.
struct ChunkRange {
  int first = 0;
  int count = 0;
};
constexpr ChunkRange chunks_of(int first_pos, int rows, int window) {
  const int first = first_seen(first_pos, window) / kChunkKeys;
  return {first, (first_pos + rows - 1) / kChunkKeys - first + 1};
}

// Where in its sequence's table the key stands that a branch reads at `position`: from tree_start on at the
// places of its own tokens, the set bits of its mask. 0: no branch.
constexpr int branch_place(uint64_t mask, int tree_start, int position) {
  if (mask == 0 || position < tree_start) return position;
  for (int above = position - tree_start; above > 0; --above) mask &= mask - 1;
  int bit = 0;
  while ((mask >> bit & 1) == 0 && bit < 63) ++bit;
  return tree_start + bit;
}

// The largest s with starts[s] <= item, for item < starts[num_seqs]: the sequence that item belongs to.
constexpr int sequence_of(const int32_t* starts, int num_seqs, int item) {
  int low = 0, high = num_seqs;  // starts[low] <= item < starts[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (starts[middle] <= item ? low : high) = middle;
  }
  return low;
}

}  // namespace serval
