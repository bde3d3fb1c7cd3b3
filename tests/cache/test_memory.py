"""Where conversations are remembered: each store keeps, forgets and shares alike."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from router.cache.memory import KEEP_S, InProcessMemory, SqliteMemory, open_memory
from router.errors import SettingsError


def test_memory_forgets_the_longest_untouched() -> None:
    state = InProcessMemory(max_keys=2)
    state.put(["a"], b"1")
    state.put(["b"], b"2")
    state.put(["a", "c"], b"3")
    assert [state.first([key]) for key in "abc"] == [b"3", None, b"3"]


def test_the_first_key_that_has_a_value_wins(tmp_path: Path) -> None:
    for state in (InProcessMemory(), SqliteMemory(tmp_path / "state.db")):
        state.put(["x"], b"x")
        state.put(["y"], b"y")
        assert state.first(["none", "y", "x"]) == b"y"
        assert state.first(["none"]) is None


def test_sqlite_survives_a_restart_and_forgets(tmp_path: Path, clock: Any) -> None:
    SqliteMemory(tmp_path / "state.db", clock).put(["a"], b"1")
    later = SqliteMemory(tmp_path / "state.db", clock)
    assert later.first(["a"]) == b"1"
    clock.now += KEEP_S + 1
    for number in range(1000):
        later.put([f"k{number}"], b"2")
    assert later.first(["a"]) is None


def test_the_setting_chooses(tmp_path: Path) -> None:
    assert isinstance(open_memory(None), InProcessMemory)
    assert isinstance(open_memory(str(tmp_path / "s.db")), SqliteMemory)
    assert [open_memory(str(tmp_path / "s.db"), keeps_reasoning=keeps).keeps_reasoning for keeps in (False, True)] == [
        False,
        True,
    ]


def test_redis_away_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("redis")
    state = open_memory("redis://127.0.0.1:1/0")
    state.put(["a"], b"1")
    assert state.first(["a"]) == b"1"
    assert caplog.text.count("redis is away") == 1


def test_redis_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(SettingsError, match="pip install"):
        open_memory("redis://127.0.0.1:1/0")


def test_a_locked_file_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What it cannot write it remembers alone, says so once, and goes on when the file is free."""
    state = SqliteMemory(tmp_path / "state.db")
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for key in "ab":
            state.put([key], b"1")
        other.execute("ROLLBACK")
    assert (state.first(["b"]), state.trouble, caplog.text.count("is away")) == (b"1", "database is locked", 1)
    state._away_until_s = 0.0
    state.put(["c"], b"2")
    assert (state.trouble, SqliteMemory(tmp_path / "state.db").first(["c"])) == (None, b"2")
