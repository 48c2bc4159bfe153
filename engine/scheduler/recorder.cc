#include "engine/scheduler/recorder.h"

#include <cerrno>
#include <cstring>
#include <memory>
#include <sstream>
#include <stdexcept>

#include "engine/scheduler/scheduler.h"
#include "kernels/base/log.h"

namespace serval {
namespace {

template <class Range>
void write_list(std::ostream& out, const Range& values) {
  out << ' ' << values.size();
  for (const auto& value : values) out << ' ' << value;
}

constexpr int32_t kMostRead = 100'000'000;  // more is no recording of ours

template <class T>
std::vector<T> read_list(std::istream& in) {
  size_t size = 0;
  in >> size;
  if (size > kMostRead) in.setstate(std::ios::failbit);
  std::vector<T> values(in ? size : 0);
  for (T& value : values) in >> value;
  return values;
}

std::vector<int> bytes_of(const std::string& text) {
  return {text.begin(), text.end()};
}

void write_request(std::ostream& out, const Submission& submission) {
  const Request& r = submission.request;
  const SamplingParams& s = r.sampling;
  out << r.id << ' ' << r.flow << ' ' << r.n << ' ' << r.priority << ' ' << r.deadline.count() << ' ' << s.seed << ' '
      << s.max_tokens << ' ' << s.min_tokens << ' ' << s.ignore_eos << ' ' << s.num_logprobs << ' '
      << s.num_prompt_logprobs << ' ' << r.constrained;
  write_list(out, submission.sequences.front().tokens);
  write_list(out, s.eos_token_ids);
  write_list(out, s.stop_token_ids);
  write_list(out, bytes_of(r.cache_salt));
}

// What the scheduler decides by; how tokens are drawn is the runner's business and not recorded.
Request read_request(std::istream& in) {
  Request r;
  SamplingParams& s = r.sampling;
  int64_t deadline = 0;
  in >> r.id >> r.flow >> r.n >> r.priority >> deadline >> s.seed >> s.max_tokens >> s.min_tokens >> s.ignore_eos >>
      s.num_logprobs >> s.num_prompt_logprobs >> r.constrained;
  r.deadline = Time{deadline};
  r.prompt = read_list<TokenId>(in);
  s.eos_token_ids = read_list<TokenId>(in);
  s.stop_token_ids = read_list<TokenId>(in);
  const std::vector<int> salt = read_list<int>(in);
  r.cache_salt.assign(salt.begin(), salt.end());
  return r;
}

// Of the log-probabilities only that they were there: what they are decides nothing.
void write_output(std::ostream& out, const ModelOutput& output) {
  out << output.step << ' ' << output.seqs.size();
  for (const SeqOutput& seq : output.seqs) {
    out << ' ' << seq.seq << ' ' << seq.failed << ' ' << seq.num_tokens;
    for (int32_t t = 0; t < seq.num_tokens; ++t) out << ' ' << output.tokens[seq.tokens_begin + t].token;
    out << ' ' << seq.num_prompt;
  }
}

ModelOutput read_output(std::istream& in) {
  ModelOutput output;
  size_t num_seqs = 0;
  in >> output.step >> num_seqs;
  for (size_t i = 0; i < num_seqs && in; ++i) {
    SeqOutput seq;
    in >> seq.seq >> seq.failed >> seq.num_tokens;
    seq.tokens_begin = static_cast<int32_t>(output.tokens.size());
    for (int32_t t = 0; t < seq.num_tokens && in; ++t) {
      TokenOutput token;
      in >> token.token;
      output.tokens.push_back(token);
    }
    in >> seq.num_prompt;
    if (seq.num_prompt < 0 || seq.num_prompt > kMostRead) in.setstate(std::ios::failbit);
    seq.prompt_begin = static_cast<int32_t>(output.prompt_tokens.size());
    if (in) output.prompt_tokens.resize(output.prompt_tokens.size() + seq.num_prompt);
    output.seqs.push_back(seq);
  }
  return output;
}

}  // namespace

Recorder::Recorder(const std::string& path, const SchedulerConfig& c, const BlockGeometry& g)
    : path_(path), file_(path) {
  if (!file_) throw std::runtime_error("cannot write the recording " + path);
  file_ << "serval-scheduler 3\nconfig " << c.max_num_seqs << ' ' << c.max_num_batched_tokens << ' '
        << c.max_prefill_chunk << ' ' << c.max_model_len << ' ' << c.max_waiting << ' ' << c.max_wait_ms << ' ' << c.step_budget_ms << ' '
        << static_cast<int>(c.policy) << ' ' << c.enable_prefix_cache << ' ' << g.block_size << ' '
        << g.num_groups;
  for (int i = 0; i < g.num_groups; ++i) file_ << ' ' << g.groups[i].num_blocks << ' ' << g.groups[i].window;
  end_line();
}

void Recorder::end_line() {
  if (file_ << '\n' && file_.flush()) return;
  if (num_lost_++ == 0) log_warn("the recording ends here", {{"file", path_}, {"why", std::strerror(errno)}});
}

void Recorder::add(const Submission& submission, Time now) {
  file_ << "add " << now.count() << ' ';
  write_request(file_, submission);
  end_line();
}
void Recorder::abort(RequestId id) {
  file_ << "abort " << id;
  end_line();
}
void Recorder::stop_string_matched(RequestId id, int index) {
  file_ << "stop " << id << ' ' << index;
  end_line();
}
void Recorder::next_batch(Time now) {
  file_ << "next " << now.count();
  end_line();
}
void Recorder::apply(const ModelOutput& output, Time now) {
  file_ << "apply " << now.count() << ' ';
  write_output(file_, output);
  end_line();
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
  EventBatch events;
  while (std::getline(file, line)) {
    ++number;
    if (number == 1) {
      if (line != "serval-scheduler 3") bad();
      continue;
    }
    std::istringstream in(line);
    std::string what;
    in >> what;
    int64_t now = 0;
    RequestId id = 0;
    if (what == "config" && !scheduler) {
      SchedulerConfig c;
      BlockGeometry g;
      int policy = 0;
      in >> c.max_num_seqs >> c.max_num_batched_tokens >> c.max_prefill_chunk >> c.max_model_len >>
          c.max_waiting >> c.max_wait_ms >> c.step_budget_ms >> policy >> c.enable_prefix_cache >> g.block_size >> g.num_groups;
      c.policy = static_cast<QueuePolicy>(policy);
      if (!in || g.num_groups < 1 || g.num_groups > kMaxKvGroups) bad();
      for (int i = 0; i < g.num_groups; ++i) in >> g.groups[i].num_blocks >> g.groups[i].window;
      if (!in) bad();
      scheduler = std::make_unique<Scheduler>(c, g);
    } else if (!scheduler) {
      bad();
    } else if (what == "add") {
      in >> now;
      Request request = read_request(in);
      if (!in) bad();
      if (watch.on_add) watch.on_add(request, Time{now});
      (void)scheduler->add(std::move(request), Time{now});
    } else if (what == "abort") {
      in >> id;
      scheduler->abort(id);
    } else if (what == "stop") {
      int index = 0;
      in >> id >> index;
      scheduler->stop_string_matched(id, index);
    } else if (what == "next") {
      in >> now;
      scheduler->next_batch(Time{now}, batch);
      if (watch.on_batch) watch.on_batch(batch, Time{now});
    } else if (what == "apply") {
      in >> now;
      const ModelOutput output = read_output(in);
      if (!in) bad();
      events.clear();
      scheduler->apply(output, Time{now}, events);
      if (watch.on_events) watch.on_events(events, Time{now});
    } else {
      bad();
    }
  }
  if (!scheduler) bad();
}

}  // namespace serval
