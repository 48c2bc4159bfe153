"""Makes those of tests/fixtures/models that transformers does not know: linear attention in the layout of flash-linear-attention.

Run by hand, never by the tests:
    python3 -m venv VENV && VENV/bin/pip install torch==2.11.0 transformers==5.23.0 flash-linear-attention==0.6.0
    VENV/bin/python tests/golden/make_fla_golden.py [NAME...]
The package's models as they are; its kernels, which want a GPU, give way to its own definitions of what they compute (ops.*.naive and
the functions that end in _ref), and where it has none, to the sentence of its documentation in a line of torch.
"""

import torch
import torch.nn.functional as F
import transformers

import fla
import fla.layers.gla
import fla.layers.multiscale_retention
import fla.layers.rwkv7
import fla.models.rwkv7.modeling_rwkv7
import fla.modules.mlp
from fla.models import GLAConfig, GLAForCausalLM, RetNetConfig, RetNetForCausalLM, RWKV7Config, RWKV7ForCausalLM
from fla.modules.norm import fused_norm_gate, layernorm
from fla.modules.rotary.ops import RotaryEmbedding, rotary_embedding_ref
from fla.modules.token_shift import token_shift_ref
from fla.ops.generalized_delta_rule.dplr.naive import dplr_recurrence
from fla.ops.gla.naive import naive_recurrent_gla
from fla.ops.retention.naive import naive_retention
from fla.ops.rwkv7.gate_output_correction import gate_output_correction_ref

from model_golden import make, published, VOCAB

REFERENCE = f"flash-linear-attention {fla.__version__}, transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, float32, definitions in place of kernels"


def rms_norm(self, x, residual=None, prenorm=False, residual_in_fp32=False):
    weight = torch.ones(x.shape[-1]) if self.weight is None else self.weight
    return layernorm.rms_norm_ref(x, weight, None, residual=residual, eps=self.eps, prenorm=prenorm)


def rms_norm_gated(self, x, g):
    return rms_norm(self, x) * F.silu(g)


def layer_norm(self, x, residual=None, prenorm=False, residual_in_fp32=False):
    x = x if residual is None else x + residual
    out = F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
    return (out, x) if prenorm else out


def group_norm(self, x):
    return layernorm.group_norm_ref(x, self.weight, self.bias, self.num_groups, eps=self.eps)


def rotary(self, q, k, seqlen_offset=0, max_seqlen=None, cu_seqlens=None):
    angles = torch.outer(torch.arange(q.shape[1], dtype=torch.float32), self.inv_freq)
    return tuple(rotary_embedding_ref(x, angles.cos(), angles.sin()) for x in (q, k))


def gla(q, k, v, gk=None, g=None, **_):
    return naive_recurrent_gla(q, k, v, g if gk is None else gk)


def retention(q, k, v, **_):
    return naive_retention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2), None


def replacing(r, w, k, v, a, b):
    heads_first = [x.transpose(1, 2) for x in (r * r.shape[-1] ** 0.5, k, v, a, b, w)]  # it scales queries
    return dplr_recurrence(*heads_first)[0].transpose(1, 2), None


def use_definitions():
    layernorm.RMSNorm.forward = rms_norm
    layernorm.LayerNorm.forward = layer_norm
    layernorm.GroupNorm.forward = group_norm
    fused_norm_gate.FusedRMSNormGated.forward = rms_norm_gated
    RotaryEmbedding.forward = rotary
    fla.modules.mlp.SwiGLULinear.forward = lambda self, gate, up, weight, bias: F.linear(F.silu(gate) * up, weight, bias)
    fla.modules.mlp.swiglu = lambda gate, up: F.silu(gate) * up
    for module in (fla.layers.gla, fla.layers.multiscale_retention, fla.models.rwkv7.modeling_rwkv7):
        module.ACT2FN = {"swish": F.silu, "sqrelu": lambda x: F.relu(x) ** 2}
    fla.layers.gla.chunk_gla = fla.layers.gla.fused_recurrent_gla = gla
    fla.layers.multiscale_retention.chunk_retention = fla.layers.multiscale_retention.fused_recurrent_retention = retention
    time, channel = fla.layers.rwkv7, fla.models.rwkv7.modeling_rwkv7
    time.token_shift = channel.token_shift = lambda x, *_, **__: (token_shift_ref(x), None)
    time.fused_addcmul_rwkv7 = lambda x, delta, *shares: [x + delta * share for share in shares]
    time.fused_k_rwkv7 = lambda k, a, k_a: k * (1 + (a - 1) * k_a)
    time.l2_norm = lambda x: x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)
    time.chunk_rwkv7 = lambda r, w, k, v, a, b, **_: replacing(r, w, k, v, a, b)
    time.fused_mul_recurrent_rwkv7 = lambda r, w, k, v, kk, a, **_: replacing(r, w, k, v, -kk, kk * a)
    time.gate_output_correction = gate_output_correction_ref


def make_all():
    # The published files say a few things that the models do not look at.
    def gla_as_published(config):
        fields = {k: config[k] for k in ("hidden_size", "intermediate_size", "num_heads", "num_hidden_layers", "vocab_size", "clamp_min", "tie_word_embeddings", "fuse_norm")}
        published(config, architectures=["GLAForCausalLM"], attn_mode="chunk", bos_token_id=1, conv_size=4, elementwise_affine=True, eos_token_id=2,
                  expand_k=0.5, expand_v=1, feature_map=None, fuse_cross_entropy=True, hidden_act="swish", hidden_ratio=4, initializer_range=0.02,
                  max_position_embeddings=2048, model_type="gla", norm_eps=1e-06, num_kv_heads=None, share_conv_kernel=True, torch_dtype=config["dtype"],
                  transformers_version="4.40.2", use_cache=True, use_gk=True, use_gv=False, use_output_gate=True, use_short_conv=False, **fields)

    sizes = dict(vocab_size=VOCAB, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_heads=2, bos_token_id=1, eos_token_id=2)
    make("gla", GLAForCausalLM, GLAConfig(**sizes), [5, 70], edit=gla_as_published, reference=REFERENCE)
    make("gla-f16", GLAForCausalLM, GLAConfig(**sizes, fuse_norm=False, fuse_swiglu=False, clamp_min=-0.06, tie_word_embeddings=True), [40], dtype=torch.float16,
         edit=gla_as_published, reference=REFERENCE)

    # Its feed-forward parts' width follows from a ratio.
    def retnet_as_published(config):
        fields = {k: config[k] for k in ("hidden_size", "num_heads", "num_hidden_layers", "vocab_size")}
        published(config, architectures=["RetNetForCausalLM"], attn_mode="chunk", bos_token_id=1, conv_size=4, elementwise_affine=True, eos_token_id=2, expand_k=1.0,
                  expand_v=2.0, feature_map=None, fuse_cross_entropy=True, fuse_norm=True, hidden_act="swish", hidden_ratio=2, initializer_range=0.02,
                  intermediate_size=None, max_position_embeddings=2048, model_type="retnet", norm_eps=1e-06, num_kv_heads=None, share_conv_kernel=True,
                  tie_word_embeddings=False, torch_dtype="float16", transformers_version="4.40.2", use_cache=True, use_output_gate=True, use_short_conv=False, **fields)

    make("retnet-f16", RetNetForCausalLM, RetNetConfig(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2, num_heads=2, bos_token_id=1, eos_token_id=2), [5, 70],
         dtype=torch.float16, edit=retnet_as_published, reference=REFERENCE)

    # Three layers, that two mix their values with the first's.
    def rwkv7_as_published(config):
        fields = {k: config[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "head_dim", "decay_low_rank_dim", "gate_low_rank_dim",
                                         "a_low_rank_dim", "v_low_rank_dim", "fuse_norm", "norm_first", "value_dim")}
        published(config, architectures=["RWKV7ForCausalLM"], attn=None, attn_mode="chunk", bos_token_id=0, eos_token_id=0, fuse_cross_entropy=True, hidden_act="sqrelu",
                  hidden_ratio=4.0, initializer_range=0.006, max_position_embeddings=2048, model_type="rwkv7", norm_bias=True, norm_eps=1e-05, num_heads=None,
                  tie_word_embeddings=False, torch_dtype=config["dtype"], transformers_version="4.48.0", use_cache=True, **fields)

    small = dict(vocab_size=VOCAB, hidden_size=24, intermediate_size=32, head_dim=12, decay_low_rank_dim=4, gate_low_rank_dim=6, a_low_rank_dim=5, v_low_rank_dim=3,
                 bos_token_id=1, eos_token_id=2)
    make("rwkv7", RWKV7ForCausalLM, RWKV7Config(**{**small, "hidden_size": 20, "head_dim": 10}, num_hidden_layers=3, fuse_norm=False), [5, 70], edit=rwkv7_as_published, reference=REFERENCE)

    # Without a first norm, and with the shares of the six mixtures as one tensor, as the first of these were published.
    def packed(tensors):
        for layer in range(2):
            name = f"model.layers.{layer}.attn.x_"
            tensors[name + "x"] = torch.stack([tensors.pop(name + use).flatten() for use in "rwkvag"])
        return tensors

    make("rwkv7-f16", RWKV7ForCausalLM, RWKV7Config(**small, num_hidden_layers=2, norm_first=False), [40], dtype=torch.float16, edit=rwkv7_as_published, remake=packed,
         reference=REFERENCE)


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    use_definitions()
    make_all()


if __name__ == "__main__":
    main()
