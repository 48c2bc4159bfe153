"""Makes tests/fixtures/tokenizers/word_pieces.json: what transformers makes of a folder that has a vocab.txt and no tokenizer.json, under each of the
switches of tokenizer_config.json. The vocabulary is made here of beginnings of the pool's texts. Run by hand:
    VENV/bin/python tests/golden/make_word_piece_golden.py    # of an environment as make_model_golden.py has
"""

import json
import pathlib
import tempfile

import tokenizers
import transformers

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
OUT = FIXTURES / "tokenizers" / "word_pieces.json"
SPECIAL = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
HARD = ["", " ", "[CLS] a [SEP] b [MASK][PAD]", "[cls] [unused0]", "ÅNGSTRÖM Éé İstanbul ΟΔΟΣ", "e\u0301 \u00ad\u200b\u0000x\ufffd", "東京は晴れ", "don't. (x)!? a-b_c",
        "x" * 100, "x" * 101, "\u00a0\u2003\u3000a\tb\r\nc", "##able ##", "ﬁ ½ Å K"]
CONFIGS = [{}, {"do_lower_case": False}, {"do_lower_case": True, "strip_accents": False}, {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False},
           {"cls_token": "[unused0]", "sep_token": "[MASK]"}]


def vocabulary(texts):
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    lowered = [text.lower() for text in texts]
    made.train_from_iterator(texts + lowered, tokenizers.trainers.WordPieceTrainer(vocab_size=1200, limit_alphabet=300, special_tokens=SPECIAL, show_progress=False))
    return [name for name, _ in sorted(made.get_vocab().items(), key=lambda entry: entry[1])]


def main():
    lines = (FIXTURES / "published" / "tok-pool" / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    texts = HARD + [json.loads(line)["text"][:60] for line in lines[::2]]
    vocab = vocabulary(texts)
    assert not any(set(name) & set("\r\n") for name in vocab) and len(set(vocab)) == len(vocab)
    cases = []
    for config in CONFIGS:
        with tempfile.TemporaryDirectory() as scratch:
            folder = pathlib.Path(scratch)
            (folder / "vocab.txt").write_text("".join(name + "\n" for name in vocab), encoding="utf-8")
            (folder / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "BertTokenizer"}))
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            assert len(tokenizer) == len(vocab)
            pair = tokenizer("the first", "another one")
            cases.append({"config": config, "ids": [tokenizer(text)["input_ids"] for text in texts],
                          "pair": pair["input_ids"], "second": pair["token_type_ids"].index(1)})
    reference = f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}"
    OUT.write_text(json.dumps({"reference": reference, "vocab": vocab, "texts": texts, "cases": cases}, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(OUT.stat().st_size, "bytes", len(vocab), "tokens")


if __name__ == "__main__":
    main()
