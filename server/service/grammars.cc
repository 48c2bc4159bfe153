#include "server/service/grammars.h"

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <future>
#include <list>
#include <mutex>
#include <new>
#include <thread>

#include "engine/engine.h"
#include "engine/grammar/grammar.h"
#include "engine/grammar/token_mask.h"
#include "server/out_of_memory.h"
#include "server/service/metrics.h"

namespace serval {
namespace {

constexpr size_t kMaxKept = 32;                     // grammars
constexpr size_t kMaxMaskBytes = size_t{8} << 20;   // that one of them keeps of its masks
constexpr size_t kMaxWaiting = 4;                   // to be compiled
constexpr size_t kMaxDraws = 4096;                  // that wait for their masks: far more than sequences run
constexpr int kCompilerNiceness = 15;
constexpr GrammarLimits kLimits{.max_bytes = size_t{128} << 10, .max_steps = 1'500'000};

double seconds_since(Time begin) { return std::chrono::duration<double>(engine_now() - begin).count(); }

std::string key_of(const OutputFormat& format) {
  std::string key = std::to_string(static_cast<int>(format.kind)) + ":" + format.text;
  for (const std::string& choice : format.choices) key += std::to_string(choice.size()) + ":" + choice;
  return key;
}

Result<std::shared_ptr<const Grammar>> grammar_of(const OutputFormat& format) {
  switch (format.kind) {
    case OutputFormat::Kind::kJsonObject:
      return Grammar::json_object(kLimits);
    case OutputFormat::Kind::kJsonSchema:
      return Grammar::json_schema(format.text, kLimits);
    case OutputFormat::Kind::kRegex:
      return Grammar::regex(format.text, kLimits);
    case OutputFormat::Kind::kChoice:
      return Grammar::choice(format.choices, kLimits);
    case OutputFormat::Kind::kGrammar:
      return Grammar::ebnf(format.text, kLimits);
  }
  return Grammar::json_object(kLimits);
}

}  // namespace

struct Grammars::Compiled {
  Compiled(std::shared_ptr<const Grammar> of, const std::shared_ptr<const TokenTrie>& trie)
      : grammar(of), masks(std::move(of), trie, kMaxMaskBytes) {}
  const std::shared_ptr<const Grammar> grammar;
  std::mutex mutex;  // of the masks
  TokenMasks masks;
};

struct Grammars::Impl {
  class Output;
  struct Draw {
    std::shared_ptr<Output> output;
    int32_t index;
    TokenId token;
    int32_t place;
  };
  using CompileResult = Result<std::shared_ptr<Compiled>>;
  struct Job {
    const OutputFormat* format;
    std::promise<CompileResult> result;
  };

  Impl(std::shared_ptr<const Tokenizer> of, int size, std::vector<TokenId> ends, ServiceMetrics& counts,
       MaskReadySink sink)
      : tokenizer(std::move(of)),
        vocab_size(size),
        end_ids(std::move(ends)),
        metrics(counts),
        tells(std::move(sink)) {
    draws.reserve(kMaxDraws);
    taken.reserve(kMaxDraws);
    compiler = std::thread([this] { compile_loop(); });
    pthread_setname_np(compiler.native_handle(), "serval-grammar");
    masker = std::thread([this] { mask_loop(); });
    pthread_setname_np(masker.native_handle(), "serval-masks");
  }
  ~Impl() {
    {
      const std::scoped_lock lock(jobs_mutex, draws_mutex);
      stopping = true;
    }
    job_arrived.notify_one();
    draw_arrived.notify_one();
    compiler.join();
    masker.join();
  }

  // --- compiling ---

  std::shared_ptr<Compiled> find(const std::string& key) {
    const std::lock_guard lock(kept_mutex);
    const auto found = std::find_if(kept.begin(), kept.end(), [&](const auto& entry) { return entry.first == key; });
    if (found == kept.end()) return nullptr;
    kept.splice(kept.begin(), kept, found);
    return found->second;
  }

  void compile_loop() {
    setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kCompilerNiceness);
    for (;;) {
      Job job;
      {
        std::unique_lock lock(jobs_mutex);
        job_arrived.wait(lock, [&] { return stopping || !jobs.empty(); });
        if (jobs.empty()) return;
        job = std::move(jobs.front());
        jobs.pop_front();
      }
      try {
        job.result.set_value(compile_now(*job.format));
      } catch (...) {
        job.result.set_exception(std::current_exception());
      }
    }
  }

  CompileResult compile_now(const OutputFormat& format) {
    const std::string key = key_of(format);
    if (std::shared_ptr<Compiled> known = find(key)) return known;
    const Time begin = engine_now();
    auto grammar = grammar_of(format);
    metrics.grammar_compiled(seconds_since(begin), grammar.ok());
    if (!grammar.ok()) return grammar.error();
    if (grammar.value()->matches_nothing())
      return invalid("schema", "grammar_refused", "The schema is false for every value: nothing can be written.");
    auto compiled = std::make_shared<Compiled>(std::move(grammar.value()), vocabulary());
    const std::lock_guard lock(kept_mutex);
    kept.emplace_front(key, compiled);
    if (kept.size() > kMaxKept) kept.pop_back();
    return compiled;
  }

  // Of the compiling thread.
  const std::shared_ptr<const TokenTrie>& vocabulary() {
    if (trie) return trie;
    std::vector<std::string_view> bytes;
    for (TokenId id = 0; id < std::min(vocab_size, tokenizer->vocab_size()); ++id)
      bytes.push_back(tokenizer->is_special(id) ? std::string_view() : tokenizer->token_bytes(id));
    trie = std::make_shared<const TokenTrie>(bytes, vocab_size);
    return trie;
  }

  // --- masks ---

  void mask_loop() {
    for (;;) {
      {
        std::unique_lock lock(draws_mutex);
        draw_arrived.wait(lock, [&] { return stopping || !draws.empty(); });
        if (stopping) return;
        std::swap(draws, taken);
      }
      for (const Draw& draw : taken) take(draw);
      taken.clear();
    }
  }
  inline void take(const Draw& draw);

  const std::shared_ptr<const Tokenizer> tokenizer;
  const int vocab_size;
  const std::vector<TokenId> end_ids;
  ServiceMetrics& metrics;
  const MaskReadySink tells;
  std::shared_ptr<const TokenTrie> trie;

  std::mutex kept_mutex;
  std::list<std::pair<std::string, std::shared_ptr<Compiled>>> kept;  // used last first

  std::mutex jobs_mutex;
  std::condition_variable job_arrived;
  std::deque<Job> jobs;

  std::mutex draws_mutex;
  std::condition_variable draw_arrived;
  std::vector<Draw> draws, taken;
  bool stopping = false;  // under both

  std::thread compiler, masker;
};

// The sequences of one request. The engine reads a mask only while nobody makes the next.
class Grammars::Impl::Output final : public TokenConstraint, public std::enable_shared_from_this<Output> {
 public:
  Output(Impl& impl, std::shared_ptr<Compiled> compiled, const FreeText& before, RequestId id, int n)
      : impl_(impl), compiled_(std::move(compiled)), id_(id), free_end_(before.end) {
    if (!before.end.empty() && !before.is_open) free_begin_ = impl.tokenizer->token_to_id(before.begin);
    const OneSequence start{GrammarMatcher(compiled_->grammar),
                            std::vector<uint32_t>((static_cast<size_t>(impl.vocab_size) + 31) / 32), before.is_open, {}};
    sequences_.assign(static_cast<size_t>(n), start);
    make_mask(sequences_[0]);
    if (free_begin_ >= 0 && free_begin_ < impl.vocab_size) allow(sequences_[0], free_begin_);
    for (int i = 1; i < n; ++i) sequences_[i].mask = sequences_[0].mask;
  }

  void drew(int index, int32_t token, int32_t place) override {
    {
      const std::lock_guard lock(impl_.draws_mutex);
      impl_.draws.push_back({shared_from_this(), index, token, place});
    }
    impl_.draw_arrived.notify_one();
  }
  std::span<const uint32_t> mask(int index) const override { return sequences_[index].mask; }

  void take(int index, TokenId token, int32_t place) {
    OneSequence& sequence = sequences_[index];
    const bool is_end = std::find(impl_.end_ids.begin(), impl_.end_ids.end(), token) != impl_.end_ids.end();
    try {
      if (place == 0 && token == free_begin_) {
        sequence.is_free = true;
      } else if (!is_end) {
        read(sequence, impl_.tokenizer->token_bytes(token));
      }
      make_mask(sequence);
    } catch (const std::bad_alloc&) {  // the sequence fails: nothing may be drawn
      std::fill(sequence.mask.begin(), sequence.mask.end(), 0u);
    }
    until_memory([&] { impl_.tells(id_, index, place + 2); });
  }

 private:
  struct OneSequence {
    GrammarMatcher matcher;
    std::vector<uint32_t> mask;
    bool is_free;
    std::string tail;  // of the free text: what its end may begin in
  };

  // The form begins behind the mark and the white space that its token may have.
  void read(OneSequence& sequence, std::string_view bytes) {
    if (!sequence.is_free) {
      sequence.matcher.advance(bytes);
      return;
    }
    std::string& tail = sequence.tail;
    tail += bytes;
    const size_t end = tail.find(free_end_);
    if (end == std::string::npos) {
      tail.erase(0, tail.size() - std::min(tail.size(), free_end_.size() - 1));
      return;
    }
    sequence.is_free = false;
    const size_t form = tail.find_first_not_of(" \t\n\r", end + free_end_.size());
    if (form != std::string::npos) sequence.matcher.advance(std::string_view(tail).substr(form));
  }

  void allow(OneSequence& sequence, TokenId id) const { sequence.mask[id / 32] |= 1u << id % 32; }

  // Every token but those that end the answer.
  void allow_all(OneSequence& sequence) const {
    std::fill(sequence.mask.begin(), sequence.mask.end(), 0u);
    for (TokenId id = 0; id < std::min(impl_.vocab_size, impl_.tokenizer->vocab_size()); ++id) allow(sequence, id);
    for (const TokenId id : impl_.end_ids) {
      if (id >= 0 && id < impl_.vocab_size) sequence.mask[id / 32] &= ~(1u << id % 32);
    }
  }

  void make_mask(OneSequence& sequence) {
    const Time begin = engine_now();
    if (sequence.is_free) {
      allow_all(sequence);
      impl_.metrics.mask_made(seconds_since(begin));
      return;
    }
    {
      const std::lock_guard lock(compiled_->mutex);
      compiled_->masks.fill(sequence.matcher, sequence.mask);
    }
    if (sequence.matcher.accepting()) {
      for (const TokenId id : impl_.end_ids) {
        if (id >= 0 && id < impl_.vocab_size) allow(sequence, id);
      }
    }
    impl_.metrics.mask_made(seconds_since(begin));
  }

  Impl& impl_;
  const std::shared_ptr<Compiled> compiled_;
  const RequestId id_;
  const std::string free_end_;
  TokenId free_begin_ = -1;
  std::vector<OneSequence> sequences_;
};

void Grammars::Impl::take(const Draw& draw) { draw.output->take(draw.index, draw.token, draw.place); }

Grammars::Grammars(std::shared_ptr<const Tokenizer> tokenizer, int vocab_size, std::vector<TokenId> end_ids,
                   ServiceMetrics& metrics, MaskReadySink tells)
    : impl_(std::make_unique<Impl>(std::move(tokenizer), vocab_size, std::move(end_ids), metrics, std::move(tells))) {}
Grammars::~Grammars() = default;

Result<std::shared_ptr<Grammars::Compiled>> Grammars::compile(const OutputFormat& format) {
  if (std::shared_ptr<Compiled> known = impl_->find(key_of(format))) return known;
  std::future<Impl::CompileResult> result;
  {
    const std::lock_guard lock(impl_->jobs_mutex);
    if (impl_->jobs.size() >= kMaxWaiting)
      return Error{ErrorKind::kOverloaded, "grammar_queue_full",
                   "Too many grammars wait to be compiled; try again shortly.", format.param, 1};
    Impl::Job& job = impl_->jobs.emplace_back();
    job.format = &format;
    result = job.result.get_future();
  }
  impl_->job_arrived.notify_one();
  auto compiled = result.get();
  if (compiled.ok()) return compiled;
  Error error = compiled.error();
  error.param = format.param;
  if (error.code == "grammar_refused")
    error.code = format.kind == OutputFormat::Kind::kJsonSchema ? "invalid_schema" : "invalid_grammar";
  return error;
}

std::shared_ptr<TokenConstraint> Grammars::constraint(std::shared_ptr<Compiled> compiled, const FreeText& before, RequestId id,
                                                      int n) {
  return std::make_shared<Impl::Output>(*impl_, std::move(compiled), before, id, n);
}

}  // namespace serval
