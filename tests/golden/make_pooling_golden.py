"""Makes tests/fixtures/pooling: small random checkpoints that make vectors and scores of texts, and what the reference makes of some.

Run by hand, never by the tests: as make_model_golden.py, with the names of functions for some of them. The vectors are what sentence-transformers computes: the rows of
transformers' decoder behind its final norm, pooled, through the dense layers, normalised; scores are those of transformers' classes
for classification, and of the model's own head.
"""

import json
import math
import pathlib
import shutil
import sys
import tempfile

import sentence_transformers
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

from model_golden import randomise

ROOT = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "pooling"
TEXTS = ["Paris is the capital of France.", "x", "Ein längerer Text, der in mehrere Teile zerfällt, wenn ein Schritt nur wenige Zeilen hat. " * 2]
PAIRS = [("capital of France?", "Paris."), ("capital of France?", "Bananas are yellow, mostly.")]
VOCAB = 264
END, YES, NO = 256, 121, 110  # "y", "n": the tokens of this vocabulary are bytes
PROMPTS = {"prompts": {"query": "Instruct: find it\nQuery: ", "document": "Passage: ", "none": ""}, "default_prompt_name": "document", "similarity_fn_name": "cosine"}
TINY = dict(vocab_size=VOCAB, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
            head_dim=16, max_position_embeddings=512, rms_norm_eps=1e-6, bos_token_id=None, eos_token_id=END, pad_token_id=END)


def byte_tokenizer(folder, with_end):
    """Bytes, and after every text the end that last-token pooling reads."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    vocab = {chr(b) if b in shown else chr(256 + hidden.index(b)): b for b in range(256)}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>"])
    if with_end:
        made.post_processor = tokenizers.processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", END)])
    made.save(str(folder / "tokenizer.json"))
    write(folder / "tokenizer_config.json", {"eos_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"})
    return made


def write(path, value):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def begin(name):
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def save(folder, model, prefix, config):
    """The checkpoint with so much of the names left out, and a configuration as it is published."""
    model.save_pretrained(folder)
    tensors = {name.removeprefix(prefix): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    saved = json.loads((folder / "config.json").read_text())
    saved.update(config)
    write(folder / "config.json", {name: value for name, value in saved.items() if value is not None})
    (folder / "generation_config.json").unlink(missing_ok=True)


def modules(folder, *kinds):
    names = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense", "Normalize": "3_Normalize", "LogitScore": "1_LogitScore"}
    package = {"LogitScore": "sentence_transformers.cross_encoder.modules.logit_score"}
    write(folder / "modules.json", [{"idx": i, "name": str(i), "path": names[kind],
                                     "type": package.get(kind, "sentence_transformers.models") + "." + kind} for i, kind in enumerate(kinds)])


def pooling(folder, mode):
    fields = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    write(folder / "1_Pooling" / "config.json",
          {"word_embedding_dimension": TINY["hidden_size"], **{"pooling_mode_" + field: field == mode for field in fields}, "include_prompt": True})


def rows(model, ids):
    return model(torch.tensor([ids]), use_cache=False).last_hidden_state[0].double()


def numbers(values):
    return [round(x, 7) for x in values.tolist()]


@torch.no_grad()
def last_token():
    """As Qwen3-Embedding 8B is published: a decoder's configuration, tensors without the prefix, no head."""
    folder = begin("qwen3-embedding")
    tokenizer = byte_tokenizer(folder, with_end=True)
    model = transformers.Qwen3Model(transformers.Qwen3Config(**TINY, tie_word_embeddings=False)).eval()
    randomise(model, 1)
    save(folder, model, "model.", {"architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": False})
    modules(folder, "Transformer", "Pooling", "Normalize")
    pooling(folder, "lasttoken")
    cases = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        cases.append({"text": text, "ids": ids, "numbers": numbers(torch.nn.functional.normalize(rows(model, ids)[-1], dim=0))})
    write(folder / "golden.json", cases)


@torch.no_grad()
def mean_and_dense():
    folder = begin("mistral-mean")
    tokenizer = byte_tokenizer(folder, with_end=False)
    model = transformers.MistralModel(transformers.MistralConfig(**TINY, sliding_window=40, tie_word_embeddings=False)).eval()
    randomise(model, 2)
    save(folder, model, "", {"architectures": ["MistralModel"]})
    modules(folder, "Transformer", "Pooling", "Dense")
    pooling(folder, "mean_tokens")
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(10, TINY["hidden_size"], generator=generator) / math.sqrt(TINY["hidden_size"])
    bias = torch.randn(10, generator=generator) * 0.3
    write(folder / "2_Dense" / "config.json", {"in_features": TINY["hidden_size"], "out_features": 10, "bias": True,
                                               "activation_function": "torch.nn.modules.activation.Tanh"})
    save_file({"linear.weight": weight, "linear.bias": bias}, folder / "2_Dense" / "model.safetensors")
    cases = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        mean = rows(model, ids).mean(dim=0)
        cases.append({"text": text, "ids": ids, "first": numbers(rows(model, ids)[0]),
                      "numbers": numbers(torch.tanh(weight.double() @ mean + bias.double()))})
    write(folder / "golden.json", cases)


@torch.no_grad()
def word_scores():
    """As Qwen3-Reranker is published for sentence-transformers: what speaks for a document is the head's "yes" less its "no"."""
    folder = begin("qwen3-reranker")
    tokenizer = byte_tokenizer(folder, with_end=False)
    model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**TINY, tie_word_embeddings=True)).eval()
    randomise(model, 4)
    save(folder, model, "", {"architectures": ["Qwen3ForCausalLM"]})
    modules(folder, "Transformer", "LogitScore")
    write(folder / "1_LogitScore" / "config.json", {"true_token_id": YES, "false_token_id": NO})
    template = "{% for m in messages %}{% if m.role == 'query' %}Q: {{ m.content }}{% elif m.role == 'document' %} D: {{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %} A:{% endif %}"
    (folder / "chat_template.jinja").write_text(template)
    cases = []
    for query, document in PAIRS:
        ids = tokenizer.encode(f"Q: {query} D: {document} A:").ids
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1].double()
        cases.append({"query": query, "document": document, "score": torch.sigmoid(logits[YES] - logits[NO]).item()})
    write(folder / "golden.json", cases)


@torch.no_grad()
def classifier():
    folder = begin("llama-classifier")
    tokenizer = byte_tokenizer(folder, with_end=False)
    config = transformers.LlamaConfig(**TINY, num_labels=3, id2label={0: "bad", 1: "so-so", 2: "good"}, label2id={"bad": 0, "so-so": 1, "good": 2})
    model = transformers.LlamaForSequenceClassification(config).eval()
    randomise(model, 5)
    save(folder, model, "", {})
    cases = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        probs = torch.softmax(model(torch.tensor([ids]), use_cache=False).logits[0].double(), dim=0)
        cases.append({"text": text, "label": config.id2label[probs.argmax().item()], "probs": numbers(probs)})
    write(folder / "golden.json", cases)


def copied(name, scratch):
    folder = pathlib.Path(scratch) / name
    shutil.copytree(ROOT / name, folder)
    return folder


def other_modes():
    """What sentence-transformers itself makes of copies of mistral-mean with other ways to pool, and with prompts."""
    cases = []
    for mode in ("max_tokens", "weightedmean_tokens", "mean_sqrt_len_tokens"):
        with tempfile.TemporaryDirectory() as scratch:
            folder = copied("mistral-mean", scratch)
            pooling(folder, mode)
            write(folder / "config_sentence_transformers.json", PROMPTS)
            model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
            model.tokenizer.pad_token = model.tokenizer.eos_token  # it asks for one, of a text alone too
            for text, name in [(TEXTS[0], "none"), (TEXTS[0], "query"), (TEXTS[0], None), (TEXTS[2], "none")]:
                vector = model.encode([text], prompt_name=name)[0]
                cases.append({"mode": mode, "text": text, "prompt_name": name, "numbers": numbers(vector)})
    write(ROOT / "mistral-mean" / "other_modes.json", cases)


@torch.no_grad()
def reranker_as_published():
    """The words and the two logits of the card of Qwen/Qwen3-Reranker-0.6B, over a copy of qwen3-reranker whose tokenizer has both words."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = copied("qwen3-reranker", scratch)
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        tokenizer.add_tokens(["yes", "no"])
        model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        token_true_id, token_false_id = tokenizer.convert_tokens_to_ids(["yes", "no"])
        assert (token_true_id, token_false_id) == (257, 258)
        prefix = ('<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. '
                  'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n')
        suffix = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        task = "Given a web search query, retrieve relevant passages that answer the query"
        cases = []
        for query, document in PAIRS:
            ids = tokenizer.encode(f"{prefix}<Instruct>: {task}\n<Query>: {query}\n<Document>: {document}{suffix}", add_special_tokens=False)
            scores = model(torch.tensor([ids]), use_cache=False).logits[0, -1].double()
            both = torch.stack([scores[token_false_id], scores[token_true_id]])
            cases.append({"query": query, "document": document, "score": torch.nn.functional.log_softmax(both, dim=0)[1].exp().item()})
    write(ROOT / "qwen3-reranker" / "as_published.json", cases)


ENCODER = dict(hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=3, layer_norm_eps=1e-6)
DISTILBERT = dict(dim=24, hidden_dim=32, n_layers=2, n_heads=3)
ENGLISH = [*TEXTS, *(text for pair in PAIRS for text in pair), "the quick brown fox jumps over lazy dogs and runs far away from here again"]


def word_pieces(folder):
    """As BERT's folders have it."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(ENGLISH, tokenizers.trainers.WordPieceTrainer(vocab_size=160, special_tokens=special, show_progress=False))
    made.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    made.decoder = tokenizers.decoders.WordPiece()
    made.save(str(folder / "tokenizer.json"))
    write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "model_max_length": 96, **{name + "_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}})
    return made


def unigrams(folder):
    """As XLM-R's folders have it."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.normalizer = tokenizers.normalizers.NFKC()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.train_from_iterator(ENGLISH, tokenizers.trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False))
    made.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    made.decoder = tokenizers.decoders.Metaspace()
    made.save(str(folder / "tokenizer.json"))
    write(folder / "tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizerFast", "model_max_length": 96, "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>",
                                             "sep_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"})
    return made


def encoder(name, tokenize, model_class, config_class, seed, **fields):
    folder = begin(name)
    tokenizer = tokenize(folder)
    model = model_class(config_class(vocab_size=tokenizer.get_vocab_size(), **fields)).eval()
    randomise(model, seed)
    save(folder, model, "", {})
    return folder, tokenizer


BERT = dict(max_position_embeddings=96)
XLMR = dict(max_position_embeddings=98, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2)


MODERNBERT = dict(BERT, local_attention=6, classifier_pooling="mean", pad_token_id=0, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3)


def encoder_vectors():
    """What sentence-transformers itself makes of the folders."""
    for name, tokenize, model_class, config_class, fields, mode in (
            ("bert-cls", word_pieces, transformers.BertModel, transformers.BertConfig, BERT, "cls_token"),
            ("xlm-roberta-mean", unigrams, transformers.XLMRobertaModel, transformers.XLMRobertaConfig, XLMR, "mean_tokens")):
        folder, tokenizer = encoder(name, tokenize, model_class, config_class, 6, **ENCODER, **fields)
        modules(folder, "Transformer", "Pooling", "Normalize")
        pooling(folder, mode)
        reference = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
        write(folder / "golden.json", [{"text": text, "ids": tokenizer.encode(text).ids, "numbers": numbers(reference.encode(text))} for text in TEXTS])


def sentence_configs():
    """What sentence-transformers itself makes of copies of the folders that say how long a text may be, in the places where its releases have said it."""
    for name, files in (("bert-cls", [{"sentence_bert_config.json": {"max_seq_length": 24, "do_lower_case": False}}, {"sentence_roberta_config.json": {"max_seq_length": 9}}]),
                        ("xlm-roberta-mean", [{"sentence_bert_config.json": {"max_seq_length": 32, "do_lower_case": True}}, {"tokenizer_config.json": {"model_max_length": 40}}])):
        cases = []
        for changed in files:
            with tempfile.TemporaryDirectory() as scratch:
                folder = copied(name, scratch)
                for file, fields in changed.items():
                    before = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
                    write(folder / file, before | fields)
                reference = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
                cases.append({"files": changed, "max_seq_length": reference.max_seq_length,
                              "texts": [{"text": text, "numbers": numbers(reference.encode(text))} for text in [*TEXTS, "PARIS ÄÖÜ İstanbul [SEP] ΟΔΟΣ x"]]})
        write(ROOT / name / "sentence_configs.json", cases)


def cross_encoders():
    """Scores of pairs, as sentence-transformers has them; of the last folder with the activation that a published one names."""
    for name, tokenize, model_class, config_class, fields in (
            ("bert-reranker", word_pieces, transformers.BertForSequenceClassification, transformers.BertConfig, BERT),
            ("xlm-roberta-reranker", unigrams, transformers.XLMRobertaForSequenceClassification, transformers.XLMRobertaConfig, XLMR),
            ("modernbert-reranker", word_pieces, transformers.ModernBertForSequenceClassification, transformers.ModernBertConfig, MODERNBERT)):
        folder, tokenizer = encoder(name, tokenize, model_class, config_class, 7, num_labels=1, **ENCODER, **fields)
        if name == "bert-reranker":
            saved = json.loads((folder / "config.json").read_text())
            write(folder / "config.json", saved | {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0.1"}})
        scores = sentence_transformers.CrossEncoder(str(folder), device="cpu").predict(PAIRS)
        write(folder / "golden.json", [{"query": query, "document": document, "ids": tokenizer.encode(query, document).ids, "score": float(score)}
                                       for (query, document), score in zip(PAIRS, scores)])


@torch.no_grad()
def encoder_classes():
    labels = {0: "bad", 1: "so-so", 2: "good"}
    for name, model_class, config_class, fields in (("bert-classifier", transformers.BertForSequenceClassification, transformers.BertConfig, ENCODER | BERT),
                                                    ("distilbert-classifier", transformers.DistilBertForSequenceClassification, transformers.DistilBertConfig, DISTILBERT | BERT)):
        folder, tokenizer = encoder(name, word_pieces, model_class, config_class, 8, num_labels=3, id2label=labels, label2id={name: i for i, name in labels.items()}, **fields)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        cases = []
        for text in TEXTS:
            probs = torch.softmax(model(torch.tensor([tokenizer.encode(text).ids])).logits[0].double(), dim=0)
            cases.append({"text": text, "label": labels[probs.argmax().item()], "probs": numbers(probs)})
        write(folder / "golden.json", cases)


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    for make in (last_token, mean_and_dense, word_scores, classifier, other_modes, reranker_as_published, encoder_vectors, sentence_configs, cross_encoders, encoder_classes):
        if len(sys.argv) < 2 or make.__name__ in sys.argv[1:]:
            make()
