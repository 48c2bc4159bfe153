// Tells the sanitizers when execution moves from one stack to another; nothing at all without them.
// A switch is begin_switch on the old stack, the jump, end_switch on the new one.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace serval::simt::emulation {

struct SwitchState {
  const void* stack = nullptr;
  size_t stack_bytes = 0;
  [[maybe_unused]] void* fake_stack = nullptr;  // AddressSanitizer's
  [[maybe_unused]] void* fiber = nullptr;       // ThreadSanitizer's
  SwitchState() = default;
  SwitchState(const SwitchState&) = delete;
  SwitchState& operator=(const SwitchState&) = delete;
  ~SwitchState() {
#if defined(__SANITIZE_THREAD__)
    if (fiber && stack) __tsan_destroy_fiber(fiber);
#endif
  }
};

// The stack that the host thread came with.
inline void prepare_main_switch([[maybe_unused]] SwitchState& state) {
#if defined(__SANITIZE_THREAD__)
  state.fiber = __tsan_get_current_fiber();
#endif
}

// A stack of our own, about to be entered for the first time.
inline void prepare_switch(SwitchState& state, const void* stack, size_t bytes) {
  state.stack = stack;
  state.stack_bytes = bytes;
  state.fake_stack = nullptr;
#if defined(__SANITIZE_THREAD__)
  if (!state.fiber) state.fiber = __tsan_create_fiber(0);
#endif
}

inline void begin_switch([[maybe_unused]] SwitchState& from, [[maybe_unused]] SwitchState& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(to.fiber, 0);
#endif
}

// The same when `from` will not be entered again.
inline void begin_last_switch([[maybe_unused]] SwitchState& from, [[maybe_unused]] SwitchState& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(nullptr, to.stack, to.stack_bytes);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(to.fiber, 0);
#endif
}

// On the stack of `now`, just entered. Remembers where the host thread's own stack lies.
inline void end_switch([[maybe_unused]] SwitchState& now, [[maybe_unused]] SwitchState* from = nullptr) {
#if defined(__SANITIZE_ADDRESS__)
  const void* old_stack = nullptr;
  size_t old_bytes = 0;
  __sanitizer_finish_switch_fiber(now.fake_stack, &old_stack, &old_bytes);
  if (from && !from->stack) {
    from->stack = old_stack;
    from->stack_bytes = old_bytes;
  }
#endif
}

}  // namespace serval::simt::emulation
