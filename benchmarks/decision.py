"""How long does a decision take? JSON on stdout: microseconds, p50 and p99, warm, one thread.

    python benchmarks/decision.py [--rounds N]

`decide` is the whole `router.decide(text)`; `features`, `onnx` and `policy` are its parts, timed on their own (policy
is what is left); `tokenizers` is `Tokenizer.encode` of the full text with the same vocabulary, the price of not
having a chunk cache; `first_sight` is `decide` on a text none of whose words the cache has seen. Compare the columns
of one run with each other, not with another run: other work on the machine moves them all.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable

from tokenizers import Tokenizer

from router import Router
from router.classifier import artifact

LENGTHS = (10, 100, 1000, 8000)
TEXT = """please could you look at this report and tell me which of the three options our team should choose before
the meeting on monday since budget is limited while customers expect delivery within two weeks also check whether
shipping costs table includes tax because last quarter we had wrong numbers there thanks in advance"""


def percentiles(runs: dict[str, Callable[[str], object]], texts: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """p50 and p99 in microseconds of each run over the texts, `rounds` times; interleaved, so noise hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for text in texts:
            for name, run in runs.items():
                start = time.perf_counter_ns()
                run(text)
                times[name].append((time.perf_counter_ns() - start) / 1000)
    return {
        name: {"p50_us": round(statistics.median(t), 1), "p99_us": round(statistics.quantiles(t, n=100)[98], 1)}
        for name, t in times.items()
    }


def measure(router: Router, tokenizer: Tokenizer, n_tokens: int, rounds: int) -> dict[str, dict[str, float]]:
    """All columns for twenty texts of `n_tokens` common words."""
    chance = random.Random(n_tokens)
    words, classifier = TEXT.split(), router.policy.champion.classifier
    texts = [" ".join(chance.choice(words) for _ in range(n_tokens)) for _ in range(20)]
    # six random letters are about three tokens
    unseen = [" ".join("".join(chance.choices("abcdefghij", k=6)) for _ in range(n_tokens // 3 or 1)) for _ in texts]
    ready = {text: classifier.encoder.encode(text) for text in texts}
    parts: dict[str, Callable[[str], object]] = {
        "decide": router.decide,
        "features": classifier.encoder.encode,
        "onnx": lambda text: classifier.run(ready[text]),
    }
    percentiles(parts, texts, 3)
    row = {
        **percentiles(parts, texts, rounds),
        **percentiles({"tokenizers": tokenizer.encode}, texts, max(rounds // 10, 2)),
        **percentiles({"first_sight": router.decide}, unseen, 1),
    }
    rest = row["decide"]["p50_us"] - row["features"]["p50_us"] - row["onnx"]["p50_us"]
    return {**row, "policy": {"p50_us": round(rest, 1)}}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    router = Router.load()
    tokenizer = Tokenizer.from_buffer(artifact.load().tokenizer)
    by_length = {str(n): measure(router, tokenizer, n, rounds) for n in LENGTHS}
    print(json.dumps({"python": platform.python_version(), "machine": platform.machine(), "tokens": by_length}))


if __name__ == "__main__":
    main()
