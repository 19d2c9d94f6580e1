"""Makes the *.json of this folder: small tokenizers of every supported kind and what the `tokenizers` library
(0.22.2 when they were made) answers. Run in this folder: python make.py"""
import json
import random

import tokenizers
from tokenizers import AddedToken, Tokenizer

SENTENCES = [
    "Hello world, this is a small text for a small tokenizer.",
    "the hands move, the hand moves, moving hands; I'm sure they've moved 12 or 345 times",
    "def f(x):\n    return x + 1\n\n\nfriend's café, naïve über straße",
    "thank you  thank you   how are you doing today?",
]
TEXTS = SENTENCES + [
    "", " ", "  ", "\n", " \n ", "a", " a", "a ", "I'M we'LL THEY'VE x'Sy 's '\u017f", "abc123 4567", "1\u00bd\u2167\u0663\u00b2",
    "e\u0301 A\u030a \u212b \u00c5 \uac01 \u1100\u1161\u11a8 \u304b\u3099", "x \n y", "a\u2003b\u00a0c\u3000d\u180ee\u0085f",
    "\u5168\u89d2 \uff21\uff22", "\U0001f600 ok \U0001f468\u200d\U0001f469", "\r\n\r\nline", "tab\tx\t\ty", "__init__(self):", "--- ... !!",
    "\u2581under \u2581\u2581 \u0120", "<s>hello</s> <s> hello </s>", "<0x41><unk>", "\x00\x1f\x7f", "hello<a> world <b>!",
    "word swords word_ word", "   <l>   <r>   x", "<l><r><l>\n<r>\n", "a\u0327\u0301\u0323b", "<a><a> <a>\n\n<b>\t<b>", "\ud7a3\u0915\u093c\u094d",
]


def added(content, **flags):
    token = dict(id=0, content=content, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    token.update(flags)
    return token


def learn_merges(words, n):
    """Plain BPE training: the most frequent pair, the smallest of equals."""
    merges = []
    while len(merges) < n:
        count = {}
        for word in words:
            for pair in zip(word, word[1:]):
                count[pair] = count.get(pair, 0) + 1
        if not count:
            break
        best = min(count, key=lambda p: (-count[p], p))
        merges.append(list(best))
        for i, word in enumerate(words):
            new, j = [], 0
            while j < len(word):
                if tuple(word[j:j + 2]) == best:
                    new.append(word[j] + word[j + 1])
                    j += 2
                else:
                    new.append(word[j])
                    j += 1
            words[i] = new
    return merges


def byte_chars():
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    chars, extra = {}, 0
    for b in range(256):
        if b in keep:
            chars[b] = chr(b)
        else:
            chars[b] = chr(256 + extra)
            extra += 1
    return chars


def document(vocab_tokens, merges, add, **parts):
    vocab = {}
    for token in vocab_tokens + [a + b for a, b in merges]:
        vocab.setdefault(token, len(vocab))
    options = parts.pop("options", {})
    model = dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None,
                 fuse_unk=False, byte_fallback=False, ignore_merges=False)
    model.update(options)
    model.update(vocab=vocab, merges=merges)
    root = dict(version="1.0", truncation=None, padding=None, added_tokens=[], normalizer=None, pre_tokenizer=None,
                post_processor=None, decoder=None)
    root.update(parts)
    root["model"] = model
    t = Tokenizer.from_str(json.dumps(root))
    for token in add:
        flags = {k: token[k] for k in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        (t.add_special_tokens if token["special"] else t.add_tokens)([AddedToken(token["content"], **flags)])
    return json.loads(t.to_str())


def byte_level_words():
    chars = byte_chars()
    return [[chars[b] for b in (" " + w).encode()] for s in SENTENCES for w in s.split(" ")]


def byte_level(add, n=120, **parts):
    return document(list(byte_chars().values()), learn_merges(byte_level_words(), n), add,
                    decoder=dict(type="ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True), **parts)


def spaced(add, n=80, newlines=0, **parts):
    words = [list("\u2581" + w) for s in SENTENCES for w in s.split(" ") if "\u00ef" not in w]
    merges = learn_merges(words, n)
    for k in range(2, newlines + 1):
        merges += [["\u2581" * a, "\u2581" * (k - a)] for a in range(1, k)]
        merges += [["\n" * a, "\n" * (k - a)] for a in range(1, k)]
    letters = sorted(set("\u2581\n" + "".join(SENTENCES).replace(" ", "")) - {"\u00ef"})
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + letters
    return document(tokens, merges, add, **parts)


TAIL = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
HEAD = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"


def split_then_bytes(regex, behavior="Isolated", invert=False):
    bytes_step = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=False, use_regex=False)
    return dict(type="Sequence", pretokenizers=[
        dict(type="Split", pattern=dict(Regex=regex), behavior=behavior, invert=invert), bytes_step])


def template(token, token_id):
    return dict(type="TemplateProcessing", single=[dict(SpecialToken=dict(id=token, type_id=0)), dict(Sequence=dict(id="A", type_id=0))],
                pair=[dict(Sequence=dict(id="A", type_id=0)), dict(Sequence=dict(id="B", type_id=1))],
                special_tokens={token: dict(id=token, ids=[token_id], tokens=[token])})


FLAGS = [added("<a>"), added("<b>", special=False), added("word", single_word=True), added("<l>", lstrip=True),
         added("<r>", rstrip=True, special=False), added("caf\u00e9", normalized=True, special=False),
         added("A\u030a", normalized=True, special=False, lstrip=True), added("\n\n", special=False)]
SENTENCE_TOKENS = [added("<unk>"), added("<s>"), added("</s>"), added("<a>"), added("<b>", special=False)]
SPACE = "\u2581"
TO_SPACE = dict(type="Replace", pattern=dict(String=SPACE), content=" ")


def cases():
    yield "qwen", byte_level([added("<a>"), added("<b>", special=False)], normalizer=dict(type="NFC"),
                             pre_tokenizer=split_then_bytes(HEAD + TAIL))
    yield "llama3", byte_level([added("<a>"), added("<b>")], pre_tokenizer=split_then_bytes(HEAD + "{1,3}" + TAIL),
                               post_processor=dict(type="Sequence", processors=[
                                   dict(type="ByteLevel", add_prefix_space=True, trim_offsets=False, use_regex=True), template("<a>", 376)]),
                               options=dict(ignore_merges=True))
    yield "smollm", byte_level([added("<a>")], pre_tokenizer=dict(type="Sequence", pretokenizers=[
        dict(type="Digits", individual_digits=True), dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)]))
    yield "gpt2", byte_level([added("<a>", lstrip=True)], pre_tokenizer=dict(
        type="ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True))
    yield "flags", byte_level(FLAGS, normalizer=dict(type="NFC"), pre_tokenizer=split_then_bytes(HEAD + TAIL))
    llama2 = dict(type="Sequence", decoders=[TO_SPACE, dict(type="ByteFallback"), dict(type="Fuse"),
                                             dict(type="Strip", content=" ", start=1, stop=0)])
    yield "llama2", spaced(SENTENCE_TOKENS, normalizer=dict(type="Sequence", normalizers=[
        dict(type="Prepend", prepend=SPACE), dict(type="Replace", pattern=dict(String=" "), content=SPACE)]),
        decoder=llama2, post_processor=template("<s>", 1), options=dict(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    yield "gemma", spaced(SENTENCE_TOKENS + [added(c * k, special=False) for c in "\n\u2581" for k in range(2, 5)], newlines=4,
                          normalizer=dict(type="Replace", pattern=dict(String=" "), content=SPACE),
                          pre_tokenizer=dict(type="Split", pattern=dict(String=" "), behavior="MergedWithPrevious", invert=False),
                          decoder=dict(type="Sequence", decoders=[TO_SPACE, dict(type="ByteFallback"), dict(type="Fuse")]),
                          post_processor=template("<s>", 1), options=dict(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    for scheme in "always", "first", "never":
        meta = dict(type="Metaspace", replacement=SPACE, prepend_scheme=scheme, split=scheme != "never")
        yield "metaspace_" + scheme, spaced(SENTENCE_TOKENS, pre_tokenizer=meta, decoder=meta,
                                            options=dict(unk_token="<unk>", fuse_unk=scheme == "first"))
    yield "no_unknown", spaced([added("<a>")])
    behaviors = "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"
    for i, behavior in enumerate(behaviors):
        pre = split_then_bytes("[aeiou\\s]", behavior, i % 2 == 1)
        pre["pretokenizers"].insert(1, dict(type="Digits", individual_digits=False))
        yield "split_" + behavior.lower(), byte_level([added("<a>")], n=20, pre_tokenizer=pre, normalizer=dict(
            type="Sequence", normalizers=[dict(type="NFKC"), dict(type="Replace", pattern=dict(Regex="[!?]+"), content=".")]))


def main():
    rng = random.Random(7)
    for name, root in cases():
        t = Tokenizer.from_str(json.dumps(root))
        rows = []
        for text in TEXTS:
            ids = t.encode(text, add_special_tokens=False).ids
            rows.append(dict(text=text, ids=ids, with_special=t.encode(text).ids, decoded=t.decode(ids, skip_special_tokens=False)))
        for _ in range(12):
            ids = [rng.randrange(t.get_vocab_size()) for _ in range(rng.randint(1, 9))]
            rows.append(dict(decode=ids, decoded=t.decode(ids, skip_special_tokens=False), skipped=t.decode(ids, skip_special_tokens=True)))
        with open(name + ".json", "w", encoding="ascii") as f:
            f.write("{\n\"made_with\": \"tokenizers %s\",\n\"tokenizer\": %s,\n\"rows\": [\n" % (tokenizers.__version__, json.dumps(root)))
            f.write(",\n".join(json.dumps(r) for r in rows) + "\n]}\n")


main()
