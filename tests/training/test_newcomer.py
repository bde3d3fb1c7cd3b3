"""The way from a CSV to a tuned artifact that serves: whatever a step prints as the next one is done to the letter."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from click.testing import CliRunner

from router.classifier import artifact, pointer
from router.classifier.pointer import Pointer
from router.cli import cli
from tests.training.test_retrain import tickets


def run(command: str) -> str:
    """`tierwise ...` in the working directory; what it printed."""
    program, *args = shlex.split(command)
    assert program == "tierwise"
    done = CliRunner().invoke(cli, args, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def advice(printed: str, before: str) -> str:
    """What stands behind some words."""
    return re.findall(rf"{before}(.+)", printed)[-1].strip()


def test_from_a_csv_to_a_decision() -> None:
    tickets(900).to_csv("tickets.csv", index=False)
    first = "tierwise retrain --labels tickets.csv --out models/shop-v1 --cache cache"
    printed = run(first)
    assert "gate        passed" in printed
    printed = run(advice(printed, "promote it: "))
    assert pointer.read_pointer(Path("models")) == Pointer("shop-v1", history=(artifact.SHIPPED,))
    Path("tierwise.toml").write_text(advice(printed, "in tierwise.toml: "))
    asked = "my turbine hums since May, order 777"
    before = json.loads(run(f"tierwise decide --json '{asked}'"))
    assert before["tier"] == "complex"
    tune = "tierwise tune --labels tickets.csv"
    printed = run(f"{tune} {advice(run(tune), 'for example ')}")
    assert "609 more were trained on and are left out" in printed
    printed = run(advice(printed, "try: "))
    assert "(operating point mine)" in printed
    decided = json.loads(run(f"tierwise decide --json --operating-point mine '{asked}'"))
    assert (decided["tier"], decided["operating_point"]) == ("complex", "mine")
    printed = run("tierwise models list")
    assert re.search(r"shop-v1 +champion +900 +passed", printed)


def test_in_another_folder_and_through_a_canary() -> None:
    tickets(600).to_csv("tickets.csv", index=False)
    printed = run("tierwise retrain --labels tickets.csv --out 'my models/shop-v1' --cache cache")
    command = advice(printed, "promote it: ")
    printed = run(f"{command} --canary 10%")
    Path("tierwise.toml").write_text(advice(printed, "in tierwise.toml: "))
    assert json.loads(run("tierwise decide --json hi"))["tier"] == "simple"
    assert pointer.read_pointer(Path("my models")).canary == "shop-v1"
    run(command)
    assert pointer.read_pointer(Path("my models")).champion == "shop-v1"
