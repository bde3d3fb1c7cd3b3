from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.training.test_retrain import tickets
from training.commands.retrain import retrain
from training.examine.gate_report import Check, Report
from training.examine.next_steps import next_steps


def report(*names: str, gain: float = 0.1, interval: tuple[float, float] = (0.05, 0.15), length: float = 0.4) -> Report:
    """A gate's report in which the checks of these names do not hold."""
    checks = tuple(Check(name, False, "found", "limit") for name in names)
    apgr = {"champion": 0.5, "challenger": 0.5 + gain, "length": length}
    return Report("a", "b", 100, apgr, gain, interval, (Check("size", True, "", ""), *checks))


def steps(of: Report, min_gain: float = 0.05, **changed: Any) -> list[str]:
    figures = {"n_labels": 300, "rehearsal": 0.1, "out_of_fold": {"apgr": 0.55, "apgr_interval": [0.45, 0.65]}}
    return next_steps(of, {**figures, **changed}, min_gain, "l.csv")


def test_a_gate_that_passed_asks_for_nothing() -> None:
    assert steps(report(length=0.9)) == []


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (report("labels follow from texts"), "if APGR stays at 0.550, about 900 more labels"),
        (report("quality at equal cost", gain=0.02, interval=(-0.04, 0.08)), "about 900 more labels would tell"),
        (
            report("quality at equal cost", gain=-0.03, interval=(-0.06, 0)),
            "ranks worse than the champion, which stays",
        ),
        (report("worth a change", gain=0.03, interval=(0.01, 0.05)), "--min-gain 0.030"),
        (
            report("worth a change", gain=0.03, interval=(-0.01, 0.07)),
            "up to +0.070 is possible; about 900 more labels",
        ),
        (report("worth a change", gain=0.0, interval=(-0.3, 0.3)), "more than 20 times as many labels"),
        (report("worth a change", gain=0.0, interval=(-0.01, 0.01)), "the champion is as good on this traffic"),
        (report("promise of balanced"), "label more of those that need moderate or complex"),
        (report("behaviour"), "--rehearsal 0.4 keeps more"),
        (report("language de"), "language de: it got worse there; label more of it"),
        (report("speed"), "leave --base out"),
    ],
)
def test_each_check_says_what_its_figures_suggest(of: Report, said: str) -> None:
    (step,) = steps(of)
    assert said in step
    assert step.startswith(f"{of.checks[-1].name}: ")


def test_that_length_is_better_comes_first() -> None:
    first, second = steps(report("behaviour", length=0.7))
    assert first.startswith("prompt length alone ranks these texts better: APGR 0.700, the models' 0.600.")
    assert "tierwise tune --labels l.csv --classifier rules" in first
    assert second.startswith("behaviour")


def test_labels_at_random_are_said_to_be_so() -> None:
    (step,) = steps(report("labels follow from texts"), out_of_fold={"apgr": 0.48, "apgr_interval": [0.4, 0.56]})
    assert "no better than chance" in step
    assert "more of the same will not help" in step


def test_the_command_says_what_now_and_names_doubtful_rows_by_their_texts(tmp_path: Path) -> None:
    """Long tickets are the hard ones; a few rows contradict others."""
    frame = tickets(300)
    frame["tier"] = np.random.default_rng(0).permutation(frame["tier"])
    hard = (frame["tier"] != "simple").to_numpy()
    frame["text"] = np.where(hard, frame["text"] + " and so on, at length" * 3, frame["text"])
    frame["text"] = frame["text"].str.replace("what is wrong", "what's\nwrong")
    table = [*frame.to_numpy().tolist(), *([text, "complex"] for text in frame["text"].head(4))]
    path = tmp_path / "my labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([["Question", "Difficulty"], *table])
    args = ["--labels", str(path), "--out", "models/shop-v1", "--cache", "cache", "--min-gain", "2"]
    done = CliRunner().invoke(retrain, args, catch_exceptions=False)
    assert done.exit_code == 1
    assert 'text column: "Question" (guessed' in done.stderr
    assert "what now    worth a change: " in done.stdout
    numbered = {n: " ".join(text.split())[:30] for n, (text, _) in enumerate(table, start=2)}
    doubts = [line for line in done.stdout.splitlines() if line.startswith("            row ")]
    assert doubts
    for part in (part for line in doubts for part in line.split("), ")):
        number, _, start = part.strip().removeprefix("row ").partition(" ")
        assert start.startswith(f'("{numbered[int(number)][:20]}')
    machine = json.loads(CliRunner().invoke(retrain, [*args, "--json"]).stdout)
    assert machine["apgr"].keys() == {"champion", "challenger", "length"}
    assert [f"what now    {step}" for step in machine["next_steps"]] == [
        line for line in done.stdout.splitlines() if line.startswith("what now")
    ]
