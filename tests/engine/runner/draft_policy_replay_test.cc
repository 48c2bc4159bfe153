// The closed loop over recorded answers with a clock of its own: what the shipped drafters guess behind each of 100 tokens of twelve
// greedy answers of serval-nano (the texts of deploy/models/speculation_table.py), on machines that are a few numbers. Nothing in
// it is left to chance, so any choice of the policy's is judged without a clock's noise. Drafting's part, who is asked and told
// what, is played here in its simplest form.
#include "engine/runner/draft_policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace serval::testing {
namespace {

// Three digits for each place: guesses that n-grams make there (8 at most), how many of them are right, and how many of 8 of
// serval-nano-draft are.
struct Recorded {
  const char* kind;
  int num_prompt;
  const char* places;
};
constexpr Recorded kRecorded[] = {
    {"chat", 18,
     "001220310400001000200001220330440550660770861850840830820810800200000000000220330440530620710800000000001000000000000000"
     "003002001000003002001200000001000002001220321410500002221330421510600600200300330440550660770880880880880880880880880880"
     "880880880880880880880880880880880880880880880880880880880880"},
    {"chat", 20,
     "000000004003002001000003002001000000000001000000000000000000000000001000000001000002201220334433522611700000000000000000"
     "000000000002211300000002001000200000000000003002001200001000008008008008008008008008008008007006005004003002211300313402"
     "221330422511600000001220328418508008008008008007006005004223"},
    {"chat", 17,
     "000200000002001000200220310400001210301000003002221320411500300000000001000000006005004003002211300000000000000000000210"
     "300000000000001220320410500000221330420510601620711800000000000000221330430520610701000221330440550640731820811800000000"
     "001200201300000000001000000001000000000000000000000000000000"},
    {"maths", 66,
     "220330420510601000210300000000002001000000000200000000220330440550660770880880880883882881880880870860850840830820810802"
     "221320410500001000221320410500002221330440550660770880880880880880882881880880880882881880880880883882881880880880880880"
     "880880880880880882881880880880882881880880880874863852841830"},
    {"maths", 52,
     "220320410500000221330441550650740830820810800750840830821810802001000221330440550650740830820810802001000202001000008008"
     "008007226335444543632721810800000000000221330441550660750840830820811800221330441550660770880880880881880881880881880880"
     "880880880880881880881880881870860850840830820813802801000000"},
    {"maths", 97,
     "220310400300000202311400000000000003002001210304003002221310400000000220330440553662771880880880880884883882871860854843"
     "832821810806005004003002221310403402001000000000223322411500501550660771880883882881880880880880881880883882881880880880"
     "880881880883882881880880880880881880883882881880870860850841"},
    {"code-like", 120,
     "000001000000000000001000001000000001000000001000220331440550660750840831820810802001000000220320410501650742831820810801"
     "850842881880880881880882881880880870860852841830820810801000000200000001220330420511600752841830820811800852881880880881"
     "880882881880880870860852841830820810801800000000220320411500"},
    {"code-like", 126,
     "000000220330420511600000000000000001000000220330440551640730820810800001000001000000000000221330430520610700821810800000"
     "002001220330440552661750840830821810801220330440550651740830820810803822811800220330422511600740830822811800880830821810"
     "801880880880880881880880880880883882881880880880882881880880"},
    {"copy", 195,
     "000220330421510600000000001000003002211300000001000001000200000001210300001000200210300200000000200001210300002001210302"
     "001000200310401210300001000220330440530620710800002221330440551660770880881880880881880880880880880880880880882881880880"
     "881880880880881880880871860850840830820810801510600411500202"},
    {"copy", 195,
     "000201000003002201300000000001220333442551660770880881880883882881880880880881880883882881880880880881880883882881880880"
     "880881880883882881880880880881880883882881880880880881880883882881880880880881880883882881880880880881880883882881880880"
     "880881880883882881880880880881880883882881880880880881880883"},
    {"free prose", 16,
     "000004003002001000208008007006005004003002001000002001000000210304003002001000008008008008008008008008008008008008008008"
     "008007206005004003002001000000001000004003002001000008008008008008008007006005004003002001000000000000220310400000002211"
     "300000000001000001000203302211300445534623712801000001000008"},
    {"free prose", 28,
     "002001200000004003002001200000000000220330440555664763852841830820810800001000000001000210300301000210300001000200001000"
     "000200301440553642731820810800000000000210300405444553662771880880880880880880880880885884883882881880880880880880880880"
     "880875864853842831820810801870861850840831820810800441550662"},
};
constexpr int kMostGuesses = 8;
constexpr const char* kKinds[] = {"chat", "maths", "code-like", "copy", "free prose"};

int digit(const Recorded& answer, int place, int which) {
  return answer.places[3 * place + which] - '0';
}

// A step takes as long as its weights (and a little for each row) or as its arithmetic, whichever is more.
struct Machine {
  const char* name;
  double weights_ms, few_row_ms, arithmetic_ms, row_ms, draft_ms, draft_row_ms;
  double step(double rows) const { return std::max(weights_ms + few_row_ms * rows, arithmetic_ms + row_ms * rows); }
  double draft(double rows) const { return draft_ms + draft_row_ms * rows; }
};

// A setting: nobody, the loop, or one drafter and depth.
struct Setting {
  DraftPolicy* policy = nullptr;
  DrafterKind fixed = DrafterKind::kNgram;
  int depth = 0;
};

class Replay {
 public:
  Replay(const Machine& machine, const std::string& kind, int num_seqs, int num_tokens)
      : machine_(machine), num_tokens_(num_tokens), seqs_(num_seqs) {
    for (const Recorded& answer : kRecorded)
      if (answer.kind == kind) of_kind_.push_back(&answer);
  }

  // Tokens a millisecond of so many streams, each of which makes its next request when one is over, from the first step to the last one
  // in which all of them are at work.
  double rate(const Setting& setting) {
    constexpr int kRequests = 64;  // of a stream; a part of the last ones is lost
    int left = kRequests * static_cast<int>(seqs_.size()), num_tokens = 0;
    double ms = 0;
    for (Seq& seq : seqs_) seq = {};
    while (true) {
      int prompts = 0;
      for (SlotId slot = 0; slot < std::ssize(seqs_); ++slot) {
        if (!is_over(seqs_[slot])) continue;
        if (left-- == 0) return num_tokens / ms;
        seqs_[slot] = {.answer = of_kind_[num_answers_++ % of_kind_.size()]};
        prompts += seqs_[slot].answer->num_prompt;
        if (setting.policy) setting.policy->admit(slot);
      }
      decide(setting);
      ms += draft(setting) + verify(setting, prompts, num_tokens);
    }
  }

 private:
  struct Seq {
    const Recorded* answer = nullptr;
    int num_drawn = 0, depth = 0;
    DrafterKind by = DrafterKind::kNgram;
    int num_drafted = 0;  // positions that the draft has seen
    bool is_followed = false, is_left = false;
    int watched = -1;  // the place of a guess of n-grams that is compared with what comes
    int of(int which) const { return digit(*answer, num_drawn, which); }
    int lag() const { return answer->num_prompt + num_drawn - num_drafted; }
    bool reads() const { return num_drawn == 0; }  // its prompt, in the next step
  };

  int room(const Seq& seq) const { return std::min(kMostGuesses, num_tokens_ - seq.num_drawn - 1); }
  bool is_over(const Seq& seq) const { return seq.answer == nullptr || seq.num_drawn >= num_tokens_; }
  int num_decoding() const {
    return static_cast<int>(std::ranges::count_if(seqs_, [](const Seq& seq) { return !seq.reads(); }));
  }
  // Some steps wait for a core, all a little.
  double delayed(double ms) {
    random_ = random_ * 6364136223846793005u + 1442695040888963407u;
    return ms * (1 + 0.06 * static_cast<double>(random_ >> 40) / (1 << 24) + (random_ % 53 == 0 ? 0.5 : 0));
  }

  void decide(const Setting& setting) {
    std::vector<DraftPolicy::Wish> wishes;
    for (SlotId slot = 0; slot < std::ssize(seqs_); ++slot) {
      Seq& seq = seqs_[slot];
      seq.depth = 0;
      if (seq.reads()) continue;
      const int made = std::min(room(seq), seq.of(0));
      if (!setting.policy) {
        seq.by = setting.fixed;
        seq.depth = std::min(setting.depth, seq.by == DrafterKind::kNgram ? made : room(seq));
        continue;
      }
      wishes.push_back({.slot = slot, .kind = DrafterKind::kNgram, .most = made, .is_made = true});
      wishes.push_back({.slot = slot, .kind = DrafterKind::kDraft, .most = seq.is_left ? 0 : room(seq)});
    }
    if (setting.policy) setting.policy->choose(wishes, std::max(1, num_decoding()));
    for (const DraftPolicy::Wish& wish : wishes) {
      Seq& seq = seqs_[wish.slot];
      if (wish.depth > 0) seq.depth = wish.depth, seq.by = wish.kind;
      if (wish.kind == DrafterKind::kDraft) seq.is_followed = wish.is_worth;
    }
  }

  // What the draft does: one forward of what it lacks, then one a guess.
  double draft(const Setting& setting) {
    int rows = 0, num_asked = 0, depth = 0;
    for (Seq& seq : seqs_) {
      if (seq.reads()) continue;
      const bool is_asked = seq.depth > 0 && seq.by == DrafterKind::kDraft;
      if (is_asked || (seq.is_followed && (seq.num_drafted == 0 || seq.lag() >= 16))) {
        rows += seq.lag();
        seq.num_drafted += seq.lag();
      }
      seq.is_left |= seq.lag() > 32;
      num_asked += is_asked;
      if (is_asked) depth = std::max(depth, seq.depth);
    }
    if (rows == 0) return 0;
    double ms = machine_.draft(rows);
    for (int level = 1; level < depth; ++level) {
      const auto deeper = std::ranges::count_if(seqs_, [&](const Seq& seq) { return seq.by == DrafterKind::kDraft && seq.depth > level; });
      ms += machine_.draft(static_cast<double>(deeper));
    }
    ms = delayed(ms);
    if (setting.policy) setting.policy->learn_cost(DrafterKind::kDraft, num_asked, depth, ms);
    return ms;
  }

  double verify(const Setting& setting, int prompts, int& num_tokens) {
    int rows = prompts;
    for (const Seq& seq : seqs_) rows += seq.reads() ? 0 : 1 + seq.depth;
    const double ms = delayed(machine_.step(rows));
    if (setting.policy && prompts == 0) setting.policy->learn_step(rows, ms);
    for (SlotId slot = 0; slot < std::ssize(seqs_); ++slot) {
      Seq& seq = seqs_[slot];
      if (seq.reads()) {
        ++seq.num_drawn;
        ++num_tokens;
        continue;
      }
      const bool is_drafted = seq.depth > 0 && seq.by == DrafterKind::kDraft;
      const int came_true = std::min(seq.depth, seq.of(is_drafted ? 2 : 1));
      if (setting.policy && is_drafted) setting.policy->learn(slot, seq.by, seq.depth, came_true);
      if (seq.watched < 0 && seq.of(0) > 0) seq.watched = seq.num_drawn;
      seq.num_drawn += 1 + came_true;
      num_tokens += 1 + came_true;
      if (seq.watched < 0) continue;
      const int made = digit(*seq.answer, seq.watched, 0), right = digit(*seq.answer, seq.watched, 1);
      if (seq.num_drawn - seq.watched < std::min(made, right + 1)) continue;
      if (setting.policy) setting.policy->learn(slot, DrafterKind::kNgram, made, right);
      seq.watched = -1;
    }
    return ms;
  }

  const Machine machine_;
  const int num_tokens_;
  std::vector<Seq> seqs_;
  std::vector<const Recorded*> of_kind_;
  int num_answers_ = 0;
  uint64_t random_ = 1;
};

class ClosedLoop : public ::testing::TestWithParam<Machine> {};
INSTANTIATE_TEST_SUITE_P(Of, ClosedLoop,
                         // The demo model as it is and padded, on two cores of a server, as their daemons measured it; a device on which a row costs little.
                         ::testing::Values(Machine{"nano", 0.13, 0.047, 0, 0, 0.08, 0.015}, Machine{"of_77_million", 5.6, 0.07, 2.2, 0.45, 1, 0.05},
                                           Machine{"of_a_billion", 59, 0.3, 5, 5, 5.5, 0.55}, Machine{"device", 20, 0.01, 0, 0.1, 2.5, 0.01}),
                         [](const auto& info) { return std::string(info.param.name); });

// What it knows of one kind of text is of little use for the next.
TEST_P(ClosedLoop, LosesLittleToTheBestFixedSettingAndNothingToNone) {
  const Setting fixed[] = {{}, {nullptr, DrafterKind::kNgram, 2}, {nullptr, DrafterKind::kNgram, 8}, {nullptr, DrafterKind::kDraft, 1},
                           {nullptr, DrafterKind::kDraft, 2}, {nullptr, DrafterKind::kDraft, 4}};
  int num_cells = 0, below_none = 0, below_best = 0;
  for (const int first_kind : {0, 2}) {
    for (const int num_tokens : {32, 88}) {
      DraftPolicy policy(32);
      for (const int num_seqs : {1, 2, 4, 8, 16, 32}) {
        for (int k = 0; k < 5; ++k) {
          const char* const kind = kKinds[(first_kind + k) % 5];
          const auto rate_of = [&](const Setting& setting) { return Replay(GetParam(), kind, num_seqs, num_tokens).rate(setting); };
          const double rate = rate_of({&policy}), none = rate_of({});
          double best = 0;
          for (const Setting& setting : fixed) best = std::max(best, rate_of(setting));
          EXPECT_GE(rate, 0.975 * none) << num_seqs << " of " << kind << ", " << num_tokens << " tokens";
          EXPECT_GE(rate, 0.9 * best) << num_seqs << " of " << kind << ", " << num_tokens << " tokens: " << best / none << " times none";
          ++num_cells;
          below_none += rate < 0.98 * none;
          below_best += rate < 0.95 * best;
        }
      }
    }
  }
  EXPECT_LE(below_none, 0.02 * num_cells) << "of " << num_cells;
  EXPECT_LE(below_best, 0.02 * num_cells) << "of " << num_cells;
}

}  // namespace
}  // namespace serval::testing
