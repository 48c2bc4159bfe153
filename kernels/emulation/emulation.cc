#include "kernels/emulation/emulation.h"

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <numeric>
#include <optional>
#include <random>

#include "kernels/base/check.h"
#include "kernels/emulation/fiber_switch.h"

namespace serval::simt {
namespace {

thread_local uint64_t schedule_seed = 0;

}  // namespace

void set_schedule_seed(uint64_t seed) {
  schedule_seed = seed;
}

namespace emulation {

constinit thread_local Thread* current = nullptr;
constinit thread_local int current_block_x = 0, current_block_y = 0, current_grid_x = 0,
                           current_num_threads = 0;

namespace {

namespace context = boost::context;

constexpr size_t kStackBytes = size_t{128} << 10;
constexpr int kMaxExchangeBytes = 64;

// Leaves a fiber whose block has failed; caught where the fiber began.
struct Unwind {};

struct Warp {
  uint32_t arrived = 0;
  uint32_t barrier_arrived = 0;
  uint32_t epoch = 0;  // warp barriers passed
  const char* name = nullptr;
  alignas(16) std::byte in[kWarp * kMaxExchangeBytes];
  alignas(16) std::byte out[kWarp * kMaxExchangeBytes];
};

// Gives each fiber the same piece of memory again and again.
struct OwnedStack {
  void* memory;
  context::stack_context allocate() {
    context::stack_context stack;
    stack.size = kStackBytes;
    stack.sp = static_cast<char*>(memory) + kStackBytes;
    return stack;
  }
  void deallocate(context::stack_context&) {}
};

enum class State : uint8_t { kRunnable, kAtBarrier, kInExchange, kAtWarpBarrier, kDone };

struct Runner {
  context::fiber fiber;
  SwitchState switch_state;
  State state = State::kDone;
};

}  // namespace

struct Block {
  int num_threads = 0;
  uint32_t number = 0;  // of the blocks that ran before
  uint32_t epoch = 0;   // block barriers passed
  int at_barrier = 0;
  int num_done = 0;
  std::vector<Thread> threads;
  std::vector<Runner> runners;
  std::vector<Warp> warps;
  std::vector<int> runnable;
  std::vector<std::byte> shared;
  std::vector<ShadowCell> shadow;
  size_t shared_size = 0;
  std::unique_ptr<std::byte[]> stacks;
  context::fiber scheduler;  // the loop of run_block, while a thread runs
  SwitchState scheduler_switch;
  std::mt19937_64 random;
  bool is_shuffled = false;
  std::optional<std::string> failure;

  void wake(int thread) {
    runners[thread].state = State::kRunnable;
    runnable.push_back(thread);
  }
};

namespace {

Block& block() {
  return *current->block;
}

// Most kernels touch a small part of what they may, so cells are emptied when a block first meets them.
ShadowCell& cell_at(Block& b, int index) {
  ShadowCell& cell = b.shadow[index];
  if (cell.block != b.number) cell = {.block = b.number};
  return cell;
}

// Gives control back to the scheduler; returns when this thread is chosen again.
void wait_as(State state) {
  Block& b = block();
  Thread* const self = current;
  b.runners[self->index].state = state;
  begin_switch(b.runners[self->index].switch_state, b.scheduler_switch);
  b.scheduler = std::move(b.scheduler).resume();
  end_switch(b.runners[self->index].switch_state);
  current = self;
  if (b.failure) throw Unwind{};
}

std::string where() {
  return "block (" + std::to_string(current_block_x) + ", " + std::to_string(current_block_y) + ") thread " +
         std::to_string(current->index);
}

bool in_order(const Stamp& earlier, const Thread& now, const Block& b) {
  return earlier.thread == now.index || earlier.thread < 0 || earlier.block_epoch != b.epoch ||
         (earlier.thread / kWarp == now.index / kWarp &&
          earlier.warp_epoch != b.warps[now.index / kWarp].epoch);
}

Stamp stamp_now() {
  const Block& b = block();
  return {current->index, b.epoch, b.warps[current->index / kWarp].epoch};
}

void report_race(const char* kind, const Stamp& earlier, int cell) {
  violate(std::string("race: ") + kind + " of shared byte " + std::to_string(cell * kGranule) +
          " without a barrier after thread " + std::to_string(earlier.thread));
}

void check_write(const ShadowCell& cell, int index) {
  const Block& b = block();
  if (cell.is_written && !in_order(cell.write, *current, b))
    report_race("write after write", cell.write, index);
  if (!in_order(cell.first_read, *current, b)) report_race("write after read", cell.first_read, index);
  if (!in_order(cell.last_read, *current, b)) report_race("write after read", cell.last_read, index);
  const uint32_t others = cell.reading_warps & ~(1u << (current->index / kWarp));
  if (others != 0 && cell.last_read.block_epoch == b.epoch)
    report_race("write after read", cell.last_read, index);
}

void stamp_write(ShadowCell& cell, const Stamp& now) {
  cell.write = now;
  cell.first_read = cell.last_read = Stamp{};
  cell.reading_warps = 0;
  cell.is_written = true;
  cell.is_atomic = false;
}

void enter_thread(Block& b, int index, const std::function<void()>& kernel) {
  try {
    if (!b.failure) kernel();
    if (b.threads[index].num_groups != 0 || !b.threads[index].open_copies.empty())
      violate("a thread ends with asynchronous copies that it did not wait for");
  } catch (const Unwind&) {
  }
  b.runners[index].state = State::kDone;
  ++b.num_done;
}

// Threads that have ended count as having arrived.
void release_barrier_if_complete(Block& b) {
  if (b.at_barrier == 0 || b.at_barrier + b.num_done < b.num_threads) return;
  if (b.num_done > 0) {
    b.failure = "barrier: " + std::to_string(b.num_done) + " of " + std::to_string(b.num_threads) +
                " threads ended without reaching it";
    return;
  }
  b.at_barrier = 0;
  ++b.epoch;
  for (int t = 0; t < b.num_threads; ++t) b.wake(t);
}

std::string describe_stuck(const Block& b) {
  int barrier = 0, exchange = 0;
  for (int t = 0; t < b.num_threads; ++t) {
    const Runner& r = b.runners[t];
    barrier += r.state == State::kAtBarrier;
    exchange += r.state == State::kInExchange || r.state == State::kAtWarpBarrier;
  }
  return "deadlock: " + std::to_string(barrier) + " threads wait at a barrier, " + std::to_string(exchange) +
         " in a warp exchange, " + std::to_string(b.num_done) + " have ended";
}

void resume(Block& b, int index) {
  current = &b.threads[index];
  begin_switch(b.scheduler_switch, b.runners[index].switch_state);
  b.runners[index].fiber = std::move(b.runners[index].fiber).resume();
  end_switch(b.scheduler_switch);
}

void run_block(Block& b, const std::function<void()>& kernel) {
  const int n = b.num_threads;
  ++b.number;
  b.epoch = 0;
  b.at_barrier = b.num_done = 0;
  b.failure.reset();
  b.runnable.clear();
  std::fill(b.shared.begin(), b.shared.begin() + b.shared_size, std::byte{0xff});
  for (int w = 0; w < n / kWarp; ++w) {
    b.warps[w].arrived = b.warps[w].barrier_arrived = b.warps[w].epoch = 0;
    b.warps[w].name = nullptr;
  }
  for (int t = 0; t < n; ++t) {
    Thread& thread = b.threads[t];
    thread.index = t;
    thread.block = &b;
    thread.open_copies.clear();
    thread.num_groups = 0;
    Runner& runner = b.runners[t];
    runner.state = State::kRunnable;
    std::byte* const stack = b.stacks.get() + t * kStackBytes;
    prepare_switch(runner.switch_state, stack, kStackBytes);
    runner.fiber =
        context::fiber(std::allocator_arg, OwnedStack{stack}, [&b, t, &kernel](context::fiber&& from) {
          end_switch(b.runners[t].switch_state, &b.scheduler_switch);
          b.scheduler = std::move(from);
          current = &b.threads[t];
          enter_thread(b, t, kernel);
          begin_last_switch(b.runners[t].switch_state, b.scheduler_switch);
          return std::move(b.scheduler);
        });
    b.runnable.push_back(t);
  }
  // In ascending order, take from the front; shuffled, from anywhere.
  size_t next = 0;
  while (next < b.runnable.size()) {
    if (b.is_shuffled)
      std::swap(b.runnable[next], b.runnable[next + b.random() % (b.runnable.size() - next)]);
    const int t = b.runnable[next++];
    resume(b, t);
    if (next == b.runnable.size()) {
      b.runnable.clear();
      next = 0;
      release_barrier_if_complete(b);
    }
    if (b.failure) break;
  }
  if (!b.failure && b.num_done < n) b.failure = describe_stuck(b);
  if (!b.failure) return;
  for (int t = 0; t < n; ++t) {
    if (b.runners[t].state != State::kDone && b.runners[t].fiber) resume(b, t);
  }
}

thread_local std::unique_ptr<Block> the_block;

Block& prepare_block(int threads, size_t shared_bytes) {
  if (!the_block) {
    the_block = std::make_unique<Block>();
    the_block->stacks = std::make_unique_for_overwrite<std::byte[]>(kStackBytes * kMaxThreads);
    the_block->threads.resize(kMaxThreads);
    the_block->runners =
        std::vector<Runner>(kMaxThreads);  // never moved: the sanitizers know their addresses
    the_block->warps.resize(kMaxThreads / kWarp);
    prepare_main_switch(the_block->scheduler_switch);
  }
  Block& b = *the_block;
  b.num_threads = threads;
  b.shared_size = shared_bytes;
  if (b.shared.size() < shared_bytes) {
    b.shared.resize(shared_bytes);
    b.shadow.resize((shared_bytes + kGranule - 1) / kGranule);
  }
  b.is_shuffled = schedule_seed != 0;
  b.random.seed(schedule_seed);
  return b;
}

}  // namespace

void violate(const std::string& what) {
  Block& b = block();
  if (!b.failure) b.failure = where() + ": " + what;
  throw Unwind{};
}

void barrier() {
  ++block().at_barrier;
  wait_as(State::kAtBarrier);
}

void warp_barrier() {
  Block& b = block();
  Warp& warp = b.warps[current->index / kWarp];
  warp.barrier_arrived |= 1u << (current->index % kWarp);
  if (warp.barrier_arrived != 0xffffffffu) {
    wait_as(State::kAtWarpBarrier);
    return;
  }
  warp.barrier_arrived = 0;
  ++warp.epoch;
  const int first = current->index / kWarp * kWarp;
  for (int t = first; t < first + kWarp; ++t)
    if (t != current->index) b.wake(t);
}

void exchange(const char* name, const void* in, int in_bytes, void* out, int out_bytes, ExchangeBody body,
              int context) {
  Block& b = block();
  Warp& warp = b.warps[current->index / kWarp];
  const int lane = current->index % kWarp;
  if (warp.arrived == 0) warp.name = name;
  if (warp.name != name && std::strcmp(warp.name, name) != 0)
    violate(std::string("the lanes of a warp meet in different exchanges: ") + name + " and " + warp.name);
  std::memcpy(warp.in + lane * in_bytes, in, in_bytes);
  warp.arrived |= 1u << lane;
  if (warp.arrived == 0xffffffffu) {
    body(warp.in, warp.out, in_bytes, out_bytes, context);
    warp.arrived = 0;
    const int first = current->index - lane;
    for (int t = first; t < first + kWarp; ++t)
      if (t != current->index) b.wake(t);
  } else {
    wait_as(State::kInExchange);
  }
  std::memcpy(out, warp.out + lane * out_bytes, out_bytes);
}

int take_shared(int bytes, int at) {
  if (at + bytes > static_cast<int>(block().shared_size)) {
    violate("the kernel takes " + std::to_string(at + bytes) + " bytes of shared memory; the launch gave " +
            std::to_string(block().shared_size));
  }
  return at;
}

std::byte* shared_bytes() {
  return block().shared.data();
}

void note_read(int offset, int bytes) {
  Block& b = block();
  const int last = (offset + bytes - 1) / kGranule;
  const Stamp now = stamp_now();
  for (int i = offset / kGranule; i <= last; ++i) {
    ShadowCell& cell = cell_at(b, i);
    if (cell.is_in_flight)
      violate("read of shared byte " + std::to_string(i * kGranule) +
              " before its asynchronous copy was waited for");
    if (!cell.is_written)
      violate("read of shared byte " + std::to_string(i * kGranule) + ", which nobody wrote");
    if (!in_order(cell.write, *current, b)) report_race("read after write", cell.write, i);
    if (cell.last_read.thread < 0 || cell.last_read.block_epoch != b.epoch) {
      cell.first_read = now;
      cell.reading_warps = 0;
    }
    cell.last_read = now;
    cell.reading_warps |= 1u << (now.thread / kWarp);
  }
}

void note_write(int offset, int bytes) {
  Block& b = block();
  const int last = (offset + bytes - 1) / kGranule;
  const Stamp now = stamp_now();
  for (int i = offset / kGranule; i <= last; ++i) {
    ShadowCell& cell = cell_at(b, i);
    if (cell.is_in_flight)
      violate("write of shared byte " + std::to_string(i * kGranule) + ", where a copy is in flight");
    check_write(cell, i);
    stamp_write(cell, now);
  }
}

// Atomic operations do not race with each other.
void note_atomic(int offset, int bytes) {
  Block& b = block();
  const int last = (offset + bytes - 1) / kGranule;
  const Stamp now = stamp_now();
  for (int i = offset / kGranule; i <= last; ++i) {
    ShadowCell& cell = cell_at(b, i);
    if (!cell.is_written)
      violate("atomic on shared byte " + std::to_string(i * kGranule) + ", which nobody wrote");
    if (!cell.is_atomic || cell.last_read.thread >= 0) check_write(cell, i);
    stamp_write(cell, now);
    cell.is_atomic = true;
  }
}

void copy_async(int offset, const void* source, int bytes) {
  Block& b = block();
  const int last = (offset + bytes - 1) / kGranule;
  const Stamp now = stamp_now();
  for (int i = offset / kGranule; i <= last; ++i) {
    ShadowCell& cell = cell_at(b, i);
    if (cell.is_in_flight) violate("two asynchronous copies to shared byte " + std::to_string(i * kGranule));
    check_write(cell, i);
    stamp_write(cell, now);
    cell.is_in_flight = true;
  }
  std::memset(b.shared.data() + offset, 0xff, bytes);
  current->open_copies.push_back({offset, source, bytes});
}

void commit_copies() {
  Thread& t = *current;
  if (t.num_groups == t.copy_groups.size()) t.copy_groups.emplace_back();
  t.copy_groups[t.num_groups].clear();
  std::swap(t.copy_groups[t.num_groups++], t.open_copies);
}

void wait_copies(int max_pending) {
  Block& b = block();
  Thread& t = *current;
  if (static_cast<int>(t.num_groups) <= max_pending) return;
  const size_t landed = t.num_groups - max_pending;
  const Stamp now = stamp_now();
  for (size_t g = 0; g < landed; ++g) {
    for (const PendingCopy& copy : t.copy_groups[g]) {
      std::byte* const to = b.shared.data() + copy.shared_offset;
      if (copy.source) {
        std::memcpy(to, copy.source, copy.bytes);
      } else {
        std::memset(to, 0, copy.bytes);
      }
      const int last = (copy.shared_offset + copy.bytes - 1) / kGranule;
      for (int i = copy.shared_offset / kGranule; i <= last; ++i) {
        ShadowCell& cell = cell_at(b, i);
        cell.is_in_flight = false;
        stamp_write(cell, now);
      }
    }
  }
  std::rotate(t.copy_groups.begin(), t.copy_groups.begin() + landed, t.copy_groups.begin() + t.num_groups);
  t.num_groups = max_pending;
}

void run_grid(int grid_x, int grid_y, int threads, size_t shared_bytes, const std::function<void()>& kernel) {
  SERVAL_CHECK(threads > 0 && threads % kWarp == 0 && threads <= kMaxThreads, threads);
  SERVAL_CHECK(current == nullptr, "a kernel launches a kernel");
  Block& b = prepare_block(threads, shared_bytes);
  current_grid_x = grid_x;
  current_num_threads = threads;
  std::vector<int> order(static_cast<size_t>(grid_x) * grid_y);
  std::iota(order.begin(), order.end(), 0);
  if (b.is_shuffled) std::shuffle(order.begin(), order.end(), b.random);
  for (const int index : order) {
    current_block_x = index % grid_x;
    current_block_y = index / grid_x;
    run_block(b, kernel);
    current = nullptr;
    if (b.failure) throw Violation(*b.failure);
  }
}

}  // namespace emulation
}  // namespace serval::simt
