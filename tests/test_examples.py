"""The inputs of examples/: complete, of one piece, and none of them known to what they examine."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections import Counter

import pyarrow.parquet as pq
import pytest

from router import Tier
from router.decide.task import read_task
from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"


def rows(name: str) -> list[dict[str, str]]:
    with (EXAMPLES / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def traffic() -> list[str]:
    lines = (EXAMPLES / "traffic.jsonl").read_text("utf-8").splitlines()
    return [read_task({"messages": json.loads(line)["messages"]}).text for line in lines]


def test_labels_are_of_two_applications_and_every_tier() -> None:
    labels = rows("labels.csv")
    assert len(labels) >= 300
    assert len({row["text"] for row in labels}) == len({row["id"] for row in labels}) == len(labels)
    cells = Counter((row["class"], Tier(row["tier"])) for row in labels)
    assert set(cells) == {(name, tier) for name in ("support", "analysis") for tier in Tier}
    assert min(cells.values()) >= 20


def test_no_label_is_told_by_the_length_of_its_text_alone() -> None:
    """Each tier has requests of up to six words and of more than forty."""
    lengths = {tier: [len(row["text"].split()) for row in rows("labels.csv") if row["tier"] == tier] for tier in Tier}
    assert all(min(words) <= 6 and max(words) > 40 for words in lengths.values())


def test_nothing_was_learned_from() -> None:
    learned = set()
    for name in ("queries.jsonl", "requests.jsonl"):
        learned |= {
            json.loads(line)["text"].strip().lower() for line in (ROOT / "data" / name).read_text("utf-8").splitlines()
        }
    ours = [row["text"] for row in rows("labels.csv")] + traffic()
    shared = {text for text in ours if text.strip().lower() in learned and len(text.split()) > 2}
    assert shared == set()
    assert not {row["text"] for row in rows("labels.csv")} & set(traffic())


def test_made_inputs_are_what_the_script_makes() -> None:
    spec = importlib.util.spec_from_file_location("make_inputs", EXAMPLES / "make_inputs.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert pq.read_table(EXAMPLES / "trace.parquet").to_pylist() == script.requests()
    made = {name: (float(simple), float(moderate)) for name, simple, moderate in script.scores()}
    kept = {row["id"]: (float(row["p_simple"]), float(row["p_moderate"])) for row in rows("scores.csv")}
    assert made.keys() == kept.keys() == {row["id"] for row in rows("labels.csv")}
    assert all(kept[name] == pytest.approx(scores, abs=2e-4) for name, scores in made.items())
    with (EXAMPLES / "export.csv").open(encoding="utf-8", newline="") as file:
        assert [tuple(row) for row in csv.reader(file, delimiter=";")] == list(script.exported())
    logged = (EXAMPLES / "calls.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in logged] == list(script.calls())
