"""Encoders. Of their last rows the golden has what the words' embeddings make of them, as if they were a head; a prompt of two texts says where
the second begins."""

import json

import torch
import transformers as t
from safetensors.torch import load_file, save_file

from model_golden import VOCAB, fresh_folder, make_prompt, randomise, write_json

SMALL = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4, layer_norm_eps=1e-6,
             attn_implementation="eager")


@torch.no_grad()
def answer(model, ids, second):
    types = {"token_type_ids": torch.tensor([[int(second > 0 and p >= second) for p in range(len(ids))]])} if hasattr(model.config, "type_vocab_size") else {}
    rows = model(torch.tensor([ids]), **types).last_hidden_state[0].double()
    return torch.log_softmax(rows @ model.get_input_embeddings().weight.double().T, dim=-1)


def make(name, model_class, config, prompts, dtype=torch.float32, architecture=None, prefix="", edit=None):
    folder = fresh_folder(name)
    if folder is None:
        return
    model = model_class(config).eval()
    randomise(model, 1)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(dtype))
    cases = []
    for i, (length, second) in enumerate(prompts):
        ids = make_prompt(1000 + i, length)
        rows = answer(model, ids, second)
        positions = sorted({0, length - 1} | set(range(7, length, 16)))
        cases.append({"prompt": ids, "greedy": [], "margins": [], "second_text": second, "positions": positions,
                      "log_probs": [[round(x, 6) for x in rows[p].tolist()] for p in positions]})
    model.to(dtype).save_pretrained(folder)
    path = folder / "model.safetensors"
    save_file({prefix + n: p.contiguous() for n, p in load_file(path).items()}, path, metadata={"format": "pt"})
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if architecture:
        written["architectures"] = [architecture]
    if edit:
        edit(written)
    write_json(folder / "config.json", written)
    reference = f"transformers {t.__version__}, torch {torch.__version__.split('+')[0]}, float32, eager attention"
    (folder / "golden.json").write_text(json.dumps({"reference": reference, "seed": 1, "cases": cases}, separators=(",", ":")) + "\n", encoding="utf-8")
    for file in folder.iterdir():
        file.chmod(0o644)
    print(f"{name}: {sum(p.stat().st_size for p in folder.iterdir())} bytes", flush=True)


def older(config):
    """As the first exporters wrote it."""
    config["torch_dtype"] = config.pop("dtype")
    config.update(gradient_checkpointing=False, position_embedding_type="absolute", output_past=True)


def as_published(config):
    """Before its layers and rotations had lists of their own."""
    for field in ("layer_types", "rope_parameters"):
        del config[field]
    config.update(torch_dtype=config.pop("dtype"), global_attn_every_n_layers=3, global_rope_theta=160000.0, local_rope_theta=10000.0, layer_norm_eps=1e-05,
                  position_embedding_type="absolute", gradient_checkpointing=False)


def make_all():
    make("bert", t.BertModel, t.BertConfig(**SMALL, max_position_embeddings=160), [(7, 0), (90, 0), (150, 61)], edit=older)
    make("distilbert", t.DistilBertModel, t.DistilBertConfig(vocab_size=VOCAB, dim=32, hidden_dim=56, n_layers=3, n_heads=4, max_position_embeddings=160, attn_implementation="eager"),
         [(9, 0), (150, 70)], architecture="DistilBertForMaskedLM", prefix="distilbert.")
    modern = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=56, num_attention_heads=4, max_position_embeddings=160, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                  cls_token_id=1, sep_token_id=2, attn_implementation="eager")
    make("modernbert", t.ModernBertModel, t.ModernBertConfig(**modern, num_hidden_layers=5, local_attention=14), [(3, 0), (155, 0)], architecture="ModernBertForMaskedLM",
         prefix="model.", edit=as_published)
    rotations = {"full_attention": {"rope_type": "default", "rope_theta": 5000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}}
    make("modernbert-biases", t.ModernBertModel, t.ModernBertConfig(**modern, num_hidden_layers=3, local_attention=17, attention_bias=True, mlp_bias=True, norm_bias=True,
         layer_types=["sliding_attention", "full_attention", "sliding_attention"], rope_parameters=rotations), [(60, 0)], dtype=torch.bfloat16)
    beyond = dict(max_position_embeddings=164, pad_token_id=1, type_vocab_size=1)
    make("roberta", t.RobertaModel, t.RobertaConfig(**SMALL | {"hidden_act": "gelu_new"}, **beyond | {"type_vocab_size": 2}), [(1, 0), (100, 40)],
         architecture="RobertaForMaskedLM", prefix="roberta.")
    make("xlm-roberta", t.XLMRobertaModel, t.XLMRobertaConfig(**SMALL, **beyond), [(20, 0), (160, 0)], dtype=torch.bfloat16)
