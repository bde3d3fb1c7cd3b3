"""Write trace.parquet, scores.csv, export.csv and calls.jsonl anew: python make_inputs.py

It needs `pip install "tierwise[train]"`.

The trace is invented: 40 conversations of two bots over one working day, sizes and times drawn with a fixed seed. The
scores are those of the shipped classifier on labels.csv, which it has not seen. The calls are the first 60 requests of
traffic.jsonl, all sent to one model; the embedded upstream says what they used.
"""

from __future__ import annotations

import csv
import datetime as dt
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pyarrow as pa
import pyarrow.parquet as pq

from router import Router, Settings
from router.offline import Upstream

HERE = Path(__file__).parent
BLOCK_TOKENS = 64
SYSTEM_TOKENS = {"support": 3_000, "analysis": 9_000}  # system prompt and tools, alike in all conversations of a bot


def conversation(number: int, draw: random.Random) -> Iterator[dict[str, Any]]:
    """The requests of one conversation: each prompt is the one before it, what was answered, and what is new."""
    bot = draw.choice(list(SYSTEM_TOKENS))
    at_s = draw.uniform(0, 8 * 3600)
    blocks = [SYSTEM_TOKENS[bot] * 1_000 + i for i in range(SYSTEM_TOKENS[bot] // BLOCK_TOKENS)]
    for turn in range(draw.randint(2, 7)):
        for step in range(1 if bot == "support" else draw.randint(1, 5)):  # the analysis bot calls tools
            blocks = blocks + [draw.getrandbits(48) for _ in range(draw.randint(1, 6 if bot == "support" else 30))]
            yield {
                "timestamp_s": round(at_s, 3),
                "conversation_id": f"{bot}-{number:02d}",
                "input_tokens": len(blocks) * BLOCK_TOKENS + draw.randrange(BLOCK_TOKENS),
                "output_tokens": draw.randint(40, 600),
                "prefix_block_hashes": blocks,
                "block_tokens": BLOCK_TOKENS,
                "user_turn": step == 0,
            }
            at_s += draw.uniform(4, 20)
        at_s += draw.expovariate(1 / 150) * (1 + turn)  # people think longer, the longer they talk


def requests() -> list[dict[str, Any]]:
    """All requests of the day, in the order of time."""
    draw = random.Random(2026)
    rows = [row for number in range(40) for row in conversation(number, draw)]
    return sorted(rows, key=lambda row: row["timestamp_s"])


def scores() -> Iterator[tuple[str, str, str]]:
    """(id, P(simple suffices), P(moderate suffices)) of each labelled row."""
    router = Router.load(config=Settings())
    with (HERE / "labels.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            simple, moderate, _ = router.decide(row["text"]).p_suffices.values()
            yield row["id"], f"{simple:.4f}", f"{moderate:.4f}"


def exported() -> Iterator[tuple[str, str, str]]:
    """The labels of the support bot as a helpdesk exports them: its own names of columns, semicolons."""
    yield "Ticket", "Customer wrote", "Needs"
    with (HERE / "labels.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["class"] == "support":
                yield row["id"].upper(), row["text"], row["tier"].capitalize()


def calls() -> Iterator[dict[str, Any]]:
    """What a log of the bot's calls holds: when, which conversation, the body, and the usage that was billed."""
    system = (HERE / "system_prompt.md").read_text("utf-8")
    start = dt.datetime(2026, 11, 27, 9, 14, tzinfo=dt.UTC)
    with Upstream() as upstream, anthropic.Anthropic(base_url=upstream.url, api_key="any") as client:
        for number, line in enumerate((HERE / "traffic.jsonl").read_text("utf-8").splitlines()[:60]):
            row = json.loads(line)
            body = {"model": "claude-opus-4-7", "max_tokens": 300, "system": system, "messages": row["messages"]}
            usage = client.messages.create(**body).usage.to_dict()
            at = (start + dt.timedelta(seconds=97 * number)).isoformat()
            yield {"at": at, "conversation": row["id"], "body": body, "usage": usage}


def main() -> None:
    pq.write_table(pa.Table.from_pylist(requests()), HERE / "trace.parquet", compression="zstd")
    with (HERE / "scores.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("id", "p_simple", "p_moderate"), *scores()])
    with (HERE / "export.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=";", lineterminator="\n").writerows(exported())
    with (HERE / "calls.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(call, ensure_ascii=False) + "\n" for call in calls())


if __name__ == "__main__":
    main()
