"""A trace of real traffic: sizes and hashes of prompts, no text. Which tier a request needs is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from router.errors import RequestError

Difficulty = Literal["request", "turn", "conversation"]
"""How long one need for a tier lasts."""

_COLUMNS = ("timestamp_s", "conversation_id", "input_tokens", "output_tokens", "prefix_block_hashes", "block_tokens")


class Trace(msgspec.Struct, frozen=True):
    """Requests in the order of time. `blocks[i]` numbers the parts of request i's prompt that a cache can hold, alike
    if equal, and `ends[i]` says after how many tokens each ends.

    `conversations` counts from 0; where `named` is False a request does not name its own, which is found by its prompt
    as far as it can be. The first `heads[i]` parts are tools and system prompt, where the trace tells.
    `new_turn` is None where the trace does not say which requests open a user's turn.
    """

    at_s: npt.NDArray[np.float64]
    conversations: npt.NDArray[np.int64]
    input_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    new_turn: npt.NDArray[np.bool_] | None
    blocks: list[npt.NDArray[np.int64]]
    ends: list[npt.NDArray[np.int64]]
    n_blocks: int
    heads: npt.NDArray[np.int64] | None = None
    named: npt.NDArray[np.bool_] | None = None

    def n_head(self, i: int) -> int:
        """How many parts of request i's prompt are tools and system prompt; 0 where the trace does not tell."""
        return 0 if self.heads is None else int(self.heads[i])

    def __len__(self) -> int:
        return len(self.at_s)


def read_trace(path: Path, *, gaps: float = 1.0) -> Trace:
    """A trace from Parquet; `gaps` multiplies the time between requests.

    Raises RequestError, naming the column or the row, for a file that is no trace.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as exc:
        raise RequestError('reading Parquet needs pyarrow; pip install "tierwise[train]"') from exc
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as exc:
        raise RequestError(f"{path} is no Parquet file: {exc}") from exc
    if missing := [name for name in _COLUMNS if name not in table.column_names]:
        raise RequestError(f"{path} lacks the column {missing[0]!r}; a trace has {', '.join(_COLUMNS)}, and user_turn")
    if not len(table):
        raise RequestError(f"{path} holds no requests")
    names = table["conversation_id"].to_pylist()
    columns = {name: _numbers(path, name, table[name]) for name in ("timestamp_s", "input_tokens", "output_tokens")}
    sizes = {int(size) for size in _numbers(path, "block_tokens", table["block_tokens"])}
    if len(sizes) != 1 or min(sizes) <= 0:
        raise RequestError(f"{path}: block_tokens is {sorted(sizes)}, expected one positive number")
    block_tokens = sizes.pop()
    lists = table["prefix_block_hashes"].combine_chunks()
    if lists.null_count:
        raise RequestError(f"{path}, row {lists.is_null().index(True).as_py()}: prefix_block_hashes is missing")
    try:
        ends, hashes = lists.offsets.to_numpy(), lists.values.to_numpy()
    except (AttributeError, pa.ArrowException) as exc:
        raise RequestError(f"{path}: prefix_block_hashes is {lists.type}, expected lists of integers") from exc
    known, numbered = np.unique(hashes, return_inverse=True)
    order = np.lexsort((np.arange(len(table)), columns["timestamp_s"]))
    whole = (columns["input_tokens"] // block_tokens).astype(int)
    blocks = [numbered[ends[i] : min(ends[i + 1], ends[i] + whole[i])] for i in order]
    marks = np.arange(1, max(map(len, blocks)) + 1) * block_tokens
    turns = table["user_turn"].to_pylist() if "user_turn" in table.column_names else [None]
    new_turn = None if None in turns else np.asarray(turns, bool)[order]
    _, conversations = np.unique(np.asarray(names, str), return_inverse=True)
    return Trace(
        columns["timestamp_s"][order] * gaps,
        conversations[order],
        columns["input_tokens"][order].astype(np.int64),
        columns["output_tokens"][order].astype(np.int64),
        new_turn,
        blocks,
        [marks[: len(numbers)] for numbers in blocks],
        len(known),
    )


def _numbers(path: Path, name: str, column: Any) -> npt.NDArray[np.float64]:
    try:
        values = np.asarray(column.to_numpy(), float)
    except (ValueError, TypeError) as exc:
        raise RequestError(f"{path}: the column {name!r} is {column.type}, expected numbers") from exc
    bad = np.flatnonzero(~np.isfinite(values) | (values < 0))
    if len(bad):
        raise RequestError(f"{path}, row {bad[0]}: {name} is {values[bad[0]]}, expected a number from 0 up")
    return values


def draw(trace: Trace, mix: Sequence[float], difficulty: Difficulty, seed: int) -> npt.NDArray[np.int64]:
    """The tier (0 is the cheapest) that each request needs: `mix` are the shares, drawn anew each `difficulty`."""
    shares, chance = np.asarray(mix, float) / sum(mix), np.random.default_rng(seed)
    if difficulty == "request" or (difficulty == "turn" and trace.new_turn is None):
        return np.asarray(chance.choice(len(shares), len(trace), p=shares))
    if difficulty == "conversation" or trace.new_turn is None:
        each = np.asarray(chance.choice(len(shares), trace.conversations.max() + 1, p=shares))
        return each[trace.conversations]
    number, turns = np.zeros(trace.conversations.max() + 1, int), np.empty(len(trace), np.int64)
    for i, (conversation, new) in enumerate(zip(trace.conversations, trace.new_turn, strict=True)):
        number[conversation] += new
        turns[i] = number[conversation]
    _, unit = np.unique(np.stack([trace.conversations, turns]), axis=1, return_inverse=True)
    unit = unit.ravel()
    return np.asarray(chance.choice(len(shares), unit.max() + 1, p=shares))[unit]
