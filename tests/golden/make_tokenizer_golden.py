#!/usr/bin/env python3
"""What the `tokenizers` library does with every component that Serval reads, on texts chosen to be hard and on random ones.

Writes tests/fixtures/tokenizers/components.json: normalisers (text -> text), pre-tokenisers (text -> pieces) and whole tokenisers
(text -> ids); and ranks.json: rank files, by tiktoken and mistral-common. The vocabularies are trained here on the sentences below, all of it written for this file. Run by hand:
  python3 -m venv .venv && .venv/bin/pip install tokenizers==0.23.3 sentencepiece==0.2.3 protobuf tiktoken==0.14.0 mistral-common==1.13.1 && .venv/bin/python tests/golden/make_tokenizer_golden.py
"""
import base64
import json
import pathlib
import random
import tempfile
import unicodedata

import sentencepiece
import tiktoken
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

RANKS = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "tokenizers" / "ranks.json"
OUT = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "tokenizers" / "components.json"

SENTENCES = """
The river carries the boats to the sea, and the sea carries them home again in the evening.
I've counted 12 swans, 345 ducks and 6789 gulls; they're louder than you'd think!
def add(a, b):\n    return a + b  # the sum of two numbers
Ein Bär läuft über die Brücke, während der Fluß leise rauscht.
Le garçon a déjà mangé la crème brûlée à l'hôtel.
今日は天気がいいから、散歩しましょう。 川の水は冷たい。
Мама мыла раму, а папа читал газету.
{"name": "serval", "legs": 4, "spots": true, "weight": 11.5}
""".strip().split("\n")

TEXTS = [
    "", " ", "  ", "\n", " \n \n  x", "hello", " hello", "hello ", "  hello  world  ", "a\tb\r\nc\r\n\r\n d",
    "I'll we're THEY'VE it'S don't 'tis can'T", "Héllo wörld, e\u0301 vs \u00e9", "12 345 6789 3.14 1,000", "x1y22z333",
    "½ ² ³ Ⅷ ٣٤٥ ४५ ①②", "snake_case camelCase PascalCase SCREAMING_CASE", "tab\tand\u00a0nbsp\u2003em\u3000ideographic",
    "zero\u200bwidth\u200djoin\ufeffbom", "mongolian\u180evowel", "line\u2028sep\u2029par\u0085nel\u000bvt\u000cff",
    "日本語と中文 한국어 ไทย हिन्दी", "שלום عالم", "👩‍👩‍👧 🇪🇸 👍🏽", "(a+b)*[c]={d}<e>|f\\g/h", "...!!!???---", "«quote» “quote” ‘q’",
    "<0x41> <0x0A> <s> </s> <unk>", "▁▁a ▁b▁", "Ġhello Ċ", "ﬁ ﬃ Ǆ ﷺ ㍿ Å Ω K", "İstanbul ISTANBUL ΣΑΣ ẞ", "q\u0323\u0307 q\u0307\u0323 \u1e0b\u0323",
    "a\u0300\u0316\u0301", "<tool>x</tool> <tool>", "the <end> of<end>  line", "word wordy sword word", "  <mask>  a <mask>", "\u0000nul\u0001", "ſ's 'ſ K",
]
# Letters, marks, numbers, punctuation, symbols, spaces and controls, none younger than Unicode 13.
ALPHABET = (
    "aabceghilmnorstuwxyzABDEILTZ  \n\r\t'.,!?-_()<>/\"0123456789éüßñçÅøæ\u0301\u0323\u0300\u00a0\u2003\u3000\u200b\u200d\u200c\u180e\u2028\u0085"
    "ΣσςжЯдבאابج٣४५अक्कาก今日本語한글ぁァ。、！？「」½²Ⅷ①ﬁﷺ𝒜𝟘😀👍🏽🇪🇸€$+=~^|`▁\u0000\u007f\u00ad"
)


def random_texts(seed, count, longest):
    rng = random.Random(seed)
    return ["".join(rng.choice(ALPHABET) for _ in range(rng.randint(1, longest))) for _ in range(count)]


RANDOM = random_texts(1, 40, 30)

S = lambda pattern, behavior="Isolated", invert=False: {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}
RE = lambda regex: {"Regex": regex}
STR = lambda text: {"String": text}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
SEQ = lambda *parts: {"type": "Sequence", "pretokenizers": list(parts)}
NSEQ = lambda *parts: {"type": "Sequence", "normalizers": list(parts)}

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s*[\r\n]|\s+(?!\S)|\s+"
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
KIMI = "|".join([
    r"[\p{Han}]+", r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
          r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = SEQ(S(RE(r"\p{N}{1,3}")), S(RE("[一-龥぀-ゟ゠-ヿ]+")),
               S(RE(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")),
               BYTE_LEVEL)

PRETOKENIZERS = {
    "gpt2": S(RE(GPT2)), "llama3": S(RE(LLAMA3)), "cl100k": S(RE(CL100K)), "o200k": S(RE(O200K)),
    "llama3_removed_inverted": S(RE(LLAMA3), "Removed", True), "deepseek_v3": DEEPSEEK,
    "deepseek_llm": SEQ(S(RE(r"[\r\n]")), S(RE(r"\s?\p{L}+")), S(RE(r"\s?\p{P}+")), S(RE(r"\s+$")), {"type": "Digits", "individual_digits": True}, BYTE_LEVEL),
    "falcon": SEQ({"type": "Punctuation", "behavior": "Contiguous"}, {**BYTE_LEVEL, "use_regex": True}, {"type": "Digits", "individual_digits": False}, S(RE("[0-9][0-9][0-9]"))),
    "starcoder": SEQ({"type": "Digits", "individual_digits": True}, {**BYTE_LEVEL, "use_regex": True}),
    "byte_level": {**BYTE_LEVEL, "use_regex": True}, "byte_level_prefix": {**BYTE_LEVEL, "use_regex": True, "add_prefix_space": True},
    "byte_level_plain": BYTE_LEVEL,
    "metaspace_always": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    "metaspace_first": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
    "metaspace_never": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
    "digits_then_metaspace_first": SEQ({"type": "Digits", "individual_digits": False}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}),
    "whitespace": {"type": "Whitespace"}, "whitespace_split": {"type": "WhitespaceSplit"}, "punctuation": {"type": "Punctuation"},
    "char_delimiter": {"type": "CharDelimiterSplit", "delimiter": "a"},
    "word": S(RE(r"\w+")), "not_word": S(RE(r"\W+"), "Removed"), "space": S(RE(r"\s")), "not_space": S(RE(r"\S+")), "digit": S(RE(r"\d+")), "boundary": S(RE(r"\bs\w*")),
    "hex": S(RE(r"\h+")), "capital": S(RE(r"(?=\p{Lu})")), "line": S(RE(r"^.")), "line_end": S(RE(r".$")), "vertical": S(RE(r"\v")), "classes": S(RE(r"[\s\d]+|[^\S\n]x")),
    "bert": {"type": "BertPreTokenizer"}, "scripts": {"type": "UnicodeScripts"}, "fixed_length": {"type": "FixedLength", "length": 3},
    "punctuation_next": {"type": "Punctuation", "behavior": "MergedWithNext"}, "kimi": S(RE(KIMI)), "bloom": S(RE(BLOOM)), "tekken": S(RE(TEKKEN)),
    "intersection": S(RE(r"[^\p{L}&&[^\p{Lu}\p{Han}]]+")), "inside": S(RE(r"[a-c[^a-z\s]]+"), "Removed"),
    "intervals": S(RE(r"\p{L}{2}|\p{N}{,2}|\s{1,}")), "case": S(RE(r"(?i)[a-e]+|ß|σ")), "lazy": S(RE(r"\p{L}+?\s")), "code_points": S(RE(r"[\u00e0-\u00ff]|\x{4e00}|\x2e")),
}
for behavior in ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
    for invert in [False, True]:
        PRETOKENIZERS[f"regex_{behavior}_{invert}"] = S(RE(r"\s|\p{P}"), behavior, invert)
        PRETOKENIZERS[f"string_{behavior}_{invert}"] = S(STR(" "), behavior, invert)

# A small table of sentencepiece's kind: sequences of code points to what replaces them.
RULES = ["0065 0301\t00E9", "FB01\t0066 0069", "00C5\t0061", "2460\t0031", "00A0\t0020", "3000\t0020", "200B\t", "0061 0300 0316\t0041", "00BD\t0031 2F 0032", "D\t0020", "A\t0020", "9\t0020"]


def sentencepiece_model(prefix, **options):
    with tempfile.TemporaryDirectory() as folder:
        rules, sentences = pathlib.Path(folder, "rules.tsv"), pathlib.Path(folder, "sentences.txt")
        rules.write_text("\n".join(RULES) + "\n")
        sentences.write_text("\n".join(SENTENCES * 4))
        sentencepiece.SentencePieceTrainer.train(input=str(sentences), model_prefix=f"{folder}/{prefix}", normalization_rule_tsv=str(rules), minloglevel=2, **options)
        model = sentencepiece_model_pb2.ModelProto()
        model.ParseFromString(pathlib.Path(folder, f"{prefix}.model").read_bytes())
        return model


UNIGRAM = sentencepiece_model("unigram", model_type="unigram", vocab_size=380, byte_fallback=False, hard_vocab_limit=False)
PRECOMPILED = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(UNIGRAM.normalizer_spec.precompiled_charsmap).decode()}

NORMALIZERS = {form: {"type": form} for form in ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel"]}
BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
NORMALIZERS |= {
    "strip": {"type": "Strip", "strip_left": True, "strip_right": True}, "strip_left": {"type": "Strip", "strip_left": True, "strip_right": False},
    "prepend": {"type": "Prepend", "prepend": "▁"}, "replace": {"type": "Replace", "pattern": STR(" "), "content": "▁"},
    "replace_regex": {"type": "Replace", "pattern": RE(r"\s{2,}|[\n\r]"), "content": " "},
    "llama2": NSEQ({"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": STR(" "), "content": "▁"}),
    "bert": BERT, "bert_cased": {**BERT, "lowercase": False, "clean_text": False}, "bert_accents": {**BERT, "strip_accents": False}, "precompiled": PRECOMPILED,
    "accents": NSEQ({"type": "NFD"}, {"type": "StripAccents"}), "t5": NSEQ(PRECOMPILED, {"type": "Replace", "pattern": RE(" {2,}"), "content": "▁"}),
    "xlnet": NSEQ({"type": "Replace", "pattern": STR("``"), "content": '"'}, {"type": "Replace", "pattern": STR("''"), "content": '"'}, {"type": "NFKD"}, {"type": "StripAccents"},
                  {"type": "Lowercase"}, PRECOMPILED, {"type": "Replace", "pattern": RE(" {2,}"), "content": " "}),
    "all": NSEQ({"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Strip", "strip_left": False, "strip_right": True}, NSEQ({"type": "Replace", "pattern": STR("a"), "content": ""})),
}


def trained(byte_level):
    tokenizer = Tokenizer(models.BPE(unk_token=None if byte_level else "<unk>", byte_fallback=not byte_level, fuse_unk=not byte_level))
    special = [] if byte_level else ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    if byte_level:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        alphabet = list("▁abcdefghijklmnopqrstuvwxyz0123456789")
    tokenizer.train_from_iterator(SENTENCES * 4, trainers.BpeTrainer(
        vocab_size=len(special) + 500, initial_alphabet=alphabet, special_tokens=special, show_progress=False))
    return json.loads(tokenizer.to_str())["model"]


def with_affixes(**affixes):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", **affixes))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(SENTENCES * 4, trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False, **affixes))
    return json.loads(tokenizer.to_str())["model"]


def word_pieces():
    """As the checkpoints of BERT's kind have it."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(SENTENCES * 4, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False))
    return json.loads(tokenizer.to_str())["model"]


def token(id, content, **flags):
    return {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True, **flags}


def whole_tokenizers():
    byte, char = trained(True), trained(False)
    n = len(byte["vocab"])
    added = [token(n, "<end>", rstrip=True), token(n + 1, "<mask>", lstrip=True), token(n + 2, "<tool>", special=False),
             token(n + 3, "word", single_word=True, special=False, normalized=True), token(n + 4, "    ", special=False, normalized=True),
             token(n + 5, "<end>x"), token(n + 6, "Ω", special=False, normalized=True)]
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<end>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "<mask>", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<end>": {"id": "<end>", "ids": [n], "tokens": ["<end>"]}, "<mask>": {"id": "<mask>", "ids": [n + 1], "tokens": ["<mask>"]}}}
    spm_added = [token(0, "<unk>"), token(1, "<s>"), token(2, "</s>", rstrip=True)]
    spm_decoder = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": STR("▁"), "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                                                    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    file = lambda **parts: {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
                            "post_processor": None, "decoder": None, "model": None, **parts}
    unk = {**char, "byte_fallback": False}
    pieces = [[piece.piece, piece.score] for piece in UNIGRAM.pieces]
    unigram = {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False}
    with_bytes = {**unigram, "vocab": [*pieces[:3], *[[f"<0x{b:02X}>", 0.0] for b in range(256)], *pieces[3:]], "byte_fallback": True}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    t5_end = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
              "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}], "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}
    xlnet_end = {**t5_end, "single": [*t5_end["single"], {"SpecialToken": {"id": "<s>", "type_id": 2}}], "special_tokens": {**t5_end["special_tokens"], "<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    around = {"type": "Sequence", "processors": [{"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": True, "add_prefix_space": False},
                                                 {"type": "BertProcessing", "sep": ["<s>", 1], "cls": ["</s>", 2]}, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}]}
    words = word_pieces()
    bert_added = [token(i, name) for i, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])]
    T = lambda name, kind: {"SpecialToken": {"id": name, "type_id": kind}}
    A, B = ({"Sequence": {"id": name, "type_id": kind}} for name, kind in (("A", 0), ("B", 1)))
    bert_around = {"type": "TemplateProcessing", "single": [T("[CLS]", 0), A, T("[SEP]", 0)], "pair": [T("[CLS]", 0), A, T("[SEP]", 0), B, T("[SEP]", 1)],
                   "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]} for name, id in (("[CLS]", 2), ("[SEP]", 3))}}
    bert_decoder = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    bert = dict(added_tokens=bert_added, normalizer=BERT, pre_tokenizer={"type": "BertPreTokenizer"}, decoder=bert_decoder, model=words)
    return {
        "bert": file(**bert, post_processor=bert_around),
        "bert_short_words": file(**bert | {"model": {**words, "max_input_chars_per_word": 3}}, post_processor={"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3]}),
        "bert_cased": file(**bert | {"normalizer": NORMALIZERS["bert_cased"]}, post_processor={"type": "RobertaProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3], "trim_offsets": True, "add_prefix_space": False}),
        "byte_level": file(added_tokens=added, normalizer={"type": "NFC"}, pre_tokenizer=SEQ(S(RE(LLAMA3)), BYTE_LEVEL), post_processor=template, decoder=decoder, model=byte),
        "byte_level_ignore_merges": file(added_tokens=added, pre_tokenizer=S(RE(GPT2)), decoder=decoder, model={**byte, "ignore_merges": True}),
        "byte_fallback": file(added_tokens=spm_added, normalizer=NORMALIZERS["llama2"], decoder=spm_decoder, model=char),
        "metaspace_first": file(added_tokens=spm_added, pre_tokenizer=PRETOKENIZERS["metaspace_first"], decoder={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}, model=char),
        "fused_unk": file(added_tokens=spm_added, normalizer=NORMALIZERS["llama2"], decoder=spm_decoder, model=unk),
        "t5": file(added_tokens=spm_added, normalizer=NORMALIZERS["t5"], pre_tokenizer=metaspace, post_processor=t5_end, decoder=metaspace, model=unigram),
        "xlnet": file(added_tokens=spm_added, normalizer=NORMALIZERS["xlnet"], pre_tokenizer=SEQ({"type": "WhitespaceSplit"}, metaspace), post_processor=xlnet_end, decoder=metaspace, model=unigram),
        "unigram_bytes": file(added_tokens=spm_added, normalizer={"type": "Replace", "pattern": STR(" "), "content": "▁"}, post_processor=around,
                              decoder={"type": "Sequence", "decoders": [{"type": "Replace", "pattern": STR("▁"), "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}, model=with_bytes),
        "affixes": file(added_tokens=spm_added, pre_tokenizer=SEQ({"type": "BertPreTokenizer"}), decoder={"type": "WordPiece", "prefix": "@@", "cleanup": True},
                        model={**with_affixes(continuing_subword_prefix="##", end_of_word_suffix="~"), "unk_token": "<unk>"}),
        "gpt1": file(added_tokens=spm_added, normalizer=BERT, pre_tokenizer={"type": "BertPreTokenizer"}, decoder={"type": "BPEDecoder", "suffix": "~"},
                     model={**with_affixes(end_of_word_suffix="~"), "unk_token": "<unk>"}),
        "replaced": file(added_tokens=spm_added, pre_tokenizer={"type": "Metaspace", "replacement": "_", "prepend_scheme": "never", "split": False}, model=char,
                         decoder={"type": "Sequence", "decoders": [{"type": "Replace", "pattern": RE("[_▁]"), "content": "-"}, {"type": "Strip", "content": "e", "start": 0, "stop": 1}]}),
        "single_unk": file(added_tokens=spm_added, normalizer=NORMALIZERS["llama2"], decoder=spm_decoder, model={**unk, "fuse_unk": False}),
    }


def rank_files(texts):
    """tiktoken's files and tekken.json of one small vocabulary, by tiktoken and mistral-common."""
    byte_of = {c: b for b, c in zip(sorted(range(256), key=lambda b: (not (33 <= b <= 126 or 161 <= b <= 172 or 174 <= b), b)), [*map(chr, [*range(33, 127), *range(161, 173), *range(174, 256)]), *map(chr, range(256, 324))])}
    vocabulary = [bytes(byte_of[c] for c in name) for name, _ in sorted(trained(True)["vocab"].items(), key=lambda item: item[1])]
    ranks = {token: rank for rank, token in enumerate([bytes([b]) for b in range(256)] + [token for token in vocabulary if len(token) > 1])}
    lines = "".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items())
    n = len(ranks)
    qwen = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [f"<|extra_{i}|>" for i in range(205)]
    kimi = {n: "[BOS]", n + 1: "[EOS]", n + 3: "<|im_end|>"}
    kimi_config = {"added_tokens_decoder": {str(id): {"content": name, "special": True} for id, name in kimi.items()}, "bos_token": "[BOS]", "eos_token": "[EOS]"}
    added = [" <|im_start|>user\nHi<|im_end|>", "<|extra_0|><|extra_204|><|reserved_token_%d|>" % (n + 2), "[BOS][EOS] x", "<|endoftext|>", "今日は天気 Hanzi汉字abc"]
    families = [
        ("qwen.tiktoken", {}, r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+", {s: n + i for i, s in enumerate(qwen)}),
        ("tiktoken.model", kimi_config, KIMI, {kimi.get(i, f"<|reserved_token_{i}|>"): i for i in range(n, n + 258)}),
        ("tokenizer.model", {}, LLAMA3, {}),
    ]
    out = {"ranks": lines, "texts": added, "families": []}
    for name, config, pattern, special in families:
        encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
        form = "NFC" if name == "qwen.tiktoken" else None
        ids = [encoding.encode(unicodedata.normalize(form, t) if form else t, allowed_special="all") for t in texts + added]
        out["families"].append({"file": name, "config": config, "size": n + len(special), "ids": ids})
    tekken = {"config": {"pattern": TEKKEN, "num_vocab_tokens": n, "default_vocab_size": n - 20 + 30, "default_num_special_tokens": 30, "version": "v3"},
              "vocab": [{"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None} for token, rank in ranks.items()]}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "tekken.json")
        path.write_text(json.dumps(tekken))
        tokenizer = Tekkenizer.from_file(path)
        out["tekken"] = {"json": tekken, "ids": [tokenizer.encode(t, bos=True, eos=False) for t in texts + added], "size": tokenizer.n_words,
                         "special": [tokenizer.id_to_piece(i) for i in range(30)]}
    return out


def bare(**parts):
    return Tokenizer.from_str(json.dumps({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
                                          "post_processor": None, "decoder": None, "model": {"type": "BPE", "vocab": {}, "merges": []}, **parts}))


def main():
    texts = TEXTS + RANDOM
    out = {"made_by": "tests/golden/make_tokenizer_golden.py", "texts": texts, "normalizers": [], "pretokenizers": [], "tokenizers": []}
    for name, config in NORMALIZERS.items():
        normalizer = bare(normalizer=config).normalizer
        out["normalizers"].append({"name": name, "json": config, "out": [normalizer.normalize_str(t) for t in texts]})
    for name, config in PRETOKENIZERS.items():
        pre_tokenizer = bare(pre_tokenizer=config).pre_tokenizer
        out["pretokenizers"].append({"name": name, "json": config, "out": [[p for p, _ in pre_tokenizer.pre_tokenize_str(t)] for t in texts]})
    for name, config in whole_tokenizers().items():
        tokenizer = Tokenizer.from_str(json.dumps(config))
        row = {"name": name, "json": config}
        row["ids"] = [tokenizer.encode(t, add_special_tokens=False).ids for t in texts]
        row["ids_with_special"] = [tokenizer.encode(t, add_special_tokens=True).ids for t in texts]
        if name.startswith("bert"):
            pairs = [tokenizer.encode(a, b) for a, b in zip(texts, texts[1:])]
            tokenizer.enable_truncation(9)
            cut = [tokenizer.encode(a, b).ids for a, b in zip(texts, texts[1:])]
            tokenizer.no_truncation()
            row["pairs"] = [{"ids": pair.ids, "types": pair.type_ids, "nine": nine} for pair, nine in zip(pairs, cut)]
        row["decoded"] = [tokenizer.decode(ids, skip_special_tokens=True) for ids in row["ids"]]
        tokenizer.encode_special_tokens = True
        row["ids_plain"] = [tokenizer.encode(t, add_special_tokens=False).ids for t in texts]
        out["tokenizers"].append(row)
    RANKS.write_text(json.dumps(rank_files(texts), ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{OUT}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
