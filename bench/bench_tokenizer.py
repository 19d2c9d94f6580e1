"""The `tokenizers` library at the work of bench_tokenizer.c: same arguments, same figures, one thread."""
import json
import os
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer  # noqa: E402


def texts_of(path):
    for item in json.load(open(path, encoding="utf-8")):
        if isinstance(item, str):
            yield item
        else:
            yield from (item[k] for k in ("text_query", "motion_tokens") if isinstance(item.get(k), str))


def median_pass(work, seconds):
    passes, begin = [], time.perf_counter()
    while len(passes) < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        work()
        passes.append(time.perf_counter() - start)
    return sorted(passes)[len(passes) // 2]


def main(directory, path, seconds=3.0):
    start = time.perf_counter()
    tokenizer = Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
    print(f"open: {time.perf_counter() - start:.3f} s")
    texts = list(texts_of(path))
    ids = [tokenizer.encode(t, add_special_tokens=False).ids for t in texts]
    n_bytes, n_tokens = sum(len(t.encode()) for t in texts), sum(map(len, ids))
    ways = {
        "encode": lambda: [tokenizer.encode(t, add_special_tokens=False) for t in texts],
        "encode_batch_fast": lambda: tokenizer.encode_batch_fast(texts, add_special_tokens=False),
        "decode": lambda: [tokenizer.decode(i, skip_special_tokens=False) for i in ids],
    }
    for name, work in ways.items():
        s = median_pass(work, float(seconds) / 2)
        print(f"{name}: {len(texts)} texts, {n_tokens} tokens: {1e6 * s:.1f} us a pass, {len(texts) / s:.0f} texts/s, "
              f"{1e-6 * n_bytes / s:.2f} MB/s, {1e-6 * n_tokens / s:.2f} million tokens/s")


main(*sys.argv[1:])
