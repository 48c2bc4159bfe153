#include "loadtest/simulate/simulate.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <queue>
#include <sstream>

#include "engine/scheduler/scheduler.h"

namespace serval::load {
namespace {

std::vector<TokenId> prompt_ids(const PlannedRequest& planned) {
  if (!planned.token_ids.empty()) return {planned.token_ids.begin(), planned.token_ids.end()};
  std::vector<TokenId> ids;
  std::stringstream words(planned.prompt);
  for (std::string word; words >> word;)
    ids.push_back(static_cast<TokenId>(std::hash<std::string>{}(word) % 30'000));
  if (ids.empty()) ids.push_back(0);
  return ids;
}

Time to_time(double seconds) {
  return Time{static_cast<int64_t>(seconds * 1e9)};
}

enum class Role : uint8_t { kBoth, kPrefill, kDecode };

// One server: the real scheduler, and the step it is in.
class Replica {
 public:
  Replica(const SimulationOptions& options, Role role, uint64_t seed)
      : cost_(options.cost),
        draft_acceptance_(options.draft_acceptance),
        role_(role),
        config_(config_of(options, role)),
        geometry_(options.geometry),
        scheduler_(config_, geometry_),
        random_(seed) {}

  // Puts a request into the line. The error's kind when that cannot be: "" is success.
  std::string add(size_t index, std::vector<TokenId> prompt, int output_tokens, double now) {
    const int length = static_cast<int>(prompt.size());
    if (length + output_tokens > config_.max_model_len || !fits(geometry_, config_, length, output_tokens))
      return "too long";
    Request request;
    request.id = index + 1;
    request.prompt = std::move(prompt);
    request.sampling.max_tokens = role_ == Role::kPrefill ? 1 : output_tokens;
    request.sampling.ignore_eos = true;
    if (!scheduler_.has_place(1)) return "status 429";
    retired_.clear();
    scheduler_.take_retired(retired_);
    scheduler_.take(Add{scheduler_.prepare(std::move(request))}, to_time(now));
    if (role_ == Role::kDecode) importing_.push_back(true);
    return "";
  }

  // Begins a step when there is one to do; its end, or infinity.
  double begin_step(double now) {
    scheduler_.next_batch(to_time(now), batch_);
    if (batch_.empty()) return INFINITY;
    stepping_ = true;
    const StepShape shape = role_ == Role::kDecode ? shape_without_imports() : shape_of(batch_);
    return now + cost_.of(shape).draw_ms(shape, random_) / 1e3;
  }

  void end_step(double now, EventBatch& events) {
    stepping_ = false;
    ++steps_;
    output_.clear();
    output_.step = batch_.step;
    for (const SeqStep& step : batch_.seqs) {
      SeqOutput out;
      out.seq = step.seq;
      if (step.sample) {
        out.tokens_begin = static_cast<int32_t>(output_.tokens.size());
        out.num_tokens = 1;
        while (out.num_tokens <= step.num_drafts && coin_(random_) < draft_acceptance_) ++out.num_tokens;
        // Outputs differ between sequences, so that they share no cache by accident.
        const auto token = static_cast<TokenId>(step.seq * 31 % 30'000);
        for (int i = 0; i < out.num_tokens; ++i) output_.tokens.push_back({token, 0, 1, 0, 0});
        out.drafts_begin = static_cast<int32_t>(output_.drafts.size());
        out.num_drafts = config_.num_draft_tokens;
        for (int i = 0; i < out.num_drafts; ++i) output_.drafts.push_back({token, i - 1});
      }
      output_.seqs.push_back(out);
    }
    scheduler_.apply(output_, to_time(now), events);
    scheduler_.take_guesses(output_);
  }

  bool stepping() const { return stepping_; }
  uint64_t steps() const { return steps_; }
  std::mt19937_64& random() { return random_; }

  int open = 0;            // requests routed here and not ended: what a router knows
  double link_free_s = 0;  // when its last KV transfer ends

 private:
  static SchedulerConfig config_of(const SimulationOptions& options, Role role) {
    SchedulerConfig config = options.scheduler;
    // KV that arrives is no work, so it is no part of a step's budget either.
    constexpr int kImportsPerStep = 8;
    if (role == Role::kDecode)
      config.max_num_batched_tokens = config.max_prefill_chunk =
          config.max_num_seqs + kImportsPerStep * config.max_model_len;
    return config;
  }

  // A decode replica's scheduler sees a prompt whose KV arrived as one to compute, which takes blocks as the
  // arrival does; of its rows only the last one is computed. After a preemption all of them are.
  StepShape shape_without_imports() {
    StepShape shape;
    shape.seqs = static_cast<double>(batch_.seqs.size());
    for (const SeqStep& step : batch_.seqs) {
      const bool is_import = importing_[step.seq - 1];
      const int rows = is_import ? step.sample : step.num_tokens;
      const double last = step.first_pos + step.num_tokens;
      shape.rows += rows;
      shape.context += (last - (rows - 1) / 2.0) * rows / 1000;
      if (step.sample) importing_[step.seq - 1] = false;
    }
    return shape;
  }

  const CostModel& cost_;
  const double draft_acceptance_;
  const Role role_;
  const SchedulerConfig config_;
  const BlockGeometry& geometry_;
  Scheduler scheduler_;
  std::vector<std::unique_ptr<RequestState>> retired_;
  std::mt19937_64 random_;
  std::uniform_real_distribution<double> coin_;
  Batch batch_;
  ModelOutput output_;
  std::vector<bool> importing_;  // by sequence, in the order they were added
  bool stepping_ = false;
  uint64_t steps_ = 0;
};

// The clock and everything it drives.
class Fleet {
 public:
  Fleet(const SimulationOptions& options, const std::vector<PlannedRequest>& workload)
      : options_(options), workload_(workload), followers_(workload.size()) {
    result_.outcomes.resize(workload.size());
    const bool two_pools = options.prefill_replicas > 0;
    const auto add = [&](int count, Role role, std::vector<Replica*>& pool) {
      for (int i = 0; i < count; ++i) {
        replicas_.push_back(
            std::make_unique<Replica>(options, role, options.seed * 1'000'003 + replicas_.size()));
        pool.push_back(replicas_.back().get());
      }
    };
    if (two_pools) add(options.prefill_replicas, Role::kPrefill, front_);
    add(options.replicas, two_pools ? Role::kDecode : Role::kBoth, two_pools ? back_ : front_);
    for (size_t i = 0; i < workload.size(); ++i) {
      if (workload[i].after >= 0) followers_[workload[i].after].push_back(i);
    }
  }

  SimulationResult run() {
    for (int i = 0; i < std::max(1, options_.concurrency); ++i) send_next(0);
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      switch (event.kind) {
        case Kind::kArrival:
          arrive(event.request, event.at_s);
          break;
        case Kind::kInLine:
          enter(event.request, *event.replica, event.at_s);
          break;
        case Kind::kHandOff:
          hand_off(event.request, event.at_s);
          break;
        case Kind::kStepEnd:
          end_step(*event.replica, event.at_s);
          break;
      }
    }
    for (const auto& replica : replicas_) result_.steps.push_back(replica->steps());
    return std::move(result_);
  }

 private:
  enum class Kind : uint8_t {
    kArrival,  // a request at the router
    kInLine,   // ... at the replica chosen for it
    kHandOff,  // its KV at the router of the decode pool
    kStepEnd,  // of a replica
  };
  struct Event {
    double at_s;
    Kind kind;
    size_t request;
    Replica* replica;
    uint64_t order;  // of equal times the first made goes first
    bool operator<(const Event& other) const {
      return at_s != other.at_s ? at_s > other.at_s : order > other.order;
    }
  };
  void at(double at_s, Kind kind, size_t request, Replica* replica) {
    events_.push({at_s, kind, request, replica, next_order_++});
  }

  // Open loop: the next request at its time. Closed: now. Those that follow another are not in this line.
  void send_next(double now) {
    while (next_ < workload_.size() && workload_[next_].after >= 0) ++next_;
    if (next_ == workload_.size()) return;
    at(options_.concurrency > 0 ? now : workload_[next_].at_s, Kind::kArrival, next_, nullptr);
    ++next_;
  }

  void arrive(size_t index, double now) {
    const PlannedRequest& planned = workload_[index];
    if (options_.concurrency == 0 && planned.after < 0) send_next(now);
    Outcome& outcome = result_.outcomes[index];
    outcome.intended_s = outcome.sent_s = now;
    Replica& replica = choose(front_, index);
    ++replica.open;
    const CostModel& cost = options_.cost;
    const double wait =
        (replica.stepping() ? cost.arrival_busy : cost.arrival_idle).draw(replica.random(), 0) / 1e3;
    at(now + wait, Kind::kInLine, index, &replica);
  }

  void enter(size_t index, Replica& replica, double now) {
    Outcome& outcome = result_.outcomes[index];
    std::vector<TokenId> prompt = prompt_ids(workload_[index]);
    outcome.prompt_tokens = static_cast<int>(prompt.size());
    outcome.error = replica.add(index, std::move(prompt), workload_[index].output_tokens, now);
    outcome.error.empty() ? begin_step(replica, now) : end(index, replica, now);
  }

  void hand_off(size_t index, double now) {
    Outcome& outcome = result_.outcomes[index];
    Replica& replica = choose(back_, index);
    ++replica.open;
    std::vector<TokenId> known = prompt_ids(workload_[index]);
    known.push_back(static_cast<TokenId>(index % 30'000));
    outcome.error = replica.add(index, std::move(known), workload_[index].output_tokens - 1, now);
    outcome.error.empty() ? begin_step(replica, now) : end(index, replica, now);
  }

  void begin_step(Replica& replica, double now) {
    if (replica.stepping()) return;
    const double end_s = replica.begin_step(now);
    if (end_s < INFINITY) at(end_s, Kind::kStepEnd, 0, &replica);
  }

  void end_step(Replica& replica, double now) {
    replica.end_step(now, tokens_);
    for (const TokenEvent& event : tokens_.events) see(event, replica, now);
    tokens_.clear();
    begin_step(replica, now);
  }

  void see(const TokenEvent& event, Replica& replica, double now) {
    const size_t index = event.request - 1;
    Outcome& outcome = result_.outcomes[index];
    if (event.token >= 0) {
      if (++outcome.output_tokens == 1) {
        outcome.cached_tokens = event.cached_tokens;
        outcome.token_s.push_back(now + options_.cost.first_token.draw(replica.random(), 0) / 1e3);
      }
    }
    if (event.finish == FinishReason::kNone) return;
    if (outcome.output_tokens < workload_[index].output_tokens) {  // a prefill replica's part is done
      --replica.open;
      return send_kv(index, replica, now);
    }
    if (outcome.output_tokens > 1) {
      const double last = now + options_.cost.last_token.draw(replica.random(), 0) / 1e3;
      outcome.token_s.push_back(std::max(last, outcome.token_s.front()));
    }
    end(index, replica, outcome.token_s.back());
  }

  void send_kv(size_t index, Replica& from, double now) {
    const KvLink& link = options_.link;
    const double bytes = link.bytes_per_token * result_.outcomes[index].prompt_tokens;
    from.link_free_s =
        std::max(now, from.link_free_s) + (link.bytes_per_s > 0 ? bytes / link.bytes_per_s : 0);
    at(from.link_free_s + link.latency_s, Kind::kHandOff, index, nullptr);
  }

  void end(size_t index, Replica& replica, double now) {
    --replica.open;
    result_.outcomes[index].end_s = now;
    for (const size_t next : followers_[index])
      at(now + workload_[next].think_s, Kind::kArrival, next, nullptr);
    if (options_.concurrency > 0 && followers_[index].empty()) send_next(now);
  }

  Replica& choose(const std::vector<Replica*>& pool, size_t index) const {
    if (pool.size() == 1) return *pool[0];
    if (options_.routing == Routing::kRoundRobin) return *pool[index % pool.size()];
    if (options_.routing == Routing::kPrefix) {
      const std::vector<TokenId> ids = prompt_ids(workload_[index]);
      uint64_t hash = 0xcbf29ce484222325ull;
      for (size_t i = 0; i < std::min<size_t>(ids.size(), 2 * options_.geometry.block_size); ++i)
        hash = (hash ^ static_cast<uint64_t>(ids[i])) * 0x100000001b3ull;
      return *pool[hash % pool.size()];
    }
    return **std::min_element(pool.begin(), pool.end(),
                              [](const Replica* a, const Replica* b) { return a->open < b->open; });
  }

  const SimulationOptions& options_;
  const std::vector<PlannedRequest>& workload_;
  std::vector<std::unique_ptr<Replica>> replicas_;
  std::vector<Replica*> front_, back_;  // where requests arrive; where KV arrives, when that is elsewhere
  std::vector<std::vector<size_t>> followers_;  // turns that wait for each request
  std::priority_queue<Event> events_;
  EventBatch tokens_;
  SimulationResult result_;
  size_t next_ = 0;
  uint64_t next_order_ = 0;
};

// The smallest n in [low, high] that does, when every larger one does as well; high + 1 when none does.
int smallest(int low, int high, const std::function<bool(int)>& does) {
  int bad = low - 1, good = low;
  for (int stride = 1; !does(good); stride *= 2) {
    if (good == high) return high + 1;
    bad = good;
    good = std::min(high, good + stride);
  }
  while (good - bad > 1) {
    const int middle = (good + bad) / 2;
    (does(middle) ? good : bad) = middle;
  }
  return good;
}

}  // namespace

SimulationResult simulate(const SimulationOptions& options, const std::vector<PlannedRequest>& workload) {
  return Fleet(options, workload).run();
}

FleetSize find_fleet(SimulationOptions options, const std::vector<PlannedRequest>& workload, const Slo& slo,
                     int most) {
  const auto meets = [&](int prefill, int replicas) {
    options.prefill_replicas = prefill;
    options.replicas = replicas;
    return summarise(simulate(options, workload).outcomes, slo).good_share >= 0.99;
  };
  if (options.prefill_replicas == 0) {
    const int found = smallest(1, most, [&](int n) { return meets(0, n); });
    return {0, found <= most ? found : 0};
  }
  // With more prefill replicas fewer decoding ones may do: each count of the first is tried for as long as it
  // can still make the fleet smaller.
  FleetSize best;
  int total = most + 1;
  const int fewest = smallest(1, most, [&](int prefill) { return meets(prefill, most); });
  for (int prefill = fewest; prefill + 1 < total; ++prefill) {
    const int room = total - 1 - prefill;
    const int found = smallest(1, room, [&](int n) { return meets(prefill, n); });
    if (found > room) continue;
    best = {prefill, found};
    total = prefill + found;
  }
  return best;
}

}  // namespace serval::load
