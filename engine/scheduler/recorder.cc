#include "engine/scheduler/recorder.h"

#include <algorithm>
#include <cerrno>
#include <concepts>
#include <cstring>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "engine/scheduler/scheduler.h"
#include "kernels/base/log.h"

namespace serval {
namespace {

constexpr std::string_view kHead = "serval-scheduler 11";
constexpr int32_t kMaxRead = 100'000'000;  // more is no recording of ours

template <class T, class Value>
concept Is = std::same_as<std::remove_const_t<T>, Value>;

// What is recorded of a value, in order: what the scheduler decides by. How tokens are drawn is the runner's
// business; of log-probabilities only that they were there matters.
template <class Line>
void fields(Line& line, Is<Request> auto& r) {
  auto& s = r.sampling;
  line(r.id, r.flow, r.n, r.priority, r.deadline, s.seed, s.max_tokens, s.min_tokens, s.ignore_eos,
       s.num_logprobs, s.num_prompt_logprobs, r.pooling, r.constrained, s.eos_token_ids, s.stop_token_ids, r.cache_salt);
}
template <class Line>
void fields(Line& line, Is<SeqOutput> auto& o) {
  line(o.seq, o.failed, o.tokens_begin, o.num_tokens, o.prompt_begin, o.num_prompt);
}
template <class Line>
void fields(Line& line, Is<TokenOutput> auto& t) {
  line(t.token);
}
template <class Line>
void fields(Line& line, Is<Draft> auto& d) {
  line(d.token, d.parent);
}
template <class Line>
void fields(Line& line, Is<ModelOutput> auto& o) {
  line(o.step, o.seqs, o.tokens, o.prompt_tokens);
}
// The guesses of a result whose sequences are known.
template <class Output>
struct GuessesOf {
  Output& output;
};
template <class Line, class Output>
void fields(Line& line, const GuessesOf<Output>& guesses) {
  for (auto& seq : guesses.output.seqs) line(seq.drafts_begin, seq.num_drafts);
  line(guesses.output.drafts);
}
template <class Line>
void fields(Line& line, Is<KvGroupGeometry> auto& g) {
  line(g.num_blocks, g.window, g.sinks, g.state_span);
}
template <class Line>
void fields(Line& line, Is<LengthClasses> auto& c) {
  line(c.num_bounds, c.bounds);
}
template <class Line>
void fields(Line& line, Is<BlockGeometry> auto& g) {
  line(g.block_size, g.num_groups, g.groups, g.lengths);
}
template <class Line>
void fields(Line& line, Is<SchedulerConfig> auto& c) {
  line(c.max_num_seqs, c.max_num_batched_tokens, c.max_prefill_chunk, c.max_model_len, c.num_draft_tokens, c.max_waiting,
       c.max_wait_ms, c.step_budget_ms, c.policy, c.enable_prefix_cache, c.whole_prompts);
}
template <class Line, class Input>
  requires requires { std::remove_const_t<Input>::kFields; }
void fields(Line& line, Input& input) {
  std::apply([&](auto... member) { line(input.*member...); }, std::remove_const_t<Input>::kFields);
}

// Values as words of a line. A list is its length, then its elements.
class Writer {
 public:
  explicit Writer(std::ostream& out) : out_(out) {}
  template <class... Values>
  void operator()(const Values&... values) {
    (put(values), ...);
  }

 private:
  void put(const std::integral auto& value) { out_ << ' ' << +value; }
  void put(Time time) { put(time.count()); }
  void put(QueuePolicy policy) { put(static_cast<int>(policy)); }
  void put(Pooling pooling) { put(static_cast<int>(pooling)); }
  template <class T>
  void put(const std::vector<T>& list) {
    put(list.size());
    for (const T& value : list) put(value);
  }
  void put(const std::string& text) {
    put(text.size());
    for (const char c : text) put(static_cast<int>(c));
  }
  template <class T, size_t kSize>
  void put(const T (&list)[kSize]) {
    for (const T& value : list) put(value);
  }
  // The prompt has moved to where the first sequence's tokens are.
  void put(const std::unique_ptr<RequestState>& request_state) {
    put(request_state->request);
    put(request_state->sequences.front().tokens);
  }
  void put(const auto& value) { fields(*this, value); }

  std::ostream& out_;
};

// The same the other way. What is no value of its kind spoils the stream.
class Reader {
 public:
  // scheduler: of whom requests are made ready, once there is one.
  Reader(std::istream& in, const Scheduler* scheduler) : in_(in), scheduler_(scheduler) {}
  template <class... Values>
  void operator()(Values&... values) {
    (get(values), ...);
  }

 private:
  void get(std::integral auto& value) { in_ >> value; }
  void get(Time& time) {
    int64_t count = 0;
    get(count);
    time = Time{count};
  }
  void get(QueuePolicy& policy) {
    int value = 0;
    get(value);
    policy = static_cast<QueuePolicy>(value);
  }
  void get(Pooling& pooling) {
    int value = 0;
    get(value);
    pooling = static_cast<Pooling>(value);
  }
  size_t get_size() {
    size_t size = 0;
    get(size);
    if (size > kMaxRead) in_.setstate(std::ios::failbit);
    return in_ ? size : 0;
  }
  template <class T>
  void get(std::vector<T>& list) {
    list.resize(get_size());
    for (T& value : list) {
      if (in_) get(value);
    }
  }
  void get(std::string& text) {
    text.resize(get_size());
    for (char& c : text) {
      int value = 0;
      get(value);
      c = static_cast<char>(value);
    }
  }
  template <class T, size_t kSize>
  void get(T (&list)[kSize]) {
    for (T& value : list) get(value);
  }
  void get(std::unique_ptr<RequestState>& request_state) {
    Request request;
    get(request);
    get(request.prompt);
    if (in_) request_state = scheduler_->prepare(std::move(request));
  }
  void get(auto& value) { fields(*this, value); }

  std::istream& in_;
  const Scheduler* scheduler_;
};

// Every sequence's tokens are there.
bool is_whole(const ModelOutput& output) {
  const auto lies_in = [](int32_t begin, int32_t count, size_t size) {
    return begin >= 0 && count >= 0 && static_cast<size_t>(begin) + count <= size;
  };
  return std::ranges::all_of(output.seqs, [&](const SeqOutput& seq) {
    return lies_in(seq.tokens_begin, seq.num_tokens, output.tokens.size()) &&
           lies_in(seq.drafts_begin, seq.num_drafts, output.drafts.size()) &&
           lies_in(seq.prompt_begin, seq.num_prompt, output.prompt_tokens.size());
  });
}

// The input that a line of this name has; nothing when no input has the name.
template <class... Inputs>
std::optional<SchedulerInput> read_input(std::string_view name, Reader& line, std::variant<Inputs...>*) {
  std::optional<SchedulerInput> input;
  const auto try_to_be = [&]<class Input>(Input&& read) {
    if (name != Input::kName) return;
    line(read);
    input.emplace(std::move(read));
  };
  (try_to_be(Inputs{}), ...);
  return input;
}

}  // namespace

Recorder::Recorder(const std::string& path, const SchedulerConfig& config, const BlockGeometry& geometry)
    : path_(path), file_(path) {
  if (!file_) throw std::runtime_error("cannot write the recording " + path);
  file_ << kHead << "\nconfig";
  Writer{file_}(config, geometry);
  end_line();
}

void Recorder::end_line() {
  if (file_ << '\n' && file_.flush()) return;
  if (num_lost_++ == 0) log_warn("the recording ends here", {{"file", path_}, {"why", std::strerror(errno)}});
}

template <class... Values>
void Recorder::line(std::string_view name, Time now, const Values&... values) {
  file_ << name;
  Writer{file_}(now, values...);
  end_line();
}

void Recorder::take(const SchedulerInput& input, Time now) {
  std::visit([&](const auto& one) { line(one.kName, now, one); }, input);
}
void Recorder::next_batch(Time now) {
  line("next", now);
}
void Recorder::apply(const ModelOutput& output, Time now) {
  line("apply", now, output);
}
void Recorder::take_guesses(const ModelOutput& output, Time now) {
  line("guesses", now, GuessesOf{output});
}

void replay(const std::string& path, const Replay& watch) {
  std::ifstream file(path);
  std::string line;
  size_t number = 0;
  const auto bad = [&] {
    throw std::runtime_error(path + " line " + std::to_string(number) + " is not a scheduler recording");
  };
  std::unique_ptr<Scheduler> scheduler;
  Batch batch;
  ModelOutput output;
  EventBatch events;
  std::vector<std::unique_ptr<RequestState>> retired;
  while (std::getline(file, line)) {
    ++number;
    if (number == 1) {
      if (line != kHead) bad();
      continue;
    }
    std::istringstream in(line);
    std::string what;
    in >> what;
    Reader read(in, scheduler.get());
    if (what == "config" && !scheduler) {
      SchedulerConfig config;
      BlockGeometry geometry;
      read(config, geometry);
      if (!in || geometry.num_groups < 1 || geometry.num_groups > kMaxKvGroups) bad();
      scheduler = std::make_unique<Scheduler>(config, geometry);
      continue;
    }
    if (!scheduler) bad();
    Time now{0};
    read(now);
    if (what == "next") {
      if (!in) bad();
      scheduler->next_batch(now, batch);
      if (watch.on_batch) watch.on_batch(batch, now);
    } else if (what == "apply") {
      output.clear();
      read(output);
      if (!in || !is_whole(output)) bad();
      events.clear();
      scheduler->apply(output, now, events);
      if (watch.on_events) watch.on_events(events, now);
    } else if (what == "guesses") {
      fields(read, GuessesOf{output});
      if (!in || !is_whole(output)) bad();
      scheduler->take_guesses(output);
    } else {
      std::optional<SchedulerInput> input = read_input(what, read, static_cast<SchedulerInput*>(nullptr));
      if (!in || !input) bad();
      if (watch.on_input) watch.on_input(*input, now);
      scheduler->take(std::move(*input), now);
      retired.clear();
      scheduler->take_retired(retired);
    }
  }
  if (!scheduler) bad();
}

}  // namespace serval
