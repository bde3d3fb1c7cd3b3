"""`tierwise rules check`: counted by hand on rows whose tiers are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from router import Router, Settings, SettingsError
from training.commands.rules import rules

RULES = """
[[rules]]
name = "law"
terms = ["contract"]
min_tier = "complex"

[[rules]]
name = "few words"
max_words = 4
tier = "simple"

[[rules]]
name = "night"
between = "22:00-06:00"
max_tier = "moderate"

[[rules]]
name = "with pictures"
images = true
max_tier = "simple"
"""
ROWS = [  # text, tier
    ("Is this contract valid?", "complex"),  # four words, so "few words" holds as well
    ("Say hello in Welsh", "simple"),
    ("Prove the prime theorem", "complex"),
    ("Which drug interacts with", "moderate"),
    ("Translate 'good morning' into Dutch, please, and nothing else", "simple"),
]


def run(*args: str, rows: list[tuple[str, str]] | None = ROWS, settings: str = RULES) -> tuple[int, str]:
    Path("tierwise.toml").write_text(settings)
    if rows is not None:
        Path("labels.jsonl").write_text("".join(json.dumps({"text": t, "tier": tier}) + "\n" for t, tier in rows))
        args = ("--labels", "labels.jsonl", *args)
    done = CliRunner().invoke(rules, ["check", *args], catch_exceptions=False)
    return done.exit_code, done.stdout


def test_each_rule_is_counted_beside_the_classifier_alone() -> None:
    code, out = run("--json", "--at", "2026-11-27T12:00+00:00")
    report = json.loads(out)
    law, few, night, pictures = report["rules"]
    assert (law["n_rows"], law["too_low"], law["fails"]) == (1, 0, False)
    assert (few["n_rows"], few["n_shadowed"], few["fails"]) == (3, 1, True)
    assert few["too_low"] == pytest.approx(2 / 3)
    assert [(miss["row"], miss["label"], miss["sent"]) for miss in few["worst"]] == [
        (3, "complex", "simple"),  # the furthest below its label comes first
        (4, "moderate", "simple"),
    ]
    assert few["too_low_interval"][0] < 2 / 3 < few["too_low_interval"][1]
    assert (night["n_rows"], night["fails"]) == (0, False)
    assert (pictures["n_rows"], pictures["untold"]) == (0, ["images"])
    router = Router.load(config=Settings())
    ranks = [(router.decide(text).tier.rank, ["simple", "moderate", "complex"].index(tier)) for text, tier in ROWS]  # type: ignore[union-attr]
    assert few["alone"]["too_low"] == pytest.approx(sum(sent < needs for sent, needs in ranks[1:4]) / 3)
    assert report["all"]["alone"]["too_high"] == pytest.approx(sum(sent > needs for sent, needs in ranks) / 5)
    assert code == 1


def test_the_limit_decides_and_a_floor_never_fails() -> None:
    assert run("--max-below", "0.67")[0] == 0
    floor = '[[rules]]\nname = "all"\nmin_tier = "moderate"\n'
    code, out = run("--max-below", "0", settings=floor, rows=[("Translate 'good morning' into Dutch", "complex")])
    assert code == 0
    assert "too low     100.0%" in out


def test_time_and_keys_are_those_of_the_options_or_the_labels() -> None:
    at_night = json.loads(run("--json", "--at", "2026-11-27T23:00+00:00")[1])["rules"][2]
    assert at_night["n_rows"] == 1  # what no earlier rule takes
    by_key = '[[rules]]\nname = "batch"\nkey = ["batch"]\ntier = "simple"\n'
    code, out = run("--json", "--key", "batch", settings=by_key)
    assert json.loads(out)["rules"][0]["n_rows"] == len(ROWS)
    assert json.loads(run("--json", settings=by_key)[1])["rules"][0]["untold"] == ["key"]
    by_header = '[[rules]]\nname = "team"\nheaders = { X-Team = "search" }\ntier = "simple"\n'
    row = json.loads(run("--json", "--header", "x-team=search", settings=by_header)[1])["rules"][0]
    assert (row["n_rows"], row["untold"]) == (len(ROWS), [])
    assert json.loads(run("--json", settings=by_header)[1])["rules"][0]["untold"] == ["headers"]
    Path("keyed.csv").write_text("text,tier,key\nhello,simple,batch\nhello again,simple,web\n")
    code, out = run("--json", "--labels", "keyed.csv", rows=None, settings=by_key)
    assert (code, json.loads(out)["rules"][0]["n_rows"]) == (0, 1)


def test_soft_labels_count_by_their_probability() -> None:
    Path("soft.jsonl").write_text('{"text": "one two", "p_required": [0.7, 0.2, 0.1]}\n')
    code, out = run("--labels", "soft.jsonl", "--json", rows=None)
    assert (code, json.loads(out)["rules"][1]["too_low"]) == (1, pytest.approx(0.3))


def test_one_text() -> None:
    code, out = run("--text", "Is this contract valid?", "--at", "2026-11-27T12:00+00:00", rows=None)
    assert code == 0
    assert out.splitlines()[:2] == ["rule        law", "behind it   few words"]
    assert "tier        complex" in out
    assert run("--text", "Tell me a long story about ships", "--at", "2026-11-27T12:00+00:00", rows=None)[1].startswith(
        "rule        none matches\n"
    )
    row = json.loads(
        run("--text", "Sum it up for me, will you", "--at", "2026-11-27T23:00+00:00", "--json", rows=None)[1]
    )
    assert (row["rule"], row["behind_it"]) == ("night", [])


def test_mistakes_are_named() -> None:
    with pytest.raises(SettingsError, match=r"has no \[\[rules\]\]"):
        run("--text", "hello", rows=None, settings="")
    for args in (
        (),
        ("--text", "x", "--labels", "labels.jsonl"),
        ("--text", "x", "--header", "a"),
        ("--text", "x", "--at", "soon"),
    ):
        assert run(*args, rows=None)[0] == 2
