"""Makes tests/fixtures/models/quant-*: one small model in every published way of storing rounded weights, and what the reference answers.

Run by hand, never by the tests, with the environment of make_model_golden.py:
    VENV/bin/python tests/golden/make_quantised_golden.py [NAME...]

MLX's is written and read back by the library of that name (0.32). HQQ's layout is written and read back by the library of that name (0.2.8); compressed-tensors' packed integers are written and read back by the library of that name (0.20.1). The other layouts are written here
from their published definitions, in numpy, with the numbers that they stand for: (code - zero) * scale. The reference computes in float32
with those numbers.
"""

import ast
import importlib.util
import json
import os
import pathlib
import sys
import types

import numpy as np
import torch
import transformers
from model_golden import ROOT, VOCAB, make_cases, randomise, rope
from safetensors.torch import save_file

SHAPE = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             head_dim=16, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True)


def groups_of(weight, group):
    n, k = weight.shape
    return weight.reshape(n, k // group, group)


def integers(weight, bits, group, is_symmetric, scale_type=np.float16):
    """Codes 0 .. 2^bits - 1 [n, k], scales and zero points [n, groups]."""
    parts = groups_of(weight, group)
    most = 2 ** bits - 1
    if is_symmetric:
        scale = np.abs(parts).max(axis=2) / (most / 2)
        zero = np.full(scale.shape, 2 ** (bits - 1), dtype=np.int64)
    else:
        low, high = np.minimum(parts.min(axis=2), 0), np.maximum(parts.max(axis=2), 0)
        scale = (high - low) / most
        zero = None
    scale = scale.astype(scale_type).astype(np.float32)
    if zero is None:
        zero = np.clip(np.rint(-low / scale), 0, most).astype(np.int64)
    codes = np.clip(np.rint(parts / scale[..., None]) + zero[..., None], 0, most).astype(np.int64)
    return codes.reshape(weight.shape), scale, zero


def numbers(codes, scale, zero, group):
    parts = codes.reshape(codes.shape[0], -1, group).astype(np.float32)
    return ((parts - zero[..., None].astype(np.float32)) * scale[..., None].astype(np.float32)).reshape(codes.shape)


def bits_in_words(codes, bits):
    """Rows of codes one after the other in words of 32 bits, from the lowest bit on: [rows, columns * bits / 32]."""
    every_bit = (codes[..., None] >> np.arange(bits)) & 1
    every_bit = every_bit.reshape(codes.shape[0], -1, 32).astype(np.uint64)
    return (every_bit << np.arange(32, dtype=np.uint64)).sum(axis=2).astype(np.uint32).view(np.int32)


def half(x):
    return torch.from_numpy(np.ascontiguousarray(x)).to(torch.float16)


def tensor(x):
    return torch.from_numpy(np.ascontiguousarray(x))


def gptq(bits, is_symmetric, order=None, version=1, group=32, dtype=torch.float16):
    def store(weight):
        n, k = weight.shape
        group_of = np.arange(k) // group
        if order is not None:
            ranks = np.random.default_rng(order).permutation(k)
            group_of = ranks // group
        by_group = np.argsort(group_of, kind="stable")
        codes, scale, zero = integers(weight[:, by_group], bits, group, is_symmetric)
        meant = np.empty_like(weight)
        meant[:, by_group] = numbers(codes, scale, zero, group)
        stored = np.empty_like(codes)
        stored[:, by_group] = codes
        zeros = (zero - (1 if version == 1 else 0)) & (2 ** bits - 1)
        return {"qweight": tensor(bits_in_words(stored, bits).T), "qzeros": tensor(bits_in_words(zeros.T, bits)),
                "scales": half(scale.T), "g_idx": tensor(group_of.astype(np.int32))}, meant
    config = {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": is_symmetric, "desc_act": order is not None,
              "damp_percent": 0.01, "static_groups": False, "true_sequential": True, "checkpoint_format": "gptq" if version == 1 else "gptq_v2"}
    return store, config, dtype


def awq():
    def packed(codes):
        order = [0, 2, 4, 6, 1, 3, 5, 7]
        columns = codes.reshape(codes.shape[0], -1, 8)[:, :, order].astype(np.uint32)
        return (columns << np.arange(0, 32, 4, dtype=np.uint32)).sum(axis=2, dtype=np.uint32).view(np.int32)

    def store(weight):
        codes, scale, zero = integers(weight, 4, 32, False)
        return {"qweight": tensor(packed(codes.T)), "qzeros": tensor(packed(zero.T)), "scales": half(scale.T)}, numbers(codes, scale, zero, 32)
    return store, {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm",
                   "modules_to_not_convert": None}, torch.float16


def awq_by_library(version):
    """By AutoAWQ's own packing (0.2.7.post3), which is loaded without the rest of it, that needs a GPU."""
    package = pathlib.Path(importlib.util.find_spec("awq").origin).parent
    found = importlib.util.spec_from_file_location(version, package / "modules" / "linear" / f"{version}.py")
    library = importlib.util.module_from_spec(found)
    sys.modules["awq.utils.module"] = types.SimpleNamespace(try_import=lambda name: (None, "no kernels here"))
    found.loader.exec_module(library)
    pack = library.WQLinear_GEMVFast if version == "gemv_fast" else library.WQLinear_GEMV

    def store(weight):
        codes, scale, zero = integers(weight, 4, 32, False)
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight.data = torch.from_numpy(numbers(codes, scale, zero, 32)).clone()
        packed = pack.from_linear(layer, 4, 32, scales=half(scale), zeros=torch.from_numpy(zero.astype(np.float32)))
        offset = -scale * zero
        if version == "gemv_fast":
            offset = offset.astype(np.float16).astype(np.float32)
        meant = groups_of(codes, 32) * scale[..., None] + offset[..., None]
        return dict(packed.state_dict()), meant.reshape(weight.shape).astype(np.float32)
    return store, {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": version,
                   "modules_to_not_convert": None}, torch.float16, {"shape": {"intermediate_size": 128, "num_hidden_layers": 1}}


def compressed(bits, is_symmetric, group):
    """By the library itself."""
    from compressed_tensors.compressors import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    args = QuantizationArgs(num_bits=bits, type="int", symmetric=is_symmetric, strategy="group" if group else "channel", group_size=group)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)

    def store(weight):
        size = group or weight.shape[1]
        _, scale, zero = integers(weight, bits, size, is_symmetric)
        state = {"weight": torch.from_numpy(weight), "weight_scale": torch.from_numpy(scale).to(torch.bfloat16)}
        if not is_symmetric:
            state["weight_zero_point"] = torch.from_numpy(zero - 2 ** (bits - 1)).to(torch.int8)
        stored = PackedQuantizationCompressor.compress(state, scheme)
        exact = dict(stored, weight_scale=stored["weight_scale"].float())
        meant = PackedQuantizationCompressor.decompress(exact, scheme)["weight"].float().numpy()
        return {k: v.contiguous() for k, v in stored.items()}, meant
    config = {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed", "ignore": ["lm_head"],
              "kv_cache_scheme": None, "config_groups": {"group_0": {
                  "targets": ["Linear"], "input_activations": None, "output_activations": None,
                  "weights": {"num_bits": bits, "type": "int", "symmetric": is_symmetric, "group_size": group,
                              "strategy": "group" if group else "channel", "dynamic": False, "observer": "minmax", "actorder": None}}}}
    return store, config, torch.bfloat16


def int8_rows():
    def store(weight):
        scale = (np.abs(weight).max(axis=1, keepdims=True) / 127).astype(np.float32)
        codes = np.clip(np.rint(weight / scale), -128, 127).astype(np.int8)
        return {"weight": tensor(codes), "weight_scale": tensor(scale)}, codes.astype(np.float32) * scale
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
    config = {"quant_method": "compressed-tensors", "format": "int-quantized", "ignore": ["lm_head"], "config_groups": {"group_0": {
        "targets": ["Linear"], "weights": weights,
        "input_activations": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}}}}
    return store, config, torch.bfloat16


def sparse24(quantised):
    """Two of four neighbours stay, the larger ones: their values, and a bit for each place, the first in the lowest (compressed-tensors
    0.9.4, sparse-24-bitmask)."""
    def store(weight):
        places = np.zeros(weight.reshape(-1, 4).shape, dtype=bool)
        np.put_along_axis(places, np.argsort(-np.abs(weight.reshape(-1, 4)), axis=1, kind="stable")[:, :2], True, axis=1)
        places = places.reshape(weight.shape)
        sparse = np.where(places, weight, 0).astype(np.float32)
        parts = {"bitmask": tensor(np.packbits(places, axis=1, bitorder="little")),
                 "shape": tensor(np.array(weight.shape, dtype=np.int64).reshape(-1, 1))}
        if quantised:
            scale = (np.abs(sparse).max(axis=1, keepdims=True) / 448).astype(np.float32)
            codes, values = e4m3(sparse, scale)
            parts |= {"compressed": codes[torch.from_numpy(places)].reshape(weight.shape[0], -1), "weight_scale": tensor(scale)}
        else:
            codes = torch.from_numpy(sparse).to(torch.bfloat16)
            values = codes.float().numpy()
            parts["compressed"] = codes[torch.from_numpy(places)].reshape(weight.shape[0], -1)
        return parts, values
    config = {"quant_method": "compressed-tensors", "format": "float-quantized" if quantised else "dense", "ignore": ["lm_head"], "sparsity_config":
              {"format": "sparse-24-bitmask", "global_sparsity": 0.5, "ignore": ["lm_head"], "sparsity_structure": "2:4", "targets": ["Linear"]}}
    if quantised:
        weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel", "dynamic": False}
        config["config_groups"] = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return store, config, torch.bfloat16


def hqq(bits, axis):
    """What the library of that name (0.2.8) writes, and reads back."""
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
    config = BaseQuantizeConfig(nbits=bits, group_size=32, axis=axis)

    def store(weight):
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight.data = torch.from_numpy(weight).clone()
        rounded = HQQLinear(layer, config, compute_dtype=torch.float32, device="cpu")
        # Groups along outputs are read as plain numbers of the model's type.
        meant = rounded.dequantize().to(torch.float32 if axis == 1 else torch.bfloat16)
        return rounded.state_dict(), meant.float().numpy()
    return store, {"quant_method": "hqq", "quant_config": config, "skip_modules": ["lm_head"]}, torch.bfloat16


def e4m3(weight, scale):
    codes = torch.from_numpy(weight / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
    return codes, codes.float().numpy() * scale


def fp8_blocks():
    block = 24

    def store(weight):
        n, k = weight.shape
        rows, columns = -(-n // block), -(-k // block)
        scale = np.zeros((rows, columns), dtype=np.float32)
        for r in range(rows):
            for c in range(columns):
                scale[r, c] = np.abs(weight[r * block:(r + 1) * block, c * block:(c + 1) * block]).max() / 448
        wide = np.repeat(np.repeat(scale, block, axis=0), block, axis=1)[:n, :k]
        codes, meant = e4m3(weight, wide)
        return {"weight": codes, "weight_scale_inv": tensor(scale)}, meant
    return store, {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [block, block],
                   "modules_to_not_convert": None}, torch.bfloat16


def fp8_fp4():
    """DeepSeek V4's: E4M3 by block, here the smaller matrices, and E2M1 by 32 columns, both with powers of two."""
    block = 16
    levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)

    def powers(most):
        return np.exp2(np.ceil(np.log2(most))).astype(np.float32)

    def store(weight):
        n, k = weight.shape
        if n == 32:
            scale = powers(np.abs(weight.reshape(n // block, block, k // block, block)).max(axis=(1, 3)) / 448)
            codes, meant = e4m3(weight, np.repeat(np.repeat(scale, block, axis=0), block, axis=1))
            return {"weight": codes, "scale": tensor(scale).to(torch.float8_e8m0fnu)}, meant
        parts = groups_of(weight, 32)
        scale = powers(np.abs(parts).max(axis=2) / 6)
        codes = np.abs(parts[..., None] / scale[..., None, None] - levels).argmin(axis=3).astype(np.uint8)
        pairs = codes.reshape(n, k // 2, 2)
        return {"weight": tensor((pairs[..., 0] | pairs[..., 1] << 4).view(np.int8)), "scale": tensor(scale).to(torch.float8_e8m0fnu)}, \
            (levels[codes] * scale[..., None]).reshape(n, k)
    return store, {"quant_method": "fp8", "fmt": "e4m3", "scale_fmt": "ue8m0", "activation_scheme": "dynamic",
                   "weight_block_size": [block, block]}, torch.bfloat16


def fp8_rows():
    def store(weight):
        scale = torch.from_numpy(np.abs(weight).max(axis=1, keepdims=True) / 448).to(torch.bfloat16)
        codes, meant = e4m3(weight, scale.float().numpy())
        return {"weight": codes, "weight_scale": scale}, meant
    weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel", "dynamic": False}
    return store, {"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"], "config_groups": {"group_0": {
        "targets": ["Linear"], "weights": weights,
        "input_activations": {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}}}}, torch.bfloat16


def fp8_tensor():
    def store(weight):
        scale = np.full((1,), np.abs(weight).max() / 448, dtype=np.float32)
        codes, meant = e4m3(weight, scale)
        return {"weight": codes, "weight_scale": tensor(scale), "input_scale": torch.tensor([0.5])}, meant
    return store, {"quant_method": "fp8", "activation_scheme": "static"}, torch.bfloat16


NF4 = np.array([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
                -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
                0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0], dtype=np.float32)


def nf4(is_nested):
    block = 64

    def store(weight):
        flat = weight.reshape(-1, block)
        absmax = np.abs(flat).max(axis=1).astype(np.float32)
        more = {}
        if is_nested:
            offset = float(absmax.mean())
            outer = 16
            levels = np.linspace(-1, 1, 256).astype(np.float32)
            part = (absmax - np.float32(offset)).reshape(-1, outer)
            nested = np.abs(part).max(axis=1).astype(np.float32)
            codes8 = np.abs(part[..., None] / nested[:, None, None] - levels).argmin(axis=2).astype(np.uint8)
            more = {"weight.nested_absmax": tensor(nested), "weight.nested_quant_map": tensor(levels)}
            scale = (levels[codes8] * nested[:, None]).reshape(-1) + np.float32(offset)
            stored = tensor(codes8.reshape(-1))
        else:
            scale, stored = absmax, tensor(absmax)
        codes = np.abs(flat[..., None] / scale[:, None, None] - NF4).argmin(axis=2)
        pairs = codes.reshape(-1, 2).astype(np.uint8)
        state = {"quant_type": "nf4", "blocksize": block, "dtype": "bfloat16", "shape": list(weight.shape)}
        if is_nested:
            state |= {"nested_blocksize": 16, "nested_dtype": "float32", "nested_offset": offset}
        text = np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)
        return {"weight": tensor((pairs[:, 0] << 4 | pairs[:, 1])[:, None]), "weight.absmax": stored, "weight.quant_map": tensor(NF4),
                "weight.quant_state.bitsandbytes__nf4": tensor(text.copy()), **more}, (NF4[codes] * scale[:, None]).reshape(weight.shape)
    return store, {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4",
                   "bnb_4bit_use_double_quant": is_nested, "bnb_4bit_compute_dtype": "bfloat16", "_load_in_4bit": True}, torch.bfloat16


def llm_int8():
    def store(weight):
        most = np.abs(weight).max(axis=1).astype(np.float32)
        codes = np.rint(weight / most[:, None] * 127).astype(np.int8)
        return {"weight": tensor(codes), "SCB": tensor(most), "weight_format": torch.tensor(0, dtype=torch.uint8)}, \
            codes.astype(np.float32) * (most / np.float32(127))[:, None]
    return store, {"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": True, "llm_int8_threshold": 6.0}, torch.float16


def gpt_oss(name):
    """The experts of a gpt-oss in MXFP4: blocks of two E2M1 a byte, and powers of two."""
    levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)
    config = transformers.GptOssConfig(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, num_local_experts=3, num_experts_per_tok=2, sliding_window=16, max_position_embeddings=256,
        layer_types=["sliding_attention", "full_attention"], rope_parameters=rope(150000.0), attn_implementation="eager", eos_token_id=2, pad_token_id=0)
    folder = pathlib.Path(ROOT) / name
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(1, 200):
        model = transformers.GptOssForCausalLM(config).eval()
        randomise(model, seed)
        tensors = {}
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if not parameter_name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                    parameter.copy_(parameter.to(torch.bfloat16))
                    tensors[parameter_name] = parameter.to(torch.bfloat16).clone()
                    continue
                turned = parameter.numpy().swapaxes(1, 2)  # [experts, out, in]
                parts = turned.reshape(*turned.shape[:2], -1, 32)
                power = np.floor(np.log2(np.abs(parts).max(axis=3))) - 2
                scaled = parts / 2.0 ** power[..., None]
                codes = np.abs(scaled[..., None] - levels).argmin(axis=4).astype(np.uint8)
                tensors[parameter_name + "_blocks"] = tensor(codes[..., 0::2] | codes[..., 1::2] << 4)
                tensors[parameter_name + "_scales"] = tensor((power + 127).astype(np.uint8))
                meant = (levels[codes] * (2.0 ** power[..., None]).astype(np.float32)).reshape(turned.shape).swapaxes(1, 2)
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(meant)))
        cases = make_cases(model, [24], [16], None)
        if cases is not None:
            break
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    written = config.to_dict()
    written |= {"architectures": ["GptOssForCausalLM"], "dtype": "bfloat16",
                "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": [
                    "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}}
    write(folder, written, seed, cases, name)


def nvfp4(by_library):
    """E2M1 with E4M3 scales of 16 and one number for all: by compressed-tensors itself, or as ModelOpt names and uses it."""
    from compressed_tensors.compressors import NVFP4PackedCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    args = QuantizationArgs(num_bits=4, type="float", symmetric=True, strategy="tensor_group", group_size=16,
                            scale_dtype=torch.float8_e4m3fn, zp_dtype=torch.float8_e4m3fn)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)

    def store(weight):
        w = torch.from_numpy(weight)
        whole = 448 * 6 / w.abs().max()
        scale = (w.reshape(w.shape[0], -1, 16).abs().amax(2) / 6 * whole).to(torch.float8_e4m3fn)
        stored = NVFP4PackedCompressor.compress(
            {"weight": w, "weight_scale": scale.float(), "weight_global_scale": whole.reshape(1).float()}, scheme)
        exact = NVFP4PackedCompressor.decompress(dict(stored), scheme)["weight"].float().numpy()
        packed = stored["weight_packed"].numpy()
        levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)
        codes = np.stack([packed & 15, packed >> 4], axis=2).reshape(weight.shape)
        one = np.float32(1) / whole.numpy().astype(np.float32)
        spread = np.repeat(stored["weight_scale"].float().numpy() * one, 16, axis=1)
        meant = levels[codes] * spread
        assert np.abs(meant - exact).max() < 2e-2 * np.abs(exact).max()  # which it decompresses in bf16
        if by_library:
            return {k: v.contiguous() for k, v in stored.items() if k.startswith("weight_")}, meant
        return {"weight": stored["weight_packed"], "weight_scale": stored["weight_scale"],
                "weight_scale_2": torch.tensor(float(one)), "input_scale": torch.tensor(0.5)}, meant
    if not by_library:
        return store, {"quant_method": "modelopt", "quant_algo": "NVFP4", "producer": {"name": "modelopt"}, "ignore": ["lm_head"]}, torch.bfloat16
    return store, {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized", "ignore": ["lm_head"], "config_groups": {"group_0": {
        "targets": ["Linear"], "input_activations": None,
        "weights": {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group", "group_size": 16}}}}, torch.bfloat16


def deepspeed_fp6(group=32):
    """Plain numbers, which stand for what torchao (0.18) rounds them to, its own E3M2: DeepSpeed's kernels need a GPU."""
    from torchao.prototype import custom_fp_utils

    def store(weight):
        stored = torch.from_numpy(weight).to(torch.bfloat16)
        parts = stored.float().reshape(len(weight), -1, group)
        scale = parts.abs().amax(dim=2, keepdim=True) / 28
        codes = custom_fp_utils._f32_to_floatx_unpacked(parts / scale, 3, 2)
        meant = custom_fp_utils._floatx_unpacked_to_f32(codes, 3, 2) * scale
        return {"weight": stored}, meant.reshape(weight.shape).numpy()
    return store, {"quant_method": "deepspeedfp", "bits": 6, "group_size": group}, torch.bfloat16


def mlx_codes(weight, bits, group=32):
    """What the library writes of a matrix, and the numbers that it reads there."""
    import mlx.core as mx
    words, scales, biases = mx.quantize(mx.array(weight).astype(mx.bfloat16), group, bits)
    meant = mx.dequantize(words, scales.astype(mx.float32), biases.astype(mx.float32), group, bits)
    as_bf16 = [tensor(np.array(x.astype(mx.float32))).to(torch.bfloat16) for x in (scales, biases)]
    return {"weight": tensor(np.array(words)), "scales": as_bf16[0], "biases": as_bf16[1]}, np.array(meant)


def mlx_floats(mode, group, bits):
    def store(weight):
        import mlx.core as mx
        words, scales = mx.quantize(mx.array(weight), group, bits, mode=mode)
        meant = mx.dequantize(words, scales, None, group, bits, mode=mode, dtype=mx.float32)
        return {"weight": tensor(np.array(words)), "scales": tensor(np.array(scales))}, np.array(meant)
    return store, {"group_size": group, "bits": bits, "mode": mode, "model.embed_tokens": False}, torch.bfloat16, {"field": "quantization"}


MLX_BITS = {"k_proj": 3, "v_proj": 5, "o_proj": 2, "down_proj": 6, "embed_tokens": 8}


def mlx():
    def store(weight, name):
        return mlx_codes(weight, MLX_BITS.get(name.split(".")[-2], 4))
    own = {f"model.layers.{l}.{part}": {"group_size": 32, "bits": MLX_BITS[part.split(".")[1]]}
           for l in range(2) for part in ("self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj")}
    return store, {"group_size": 32, "bits": 4, "model.embed_tokens": {"group_size": 32, "bits": 8}, **own}, torch.bfloat16, \
        {"by_name": True, "also": "embed_tokens.weight", "field": "quantization"}


def aqlm(books, bits):
    def store(weight):
        n, k = weight.shape
        random = np.random.default_rng(n + k)
        codebooks = (random.standard_normal((books, 2 ** bits, 1, 8)) * weight.std() / books ** 0.5).astype(np.float16)
        scales = (1 + 0.2 * random.standard_normal((n, 1, 1, 1))).astype(np.float16)
        codes = random.integers(0, 2 ** bits, (n, k // 8, books))
        meant = sum(codebooks[b].astype(np.float32)[codes[:, :, b], 0] for b in range(books)) * scales.astype(np.float32)[:, :, 0]
        whole = codes.astype(np.uint16 if bits > 8 else np.uint8).view(np.int16 if bits > 8 else np.int8)
        return {"codes": tensor(whole), "codebooks": tensor(codebooks), "scales": tensor(scales)}, \
            meant.reshape(n, k).astype(np.float16).astype(np.float32)
    return store, {"quant_method": "aqlm", "in_group_size": 8, "out_group_size": 1, "num_codebooks": books, "nbits_per_codebook": bits,
                   "linear_weights_not_to_quantize": ["lm_head.weight"]}, torch.float16, {"shape": {"num_hidden_layers": 1}}


def squeezellm(bits, is_sparse):
    """A table of numbers for each output; the outliers are less what the table has for zero, and one output is whole."""
    def store(weight):
        n, k = weight.shape
        outliers = np.zeros(weight.shape, dtype=bool)
        if is_sparse:
            outliers = np.abs(weight) > np.quantile(np.abs(weight), 0.97)
        dense = np.where(outliers, 0, weight)
        table = np.quantile(dense, (np.arange(2 ** bits) + 0.5) / 2 ** bits, axis=1).T.astype(np.float32)
        codes = np.abs(dense[..., None] - table[:, None]).argmin(axis=2)
        meant = np.take_along_axis(table, codes, axis=1)
        stored = {"qweight": tensor(bits_in_words(codes, bits).T), "lookup_table": tensor(table)}
        if is_sparse:
            more = np.where(outliers, weight - meant, 0).astype(np.float32)
            whole = int(outliers.sum(axis=1).argmax())
            sparse = more.copy()
            sparse[whole] = 0
            rows, columns = np.nonzero(sparse)
            stored |= {"rows": tensor(np.searchsorted(rows, np.arange(n + 1)).astype(np.int32)), "cols": tensor(columns.astype(np.int32)),
                       "vals": tensor(sparse[rows, columns]), "full_rows": tensor(more[whole][:, None]),
                       "full_row_indices": tensor(np.array([whole], dtype=np.int32))}
            meant = meant + more
        return stored, meant.astype(np.float16).astype(np.float32)
    return store, {"quant_method": "squeezellm", "wbits": bits}, torch.float16


def any_precision(bits, seed_bits, read_bits):
    """Planes of one bit, bytes as warps read them; tables of other widths stand beside and are not read."""
    def place(j, row):
        begin = j // 128 * 128
        threads = min(128, row - begin) // 4
        return begin + (j - begin) % threads * 4 + ((j - begin) // threads ^ 3)

    def store(weight):
        n, k = weight.shape
        table = np.quantile(weight, (np.arange(2 ** bits) + 0.5) / 2 ** bits, axis=1).T.astype(np.float16)
        codes = np.abs(weight[..., None] - table[:, None]).argmin(axis=2)
        planes = np.stack([np.packbits((codes >> (bits - 1 - b)) & 1, axis=1) for b in range(bits)])
        lying = np.empty_like(planes)
        for j in range(k // 8):
            lying[:, :, place(j, k // 8)] = planes[:, :, j]
        stored = {"qweight": tensor(lying.view(np.int32))}
        for width in range(seed_bits, bits + 1):
            stored[f"lut{width}"] = tensor(np.zeros((n, 2 ** width), dtype=np.float16))
        codes >>= bits - read_bits
        table = table.reshape(n, 2 ** read_bits, -1).mean(axis=2).astype(np.float16)
        stored[f"lut{read_bits}"] = tensor(table)
        return stored, np.take_along_axis(table, codes, axis=1).astype(np.float32)
    own = {} if read_bits == bits else {"precision": read_bits}
    return store, {"seed_precision": seed_bits, "parent_precision": bits, **own, "arch_config": {"module_names": [], "model_name": "model",
                   "layers_name": "layers"}}, torch.float16, {"field": "anyprec"}


def qserve(group):
    """Codes in the order of the kernel's tiles of 32 by 32; by group, codes of 8 bits are made of them first."""
    def tiles(codes):
        n, k = codes.shape
        parts = codes.reshape(n // 32, 2, 2, 8, k // 32, 2, 4, 4).transpose(0, 4, 3, 6, 5, 2, 7, 1)
        return (parts[..., 0] | parts[..., 1] << 4).astype(np.uint8).view(np.int8).reshape(n, k // 2)

    def by_threads(values):  # [n, groups]
        return tensor(np.ascontiguousarray(values.T.reshape(-1, values.shape[0] // 32, 4, 8).swapaxes(2, 3).reshape(values.T.shape).astype(np.int8)))

    def store(weight):
        n, k = weight.shape
        if group is None:
            codes, scale, zero = integers(weight, 4, k, False)
            szeros = (zero.astype(np.float16) * scale.astype(np.float16)).astype(np.float16)
            meant = codes * scale - szeros.astype(np.float32)
            return {"qweight": tensor(tiles(codes)), "s1_scales": half(scale[:, 0]), "s1_szeros": half(szeros[:, 0])}, meant.astype(np.float32)
        rows = (np.abs(weight).max(axis=1, keepdims=True) / 119).astype(np.float16).astype(np.float32)
        whole = groups_of(np.rint(weight / rows), group)
        low, high = np.minimum(whole.min(axis=2), 0), np.maximum(whole.max(axis=2), 0)
        scale = np.maximum(np.ceil((high - low) / 15), 1)
        zero = np.clip(np.rint(-low / scale), 0, 15)
        scale = np.where(zero * scale > 128, np.floor(128 / zero), scale)
        codes = np.clip(np.rint(whole / scale[..., None]) + zero[..., None], 0, 15).astype(np.int64)
        meant = ((codes - zero[..., None]) * scale[..., None]).reshape(n, k) * rows
        return {"qweight": tensor(tiles(codes.reshape(n, k))), "s1_scales": half(rows[:, 0]), "s2_scales": by_threads(scale),
                "s2_zeros": by_threads(-zero * scale)}, meant.astype(np.float32)
    return store, {"quant_method": "qserve", "w_bit": 4, "group_size": group or -1}, torch.float16


def auto_round():
    store, config, dtype = gptq(4, True)
    return store, {"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "bits": 4, "group_size": 32, "sym": True,
                   "data_type": "int", "autoround_version": "0.6.0", "iters": 200, "low_gpu_mem_usage": True}, dtype


def fbgemm_fp8():
    def store(weight):
        scale = (np.abs(weight).max(axis=1, keepdims=True) / 448).astype(np.float32)
        codes, meant = e4m3(weight, scale)
        return {"weight": codes, "weight_scale": tensor(scale), "input_scale_ub": torch.tensor([1200.0])}, meant
    return store, {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"]}, torch.bfloat16


def smoothquant(name):
    """An OPT as SmoothQuant's exporter (smoothquant/opt.py) and torch-int's modules store it, under input and output scales that are
    not stored; the reference has the matrices, biases and norms before all scales were made one."""
    opt = dict(_remove_final_layer_norm=False, activation_dropout=0.0, activation_function="relu", attention_dropout=0.0, bos_token_id=2,
               do_layer_norm_before=True, dropout=0.1, eos_token_id=2, ffn_dim=72, hidden_size=32, init_std=0.02, layerdrop=0.0,
               max_position_embeddings=160, num_attention_heads=4, num_hidden_layers=2, pad_token_id=1, vocab_size=VOCAB, word_embed_proj_dim=32)
    scaling = np.float32((opt["hidden_size"] // opt["num_attention_heads"]) ** -0.5)
    folder = pathlib.Path(ROOT) / name
    folder.mkdir(parents=True, exist_ok=True)

    def by_one_scale(x):
        scale = np.float32(np.abs(x).max() / 127)
        return np.rint(x / scale).astype(np.int8), scale

    def number(x):
        return torch.tensor(float(x), dtype=torch.float32)

    for seed in range(1, 200):
        model = transformers.OPTForCausalLM(transformers.OPTConfig(**opt, attn_implementation="eager")).eval()
        randomise(model, seed)
        random = np.random.default_rng(seed)
        tensors = {}
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.to(torch.float16))
            for n, layer in enumerate(model.model.decoder.layers):
                at = f"model.decoder.layers.{n}."
                attention = layer.self_attn
                into, query, key, value, out, fc1, fc2 = np.exp(random.uniform(-5, -3, 7)).astype(np.float32)
                for norm, unit in ((layer.self_attn_layer_norm, into), (layer.final_layer_norm, fc1)):
                    norm_name = "self_attn_layer_norm" if unit == into else "final_layer_norm"
                    tensors[f"{at}{norm_name}.weight"] = norm.weight / float(unit)
                    tensors[f"{at}{norm_name}.bias"] = norm.bias / float(unit)
                query *= scaling
                for module, at_module, read, written, times in (
                        (attention.q_proj, "self_attn.q_proj", into, query, scaling), (attention.k_proj, "self_attn.k_proj", into, key, 1),
                        (attention.v_proj, "self_attn.v_proj", into, value, 1), (attention.out_proj, "self_attn.out_proj", out, None, 1),
                        (layer.fc1, "fc1", fc1, fc2, 1), (layer.fc2, "fc2", fc2, None, 1)):
                    codes, scale = by_one_scale(module.weight.numpy() * times)
                    module.weight.copy_(torch.from_numpy(codes.astype(np.float32) * scale / np.float32(times)))
                    tensors[f"{at}{at_module}.weight"] = tensor(codes)
                    tensors[f"{at}{at_module}.a"] = number(read * scale / (1 if written is None else written))
                    if written is None:
                        tensors[f"{at}{at_module}.bias"] = module.bias[None].clone()
                        continue
                    codes, scale = by_one_scale(module.bias.numpy() * times)
                    module.bias.copy_(torch.from_numpy(codes.astype(np.float32) * scale / np.float32(times)))
                    tensors[f"{at}{at_module}.bias"] = tensor(codes[None])
                    tensors[f"{at}{at_module}.b"] = number(scale / written)
                tensors[f"{at}self_attn.qk_bmm.a"] = number(query * key)
                tensors[f"{at}self_attn.pv_bmm.a"] = number(value / 127 / out)
            for parameter_name, parameter in model.named_parameters():
                if ".layers." not in parameter_name and parameter_name != "lm_head.weight":
                    tensors[parameter_name] = parameter.to(torch.float16).clone()
        cases = make_cases(model, [10, 48], [], None)
        if cases is not None:
            break
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    written = {**opt, "architectures": ["Int8OPTForCausalLM"], "model_type": "opt", "prefix": "</s>", "torch_dtype": "float16",
               "transformers_version": "4.25.1", "use_cache": True, "quantization_config": {"quant_method": "smoothquant"}}
    write(folder, written, seed, cases, name)


QUIP_CODEBOOKS = {2: ("E8P12", 7), 3: ("E8P12RVQ3B", 18), 4: ("E8P12RVQ4B", 17)}


def quip_library(bits):
    """The rounding, packing and transforms of a clone of Cornell-RelaxML/quip-sharp, in the folder that QUIP_SHARP names, without its kernels."""
    root = pathlib.Path(os.environ["QUIP_SHARP"])
    nothing = types.SimpleNamespace(matmul_hadU_cuda=None, matmul_hadUt_cuda=None)
    sys.modules |= {"quiptools_cuda": nothing, "lib": nothing, "lib.utils": nothing, "lib.utils.matmul_had": nothing}
    found = importlib.util.spec_from_file_location("e8p", root / "lib" / "codebook" / ("latticee8_padded12" + ("" if bits == 2 else f"_rvq{bits}bit") + ".py"))
    e8p = importlib.util.module_from_spec(found)
    found.loader.exec_module(e8p)
    tree = ast.parse((root / "lib" / "utils" / "matmul_had.py").read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.decorator_list]
    hadamard = {"torch": torch, "utils": types.SimpleNamespace(clean=lambda: None)}
    exec(compile(tree, "matmul_had.py", "exec"), hadamard)
    return getattr(e8p, f"{QUIP_CODEBOOKS[bits][0]}_codebook")(), hadamard["matmul_hadU"], hadamard["matmul_hadUt"]


def quip_sharp(name, bits, **more):
    codebook, forth, back = quip_library(bits)
    random = torch.Generator().manual_seed(7)

    def store(weights):
        scales = torch.stack([w.square().mean().sqrt() for w in weights])
        weight = torch.cat([w / s for w, s in zip(weights, scales)])
        n, k = weight.shape
        su, sv = (torch.randn(size, generator=random).sign() for size in (k, n))
        inside = back(back(weight.T * sv).T * su)
        whole = inside.square().mean().sqrt() / codebook.opt_scale
        points, codes = codebook.quantize((inside / whole).reshape(-1, 8), **more)
        sv = (sv * (1 + 0.2 * torch.rand(n, generator=random))).half()
        stored = {"Qidxs": codebook.maybe_pack_idxs(codes.reshape(n, k // 8).long()), "SU": su.half(), "SV": sv, "Wscale": whole,
                  "codebook_id": torch.tensor(QUIP_CODEBOOKS[bits][1])}
        meant = ((forth((forth(points.reshape(n, k)) * su).T) * sv.float()).T * whole).contiguous()
        if len(weights) > 1:
            stored["fuse_scales"] = scales
            meant = meant * torch.repeat_interleave(scales, torch.tensor([len(w) for w in weights]))[:, None]
        return stored, torch.split(meant.half().float(), [len(w) for w in weights])

    config = transformers.LlamaConfig(**{**SHAPE, "intermediate_size": 192, "num_hidden_layers": 1}, rope_parameters=rope(), attn_implementation="eager")
    folder = pathlib.Path(ROOT) / name
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(1, 200):
        model = transformers.LlamaForCausalLM(config).eval()
        randomise(model, seed)
        tensors = {}
        with torch.no_grad():
            for n, layer in enumerate(model.model.layers):
                attention, mlp = layer.self_attn, layer.mlp
                for module, parts in (("self_attn.qkv_proj", (attention.q_proj, attention.k_proj, attention.v_proj)), ("self_attn.o_proj", (attention.o_proj,)),
                                      ("mlp.upgate_proj", (mlp.up_proj, mlp.gate_proj)), ("mlp.down_proj", (mlp.down_proj,))):
                    stored, meant = store([part.weight.detach().clone() for part in parts])
                    tensors |= {f"model.layers.{n}.{module}.{ending}": value.clone().contiguous() for ending, value in stored.items()}
                    for part, numbers_of_part in zip(parts, meant):
                        part.weight.copy_(numbers_of_part)
            for parameter_name, parameter in model.named_parameters():
                if not is_quantised(parameter_name):
                    parameter.copy_(parameter.half())
                    tensors[parameter_name] = parameter.half().clone()
        cases = make_cases(model, [24], [], None)
        if cases is not None:
            break
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    written = config.to_dict()
    written |= {"architectures": ["LlamaForCausalLM"], "dtype": "float16", "quip_params": {
        "lora_rank": 0, "rescale_WH": False, "codebook": QUIP_CODEBOOKS[bits][0], "codebook_version": codebook.version, "codesz": 8, "idx_dtype": "torch.int64",
        "packsz": codebook.packsz, "resid_scale_override": -1, "model_version": 1, **more}}
    write(folder, written, seed, cases, name)


def mlx_experts(name):
    """The experts of a Qwen 3 as mlx-lm stacks them."""
    config = transformers.Qwen3MoeConfig(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=64, moe_intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, num_experts=4, num_experts_per_tok=2, norm_topk_prob=True, max_position_embeddings=256,
        mlp_only_layers=[], tie_word_embeddings=False, rope_parameters=rope(1000000.0), attn_implementation="eager", eos_token_id=2)
    folder = pathlib.Path(ROOT) / name
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(1, 200):
        model = transformers.Qwen3MoeForCausalLM(config).eval()
        randomise(model, seed)
        tensors = {}
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                bits = 8 if parameter_name.endswith(("mlp.gate.weight", "lm_head.weight")) else 4
                module = parameter_name.removesuffix(".weight")
                if parameter.dim() == 1:
                    parameter.copy_(parameter.to(torch.bfloat16))
                    tensors[parameter_name] = parameter.to(torch.bfloat16).clone()
                    continue
                stored, meant = mlx_codes(parameter.numpy(), bits)
                parameter.copy_(torch.from_numpy(meant))
                if module.endswith("experts.gate_up_proj"):
                    for half_name, rows in (("gate_proj", slice(0, 32)), ("up_proj", slice(32, 64))):
                        to = module.replace("experts.gate_up_proj", f"switch_mlp.{half_name}")
                        tensors |= {f"{to}.{part}": value[:, rows].clone() for part, value in stored.items()}
                    continue
                module = module.replace("experts.down_proj", "switch_mlp.down_proj")
                tensors |= {f"{module}.{part}": value.clone() for part, value in stored.items()}
        cases = make_cases(model, [24], [], None)
        if cases is not None:
            break
    save_file(tensors, folder / "model.safetensors", metadata={"format": "mlx"})
    written = config.to_dict()
    quantisation = {"group_size": 32, "bits": 4, "mode": "affine", "lm_head": {"group_size": 32, "bits": 8}}
    quantisation |= {f"model.layers.{l}.mlp.gate": {"group_size": 32, "bits": 8} for l in range(2)}
    written |= {"architectures": ["Qwen3MoeForCausalLM"], "dtype": "bfloat16", "quantization": quantisation, "quantization_config": quantisation}
    write(folder, written, seed, cases, name)


FORMATS = {
    "quant-mlx": mlx,
    "quant-mlx-mxfp4": lambda: mlx_floats("mxfp4", 32, 4),
    "quant-mlx-nvfp4": lambda: mlx_floats("nvfp4", 16, 4),
    "quant-mlx-mxfp8": lambda: mlx_floats("mxfp8", 32, 8),
    "quant-aqlm-2x8": lambda: aqlm(2, 8),
    "quant-aqlm-1x9": lambda: aqlm(1, 9),
    "quant-squeezellm4": lambda: squeezellm(4, False),
    "quant-squeezellm3": lambda: squeezellm(3, True),
    "quant-any-precision": lambda: any_precision(4, 3, 4),
    "quant-any-precision3": lambda: any_precision(5, 3, 3),
    "quant-qserve": lambda: qserve(None),
    "quant-qserve-groups": lambda: qserve(32),
    "quant-auto-round": auto_round,
    "quant-fbgemm-fp8": fbgemm_fp8,
    "quant-gptq4": lambda: gptq(4, True),
    "quant-gptq4-zeros": lambda: gptq(4, False),
    "quant-gptq4-order": lambda: gptq(4, False, order=5, version=2, dtype=torch.float32),  # held as the numbers of its type
    "quant-gptq8": lambda: gptq(8, True),
    "quant-gptq3": lambda: gptq(3, False),
    "quant-gptq2": lambda: gptq(2, False, version=2, group=16),
    "quant-awq": awq,
    "quant-awq-gemv": lambda: awq_by_library("gemv"),
    "quant-awq-gemv-fast": lambda: awq_by_library("gemv_fast"),
    "quant-ct4": lambda: compressed(4, True, 32),
    "quant-ct4-zeros": lambda: compressed(4, False, 32),
    "quant-ct8": lambda: compressed(8, True, None),
    "quant-ct-nvfp4": lambda: nvfp4(True),
    "quant-modelopt-nvfp4": lambda: nvfp4(False),
    "quant-ct-int8": int8_rows,
    "quant-ct-sparse": lambda: sparse24(False),
    "quant-ct-sparse-fp8": lambda: sparse24(True),
    "quant-ct-fp8": fp8_rows,
    "quant-hqq4": lambda: hqq(4, 1),
    "quant-hqq3": lambda: hqq(3, 1),
    "quant-hqq4-axis0": lambda: hqq(4, 0),
    "quant-fp8-blocks": fp8_blocks,
    "quant-fp8": fp8_tensor,
    "quant-fp8-fp4": fp8_fp4,
    "quant-nf4": lambda: nf4(False),
    "quant-nf4-nested": lambda: nf4(True),
    "quant-bnb-int8": llm_int8,
    "quant-deepspeed-fp6": deepspeed_fp6,
}


def is_quantised(name):
    return name.endswith("_proj.weight")


def make(name):
    store, quantisation, dtype, *more = FORMATS[name]()
    more = more[0] if more else {}
    folder = pathlib.Path(ROOT) / name
    folder.mkdir(parents=True, exist_ok=True)
    config = transformers.LlamaConfig(**{**SHAPE, **more.get("shape", {})}, rope_parameters=rope(), attn_implementation="eager")
    for seed in range(1, 200):
        model = transformers.LlamaForCausalLM(config).eval()
        randomise(model, seed)
        tensors = {}
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if is_quantised(parameter_name) or parameter_name.endswith(more.get("also", "nothing")):
                    name_too = [parameter_name] if more.get("by_name") else []
                    stored, meant = store(parameter.float().numpy().astype(np.float32), *name_too)
                    module = parameter_name.removesuffix(".weight")
                    tensors |= {f"{module}.{part}": value.clone() for part, value in stored.items()}
                    parameter.copy_(torch.from_numpy(np.ascontiguousarray(meant)))
                else:
                    parameter.copy_(parameter.to(dtype))
                    tensors[parameter_name] = parameter.to(dtype).clone()
        cases = make_cases(model, [24], [], None)
        if cases is not None:
            break
    else:
        raise SystemExit(f"{name}: no seed keeps its margins")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    written = config.to_dict()
    for field in ("_name_or_path", "attn_implementation", "_attn_implementation"):
        written.pop(field, None)
    parameters = written.pop("rope_parameters")
    written |= {"architectures": ["LlamaForCausalLM"], "torch_dtype": str(dtype).removeprefix("torch."),
                "rope_theta": parameters["rope_theta"], more.get("field", "quantization_config"): quantisation}
    written.pop("dtype", None)
    write(folder, written, seed, cases, name)


def write(folder, config, seed, cases, name):
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    reference = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, float32, eager attention, numbers of the codes"
    golden = {"reference": reference, "seed": seed, "cases": cases}
    (folder / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n", encoding="utf-8")
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name}: seed {seed}, {size} bytes, smallest margin {min(min(c['margins']) for c in cases):.4f}", flush=True)


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    for name in FORMATS:
        if len(sys.argv) < 2 or name in sys.argv[1:]:
            make(name)
    if len(sys.argv) < 2 or "quant-mxfp4" in sys.argv[1:]:
        gpt_oss("quant-mxfp4")
    if len(sys.argv) < 2 or "opt-smoothquant" in sys.argv[1:]:
        smoothquant("opt-smoothquant")
    if len(sys.argv) < 2 or "quant-quip-sharp" in sys.argv[1:]:
        quip_sharp("quant-quip-sharp", 2)
    if len(sys.argv) < 2 or "quant-quip-sharp3" in sys.argv[1:]:
        quip_sharp("quant-quip-sharp3", 3)
    if len(sys.argv) < 2 or "quant-quip-sharp4" in sys.argv[1:]:
        quip_sharp("quant-quip-sharp4", 4, resid_scale_override=3.2)
    if len(sys.argv) < 2 or "quant-mlx-experts" in sys.argv[1:]:
        mlx_experts("quant-mlx-experts")


if __name__ == "__main__":
    main()
