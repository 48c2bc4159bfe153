"""Makes tests/fixtures/models/gguf-*: small models as GGUF files, and what the reference answers; and tests/fixtures/gguf/types.gguf:
random blocks of every type, each with the numbers that they stand for.

Run by hand, never by the tests, with the environment of make_model_golden.py and the package gguf (0.19.0), which writes the files,
rounds to the types it can and says what blocks mean:
    VENV/bin/python tests/golden/make_gguf_golden.py [NAME...]

Names, the order of rows and the norms of Gemma are as the converters of the format's tools have them: rows of a llama's queries and keys
lie as pairs that rotate together, and 1 is added to what Gemma's folders store of norms.
"""

import json
import pathlib
import re
import sys

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Q
from model_golden import ROOT, VOCAB, make_cases, randomise, rope

# Where a block has its scales, halves; IQ1_M has the four parts of one in the highest bits of four words.
HALVES = {Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q8_0: [0], Q.Q2_K: [80, 82], Q.Q3_K: [108], Q.Q4_K: [0, 2],
          Q.Q5_K: [0, 2], Q.Q6_K: [208], Q.IQ4_NL: [0], Q.IQ4_XS: [0], Q.MXFP4: [], Q.IQ2_XXS: [0], Q.IQ2_XS: [0], Q.IQ2_S: [0],
          Q.IQ3_XXS: [0], Q.IQ3_S: [0], Q.IQ1_S: [0], Q.IQ1_M: [48], Q.TQ1_0: [52], Q.TQ2_0: [64]}
# Types that the package only reads: their blocks are random.
READ_ONLY = (Q.Q4_K, Q.IQ2_XXS, Q.IQ2_XS, Q.IQ2_S, Q.IQ3_XXS, Q.IQ3_S, Q.IQ1_S, Q.IQ1_M, Q.IQ4_NL, Q.IQ4_XS)
SHAPE = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, attn_implementation="eager")
NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
         "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.qkv_proj": "attn_qkv",
         "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
         "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "mlp.gate_up_proj": "ffn_up", "mlp.gate": "ffn_gate_inp", "mlp.experts": "ffn"}
GEMMA = dict(NAMES, **{"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
                       "post_feedforward_layernorm": "post_ffw_norm"})


PAIRED = ("llama", "granite")


def apart(parameters, is_turned):
    """Gate and up of all experts are a tensor each in the file; those of gpt-oss alternate, and are [in, out]."""
    for name, parameter in parameters:
        if is_turned and "experts.gate_up_proj" in name:
            whole = parameter.transpose(1, 2) if parameter.dim() == 3 else parameter
            yield name.replace("gate_up_proj", "gate_exps"), whole[:, 0::2]
            yield name.replace("gate_up_proj", "up_exps"), whole[:, 1::2]
        elif is_turned and "experts.down_proj" in name:
            yield name.replace("down_proj", "down_exps"), parameter.transpose(1, 2) if parameter.dim() == 3 else parameter
        elif name.endswith("experts.gate_up_proj"):
            half = parameter.shape[1] // 2
            yield name.replace("gate_up_proj", "gate_exps"), parameter[:, :half]
            yield name.replace("gate_up_proj", "up_exps"), parameter[:, half:]
        elif name.endswith("experts.down_proj"):
            yield name.replace("down_proj", "down_exps"), parameter
        else:
            yield name, parameter


def here(name, names):
    """model.layers.3.mlp.up_proj.weight -> blk.3.ffn_up.weight"""
    if name.endswith("_exps"):
        return name.replace("model.layers", "blk").replace("mlp.experts.", "ffn_") + ".weight"
    if name.endswith("_exps_bias"):
        return name.replace("model.layers", "blk").replace("mlp.experts.", "ffn_").replace("_bias", ".bias")
    if name.endswith(".sinks"):
        return name.replace("model.layers", "blk").replace("self_attn.sinks", "attn_sinks") + ".weight"
    module, ending = name.rsplit(".", 1)
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.*)", module)
    return f"blk.{layer[1]}.{names[layer[2]]}.{ending}" if layer else f"{names[module]}.{ending}"


def paired(matrix, heads):
    shape = matrix.shape
    return matrix.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def set_scales(blocks, kind, values):
    """[blocks, one] numbers as each of the halves of the blocks."""
    halves = np.asarray(values, dtype=np.float16)
    for place in HALVES[kind]:
        if kind == Q.IQ1_M:
            words = blocks[:, place:].copy().view(np.uint16)
            parts = halves.view(np.uint16) >> np.array([0, 4, 8, 12], dtype=np.uint16)
            blocks[:, place:] = (words & 0x0FFF | parts << 12).astype(np.uint16).view(np.uint8)
        else:
            blocks[:, place:place + 2] = halves.view(np.uint8)


def random_blocks(random, kind, like):
    """Numbers that spread as those of `like` do."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    stored = random.integers(0, 256, (*like.shape[:-1], like.shape[-1] // block * size), dtype=np.uint8)
    blocks = stored.reshape(-1, size)
    set_scales(blocks, kind, np.ones((len(blocks), 1)))
    set_scales(blocks, kind, np.full((len(blocks), 1), like.std() / gguf.quants.dequantize(stored, kind).std()))
    return stored


class Model:
    def __init__(self, arch, model_class, config, types, extra=None, names=NAMES, tensors=None):
        self.arch, self.model_class, self.config, self.types = arch, model_class, config, types
        self.extra, self.names, self.tensors = extra or {}, names, tensors or {}

    def type_of(self, name):
        for part, kind in self.types.items():
            if part in name:
                return kind
        return Q.F32


def models():
    t = transformers
    llama3 = rope(500.0, "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
    llama3_factors = []
    for i in range(8):
        wave = 2 * np.pi * 500.0 ** (2 * i / 16)
        smooth = (32 / wave - 1) / (4 - 1)
        llama3_factors.append(8 if wave > 32 else 1 if wave < 8 else 1 / ((1 - smooth) / 8 + smooth))
    short, long = [1.0 + 0.1 * i for i in range(8)], [2.0 + 0.3 * i for i in range(8)]
    gemma = dict(SHAPE, head_dim=16, sliding_window=16, query_pre_attn_scalar=16)
    yield "gguf-llama", Model("llama", t.LlamaForCausalLM, t.LlamaConfig(**SHAPE, tie_word_embeddings=True, rope_parameters=llama3),
                              {"norm": Q.F32, "token_embd": Q.Q8_0, "attn_v": Q.Q5_0, "attn_q": Q.Q4_0, "attn_k": Q.Q4_1, "ffn_gate": Q.Q5_1,
                               "ffn_up": Q.Q5_1, "ffn_down": Q.Q8_0, "attn_output": Q.BF16},
                              {"rope.dimension_count": 16}, tensors={"rope_freqs.weight": llama3_factors})
    yield "gguf-llama-f16", Model("llama", t.LlamaForCausalLM, t.LlamaConfig(**{**SHAPE, "num_hidden_layers": 1}, attention_bias=True, rope_parameters=rope()),
                                  {"norm": Q.F32, ".weight": Q.F16})
    yield "gguf-qwen2", Model("qwen2", t.Qwen2ForCausalLM, t.Qwen2Config(**SHAPE, rope_parameters=rope(1000000.0)),
                              {"norm": Q.F32, "output.weight": Q.Q8_0, "_embd": Q.Q4_0, ".weight": Q.Q4_0})
    yield "gguf-qwen3", Model("qwen3", t.Qwen3ForCausalLM, t.Qwen3Config(**SHAPE, head_dim=32, tie_word_embeddings=True, rope_parameters=rope()),
                              {"norm": Q.F32, ".weight": Q.Q8_0}, {"attention.key_length": 32, "attention.value_length": 32})
    yield "gguf-qwen3moe", Model("qwen3moe", t.Qwen3MoeForCausalLM,
                                 t.Qwen3MoeConfig(**{**SHAPE, "hidden_size": 32}, head_dim=16, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2,
                                                  norm_topk_prob=True, mlp_only_layers=[], rope_parameters=rope(1000000.0)),
                                 {"norm": Q.F32, "gate_inp": Q.F32, "down_exps": Q.Q8_0, "_exps": Q.Q4_0, ".weight": Q.F16},
                                 {"attention.key_length": 16, "attention.value_length": 16, "expert_count": 4, "expert_used_count": 2,
                                  "expert_feed_forward_length": 32})
    # Each of the types with grids, and neighbours of one fused matrix that are of different ones.
    wide = dict(SHAPE, hidden_size=256, head_dim=16)
    yield "gguf-llama-iq", Model("llama", t.LlamaForCausalLM, t.LlamaConfig(**wide, tie_word_embeddings=True, rope_parameters=rope()),
                                 {"norm": Q.F32, "token_embd": Q.IQ3_S, "0.attn_q": Q.IQ2_XS, "0.attn_k": Q.IQ2_S, "0.attn_v": Q.IQ3_XXS,
                                  "1.attn_q": Q.IQ1_M, "1.attn_k": Q.IQ4_XS, "1.attn_v": Q.Q4_K, "attn_output": Q.Q4_0,
                                  "0.ffn_gate": Q.IQ1_M, "0.ffn_up": Q.IQ1_S, "1.ffn_gate": Q.IQ2_XXS, "1.ffn_up": Q.IQ2_XXS,
                                  "ffn_down": Q.Q4_0},
                                 {"attention.key_length": 16, "attention.value_length": 16, "rope.dimension_count": 16})
    small = dict(SHAPE, hidden_size=32, intermediate_size=32)
    yield "gguf-mixtral", Model("llama", t.MixtralForCausalLM,
                                t.MixtralConfig(**small, num_local_experts=3, num_experts_per_tok=2, rope_parameters=rope(1000000.0)),
                                {"norm": Q.F32, "gate_inp": Q.F32, "_exps": Q.Q8_0, ".weight": Q.Q8_0}, {"expert_count": 3, "expert_used_count": 2})
    yield "gguf-granite", Model("granite", t.GraniteForCausalLM,
                                t.GraniteConfig(**small, tie_word_embeddings=True, embedding_multiplier=6.0, residual_multiplier=0.5,
                                                attention_multiplier=0.2, logits_scaling=2.0, rope_parameters=rope()),
                                {"norm": Q.F32, ".weight": Q.Q8_0},
                                {"embedding_scale": 6.0, "residual_scale": 0.5, "attention.scale": 0.2, "logit_scale": 2.0})
    yield "gguf-gpt-oss", Model("gpt-oss", t.GptOssForCausalLM,
                                t.GptOssConfig(**small, head_dim=16, num_local_experts=3, num_experts_per_tok=2, sliding_window=16, pad_token_id=0,
                                               layer_types=["sliding_attention", "full_attention"],
                                               rope_parameters=rope(150000.0, "yarn", factor=4.0, original_max_position_embeddings=64,
                                                                    beta_fast=32.0, beta_slow=1.0, truncate=False)),
                                {"norm": Q.F32, "gate_inp": Q.F32, "_exps.weight": Q.Q8_0, ".weight": Q.F16},
                                {"attention.key_length": 16, "attention.value_length": 16, "attention.sliding_window": 16, "expert_count": 3,
                                 "expert_used_count": 2, "expert_feed_forward_length": 32, "rope.scaling.factor": 4.0,
                                 "rope.scaling.original_context_length": 64, "rope.scaling.type": "yarn"},
                                dict(NAMES, **{"post_attention_layernorm": "post_attention_norm", "mlp.router": "ffn_gate_inp"}))
    yield "gguf-gemma2", Model("gemma2", t.Gemma2ForCausalLM,
                               t.Gemma2Config(**gemma, attn_logit_softcapping=2.0, final_logit_softcapping=8.0, rope_parameters=rope()),
                               {"norm": Q.F32, ".weight": Q.Q8_0},
                               {"attention.key_length": 16, "attention.value_length": 16, "attention.sliding_window": 16,
                                "attn_logit_softcapping": 2.0, "final_logit_softcapping": 8.0}, GEMMA)
    yield "gguf-gemma3", Model("gemma3", t.Gemma3ForCausalLM,
                               t.Gemma3TextConfig(**{**gemma, "num_hidden_layers": 6, "intermediate_size": 32}, layer_types=["sliding_attention"] * 5 + ["full_attention"],
                                                  rope_parameters={"sliding_attention": rope(500.0), "full_attention": rope(100000.0)}),
                               {"norm": Q.F32, ".weight": Q.Q4_0},
                               {"attention.key_length": 16, "attention.value_length": 16, "attention.sliding_window": 16,
                                "rope.freq_base_swa": 500.0}, GEMMA)
    yield "gguf-phi3", Model("phi3", t.Phi3ForCausalLM,
                             t.Phi3Config(**SHAPE, pad_token_id=0, original_max_position_embeddings=200, sliding_window=40,
                                          rope_parameters=rope(10000.0, "longrope", short_factor=short, long_factor=long)),
                             {"norm": Q.F32, ".weight": Q.Q8_0},
                             {"rope.scaling.original_context_length": 200, "rope.dimension_count": 16, "attention.sliding_window": 40},
                             tensors={"rope_factors_short.weight": short, "rope_factors_long.weight": long})


def make(name, made):
    folder = pathlib.Path(ROOT) / name
    folder.mkdir(parents=True, exist_ok=True)
    config = made.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    for seed in range(1, 200):
        model = made.model_class(config).eval()
        randomise(model, seed)
        random = np.random.default_rng(seed)
        tensors = {}
        with torch.no_grad():
            for folder_name, parameter in apart(list(model.named_parameters()), made.arch == "gpt-oss"):
                file_name = here(folder_name, made.names)
                values = np.ascontiguousarray(parameter.numpy().astype(np.float32))
                if made.arch in PAIRED and (".attn_q." in file_name or ".attn_k." in file_name):
                    values = paired(values, heads if "attn_q" in file_name else kv_heads)
                if made.arch.startswith("gemma") and "norm" in file_name:
                    values = values + np.float32(1)
                kind = Q.F32 if values.ndim == 1 or file_name.endswith(".bias") else made.type_of(file_name)
                if kind in READ_ONLY:
                    stored = random_blocks(random, kind, values)
                else:
                    stored = gguf.quants.quantize(values, kind) if kind != Q.F32 else values
                meant = gguf.quants.dequantize(stored, kind) if kind != Q.F32 else values
                tensors[file_name] = (stored, kind)
                if made.arch.startswith("gemma") and "norm" in file_name:
                    meant = meant - np.float32(1)
                if made.arch in PAIRED and (".attn_q." in file_name or ".attn_k." in file_name):
                    n = heads if "attn_q" in file_name else kv_heads
                    shape = meant.shape
                    meant = meant.reshape(n, shape[0] // n // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(meant.astype(np.float32))))
        cases = make_cases(model, [30], [16, 40], None)
        if cases is not None:
            break
    else:
        raise SystemExit(f"{name}: no seed keeps its margins")
    path = folder / "model.gguf"
    writer = gguf.GGUFWriter(path, made.arch)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    parameters = config.rope_parameters
    writer.add_rope_freq_base(parameters.get("rope_theta") or parameters["full_attention"]["rope_theta"])
    for key, value in made.extra.items():
        add = writer.add_uint32 if isinstance(value, int) else writer.add_string if isinstance(value, str) else writer.add_float32
        add(f"{made.arch}.{key}", value)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([b"<unk>", b"<s>", b"</s>"] + [f"<0x{i:02X}>".encode() for i in range(VOCAB - 3)])
    writer.add_token_scores([0.0] * VOCAB)
    writer.add_token_types([2, 3, 3] + [6] * (VOCAB - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for file_name, values in made.tensors.items():
        writer.add_tensor(file_name, np.array(values, dtype=np.float32))
    for file_name, (stored, kind) in tensors.items():
        writer.add_tensor(file_name, np.ascontiguousarray(stored), raw_dtype=None if kind in (Q.F32, Q.F16) else kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    reference = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, float32, eager attention, numbers of the blocks"
    golden = {"reference": reference, "seed": seed, "cases": cases}
    (folder / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{name}: seed {seed}, {sum(f.stat().st_size for f in folder.iterdir())} bytes, smallest margin "
          f"{min(min(c['margins']) for c in cases):.4f}", flush=True)


def write_type(writer, kind, stored, number):
    meant = gguf.quants.dequantize(stored, kind)
    assert np.isfinite(meant).all()
    writer.add_tensor(f"{kind.name}.blocks", stored, raw_dtype=kind)
    writer.add_tensor(f"{kind.name}.numbers", meant.astype(number))
    assert (meant.astype(number) == meant).all()


# Of types with a grid: how many points it has and a block, where the low eight bits of a point's number are, and how those above
# those are put beside.
GRIDS = {
    Q.IQ2_XXS: (256, 32, lambda i: 2 + i // 4 * 8 + i % 4, None),
    Q.IQ2_XS: (512, 32, lambda i: 2 + 2 * i, lambda i: (3 + 2 * i, 0, 1)),
    Q.IQ2_S: (1024, 32, lambda i: 2 + i, lambda i: (66 + i // 4, i % 4 * 2, 2)),
    Q.IQ3_XXS: (256, 64, lambda i: 2 + i, None),
    Q.IQ3_S: (512, 64, lambda i: 2 + i, lambda i: (66 + i // 8, i % 8, 1)),
    Q.IQ1_M: (2048, 32, lambda i: i, lambda i: (32 + i // 2, i % 2 * 4, 3)),
}


def make_types():
    """Any bytes are blocks; only the scales are kept finite and small. Those of a grid have each of its points."""
    folder = pathlib.Path(ROOT).parent / "gguf"
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(7)
    writer = gguf.GGUFWriter(folder / "types.gguf", "none")
    for kind in HALVES:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        is_exact = kind.name.startswith(("IQ1", "IQ2", "IQ3", "TQ"))
        count = 2 * 256 // block if kind not in GRIDS else max(2, GRIDS[kind][0] // GRIDS[kind][1])
        blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
        if kind in GRIDS:
            points, per_block, low, high = GRIDS[kind]
            numbers = random.permutation(np.arange(count * per_block) % points).reshape(count, per_block)
            for i in range(per_block):
                blocks[:, low(i)] = numbers[:, i] & 255
                if high is not None:
                    at, shift, bits = high(i)
                    mask = (1 << bits) - 1 << shift
                    blocks[:, at] = blocks[:, at] & (255 - mask) | (numbers[:, i] >> 8 << shift).astype(np.uint8)
        scales = random.standard_normal((count, 1)) * 0.1
        if is_exact:  # so that halves hold the numbers
            scales = np.sign(scales) * 2.0 ** random.integers(-8, 0, (count, 1))
        if kind == Q.MXFP4:
            blocks[:, 0] = random.integers(110, 130, len(blocks))
        set_scales(blocks, kind, scales)
        for place in HALVES[kind][1:]:
            blocks[:, place:place + 2] = (random.standard_normal((count, 1)) * 0.1).astype(np.float16).view(np.uint8)
        rows = max(2, count // 8)
        write_type(writer, kind, blocks.reshape(rows, -1), np.float16 if is_exact else np.float32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    if len(sys.argv) < 2 or "types" in sys.argv[1:]:
        make_types()
    for name, made in models():
        if len(sys.argv) < 2 or name in sys.argv[1:]:
            make(name, made)


if __name__ == "__main__":
    main()
