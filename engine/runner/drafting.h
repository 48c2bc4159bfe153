// Whose guesses a step is given, and how many: asks the drafters, in their order, for each sequence that has drawn.
// Knows nothing of how any of them guesses. Engine thread only; allocates at the start.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/runner/draft_policy.h"
#include "engine/runner/hidden_trace.h"
#include "engine/runner/sampler.h"
#include "engine/runner/slot_table.h"
#include "engine/runner/speculators/speculator.h"

namespace serval {

// Who guesses, and how many guesses of one sequence at most, how many of them beside each other.
struct Drafters {
  std::vector<std::unique_ptr<Speculator>> speculators;
  int max_tokens = 0, max_width = 1;
  bool is_closed_loop = false;  // who is asked and for how many is DraftPolicy's; else the first that guesses, for all
  // All are asked, and their guesses are one tree (SpecInfer: Miao et al. 2024, section 3); each has an equal part of those
  // that the ones before left.
  bool merges = false;
  std::unique_ptr<HiddenTrace> trace;  // is told what drafters are told; null: nobody is
};

class Drafting {
 public:
  // May be of nobody.
  Drafting(Drafters drafters, int max_seqs, int max_model_len);
  static size_t planned_bytes(int max_seqs, bool is_closed_loop);

  void start(const DraftHost& host);
  // Sequences that come, blocks that are copied before the step.
  void begin_step(const Batch& batch);
  // The step was begun; see Speculator::keep.
  void keep(const Tensor& hidden);
  // A step is over: its rows where its time says what a step of them takes, else 0, and that time, from the end of the one before.
  void learn_step(int rows, double ms);
  // What follows the tokens of `output`, whose sequences are those of `drawn`.
  void propose(std::span<const Sampler::Drawn> drawn, const Sampler& sampler, const SlotTable& slots, ModelOutput& output);

 private:
  // Of a task, whoever is asked.
  struct Wanted {
    int most = 0, depth = 0;
    bool is_closed_loop = false;  // DraftPolicy decides: kExit, and a drafter and a depth by name, are what is asked, whatever they are worth
    // Of each drafter: how deep it is asked, and whether it goes on with the sequence for later.
    std::array<int, kNumDrafters> depths;
    uint32_t followed = 0;
  };
  bool is_idle() const { return drafters_.speculators.empty() && !drafters_.trace; }
  // The chain that a slot's sequence was given last. A step may verify another's instead (DrafterKind::kGrammar).
  struct Given {
    DrafterKind by = DrafterKind::kNgram;
    int depth = 0;
    TokenId first = -1;
  };
  // A tree of guesses: of several drafters for a task, or of one that only looks them up, which says nothing of who is asked.
  struct Tree {
    std::array<Draft, kMaxDrafts> drafts;
    int num_drafts = 0;

    void add(std::span<const Draft> guesses);
    std::span<const Draft> all() const { return std::span(drafts).first(num_drafts); }
  };
  // A tree looked up for a slot, and how far it came true: known by what is drawn, whether it was verified or not.
  struct Watched {
    Tree tree;
    int num_known = 0, num_true = 0, last = -1;  // tokens it was compared with so far; of its levels; where in it
  };
  void ask_for_first(size_t index, int num_tasks);
  void ask_for_part(size_t index, int num_tasks);
  void ask_in_turn(int num_tasks, DraftWork& work);
  void ask_what_pays(int num_tasks, DraftWork& work);
  void watch(int num_tasks);
  void look_up(int num_tasks);
  void choose(int num_tasks);
  DraftPolicy::Wish wish_of(size_t index, int i) const;
  void take(std::span<const Draft> guesses, int i, int depth);
  void learn_cost(DrafterKind kind, int num_tasks, double ms);
  Tree& found_of(size_t index, int i) { return found_[index * tasks_.size() + i]; }
  Watched& watched_of(size_t index, SlotId slot) { return watched_[index * tasks_.size() + slot]; }
  bool set_task(const Sampler::Drawn& drawn, const SeqOutput& out, const SlotTable& slots, DraftTask& task, Wanted& wanted);

  const Drafters drafters_;
  const size_t num_look_ups_;  // of the drafters the first ones, whose guesses cost nothing to make
  const int max_model_len_;
  std::vector<DraftTask> tasks_;  // [max_seqs]
  std::vector<Wanted> wanted_;    // of each
  std::vector<Tree> merged_;      // of each, where guesses are merged
  std::vector<Tree> found_;       // [look-ups][max_seqs], of each, in the closed loop
  std::vector<Watched> watched_;  // [look-ups][max_seqs], by slot
  std::vector<DraftPolicy::Wish> wishes_;
  std::vector<Given> given_;      // by slot
  std::vector<int> next_told_;    // by slot: the first position that drafters have not been told of
  DraftPolicy policy_;
  double asked_ms_ = 0;  // what drafters took since the last step, in the closed loop
};

}  // namespace serval
