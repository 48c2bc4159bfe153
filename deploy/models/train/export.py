"""Writes a model folder in the Hugging Face format: weights in bf16, tokenizer, chat template, generation defaults."""

import json

import torch
from safetensors.torch import save_file

from corpus import END, START, STOP

# Roles in ChatML markers. No default system prompt: what the client sends is all that the model sees.
# Tools stand in the system message, a line each, as short as a small model needs them.
CHAT_TEMPLATE = """{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}
{{- messages[0].content + '\\n' }}
{%- set messages = messages[1:] %}
{%- endif %}
{{- 'Tools, called as <tool_call>{"name": NAME, "arguments": {}}</tool_call>:' }}
{%- for tool in tools %}
{%- set f = tool.function if tool.function is defined else tool %}
{{- '\\n' + f.name + '(' }}
{%- set parameters = f.parameters or {} %}
{%- for key, value in (parameters.properties or {}).items() %}
{{- key + ('' if key in (parameters.required or []) else '?') + (': ' + value.type if value.type is string else '') + (', ' if not loop.last else '') }}
{%- endfor %}
{{- ')' + (' ' + f.description if f.description else '') }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{%- set f = call.function if call.function is defined else call %}
{{- '\\n' if message.content or not loop.first }}
{{- '<tool_call>\\n{"name": "' + f.name + '", "arguments": ' }}
{{- f.arguments if f.arguments is string else f.arguments | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def export(model, tokenizer, folder):
    folder.mkdir(parents=True, exist_ok=True)
    ids = {t: tokenizer.token_to_id(t) for t in (END, START, STOP)}
    # A copy in bf16: the training weights stay in fp32. The output matrix is the embedding, so it is stored once.
    weights = {k: v.detach().to(torch.bfloat16).contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)

    c = model.config
    write_json(folder / "config.json", {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "dtype": "bfloat16",
        "vocab_size": c.vocab_size, "hidden_size": c.hidden_size, "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers, "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads, "head_dim": c.head_dim, "hidden_act": c.hidden_act,
        "rms_norm_eps": c.rms_norm_eps, "attention_bias": False, "attention_dropout": 0.0, "use_sliding_window": False,
        "tie_word_embeddings": True, "max_position_embeddings": c.max_position_embeddings,
        "rope_theta": c.rope_parameters["rope_theta"],  # readers older than rope_parameters look here
        "rope_parameters": c.rope_parameters, "initializer_range": c.initializer_range, "use_cache": True,
        "bos_token_id": None, "eos_token_id": ids[STOP], "pad_token_id": ids[END],
    })
    write_json(folder / "generation_config.json",
               {"do_sample": True, "eos_token_id": [ids[STOP], ids[END]], "pad_token_id": ids[END], "temperature": 0.5,
                "top_k": 20, "top_p": 0.9})
    tokenizer.save(str(folder / "tokenizer.json"))
    marker = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {str(i): {"content": t, **marker} for t, i in ids.items()},
        "additional_special_tokens": [START, STOP],
        "bos_token": None, "eos_token": STOP, "pad_token": END, "unk_token": None,
        "add_bos_token": False, "add_prefix_space": False, "clean_up_tokenization_spaces": False,
        "model_max_length": c.max_position_embeddings,
        "chat_template": CHAT_TEMPLATE,
    })
