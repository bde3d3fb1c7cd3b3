"""Two artifacts at once: the champion says complex, the canary simple, so that every decision shows whose it is."""

from __future__ import annotations

import datetime as dt
import logging
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from router import Api, Ledger, Reason, RequestError, Router, Settings, Tier, Usage
from router.classifier import artifact, pointer
from router.classifier.artifact import OperatingPoint
from router.classifier.pointer import Pointer, Verdict
from router.types import Record
from tests.conftest import artifact_that_says

POINTER = Pointer("old-v1", "new-v1", 0.3)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    artifact_that_says("complex", folder / "old-v1")
    artifact_that_says("simple", folder / "new-v1")
    return folder


@pytest.fixture
def models(made: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(made, tmp_path / "models")
    pointer.write_pointer(folder, POINTER)
    return folder


def loaded(models: Path, store: Ledger | None = None, **settings: object) -> Router:
    return Router.load(models, config=msgspec.convert(settings, Settings), store=store)


def body(conversation: str | None, *texts: str) -> dict[str, object]:
    asked = [{"role": "user", "content": text} for text in texts or ("What is the capital of Peru?",)]
    options = {} if conversation is None else {"router": {"conversation_id": conversation}}
    return {"model": "auto", "max_tokens": 50, "messages": asked, **options}


def call(router: Router, conversation: str | None, *texts: str) -> Record:
    plan = router.plan(body(conversation, *texts), Api.MESSAGES)
    return router.record(plan, Usage(fresh_tokens=20, output_tokens=5))


def conversations_of(router: Router, name: str, n: int, start: int = 0) -> list[Record]:
    """n records of conversations that one artifact serves."""
    found = []
    while len(found) < n:
        record = call(router, f"conversation {start}")
        found += [record] if record.artifact == name else []
        start += 1
    return found


def test_a_share_of_the_conversations_is_the_canarys_and_stays_so(models: Path) -> None:
    router = loaded(models)
    first = [call(router, f"c{n}") for n in range(400)]
    assert {(r.artifact, r.tier) for r in first} == {("old-v1", Tier.COMPLEX), ("new-v1", Tier.SIMPLE)}
    assert sum(r.artifact == "new-v1" for r in first) / 400 == pytest.approx(0.3, abs=0.08)
    again = loaded(models, fleet="gpt").with_fleet("claude-latest")  # another process, another fleet
    assert [call(again, f"c{n}", "hi", "And of Chile?").artifact for n in range(400)] == [r.artifact for r in first]


def test_without_a_name_the_first_message_names_the_conversation(models: Path) -> None:
    router = loaded(models)
    served = {}
    for n in range(40):
        first = call(router, None, f"Question {n}: what is the capital of Peru?")
        later = call(
            router, None, f"Question {n}: what is the capital of Peru?", "And of Chile?", "Thanks, and Bolivia?"
        )
        assert first.conversation == later.conversation
        assert first.artifact == later.artifact
        served[first.conversation] = first.artifact
    assert len(served) == 40
    assert set(served.values()) == {"old-v1", "new-v1"}


def test_decide_follows_the_conversation_too(models: Path) -> None:
    router = loaded(models)
    record = conversations_of(router, "new-v1", 1)[0]
    assert router.decide("What is the capital of Peru?").artifact == "old-v1"
    for n in range(20):
        planned = router.plan(body(f"c{n}"), Api.MESSAGES).decision
        decided = router.decide(body(f"c{n}"))
        assert (decided.artifact, decided.conversation) == (planned.artifact, planned.conversation)
    assert record.conversation
    assert "conversation" not in record.conversation  # a name can be a person's


def test_a_named_model_is_nobodys_decision(models: Path) -> None:
    router = loaded(models)
    plan = router.plan({**body("c"), "model": "claude-haiku-4-5"}, Api.MESSAGES)
    record = router.record(plan, Usage(fresh_tokens=1))
    assert (record.reason, record.artifact, record.conversation) == (Reason.EXPLICIT_MODEL, "", "")
    with pytest.raises(RequestError, match="no artifact decided"):
        router.feedback(record, good=True)


def cut(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])


def garbled(folder: Path) -> None:
    """Its hashes are right, its content is not."""
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes())
    (folder / "tokenizer.model").write_bytes(b"{}")
    entry = artifact.entry(b"{}")
    manifest["files"]["tokenizer.model"] = {"sha256": entry.sha256, "bytes": entry.bytes}
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))


@pytest.mark.parametrize("spoil", [shutil.rmtree, cut, garbled])
def test_a_canary_that_cannot_be_loaded_leaves_the_champion(
    models: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    spoil(models / "new-v1")
    router = loaded(models)
    assert {call(router, f"c{n}").artifact for n in range(40)} == {"old-v1"}
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert line.getMessage().startswith("the canary new-v1 cannot serve, old-v1 takes every conversation: ")


def test_a_point_that_the_canary_lacks_is_the_champions(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`tierwise tune` chose it for the champion; it says nothing of the canary."""
    point = OperatingPoint({Tier.SIMPLE: 1, Tier.MODERATE: 1}, "t", 0, (0, 0), {}, "s", artifact="old-v1-v3")
    router = Router.load(models, config=Settings(operating_points={"mine": point}, operating_point="mine"))
    assert "the canary new-v1 has no operating point mine: old-v1 takes what asks for it" in caplog.text
    asked = [router.plan({**body(f"c{n}"), "model": "auto:mine"}, Api.MESSAGES).decision for n in range(40)]
    assert {d.artifact for d in asked} == {"old-v1"}
    asked = [router.plan({**body(f"c{n}"), "model": "auto:economy"}, Api.MESSAGES).decision for n in range(40)]
    assert {d.artifact for d in asked} == {"old-v1", "new-v1"}


def test_worse_for_sure_is_rolled_back_here_and_in_the_folder(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Ledger()
    router = loaded(models, store)
    other = router.with_fleet("gpt")
    for record in conversations_of(router, "old-v1", 120):
        assert router.feedback(record, good=True) is Verdict.HOLD
    canarys = conversations_of(router, "new-v1", 101)
    verdicts = [router.feedback(record, good=n % 2 == 0) for n, record in enumerate(canarys)]
    assert verdicts == [Verdict.HOLD] * 99 + [Verdict.ROLL_BACK, Verdict.HOLD]  # as soon as there are enough
    assert pointer.read_pointer(models) == POINTER.without_canary()
    assert "the canary new-v1 is rolled back, old-v1 serves: +50.0% bad conversations" in caplog.text
    for back in (router, other):
        assert {call(back, f"conversation {n}").artifact for n in range(100)} == {"old-v1"}


def test_not_worse_is_said_once_and_promoted_only_where_that_is_allowed(
    models: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pointer, "MARGIN", 0.5)
    for may in (False, True):
        router = loaded(models, promote_canary=may)
        records = [record for name in ("old-v1", "new-v1") for record in conversations_of(router, name, 110)]
        verdicts = {router.feedback(record, good=True) for record in records}
        assert verdicts >= {Verdict.PROMOTE}
        if not may:
            assert caplog.text.count("not worse: ") == 1
            assert f"tierwise models promote new-v1 --models {models}" in caplog.text
            assert pointer.read_pointer(models) == POINTER
    assert pointer.read_pointer(models) == Pointer("new-v1", history=("old-v1",))
    assert {call(router, f"c{n}").artifact for n in range(60)} == {"new-v1"}
    assert router.decide("hi").artifact == "new-v1"


def test_what_somebody_else_has_taken_back_is_taken_back(models: Path) -> None:
    router = loaded(models)
    pointer.write_pointer(models, POINTER.without_canary())
    router.feedback("c", good=True)
    assert {call(router, f"c{n}").artifact for n in range(40)} == {"old-v1"}


def test_a_pointer_that_changed_meanwhile_is_left(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    router = loaded(models)
    changed = Pointer("new-v1", history=("old-v1",))
    for name, good in (("old-v1", True), ("new-v1", False)):
        for record in conversations_of(router, name, 110):
            pointer.write_pointer(models, changed)
            router.feedback(record, good=good)
    assert "says something else by now and is left" in caplog.text
    assert pointer.read_pointer(models) == changed
    assert {call(router, f"c{n}").artifact for n in range(40)} == {"old-v1"}


def test_a_conversation_counts_once_and_as_bad_after_one_bad_word(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger(path) as store:
        router = loaded(models, store)
        record = conversations_of(router, "old-v1", 1)[0]
        for good in (True, False, True):
            router.feedback(record, good=good)
        router.feedback("another", good=True)
    with Ledger(path) as store:
        found = store.feedback()
        assert sum(of.n for of in found.values()) == 2
        assert found["old-v1"].n_bad == 1
        assert store.feedback(dt.datetime.now(dt.timezone(dt.timedelta(hours=-5))) + dt.timedelta(seconds=1)) == {}
        assert store.feedback(dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)) == found


OLD_SCHEMA = """
CREATE TABLE records (
  id INTEGER PRIMARY KEY, at TEXT NOT NULL,
  tier TEXT, model TEXT NOT NULL, reason TEXT NOT NULL, p_suffices TEXT NOT NULL,
  fresh_tokens INTEGER NOT NULL, cache_read_tokens INTEGER NOT NULL,
  cache_write_short_tokens INTEGER NOT NULL, cache_write_long_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL, usage_reported INTEGER NOT NULL,
  cost_picousd INTEGER, baseline_model TEXT, baseline_cost_picousd INTEGER, notes TEXT NOT NULL
) STRICT
"""


def test_a_ledger_of_the_version_before_goes_on(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute(OLD_SCHEMA)
        db.execute(
            "INSERT INTO records VALUES (1, '2026', 'simple', 'm', 'suffices', '{}', 1, 0, 0, 0, 1, 1, 5, 'm', 9, '[]')"
        )
        db.commit()
    for _ in "12":
        with Ledger(path) as store:
            call(loaded(models, store), "c")
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT artifact, conversation FROM records ORDER BY id").fetchall()
    assert rows[0] == ("", "")
    assert rows[1] == rows[2]
    assert rows[1][0] in ("old-v1", "new-v1")
