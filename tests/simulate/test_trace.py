"""Replaying traces: costs by hand, errors that name the place, and the engine never below the tier needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import Router, Settings
from router.catalog import shipped
from router.errors import RequestError
from router.offline.prefixcache import PrefixCache
from router.offline.prompt import Position
from router.simulate import replay as simulate
from router.simulate import trace as traces
from router.types import Ttl
from tests.conftest import ROOT

BLOCK = 64


def rows(
    n_conversations: int = 12, n_turns: int = 10, gap_s: float = 40.0, every_s: float = 3.0
) -> list[dict[str, Any]]:
    """Agents whose prompts grow by 20 blocks a turn from 10,240 tokens on; each third request opens a user's turn."""
    found = []
    for c in range(n_conversations):
        for t in range(n_turns):
            n_blocks = 160 + 20 * t
            found.append(
                {
                    "timestamp_s": c * every_s + t * gap_s,
                    "conversation_id": f"c{c}",
                    "input_tokens": n_blocks * BLOCK + 7,
                    "output_tokens": 100,
                    "prefix_block_hashes": [c * 10_000 + i for i in range(n_blocks)],
                    "block_tokens": BLOCK,
                    "user_turn": t % 3 == 0,
                    "turn": t,
                }
            )
    return found


def written(path: Path, table: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(table), path)
    return path


def router() -> Router:
    return Router.load(fleet="claude", config=Settings())


@pytest.fixture
def trace(tmp_path: Path) -> traces.Trace:
    return traces.read_trace(written(tmp_path / "t.parquet", rows()))


def test_a_cached_conversation_by_hand(tmp_path: Path) -> None:
    trace = traces.read_trace(written(tmp_path / "t.parquet", rows(1, 2)))
    got = simulate.replay(trace, router, mix=(0, 0, 1), policies=("top 5m",), seeds=1)["top 5m"]
    first, second = 160 * BLOCK, 180 * BLOCK
    usd = first * 6.25 + first * 0.5 + (second - first) * 6.25 + 14 * 5 + 200 * 25
    plain = (first + second + 14) * 3 + 200 * 15
    assert got.cost_ratio == pytest.approx(usd / plain)
    assert got.hit_rate == pytest.approx(first / (first + second + 14))


def test_ours_is_never_below_and_not_worse_than_the_best_simple_policy(tmp_path: Path) -> None:
    """Conversations of 1 to 24 requests: how far one still goes is not known from how far it has come."""
    chance = np.random.default_rng(3)
    lengths = np.minimum(chance.geometric(0.1, 60), 24)
    table = [row for row in rows(60, 24, every_s=30.0) if row["turn"] < lengths[int(row["conversation_id"][1:])]]
    trace = traces.read_trace(written(tmp_path / "t.parquet", table))
    got = simulate.replay(trace, router, seeds=2, difficulty="turn")
    assert set(got) == set(simulate.POLICIES)
    assert got["ours"].below_required == 0
    assert got["ours"].cost_ratio <= 1.02 * min(
        got[p].cost_ratio for p in ("per request", "per request 1h", "per turn")
    )
    assert got["ours"].saved > 0
    assert got["ours"].interval[0] <= got["ours"].cost_ratio <= got["ours"].interval[1]
    assert got["sticky"].below_required > 0


@pytest.mark.parametrize("difficulty", ["request", "turn", "conversation"])
def test_draws(trace: traces.Trace, difficulty: traces.Difficulty) -> None:
    needed = traces.draw(trace, (50, 30, 20), difficulty, 0)
    assert (needed == traces.draw(trace, (50, 30, 20), difficulty, 0)).all()
    for c in range(12):
        mine = needed[trace.conversations == c]
        if difficulty == "conversation":
            assert len(set(mine)) == 1
        if difficulty == "turn":
            assert all(len(set(mine[i : i + 3])) == 1 for i in range(0, 9, 3))
    assert len(set(needed)) == 3


def test_gaps_are_stretched(tmp_path: Path) -> None:
    path = written(tmp_path / "t.parquet", rows(1, 2))
    assert np.diff(traces.read_trace(path, gaps=5).at_s) == pytest.approx([200.0])


def test_what_exceeds_a_window_goes_up(tmp_path: Path) -> None:
    big = rows(1, 1)
    big[0]["input_tokens"] = 300_000  # beyond Haiku's 200,000
    got = simulate.replay(traces.read_trace(written(tmp_path / "t.parquet", big)), router, mix=(1, 0, 0), seeds=1)
    assert got["ours"].cost_ratio >= 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("input_tokens"), "lacks the column 'input_tokens'"),
        (lambda row: row.update(timestamp_s=-1.0), "row 3: timestamp_s is -1.0"),
        (lambda row: row.update(timestamp_s=float("nan")), "row 3: timestamp_s is nan"),
        (lambda row: row.update(prefix_block_hashes=None), "row 3: prefix_block_hashes is missing"),
        (lambda row: row.update(block_tokens=0), "block_tokens is"),
    ],
)
def test_a_bad_trace_is_named(tmp_path: Path, change: Any, message: str) -> None:
    table = rows(1, 5)
    change(table[3])
    if "input_tokens" not in table[3]:
        table = [{k: v for k, v in row.items() if k != "input_tokens"} for row in table]
    with pytest.raises(RequestError, match=message):
        traces.read_trace(written(tmp_path / "t.parquet", table))


def test_no_parquet_and_a_wrong_mix(tmp_path: Path, trace: traces.Trace) -> None:
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(RequestError, match="no Parquet file"):
        traces.read_trace(tmp_path / "x.parquet")
    with pytest.raises(RequestError, match="expected 3 shares"):
        simulate.replay(trace, router, mix=(70, 30))


def test_the_command(tmp_path: Path) -> None:
    path = written(tmp_path / "t.parquet", rows(2, 4))
    command = [sys.executable, "-m", "router.cli", "simulate", "--trace", str(path), "--seeds", "1", "--json"]
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    assert set(json.loads(done.stdout)["policies"]["ours"]) >= {
        "cost_ratio",
        "hit_rate",
        "below_required",
        "switches",
        "interval",
    }


@given(
    st.lists(
        st.tuples(st.floats(1, 2000), st.integers(0, 2), st.integers(1, 6), st.sampled_from([1, 2]), st.integers(0, 2)),
        min_size=1,
        max_size=25,
    )
)
def test_the_cache_bills_as_the_embedded_providers_do(drawn: list[tuple[float, int, int, int, int]]) -> None:
    """A head and a growing conversation behind it, each cached for no time, five minutes or an hour."""
    heads, at_s, rows = [1500, 800, 4200], 0.0, []
    for gap_s, head, n_parts, head_ttl, tail_ttl in drawn:
        at_s += gap_s
        # A longer lifetime must come first, which the engine sees to.
        ttls = Ttl(max(head_ttl, tail_ttl)), Ttl(tail_ttl)
        rows.append((at_s, head, [head, *(100 + 10 * head + part for part in range(n_parts))], ttls))
    sizes = [np.cumsum([heads[head], *[300] * (len(parts) - 1)]) for _, head, parts, _ in rows]
    trace = traces.Trace(
        np.array([row[0] for row in rows]),
        np.array([row[1] for row in rows]),
        np.array([int(size[-1]) + 7 for size in sizes]),
        np.full(len(rows), 5),
        None,
        [np.array(row[2]) for row in rows],
        sizes,
        200,
        np.ones(len(rows), int),
    )
    model = shipped().models["claude-opus-4-7"]
    ours, theirs = simulate._Cache(trace, 1, (1.0,)), PrefixCache()
    for i, (at_s, head, parts, ttls) in enumerate(rows):
        marks = {0: ttls[0], len(parts) - 1: ttls[1]} if ttls[1] else {0: ttls[0]}
        names = {Ttl.SHORT: "5m", Ttl.LONG: "1h"}
        positions = [
            Position(f"{head}/{part}", int(size), "text", names.get(marks.get(at, Ttl.NONE)))
            for at, (part, size) in enumerate(zip(parts, sizes[i], strict=True))
        ]
        used = theirs.use_anthropic(model.id, model.cache_min_tokens, positions, at_s)
        theirs.begin(used)
        got = ours.use(i, 0, model, *ttls, at_s)
        assert (got.cache_read_tokens, got.cache_write_short_tokens, got.cache_write_long_tokens) == (
            used.read,
            used.write_short,
            used.write_long,
        )
