"""How long does a decision take on a text that it has never seen? JSON on stdout: microseconds, one thread.

    python benchmarks/decision.py [--runs N]

`first_sight` is the headline: `router.decide` of each of the 2,340 queries of data/queries.jsonl, once, in a fresh
process; one entry a run, because other work on the machine moves them. `cpu_` is the same in CPU time, which waiting
for a core does not lengthen. `lengths`: texts of so many words drawn from the queries, each seen once. `parts`:
features and graph of the queries, each on its own. `second_pass`: the queries once more, for the footnote; nothing is
kept of a text, so only the processor's caches are warmer. The last three are of the last run.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from router import Router

QUERIES = Path(__file__).parents[1] / "data" / "queries.jsonl"
LENGTHS = (10, 100, 1000, 8000)
N_TEXTS = 200


def measured(run: Callable[[Any], object], inputs: Iterable[Any]) -> dict[str, float]:
    """p50 and p99 of one call for each input, by the wall and in CPU time."""
    wall, cpu = [], []
    for value in inputs:
        cpu_start, start = time.thread_time_ns(), time.perf_counter_ns()
        run(value)
        wall.append((time.perf_counter_ns() - start) / 1000)
        cpu.append((time.thread_time_ns() - cpu_start) / 1000)
    return {
        f"{name}p{percent}_us": round(statistics.quantiles(times, n=100)[percent - 1], 1)
        for name, times in (("", wall), ("cpu_", cpu))
        for percent in (50, 99)
    }


def one_run() -> dict[str, Any]:
    """Everything, in this process, the queries first."""
    texts = [json.loads(line)["text"] for line in QUERIES.read_text("utf-8").splitlines()]
    router = Router.load()
    first = measured(router.decide, texts)
    words, chance = [word for text in texts for word in text.split()], random.Random(0)
    drawn = {n: [" ".join(chance.choices(words, k=n)) for _ in range(N_TEXTS)] for n in LENGTHS}
    classifier = router.policy.champion.classifier
    return {
        "first_sight": first,
        "lengths": {str(n): measured(router.decide, drawn[n]) for n in LENGTHS},
        "parts": {
            "features": measured(classifier.encoder.encode, texts),
            "onnx": measured(classifier.run, [classifier.encoder.encode(text) for text in texts]),
        },
        "second_pass": measured(router.decide, texts),
    }


def main() -> None:
    """Measure in fresh processes and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="fresh processes (default 3); 0 measures in this one")
    n_runs = parser.parse_args().runs
    if not n_runs:
        print(json.dumps(one_run()))
        return
    again = [sys.executable, __file__, "--runs", "0"]
    runs = [json.loads(subprocess.run(again, check=True, stdout=subprocess.PIPE).stdout) for _ in range(n_runs)]
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    print(json.dumps({**runs[-1], "first_sight": [run["first_sight"] for run in runs], **machine}))


if __name__ == "__main__":
    main()
