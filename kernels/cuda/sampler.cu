#include "kernels/cuda/sampler.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "kernels/base/check.h"
#include "kernels/cuda/sample_kernel.cuh"

namespace serval::cuda {
namespace {

constexpr size_t kSharedBytes = BlockSpace::kBytes + kMaxTop * sizeof(uint64_t) + 16;

// Threads of a block: all, unless the vocabulary has fewer than sixteen logits for each. A result does not
// depend on it.
int threads_for(int64_t vocab) {
  int threads = kMaxSelectThreads;
  while (threads > simt::kWarp && 16 * threads > vocab) threads /= 2;
  return threads;
}

// Bytes of all that reserve() takes.
struct Sizes {
  int num_blocks;
  size_t inputs, results, top, last_tokens, row, counts, keys;

  Sizes(int max_rows, int64_t vocab, int max_slots, size_t max_list_ints, int num_sms) {
    // A block fills a multiprocessor's load queues; more blocks than multiprocessors would only take memory.
    num_blocks = std::min(max_rows, num_sms);
    inputs = max_rows * sizeof(SampleRow) + max_slots * sizeof(CountedTokens) + max_list_ints * sizeof(int32_t);
    results = max_rows * sizeof(SampleResult);
    top = size_t{kMaxTop} * max_rows * sizeof(TopLogprob);
    last_tokens = std::max(max_slots, 1) * sizeof(int32_t);
    row = static_cast<size_t>(num_blocks * vocab) * sizeof(float);
    counts = std::max<size_t>(static_cast<size_t>(max_slots * vocab) * sizeof(uint32_t), 1);
    keys = static_cast<size_t>(num_blocks * OwnKeys::capacity(vocab, threads_for(vocab))) * sizeof(uint64_t);
  }
  size_t on_device() const { return inputs + results + top + last_tokens + 2 * row + counts + keys; }
};

}  // namespace

// Tokens join the counts of slots, a block for each list.
SERVAL_KERNEL void SERVAL_MAX_THREADS(kMaxSelectThreads)
    count_kernel(const CountedTokens* lists, uint32_t* counts, int vocab) {
  const CountedTokens& list = lists[simt::block_x()];
  uint32_t* const own = counts + int64_t{list.slot} * vocab;
  const int first = simt::thread(), threads = simt::num_threads();
  if (list.restart)
    for (int i = first; i < vocab; i += threads) own[i] = 0;
  simt::sync_block();
  // What the prompt lists has not been in the output yet.
  for (int i = first; i < list.num_prompt; i += threads) own[list.tokens[i]] = kSeenToken;
  simt::sync_block();
  for (int i = list.num_prompt + first; i < list.num_tokens; i += threads)
    simt::atomic_add(&own[list.tokens[i]], 1u);
}

// One block for each row, or, when there are more rows than blocks, one for every grid_x-th. raw, recent:
// [grid_x, vocab]; keys: [grid_x, OwnKeys::capacity()].
SERVAL_KERNEL void SERVAL_MAX_THREADS(kMaxSelectThreads)
    sample_kernel(SampleKernelArgs args, float* raw, uint32_t* recent, uint64_t* keys) {
  simt::SharedMemory memory;
  const BlockSpace space(memory);
  const simt::Shared<uint64_t> best = memory.take<uint64_t>(kMaxTop);
  const simt::Shared<uint32_t> num_best = memory.take<uint32_t>(1);
  const int64_t block = simt::block_x();
  const RowSpace row_space{.raw = raw + block * args.vocab,
                           .recent = recent + block * args.vocab,
                           .keys = keys + block * OwnKeys::capacity(args.vocab, simt::num_threads())};
  for (int r = simt::block_x(); r < args.num_rows; r += simt::grid_x())
    sample_row(args, r, row_space, space, best, num_best);
}

DeviceSampler::DeviceSampler(Stream stream) : stream_(stream) {}

DeviceSampler::~DeviceSampler() {
  if (max_rows_ == 0) return;
  synchronize(stream_);  // nothing may use what is freed now
  for (Ticket& ticket : tickets_) destroy_event(ticket.done);
}

DeviceSampler::DeviceMemory DeviceSampler::take_device(size_t bytes) {
  DeviceMemory memory(allocate_device(bytes));
  if (!memory)
    throw std::runtime_error("the device has no " + std::to_string(bytes) + " bytes left for sampling");
  device_bytes_ += bytes;
  return memory;
}

size_t DeviceSampler::planned_bytes(int max_rows, int64_t vocab, int max_slots, size_t max_list_ints, int num_sms) {
  return Sizes(max_rows, vocab, max_slots, max_list_ints, num_sms).on_device();
}

size_t DeviceSampler::reserve(int max_rows, int64_t vocab, int max_slots, size_t max_list_ints) {
  SERVAL_CHECK(max_rows_ == 0 && max_rows > 0 && vocab > 0 && vocab <= kMaxIds && max_slots >= 0, max_rows_,
               max_rows, vocab, max_slots);
  const Sizes sizes(max_rows, vocab, max_slots, max_list_ints, device_properties().num_sms);
  num_blocks_ = sizes.num_blocks;
  inputs_ = take_device(sizes.inputs);
  results_ = take_device(sizes.results);
  top_ = take_device(sizes.top);
  last_tokens_ = take_device(sizes.last_tokens);
  raw_ = take_device(sizes.row);
  recent_ = take_device(sizes.row);
  counts_ = take_device(sizes.counts);
  keys_ = take_device(sizes.keys);
  for (Ticket& ticket : tickets_) {
    ticket.inputs.reset(allocate_pinned(sizes.inputs));
    ticket.results.reset(allocate_pinned(sizes.results));
    ticket.top.reset(allocate_pinned(sizes.top));
    if (!ticket.inputs || !ticket.results || !ticket.top)
      throw std::runtime_error("there is no page-locked memory left for sampling");
    ticket.done = create_event();
  }
  clear(stream_, last_tokens_.get(), sizes.last_tokens);
  clear(stream_, recent_.get(), sizes.row);
  max_rows_ = max_rows;
  vocab_ = vocab;
  max_slots_ = max_slots;
  max_list_ints_ = max_list_ints;
  return device_bytes_;
}

const CountedTokens* DeviceSampler::device_counted(int num_rows) const {
  return reinterpret_cast<const CountedTokens*>(static_cast<const SampleRow*>(inputs_.get()) + num_rows);
}

size_t DeviceSampler::stage(const SampleArgs& args, int num_rows, Ticket& ticket) const {
  auto* const rows = static_cast<SampleRow*>(ticket.inputs.get());
  auto* const counted = reinterpret_cast<CountedTokens*>(rows + num_rows);
  auto* const lists = reinterpret_cast<int32_t*>(counted + args.num_counted);
  const auto* const device_lists =
      reinterpret_cast<const int32_t*>(device_counted(num_rows) + args.num_counted);
  size_t num_ints = 0;
  // Copies a list and makes its pointer the one of the copy on the device.
  const auto move_list = [&]<class T>(const T*& list, size_t count) {
    const size_t ints = count * sizeof(T) / sizeof(int32_t);
    SERVAL_CHECK(num_ints + ints <= max_list_ints_, num_ints, ints, max_list_ints_);
    std::copy_n(list, count, reinterpret_cast<T*>(lists + num_ints));
    list = reinterpret_cast<const T*>(device_lists + num_ints);
    num_ints += ints;
  };
  for (int r = 0; r < num_rows; ++r) {
    SampleRow& row = rows[r] = args.rows[r];
    SERVAL_CHECK(row.num_top <= args.top_stride && row.num_top <= vocab_ && row.slot < max_slots_, r,
                 row.num_top, args.top_stride, row.slot, max_slots_);
    SERVAL_CHECK(row.counts_slot < max_slots_, row.counts_slot, max_slots_);
    SERVAL_DCHECK(
        row.slot >= 0 || !row.has_penalty() || std::count(row.recent, row.recent + row.num_recent, -1) == 0,
        "the recent tokens name the last of no slot", r);
    if (row.has_penalty()) move_list(row.recent, static_cast<size_t>(row.num_recent));
    if (row.num_logit_bias > 0) move_list(row.logit_bias, static_cast<size_t>(row.num_logit_bias));
    if (row.num_banned > 0) move_list(row.banned, static_cast<size_t>(row.num_banned));
    if (row.mask != nullptr) move_list(row.mask, static_cast<size_t>(vocab_ + 31) / 32);
  }
  for (int i = 0; i < args.num_counted; ++i) {
    CountedTokens& list = counted[i] = args.counted[i];
    SERVAL_CHECK(list.slot >= 0 && list.slot < max_slots_, list.slot, max_slots_);
    move_list(list.tokens, static_cast<size_t>(list.num_tokens));
  }
  return num_rows * sizeof(SampleRow) + args.num_counted * sizeof(CountedTokens) + num_ints * sizeof(int32_t);
}

int DeviceSampler::launch(const SampleArgs& args) {
  const auto num_rows = static_cast<int>(args.logits.dim(0));
  SERVAL_CHECK(args.logits.dtype == DType::kF32 && args.logits.dim(1) == vocab_ && num_rows <= max_rows_ &&
                   args.top_stride <= kMaxTop && args.num_counted <= max_slots_,
               dtype_name(args.logits.dtype), args.logits.dim(1), vocab_, num_rows, max_rows_,
               args.top_stride, args.num_counted, max_slots_);
  const auto free = std::find_if(tickets_.begin(), tickets_.end(), [](const Ticket& t) { return !t.is_out; });
  SERVAL_CHECK(free != tickets_.end(), "launches that nobody delivers", kMaxTickets);
  Ticket& ticket = *free;
  ticket.is_out = true;
  ticket.num_rows = num_rows;
  ticket.top_stride = args.top_stride;
  copy_to_device(stream_, inputs_.get(), ticket.inputs.get(), stage(args, num_rows, ticket));
  if (args.num_counted > 0) {
    simt::launch<count_kernel>(stream_, {.grid_x = args.num_counted, .threads = threads_for(vocab_)},
                               device_counted(num_rows), static_cast<uint32_t*>(counts_.get()),
                               static_cast<int>(vocab_));
  }
  if (num_rows > 0) draw(args, num_rows, ticket);
  record(ticket.done, stream_);
  return static_cast<int>(free - tickets_.begin());
}

void DeviceSampler::draw(const SampleArgs& args, int num_rows, Ticket& ticket) {
  simt::launch<sample_kernel>(stream_,
                              {.grid_x = std::min(num_rows, num_blocks_),
                               .threads = threads_for(vocab_),
                               .shared_bytes = kSharedBytes},
                              SampleKernelArgs{.logits = args.logits.as<float>(),
                                               .rows = static_cast<const SampleRow*>(inputs_.get()),
                                               .results = static_cast<SampleResult*>(results_.get()),
                                               .top = static_cast<TopLogprob*>(top_.get()),
                                               .top_stride = args.top_stride,
                                               .num_rows = num_rows,
                                               .vocab = static_cast<int>(vocab_),
                                               .last_tokens = last_tokens(),
                                               .counts = static_cast<const uint32_t*>(counts_.get())},
                              static_cast<float*>(raw_.get()), static_cast<uint32_t*>(recent_.get()),
                              static_cast<uint64_t*>(keys_.get()));
  copy_to_host(stream_, ticket.results.get(), results_.get(), num_rows * sizeof(SampleResult));
  if (args.top_stride > 0) {
    copy_to_host(stream_, ticket.top.get(), top_.get(),
                 size_t{sizeof(TopLogprob)} * num_rows * args.top_stride);
  }
}

void DeviceSampler::wait_sampled(int ticket_index, SampleResult* results, TopLogprob* top) {
  SERVAL_CHECK(ticket_index >= 0 && ticket_index < kMaxTickets && tickets_[ticket_index].is_out,
               ticket_index);
  Ticket& ticket = tickets_[ticket_index];
  wait(ticket.done);
  const auto* const drawn = static_cast<const SampleResult*>(ticket.results.get());
  const auto* const best = static_cast<const TopLogprob*>(ticket.top.get());
  const auto* const rows = static_cast<const SampleRow*>(ticket.inputs.get());
  std::copy(drawn, drawn + ticket.num_rows, results);
  for (int r = 0; r < ticket.num_rows; ++r) {
    const size_t begin = size_t{1} * r * ticket.top_stride;
    if (drawn[r].finite && rows[r].num_top > 0)
      std::copy(best + begin, best + begin + rows[r].num_top, top + begin);
  }
  ticket.is_out = false;
}

}  // namespace serval::cuda
