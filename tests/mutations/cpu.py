"""Edits of the CPU kernels that the tests of kernels must catch: an index, a bound, an order, a special case. The plain instruction
set stands for all: the others are the same source."""

C = "kernels/cpu/"
SOURCES = [C + name for name in ("attention.cc", "attention_tasks.cc", "elementwise.cc", "hot_kernels.cc", "linear.cc", "sample.cc", "token_counts.cc")]
KERNELS = "*generic*:AttentionTasks*:TokenCounts*:CpuBackend*:Sample*"

MUTATIONS = [(file, what, instead, KERNELS) for file, what, instead in [
    # The matrix product.
    (C + "hot_linear.h", "first > 0 ? to : start", "start"),
    (C + "hot_linear.h", "if (!whole && first > 0) copy_columns(out, args.out_stride, edge, kPanel, rows, args.valid);", ";"),
    (C + "hot_linear.h", "if (!whole) copy_columns(edge, kPanel, out, args.out_stride, rows, args.valid);", "copy_columns(edge, kPanel, out, args.out_stride, rows, kPanel);"),
    (C + "hot_linear.h", "args.tile_rows + (t < args.tall_tiles ? 1 : 0)", "args.tile_rows"),
    (C + "hot_linear.h", "i < k ? «Format::pack(x[m * x_stride + i])» :", "Format::pack(x[m * x_stride])"),
    (C + "hot_linear.h", "if (args.bias != nullptr) copy_columns(args.bias, 0, is_scaled ? last : start, 0, 1, args.valid);", ";"),
    # Rows.
    (C + "hot_rows.h", "if (i < n) op(i, static_cast<int>(n - i));", ";"),
    (C + "hot_rows.h", "mean_of(squares, n) + eps", "mean_of(squares, n)"),
    (C + "hot_rows.h", "store_some(residual + i, r, lanes);", ";"),
    (C + "hot_rows.h", "return x / (1.0f + exp(-x));", "return x / (1.0f + exp(x));"),
    (C + "hot_rows.h", "0.044715f * x * x * x", "0.044715f * x * x"),
    (C + "hot_rows.h", "a * c - b * s", "a * c + b * s"),
    # Attention.
    (C + "hot_attention.h", "position - near + 1", "position - near"),
    (C + "hot_attention.h", "position % 2 != 0", "false"),
    (C + "hot_attention.h", "if (position < end) add_even(position);", ";"),
    (C + "hot_attention.h", "sum * factor + reduce_add(total)", "sum + reduce_add(total)"),
    (C + "hot_attention.h", "begin == 0 && end == kTile", "true"),
    (C + "attention.cc", "return «(offset / 2 * value_dim + d) * 2 + offset % 2»; });", "(offset / 2 * value_dim + d) * 2"),
    (C + "hot_attention.h", "store(weights + i, weight * load(scale + i));", "store(weights + i, weight);"),
    (C + "hot_attention.h", "lift += «(position >= begin) & (position < end)» ? weight", "position == position"),
    (C + "hot_attention.h", "lift[v] * factor[m] + lifted", "lift[v] + lifted"),
    (C + "attention.cc", "copy_scale(to_keys, from_keys, key_bytes);", ";"),
    (C + "attention.cc", "(bytes[place / 2] & ~(15 << shift))", "0"),
    (C + "attention.cc", "left.fetch_sub(1, std::memory_order_acq_rel) == 1", "left.fetch_sub(1, std::memory_order_acq_rel) == 2"),
    (C + "attention_tasks.cc", "(end - 1) / kChunk - begin / kChunk + 1", "(end - 1) / kChunk - begin / kChunk"),
    (C + "attention_tasks.cc", "if (whole.num_chunks == 1 || used_slots_ + whole.num_chunks * whole.num_rows > max_slots_) continue;", "if (whole.num_chunks == 1) continue;"),
    (C + "attention_tasks.cc", "piece.first_chunk += begin;", ";"),
    # Drawing.
    (C + "token_counts.cc", "i >= added.num_prompt ? 1 : 0", "1"),
    (C + "token_counts.cc", "counts[token] | kSeenToken", "counts[token]"),
    (C + "token_counts.cc", "touched[token / kBlock / 64] |= uint64_t{1} << (token / kBlock % 64);", "touched[token / kBlock / 64] = uint64_t{1} << (token / kBlock % 64);"),
    (C + "hot_sample.h", "in_output > 0 ? changed - taken : changed", "changed - taken"),
    (C + "hot_sample.h", "count != 0 ? changed : logit", "changed"),
    (C + "hot_sample.h", "(first + i + 1) * 0x9e3779b97f4a7c15ull", "(first + i) * 0x9e3779b97f4a7c15ull"),
    (C + "hot_sample.h", "row.block_max[b] > value", "row.block_max[b] > value + 1"),
    (C + "hot_state.h", "rows.slots != nullptr && num_kept > 0 && «rows.slots[num_kept - 1] < 0»", "false"),
    (C + "hot_state.h", "r < num_kept && next % rows.span == 0", "next % rows.span == 0"),
    (C + "sample.cc", "row.logits[i] >= bound", "row.logits[i] > bound"),
    (C + "sample.cc", "std::bit_cast<uint32_t>(value + 0.0f)", "std::bit_cast<uint32_t>(value)"),
    (C + "sample.cc", "low < high && (in < mass || low == 0)", "low < high && in < mass"),
    (C + "sample.cc", "p > 0 && p >= params.min_p", "p > 0"),
    (C + "sample.cc", "if («params.temperature < kGreedyTemperature»)", "params.temperature <= 0"),
]]
