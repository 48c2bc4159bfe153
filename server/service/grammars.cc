#include "server/service/grammars.h"

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <condition_variable>
#include <deque>
#include <future>
#include <list>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <thread>

#include "engine/batch.h"
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
constexpr Time kMaxGuessTime = std::chrono::milliseconds(2);  // for the masks behind guesses, before others' turns
constexpr int kCompilerNiceness = 15;
constexpr GrammarLimits kLimits{.max_bytes = size_t{128} << 10, .max_steps = 1'500'000};

double seconds_since(Time begin) { return std::chrono::duration<double>(engine_now() - begin).count(); }

std::string key_of(const OutputFormat& format) {
  std::string key = std::to_string(static_cast<int>(format.kind)) + ":" + format.text;
  for (const std::string& choice : format.choices) key += std::to_string(choice.size()) + ":" + choice;
  for (const TokenId mark : format.marks) key += "," + std::to_string(mark);
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
    case OutputFormat::Kind::kStructuralTag:
      return Grammar::structural_tag(format.text, kLimits);
  }
  return Grammar::json_object(kLimits);
}

// What a request asked for leaves nothing to draw: its misfortune, told as such.
Error dead_end() {
  return invalid("", "no_token_allowed",
                 "No token may be drawn: what the output must be, allowed_token_ids and bad_words leave none together.");
}

}  // namespace

struct Grammars::Compiled {
  Compiled(std::shared_ptr<const Grammar> of, const std::shared_ptr<const TokenTrie>& trie, std::map<TokenId, std::string> named)
      : grammar(of), marks(std::move(named)), masks(std::move(of), trie, kMaxMaskBytes) {}
  const std::shared_ptr<const Grammar> grammar;
  // Tokens with a role that stand for their names here.
  const std::map<TokenId, std::string> marks;
  std::mutex mutex;  // of the masks
  TokenMasks masks;
};

struct Grammars::Impl {
  class Output;
  struct Draw {
    std::shared_ptr<Output> output;
    int32_t index;
  };
  using CompileResult = Result<std::shared_ptr<Compiled>>;
  struct Job {
    const OutputFormat* format;
    std::promise<CompileResult> result;
  };

  Impl(std::shared_ptr<const Tokenizer> of, int size, std::vector<TokenId> ends, ServiceMetrics& counts,
       MaskReadySink sink, DeadEndSink end_sink)
      : tokenizer(std::move(of)),
        vocab_size(size),
        end_ids(std::move(ends)),
        metrics(counts),
        tells(std::move(sink)),
        tells_end(std::move(end_sink)) {
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
    auto compiled = std::make_shared<Compiled>(std::move(grammar.value()), vocabulary(), marks_of(format));
    const std::lock_guard lock(kept_mutex);
    kept.emplace_front(key, compiled);
    if (kept.size() > kMaxKept) kept.pop_back();
    return compiled;
  }

  std::map<TokenId, std::string> marks_of(const OutputFormat& format) const {
    std::map<TokenId, std::string> marks;
    if (format.kind != OutputFormat::Kind::kStructuralTag) return marks;
    for (const std::string& name : tokenizer->special_names()) {
      const TokenId id = tokenizer->token_to_id(name);
      if (id < 0 || id >= vocab_size || name.empty() || is_end(id)) continue;
      const bool is_named = format.text.find(name) != std::string::npos;
      if (is_named || std::find(format.marks.begin(), format.marks.end(), id) != format.marks.end()) marks.emplace(id, name);
    }
    return marks;
  }
  bool is_end(TokenId id) const { return std::find(end_ids.begin(), end_ids.end(), id) != end_ids.end(); }

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
      for (const Draw& draw : taken) take(draw, kMaxGuessTime / taken.size());
      taken.clear();
    }
  }
  inline void take(const Draw& draw, Time for_guesses);

  const std::shared_ptr<const Tokenizer> tokenizer;
  const int vocab_size;
  const std::vector<TokenId> end_ids;
  ServiceMetrics& metrics;
  const MaskReadySink tells;
  const DeadEndSink tells_end;
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
  Output(Impl& impl, std::shared_ptr<Compiled> compiled, const FreeText& before, const TokenLists& lists, RequestId id, int n, int most_forced)
      : impl_(impl), compiled_(std::move(compiled)), banned_(lists.banned), id_(id), most_forced_(static_cast<size_t>(std::min(most_forced, kMaxForced))), free_end_(before.end) {
    Phase phase = Phase::kForm;
    if (compiled_ && !before.end.empty()) {
      free_begin_ = impl.tokenizer->token_to_id(before.begin);
      phase = before.is_open ? Phase::kFree : free_begin_ >= 0 ? Phase::kMayBegin : Phase::kForm;
    }
    const auto words = (static_cast<size_t>(impl.vocab_size) + 31) / 32;
    allowed_.assign(words, lists.allowed.empty() ? ~0u : 0u);
    for (const TokenId token : lists.allowed) set(allowed_, token);
    if (lists.allowed.empty() && impl.vocab_size % 32 != 0) allowed_.back() = (1u << impl.vocab_size % 32) - 1;
    for (const auto& tokens : banned_) most_behind_ = std::max(most_behind_, tokens.size() - 1);
    sequences_.reserve(static_cast<size_t>(n));
    for (int i = 0; i < n; ++i) {
      OneSequence& sequence = sequences_.emplace_back();
      if (compiled_) sequence.at.matcher.emplace(compiled_->grammar);
      sequence.at.phase = phase;
      sequence.masks.resize(words);
      sequence.drawn.reserve(1 + kMaxDrafts);
      sequence.drafts.reserve(kMaxDrafts);
    }
    make_mask(sequences_[0].at, sequences_[0].masks);
    for (int i = 1; i < n; ++i) sequences_[i].masks = sequences_[0].masks;
  }

  bool may_begin() const { return may_draw(sequences_[0].masks); }

  void drew(int index, std::span<const TokenId> tokens, int32_t place, std::span<const Draft> drafts) override {
    OneSequence& sequence = sequences_[index];
    sequence.drawn.assign(tokens.begin(), tokens.end());
    sequence.drafts.assign(drafts.begin(), drafts.end());
    sequence.num_output = place + static_cast<int32_t>(tokens.size());
    {
      const std::lock_guard lock(impl_.draws_mutex);
      impl_.draws.push_back({shared_from_this(), index});
    }
    impl_.draw_arrived.notify_one();
  }
  std::span<const uint32_t> mask(int index, int draft) const override {
    return std::span(sequences_[index].masks).subspan((draft + 1) * allowed_.size(), allowed_.size());
  }

  // for_guesses: what is not reached by then of the masks behind them is not made.
  void take(int index, Time for_guesses) {
    OneSequence& sequence = sequences_[index];
    const std::span<uint32_t> next = std::span(sequence.masks).first(allowed_.size());
    uint64_t drafts = 0;
    std::array<TokenId, kMaxForced> forced;
    size_t num_forced = 0;
    try {
      for (const TokenId token : sequence.drawn) go_on(sequence.at, token);
      make_mask(sequence.at, next);
      const Time end = engine_now() + for_guesses;
      drafts = make_masks_of_guesses(sequence, end);
      if (drafts == 0 && compiled_ && most_forced_ > 0) num_forced = force(sequence, end, forced);
    } catch (const std::bad_alloc&) {
      std::ranges::fill(sequence.masks, 0u);
    }
    const bool is_dead_end = !may_draw(std::span(sequence.masks).first(allowed_.size()));
    until_memory([&] { is_dead_end ? impl_.tells_end(id_, dead_end()) : impl_.tells(id_, index, sequence.num_output + 1, drafts, std::span(forced).first(num_forced)); });
  }

 private:
  enum class Phase : uint8_t { kMayBegin, kFree, kForm };  // of what is free before the form
  // Where a text is; a copy goes its own way.
  struct Place {
    std::optional<GrammarMatcher> matcher;
    Phase phase = Phase::kForm;
    std::string tail;            // of the free text: what its end may begin in
    std::deque<TokenId> behind;  // the last tokens, as many as a banned text needs before its last
  };
  struct OneSequence {
    Place at;
    std::vector<uint32_t> masks;  // of the next token, then behind each of the guesses that are left
    // What a step drew, how many tokens those and all before them are, and what may follow: from the engine's thread to
    // the one that makes the masks.
    std::vector<TokenId> drawn;
    std::vector<Draft> drafts;
    int32_t num_output = 0;
  };

  static void set(std::span<uint32_t> mask, TokenId id) { mask[id / 32] |= 1u << id % 32; }
  static bool may_draw(std::span<const uint32_t> mask) {
    return std::ranges::any_of(mask, [](uint32_t word) { return word != 0; });
  }
  bool is_end(TokenId token) const { return impl_.is_end(token); }

  void go_on(Place& at, TokenId token) {
    if (compiled_ && !is_end(token)) advance(at, token);
    if (most_behind_ > 0) at.behind.push_back(token);
    if (at.behind.size() > most_behind_) at.behind.pop_front();
  }

  // The set of the guesses that are left, whose masks then stand in their order. Cut are those that may not be drawn
  // where they stand, those behind which nothing may be, and those that time or memory do not reach.
  uint64_t make_masks_of_guesses(OneSequence& sequence, Time end) {
    uint64_t left = 0;
    try {
      add_guesses(sequence, end, left);
    } catch (const std::bad_alloc&) {  // that many, then
    }
    return left;
  }
  void add_guesses(OneSequence& sequence, Time end, uint64_t& left) {
    const size_t words = allowed_.size();
    std::vector<Place> places;
    std::array<int, kMaxDrafts> number;  // among those that are left, from 1; 0: cut
    for (size_t i = 0; i < sequence.drafts.size() && engine_now() < end; ++i) {
      const auto [token, parent, by] = sequence.drafts[i];
      number[i] = 0;
      if (parent >= 0 && number[parent] == 0) continue;
      const int before = parent < 0 ? 0 : number[parent];
      if (is_end(token) || token >= impl_.vocab_size || (sequence.masks[before * words + token / 32] >> token % 32 & 1) == 0) continue;
      Place at = before == 0 ? sequence.at : places[before - 1];
      go_on(at, token);
      sequence.masks.resize((places.size() + 2) * words);
      const std::span<uint32_t> mask = std::span(sequence.masks).last(words);
      make_mask(at, mask);
      if (!may_draw(mask)) continue;
      places.push_back(std::move(at));
      number[i] = static_cast<int>(places.size());
      left |= uint64_t{1} << i;
    }
  }

  std::string_view bytes_of(TokenId token) const {
    const auto mark = compiled_->marks.find(token);
    return mark == compiled_->marks.end() ? impl_.tokenizer->token_bytes(token) : std::string_view(mark->second);
  }

  // The longest of the tokens that may be drawn, if all others are beginnings of it; else -1: more than one text may follow.
  TokenId only_text(std::span<const uint32_t> mask) const {
    constexpr int kMaxBeginnings = 64;
    int num_tokens = 0;
    for (const uint32_t word : mask) {
      if ((num_tokens += std::popcount(word)) > kMaxBeginnings) return -1;
    }
    TokenId longest = -1;
    std::string_view text;
    for (size_t i = 0; i < mask.size(); ++i) {
      for (uint32_t word = mask[i]; word != 0; word &= word - 1) {
        const auto token = static_cast<TokenId>(i * 32) + std::countr_zero(word);
        const std::string_view bytes = bytes_of(token);
        if (is_end(token) || !(bytes.starts_with(text) || text.starts_with(bytes))) return -1;
        if (bytes.size() <= text.size()) continue;
        longest = token;
        text = bytes;
      }
    }
    return longest;
  }

  // Where the form leaves one text alone: the tokens of that text, each with the mask behind it, as guesses. Which of the ways
  // to write it a model takes is its own to say, but it learned of that of its tokenizer.
  size_t force(OneSequence& sequence, Time end, std::span<TokenId> forced) {
    sequence.drafts.clear();
    std::vector<TokenId> longest;
    std::string text;
    {
      Place at = sequence.at;
      std::vector<uint32_t> mask(sequence.masks.begin(), sequence.masks.begin() + std::ssize(allowed_));
      for (TokenId token; longest.size() < most_forced_ && engine_now() < end && (token = only_text(mask)) >= 0; make_mask(at, mask)) {
        longest.push_back(token);
        text += bytes_of(token);
        go_on(at, token);
      }
    }
    if (longest.empty()) return 0;
    uint64_t left = 0;
    for (const std::vector<TokenId>& tokens : {impl_.tokenizer->encode(text, /*add_special=*/false), longest}) {
      if (left != 0) break;
      const auto num_tokens = static_cast<int32_t>(std::min(tokens.size(), most_forced_));
      sequence.drafts.clear();
      for (int32_t i = 0; i < num_tokens; ++i) sequence.drafts.push_back({tokens[i], i - 1, DrafterKind::kGrammar});
      left = make_masks_of_guesses(sequence, end);
    }
    const auto num_forced = static_cast<size_t>(std::popcount(left));  // a chain: the first of them
    for (size_t i = 0; i < num_forced; ++i) forced[i] = sequence.drafts[i].token;
    return num_forced;
  }

  // The form begins behind the mark; white space before it is nobody's.
  void advance(Place& at, TokenId token) {
    if (at.phase == Phase::kMayBegin) at.phase = token == free_begin_ ? Phase::kFree : Phase::kForm;
    if (at.phase == Phase::kForm) {
      at.matcher->advance(bytes_of(token));
      return;
    }
    std::string& text = at.tail;
    text += impl_.tokenizer->token_bytes(token);
    const size_t end = text.find(free_end_);
    if (end == text.npos) {
      if (text.size() >= free_end_.size()) text.erase(0, text.size() - free_end_.size() + 1);
      return;
    }
    at.phase = Phase::kForm;
    const size_t form = text.find_first_not_of(" \n\r\t", end + free_end_.size());
    if (form != text.npos) at.matcher->advance(std::string_view(text).substr(form));
  }

  void make_mask(const Place& at, std::span<uint32_t> mask) {
    const Time begin = engine_now();
    if (at.phase == Phase::kFree) {
      std::ranges::copy(allowed_, mask.begin());
      for (const TokenId id : impl_.end_ids) {
        if (id >= 0 && id < impl_.vocab_size) mask[id / 32] &= ~(1u << id % 32);
      }
    } else if (compiled_) {
      {
        const std::lock_guard lock(compiled_->mutex);
        compiled_->masks.fill(*at.matcher, mask);
      }
      for (const auto& [id, name] : compiled_->marks) {
        if (GrammarMatcher(*at.matcher).advance(name)) set(mask, id);
      }
      if (at.matcher->accepting()) {
        for (const TokenId id : impl_.end_ids) {
          if (id >= 0 && id < impl_.vocab_size) set(mask, id);
        }
      }
      if (at.phase == Phase::kMayBegin) set(mask, free_begin_);
      for (size_t i = 0; i < mask.size(); ++i) mask[i] &= allowed_[i];
    } else {
      std::ranges::copy(allowed_, mask.begin());
    }
    for (const std::vector<TokenId>& tokens : banned_) {
      const auto before = static_cast<std::ptrdiff_t>(tokens.size()) - 1;
      if (std::ssize(at.behind) < before || !std::equal(tokens.begin(), tokens.end() - 1, at.behind.end() - before)) continue;
      mask[tokens.back() / 32] &= ~(1u << tokens.back() % 32);
    }
    impl_.metrics.mask_made(seconds_since(begin));
  }

  Impl& impl_;
  const std::shared_ptr<Compiled> compiled_;  // null: there is no grammar
  const std::vector<std::vector<TokenId>> banned_;
  const RequestId id_;
  const size_t most_forced_;
  const std::string free_end_;
  TokenId free_begin_ = -1;
  std::vector<uint32_t> allowed_;
  size_t most_behind_ = 0;
  std::vector<OneSequence> sequences_;
};

void Grammars::Impl::take(const Draw& draw, Time for_guesses) { draw.output->take(draw.index, for_guesses); }

Grammars::Grammars(std::shared_ptr<const Tokenizer> tokenizer, int vocab_size, std::vector<TokenId> end_ids,
                   ServiceMetrics& metrics, MaskReadySink tells, DeadEndSink tells_end)
    : impl_(std::make_unique<Impl>(std::move(tokenizer), vocab_size, std::move(end_ids), metrics, std::move(tells), std::move(tells_end))) {}
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

Result<std::shared_ptr<TokenConstraint>> Grammars::constraint(std::shared_ptr<Compiled> compiled, const FreeText& before, const TokenLists& lists, RequestId id, int n, int most_forced) {
  auto output = std::make_shared<Impl::Output>(*impl_, std::move(compiled), before, lists, id, n, most_forced);
  if (!output->may_begin()) return dead_end();
  return std::shared_ptr<TokenConstraint>(std::move(output));
}

}  // namespace serval
