from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from router import ArtifactCorrupt, ArtifactNotFound, Ledger, Router
from router.classifier import artifact
from router.classifier.pointer import POINTER_FILE, Feedback, Pointer, Verdict, read_pointer, verdict_of
from tests.conftest import ROOT
from training.commands import models as commands
from training.examine import gate_report
from training.retrain import difference, promotion
from training.retrain.promotion import NotPromoted

SHIPPED = artifact.find()


def challenger(models: Path, name: str, *, passed: bool = True) -> Path:
    """A copy of the shipped artifact under another name, with a report of the gate about it."""
    shutil.copytree(SHIPPED, models / name, ignore=shutil.ignore_patterns("training"))
    manifest = msgspec.json.decode((models / name / "manifest.json").read_bytes())
    (models / name / "manifest.json").write_bytes(msgspec.json.encode({**manifest, "name": name}))
    check = gate_report.Check("quality at equal cost", passed, "APGR +0.1", "not worse")
    champion = gate_report.sha256(promotion.champion_of(models))
    report = gate_report.Report(champion, gate_report.sha256(models / name), 9, {}, 0.1, (0.0, 0.2), (check,))
    gate_report.write_report(models / name, report)
    return models / name


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    challenger(folder, "mine-v1")
    return folder


def test_promote_and_roll_back(models: Path) -> None:
    assert promotion.promote(models, "mine-v1") == Pointer("mine-v1", history=(artifact.SHIPPED,))
    assert Router.load(models).policy.champion.manifest.name == "mine-v1"
    challenger(models, "mine-v2")
    promotion.promote(models, "mine-v2")
    assert Router.load(models).policy.champion.manifest.name == "mine-v2"
    assert promotion.roll_back(models).champion == "mine-v1"
    assert promotion.roll_back(models).champion == artifact.SHIPPED
    assert Router.load(models).policy.champion.manifest.name == "complexity"
    with pytest.raises(NotPromoted, match="nothing to roll back to"):
        promotion.roll_back(models)


def test_canary_then_all(models: Path) -> None:
    first = promotion.promote(models, "mine-v1", share=0.1)
    assert first == Pointer(artifact.SHIPPED, "mine-v1", 0.1, since=first.since)
    assert promotion.promote(models, "mine-v1", share=0.2).since == first.since  # a larger share is the same trial
    assert Router.load(models).policy.champion.manifest.name == "complexity"
    assert promotion.roll_back(models) == Pointer(artifact.SHIPPED)
    promotion.promote(models, "mine-v1", share=0.1)
    assert promotion.promote(models, "mine-v1") == Pointer("mine-v1", history=(artifact.SHIPPED,))
    with pytest.raises(NotPromoted, match=r"champion of .* already"):
        promotion.promote(models, "mine-v1")
    with pytest.raises(NotPromoted, match="share is 100%"):
        promotion.promote(models, artifact.SHIPPED, share=1.0)
    with pytest.raises(NotPromoted, match=r"champion of .* already"):
        promotion.promote(models, "mine-v1", share=0.5)


def test_what_the_gate_refused_does_not_serve(models: Path) -> None:
    challenger(models, "bad-v1", passed=False)
    with pytest.raises(NotPromoted, match="the gate refused bad-v1: quality at equal cost: APGR"):
        promotion.promote(models, "bad-v1")
    (models / "mine-v1" / gate_report.FILE).unlink()
    with pytest.raises(NotPromoted, match="mine-v1 has not passed the gate"):
        promotion.promote(models, "mine-v1")
    assert read_pointer(models) is None
    assert promotion.promote(models, "mine-v1", force=True).champion == "mine-v1"


def test_a_report_against_another_champion_does_not_count(models: Path) -> None:
    challenger(models, "mine-v2")
    promotion.promote(models, "mine-v1")
    with pytest.raises(NotPromoted, match="with another champion than mine-v1"):
        promotion.promote(models, "mine-v2")


def test_a_broken_artifact_does_not_serve(models: Path) -> None:
    path = models / "mine-v1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactCorrupt):
        promotion.promote(models, "mine-v1")
    with pytest.raises(ArtifactNotFound, match="no artifact 'nope'"):
        promotion.promote(models, "nope")
    assert read_pointer(models) is None


def test_killed_while_the_pointer_is_written_the_old_one_serves(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promotion.promote(models, "mine-v1")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        promotion.roll_back(models)
    assert Router.load(models).policy.champion.manifest.name == "mine-v1"
    assert [row["name"] for row in promotion.listed(models)] == [artifact.SHIPPED, "mine-v1"]


KILLED = """
import os, pathlib, signal, sys
from training.commands import models as commands
real = {where}
def killed(*args, **kwargs):
    if {after}:
        real(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
{where} = killed
commands.models(sys.argv[1:])
"""


@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.chmod", "pathlib.Path.replace"])
@pytest.mark.parametrize("after", [False, True])
def test_kill_9_in_the_middle_of_promoting(models: Path, where: str, after: bool) -> None:
    """The pointer is the old one or the new one, whole; the same command again completes it."""
    code = KILLED.format(where=where, after=after)
    command = [sys.executable, "-c", code, "promote", "mine-v1", "--models", str(models)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == -signal.SIGKILL
    is_done = where == "pathlib.Path.replace" and after
    assert Router.load(models if read_pointer(models) else None).policy.champion.name == (
        "mine-v1" if is_done else artifact.SHIPPED
    )
    if not is_done:
        promotion.promote(models, "mine-v1")
    assert Router.load(models).policy.champion.name == "mine-v1"
    assert {row["name"] for row in promotion.listed(models)} == {artifact.SHIPPED, "mine-v1"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "current.json"),
        ('{"champion": "../elsewhere"}', "'../elsewhere' is not the name"),
        ('{"champion": "mine-v1", "canary": "/etc"}', "'/etc' is not the name"),
        ('{"champion": "mine-v1", "share": 7}', "share is 7.0, expected 0 to 1"),
        ('{"champion": "mine-v1", "shaer": 1}', "shaer"),
    ],
)
def test_a_wrong_pointer_is_named(models: Path, content: str, message: str) -> None:
    (models / POINTER_FILE).write_text(content)
    with pytest.raises(ArtifactCorrupt, match=message):
        Router.load(models)


def test_a_champion_that_is_gone_is_named(models: Path) -> None:
    promotion.promote(models, "mine-v1")
    shutil.rmtree(models / "mine-v1")
    with pytest.raises(ArtifactNotFound, match=r"no artifact 'mine-v1', there are .*; restore it"):
        Router.load(models)


def test_conversations_keep_their_artifact_and_the_share_holds() -> None:
    pointer = Pointer("a", "b", 0.1)
    served = [pointer.serves(f"conversation {n}") for n in range(20_000)]
    assert served == [pointer.serves(f"conversation {n}") for n in range(20_000)]
    assert served.count("b") / len(served) == pytest.approx(0.1, abs=0.01)
    more = Pointer("a", "b", 0.3)  # a larger share keeps those who had it
    assert all(more.serves(f"conversation {n}") == "b" for n, name in enumerate(served) if name == "b")
    assert Pointer("a").serves("x") == "a"


@pytest.mark.parametrize(
    ("champion", "canary", "verdict"),
    [
        (Feedback(50, 0), Feedback(50, 50), Verdict.HOLD),  # too few
        (Feedback(500, 25), Feedback(500, 75), Verdict.ROLL_BACK),
        (Feedback(500, 25), Feedback(500, 27), Verdict.HOLD),
        (Feedback(20_000, 1000), Feedback(20_000, 990), Verdict.PROMOTE),
        (Feedback(5000, 0), Feedback(5000, 0), Verdict.PROMOTE),
    ],
)
def test_verdicts(champion: Feedback, canary: Feedback, verdict: Verdict) -> None:
    assert verdict_of(champion, canary)[0] is verdict


def rolled_back(worse: float, seed: int) -> bool:
    """Whether a canary is ever rolled back when it is looked at every 50 conversations."""
    bad = np.random.default_rng(seed).random((2, 3000)) < np.array([[0.08], [0.08 + worse]])
    seen = np.cumsum(bad, axis=1)
    return any(
        verdict_of(Feedback(n, int(seen[0, n - 1])), Feedback(n, int(seen[1, n - 1])))[0] is Verdict.ROLL_BACK
        for n in range(100, 3000, 50)
    )


def test_looking_all_the_time_raises_few_false_alarms_and_misses_no_harm() -> None:
    assert sum(rolled_back(0.0, seed) for seed in range(200)) <= 10  # 5 %
    assert sum(rolled_back(0.08, seed) for seed in range(100)) >= 95


def test_commands(models: Path, tmp_path: Path) -> None:
    def run(*args: str) -> str:
        done = CliRunner().invoke(commands.models, [*args, "--models", str(models)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert "mine-v1 to 10% of the conversations" in run("promote", "mine-v1", "--canary", "10%")
    rows = {row["name"]: row for row in json.loads(run("list", "--json"))}
    assert rows[artifact.SHIPPED]["role"] == "champion"
    assert rows["mine-v1"]["role"] == "canary 10%"
    assert rows["mine-v1"]["gate"] == "passed"
    feedback = tmp_path / "feedback.jsonl"
    good = [{"artifact": artifact.SHIPPED, "conversation": f"a{n}", "good": n % 20 > 0} for n in range(400)]
    bad = [{"artifact": "mine-v1", "conversation": f"b{n}", "good": n % 3 > 0} for n in range(400)]
    feedback.write_text("\n".join(map(json.dumps, [*good, *bad])))
    assert "serves complexity-v3;" in run("rollback", "--if-worse", str(feedback))
    run("promote", "mine-v1", "--canary", "0.1")
    feedback.write_text("\n".join(map(json.dumps, [*good, *good])))
    done = CliRunner().invoke(commands.models, ["rollback", "--models", str(models), "--if-worse", str(feedback)])
    assert done.exit_code == 1
    assert "canary 10%" in run("list")
    assert "mine-v1" in run("promote", "mine-v1")
    report = json.loads(run("diff", artifact.SHIPPED, "mine-v1", "--json"))
    assert report["operating_points"]["balanced"]["up"] == report["operating_points"]["balanced"]["down"] == 0
    assert "go up" in run("diff", artifact.SHIPPED, "mine-v1")
    assert "quality at equal cost" in run("show", "mine-v1")
    assert "mine-v1" in run("list")


def test_what_users_say_is_shown_with_what_to_do(models: Path, tmp_path: Path) -> None:
    """From the store that the settings name; the trial begins with the canary."""
    Path("tierwise.toml").write_text(f'artifact = "{models}"\nledger = "{tmp_path}/ledger.db"\n')

    def shown(*args: str) -> str:
        done = CliRunner().invoke(commands.models, [*args, "--models", str(models)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert "users say" not in shown("list")
    assert not Path("ledger.db").exists()
    with Ledger(tmp_path / "ledger.db") as store:
        store.keep_feedback(artifact.SHIPPED, "before", good=False)
        assert "users say   complexity-v3 bad in 1 of 1 conversations" in shown("list")
        shown("promote", "mine-v1", "--canary", "10%")
        for number in range(150):
            store.keep_feedback(artifact.SHIPPED, f"a{number}", good=number >= 3)
            store.keep_feedback("mine-v1", f"b{number}", good=True)
        told = (
            "users say   complexity-v3 bad in 3 of 150, mine-v1 bad in 0 of 150 conversations; -2.0% bad conversations"
        )
        assert told in shown("list")
        assert told in shown("show", "mine-v1")
        assert shown("list").rstrip().endswith(": wait")
        for number in range(100):
            store.keep_feedback("mine-v1", f"b{number}", good=False)
        assert f": tierwise models rollback --models {models}\n" in shown("show", artifact.SHIPPED)
    rows = {row["name"]: row for row in json.loads(shown("list", "--json"))}
    assert (rows["mine-v1"]["n_judged"], rows["mine-v1"]["n_bad"]) == (150, 100)
    (tmp_path / "ledger.db").write_bytes(b"no database, but long enough to look like one" * 50)
    for rest in tmp_path.glob("ledger.db-*"):
        rest.unlink()
    assert "users' feedback cannot be read: file is not a database" in shown("list")


def test_feedback_rows_are_checked(models: Path, tmp_path: Path) -> None:
    with pytest.raises(NotPromoted, match="has no canary to judge"):
        promotion.judge_canary(models, [])
    promotion.promote(models, "mine-v1", share=0.5)
    with pytest.raises(NotPromoted, match='feedback row 1: "good" is None'):
        promotion.judge_canary(models, [{"artifact": "mine-v1"}])
    path = tmp_path / "f.jsonl"
    path.write_text("{}\n[1]")
    with pytest.raises(NotPromoted, match=r"f.jsonl:2: expected an object"):
        promotion.read_feedback(path)


def test_a_cascade_is_promoted_and_listed_as_any_other(tmp_path: Path) -> None:
    """It weighs what its parts weigh."""
    shutil.copytree(artifact.find("cascade"), tmp_path / "mine-v1")
    pointer = promotion.promote(tmp_path, "mine-v1", force=True)
    assert pointer.champion == "mine-v1"
    row = next(row for row in promotion.listed(tmp_path) if row["name"] == "mine-v1")
    assert row["bytes"] == sum(artifact.load(name).n_bytes for name in (artifact.SHIPPED, "complexity-encoder-v4"))
    assert Router.load(tmp_path).decide("what time is it").artifact == "mine-v1"
    report = difference.diff(tmp_path, artifact.SHIPPED, "mine-v1")
    assert 0 < report["operating_points"]["balanced"]["up"] < 0.5
