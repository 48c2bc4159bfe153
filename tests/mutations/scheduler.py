"""Edits of the scheduler, its KV memory and its prefix cache that the tests of engine/scheduler must catch: who goes first, who
gives way, what is kept, what is forgotten, what is counted."""

S = "engine/scheduler/"
SOURCES = [S + name for name in ("flows.cc", "kv_manager.cc", "radix_cache.cc", "recorder.cc", "scheduler.cc", "scheduler_admit.cc", "scheduler_apply.cc",
                                 "scheduler_plan.cc")]
ALL = "*"

MUTATIONS = [
    # The prefix cache: what is found, what goes first.
    (S + "radix_cache.cc", "nodes_[id].parent == parent && std::ranges::equal(tokens_of(id), tokens)", "std::ranges::equal(tokens_of(id), tokens)", ALL),
    (S + "radix_cache.cc", "nodes_[id].parent == parent && std::ranges::equal(tokens_of(id), tokens)", "nodes_[id].parent == parent", ALL),
    (S + "radix_cache.cc", "nodes_[id].length_class == length_class && «salts_[id] == salt»", "true", ALL),
    (S + "radix_cache.cc", "nodes_[id].parent == kNone && «nodes_[id].length_class == length_class» &&", "true", ALL),
    (S + "radix_cache.cc", "if (common <= match.partial_tokens) continue;", "if (match.partial != kNone) continue;", ALL),
    (S + "radix_cache.cc", "if (!extend(with_child, child, begin + common)) continue;", "extend(with_child, child, begin + common);", ALL),
    (S + "radix_cache.cc", "  touch(match.partial);\n  list_newest(match.partial);", "  ;", ALL),
    (S + "radix_cache.cc", "  --nodes_[node].pins;\n  touch(node);\n  list_newest(node);", "--nodes_[node].pins; list_oldest(node);", ALL),
    (S + "radix_cache.cc", "if (!nodes_[same].blocks[g]) give_block(same, g, blocks[g]);", ";", ALL),
    (S + "radix_cache.cc", "if (common == nodes_[child].num_tokens && nodes_[child].pins == 0) remove(child);", ";", ALL),
    (S + "radix_cache.cc", "if (!is_whole) want_block(id);", ";", ALL),
    (S + "radix_cache.cc", "  newest_ = id;\n  node.listed = true;", "newest_ = id; node.listed = true; if (oldest_ != id) { unlist(id); list_oldest(id); }", ALL),
    (S + "radix_cache.cc", "num_evicted_ += node.blocks[g] ? 1 : 0;", ";", ALL),
    (S + "radix_cache.cc", "  ++num_evicted_;\n  return true;", "return true;", ALL),
    (S + "radix_cache.cc", "hash_seed_[0] ^ static_cast<uint32_t>(parent)", "hash_seed_[0] ^ (static_cast<uint32_t>(parent) & 0)", ALL),
    # KV memory.
    (S + "kv_manager.cc", "if (!enable_prefix_cache_) return start;", ";", ALL),
    (S + "kv_manager.cc", "parent.first_block[g] > rule.first_needed(position)", "false", ALL),
    (S + "kv_manager.cc", "end - begin", "end - begin - 1", ALL),
    (S + "kv_manager.cc", "!rule.may_fork(position, row)", "false", ALL),
    (S + "kv_manager.cc", "kv.num_told[g] = std::min(kv.num_told[g], used);", ";", ALL),
    (S + "kv_manager.cc", "while (static_cast<int32_t>(kv.blocks[g].size()) > used) kv.blocks[g].pop_back();", ";", ALL),
    (S + "kv_manager.cc", "if (num_computed > whole && geometry_.may_copy_part())\n    cache_.insert(kv.node, tokens.subspan(whole, num_computed - whole), blocks_at(kv, kv.num_cached_blocks));", ";", ALL),
    (S + "kv_manager.cc", "if (kv.first_block[g] >= rule.num_kept()) kv.blocks[g][kv.first_block[g]] = BlockRef();", ";", ALL),
    # Who runs, and who gives way.
    (S + "scheduler_plan.cc", "*running_[i]", "*running_[std::min(running_.size() - 1, static_cast<size_t>(std::find(running_.begin(), running_.end(), &below) - running_.begin()) + running_.size() - i)]", ALL),
    (S + "scheduler_plan.cc", "      --budget;", ";", ALL),
    (S + "scheduler_plan.cc", "config_.step_budget_ms == 0 || num_decoding == 0", "true", ALL),
    (S + "scheduler_plan.cc", "seq.max_len - known - 1", "seq.max_len - known", ALL),
    (S + "scheduler_plan.cc", "std::min(budget, max_drafts_of_step(config_))", "budget", ALL),
    # Who is let in.
    (S + "scheduler_admit.cc", "(running_.empty() || has_room(seq, lacking)) && kv_.copy_part(seq.kv, start, batch.copies)", "kv_.copy_part(seq.kv, start, batch.copies)", ALL),
    (S + "scheduler_admit.cc", "if (gave_way_) return false;", ";", ALL),
    (S + "scheduler_admit.cc", "first && first != &seq && first->overtaken + cost > first->num_known()", "false", ALL),
    (S + "scheduler_admit.cc", "if (first && first != &seq) first->overtaken += cost;", ";", ALL),
    (S + "scheduler_admit.cc", "  if (!may_admit_) refused_ = &seq;", ";", ALL),
    (S + "scheduler_admit.cc", "config_.policy == QueuePolicy::kPriority && next && next->priority < seq.request().priority", "false", ALL),
    (S + "scheduler_admit.cc", "seed_of_choice(admission.sampling.seed, seq.index)", "admission.sampling.seed", ALL),
    (S + "scheduler_admit.cc", "seq.first_scheduled = now;", ";", ALL),
    (S + "scheduler_admit.cc", "seq.cached_tokens = seq.num_computed;", ";", ALL),
    (S + "scheduler_admit.cc", "stats_.prefix_hit_tokens += seq.num_computed;", "stats_.prefix_hit_tokens += 2 * seq.num_computed;", ALL),
    (S + "scheduler_admit.cc", "stats_.prefix_query_tokens += seq.num_prompt();", ";", ALL),
    (S + "scheduler_admit.cc", "num_ended_ == 0 ? kUnknownOutput : mean_output_", "kUnknownOutput", ALL),
    # What a step brought.
    (S + "scheduler_apply.cc", "seq.num_output() >= sampling.min_tokens", "seq.num_output() > sampling.min_tokens", ALL),
    (S + "scheduler_apply.cc", "seq.num_output() >= sampling.min_tokens", "seq.num_output() + 1 >= sampling.min_tokens", ALL),
    (S + "scheduler_apply.cc", "seq.num_known() >= seq.max_len", "seq.num_known() > seq.max_len", ALL),
    (S + "scheduler_apply.cc", "seq.state == SeqState::kRunning && reason != FinishReason::kNumericalError", "seq.state == SeqState::kRunning", ALL),
    (S + "scheduler_apply.cc", "++stats_.generation_tokens;", "stats_.generation_tokens += 2;", ALL),
    (S + "scheduler_apply.cc", "stats_.num_accepted_tokens += out.num_tokens - 1;", "stats_.num_accepted_tokens += out.num_tokens;", ALL),
    (S + "scheduler_apply.cc", "++stats_.finished[static_cast<int>(reason)];", ";", ALL),
    (S + "scheduler_apply.cc", "fork.parent == &seq && !fork.is_in_line", "false", ALL),
    (S + "scheduler_apply.cc", "if (rows.num_drafts > 0) kv_.give_back(seq.kv, seq.num_computed);", ";", ALL),
    # What it is told.
    (S + "scheduler.cc", "if (seq.state != SeqState::kFinished) finish(seq, reason, pending_);", "if (seq.state != SeqState::kFinished && seq.index == 0) finish(seq, reason, pending_);", ALL),
    (S + "scheduler.cc", "now >= deadlines_.top().request.deadline", "now >= deadlines_.top().request.deadline + std::chrono::milliseconds(3)", ALL),
    (S + "scheduler.cc", "finish_all(request_state, FinishReason::kDeadline);", "for (Sequence& seq : request_state.sequences) { if (seq.state == SeqState::kWaiting) finish(seq, FinishReason::kDeadline, pending_); }", ALL),
    (S + "scheduler.cc", "stats_.prompt_tokens += request_state.num_prompt;", ";", ALL),
    (S + "scheduler.cc", "static_cast<int>(running_.size()) + num_waiting_ + num_sequences <= max_open(config_)", "static_cast<int>(running_.size()) + num_waiting_ + num_sequences <= max_open(config_) + 1", ALL),
    # Whose turn it is.
    (S + "flows.cc", "request.flow == 0 ? request.id : request.flow", "request.id", ALL),
]
