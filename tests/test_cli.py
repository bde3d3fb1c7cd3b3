"""The installed command, as a process of its own."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from router import Router, Settings, Tier
from router.classifier import artifact
from router.cli import cli
from router.explain import explain
from router.offline import Upstream


def run(*args: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "router.cli", *args],
        input=stdin,
        capture_output=True,
        env=env and {"PATH": "/usr/bin", "LANG": "C.UTF-8", "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **env},
        check=False,
    )
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_decide_prints_tier_model_probabilities_reason_and_time() -> None:
    code, out, _ = run("decide", "Prove that sqrt(2) is irrational")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["tier", "model", "p_suffices", "reason", "time"]


def test_decide_json_from_stdin() -> None:
    code, out, _ = run("decide", "--json", "-o", "quality", "-", stdin=b"hi")
    decision = json.loads(out)
    assert code == 0
    assert (decision["tier"], decision["operating_point"]) == ("simple", "quality")
    assert decision["time_us"] > 0


def test_decide_explains() -> None:
    text = "Prove that sqrt(2) is irrational, then say hi"
    code, out, _ = run("decide", "--explain", text)
    assert code == 0
    for said in ("thresholds  simple 0.", "harder ", "Prove -", "easier ", "hi +", "cost        simple $0."):
        assert said in out
    code, out, _ = run("decide", "--explain", "--json", text)
    row = json.loads(out)
    assert (code, row["artifact"]) == (0, artifact.SHIPPED)
    assert [abs(word["effect"]) for word in row["words"]] == sorted(
        (abs(w["effect"]) for w in row["words"]), reverse=True
    )
    assert {word["word"] for word in row["words"]} == set(text.split())
    assert list(row["cost_usd"].values()) == sorted(row["cost_usd"].values())


def test_an_effect_is_what_leaving_the_word_out_does() -> None:
    router = Router.load(config=Settings())
    found = explain(router, "Prove the theorem now")
    with_it, without = (
        router.decide(text).p_suffices[Tier.SIMPLE] for text in ("Prove the theorem now", " the theorem now")
    )
    effect = math.log(with_it / (1 - with_it)) - math.log(without / (1 - without))
    assert next(word.effect for word in found.words if word.word == "Prove") == pytest.approx(effect, abs=1e-4)


def test_rows_are_answered_in_order_and_bad_ones_named(tmp_path: Path) -> None:
    rows = [
        b'{"id": 1, "text": "hi"}',
        b'{"id": "two", "messages": [{"role": "user", "content": "hi"}]}',
        b"{broken",
        b'{"id": 4}',
        b'{"id": 5, "text": ["a"]}',
        b"",
        b'["a list"]',
        b'{"id": 8, "text": "\xff"}',
        b'{"id": 9, "messages": "hi"}',
        b'{"id": 10, "text": "", "extra": 1}',
        b'{"text": "no id"}',
    ]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(rows))
    code, out, err = run("decide", "--file", str(tmp_path / "in.jsonl"), "--jsonl")
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [a["id"] for a in answers] == [1, "two", 10, None]
    assert list(answers[0]) == ["id", "tier", "model", "p_suffices", "reason"]
    assert list(answers[0]["p_suffices"]) == ["simple", "moderate", "complex"]
    assert answers[0] | {"id": 0} == answers[1] | {"id": 0}
    assert (answers[2]["tier"], answers[2]["reason"]) == ("complex", "empty_task")
    assert [line.partition(":")[0] for line in err.splitlines()] == [f"line {n}" for n in (3, 4, 5, 7, 8, 9)]


def test_good_rows_exit_zero() -> None:
    code, out, err = run("decide", "-", "--jsonl", stdin=b'{"id": 1, "text": "hi"}\n')
    assert (code, err, json.loads(out)["id"]) == (0, "", 1)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["decide"], "give one TEXT"),
        (["decide", "x", "--jsonl"], "--jsonl reads rows"),
        (["decide", "x", "--fleet", "clade"], "did you mean 'claude'"),
        (["decide", "x", "-o", "cheap"], "economy, balanced, quality"),
        (["decide", "x", "--artifact", "gone"], "no artifact 'gone'"),
        (["decide", "--file", "gone.jsonl"], "gone.jsonl"),
        (["ask", "x"], "set ANTHROPIC_API_KEY, OPENAI_API_KEY, GEMINI_API_KEY"),
        (["ask", "x", "--fleet", "gpt"], "set OPENAI_API_KEY in"),
        (["demo", "--live"], "ANTHROPIC_API_KEY or OPENAI_API_KEY"),
        (["nonsense"], "nonsense"),
    ],
)
def test_mistakes_exit_two_with_a_remedy(args: list[str], message: str) -> None:
    code, out, err = run(*args)
    assert code == 2
    assert message in err
    assert "artifact" in message or not out or args[0] == "demo"


@pytest.mark.parametrize("fleet", ["claude", "gpt", "gemini"])
def test_ask_offline(fleet: str) -> None:
    code, out, err = run("ask", "hi", "--offline", "--fleet", fleet, "--system", "Be brief.")
    assert code == 0
    assert out.startswith("[simulated reply of ")
    assert "cost $0.0" in err


def test_ask_sends_to_the_provider_whose_key_is_set(upstream: Upstream) -> None:
    env = {"ANTHROPIC_API_KEY": "sk-secret", "ANTHROPIC_BASE_URL": upstream.url}
    code, out, err = run("ask", "hi", "--json", env=env)
    answer = json.loads(out)
    assert code == 0
    assert (answer["model"], answer["tier"], answer["tool_calls"]) == ("claude-haiku-4-5", "simple", [])
    assert answer["text"].startswith("[simulated reply of claude-haiku-4-5]")
    assert answer["cost_usd"] == pytest.approx(float(upstream.bills[-1].usd))
    env = {"OPENAI_API_KEY": "sk-secret", "OPENAI_BASE_URL": f"{upstream.url}/v1"}
    code, out, err = run("ask", "hi", env=env)
    assert code == 0
    assert "gpt-6-luna" in out + err
    assert "sk-secret" not in out + err


def test_ask_a_fleet_that_mixes_providers(upstream: Upstream, tmp_path: Path) -> None:
    fleet = '[fleets.mine]\nsimple = "gpt-6-luna"\ncomplex = "claude-opus-4-7"\n'
    (tmp_path / "my.toml").write_text(fleet)
    env = {
        "OPENAI_API_KEY": "sk-o",
        "OPENAI_BASE_URL": f"{upstream.url}/v1",
        "TIERWISE_CONFIG": str(tmp_path / "my.toml"),
    }
    code, _, err = run("ask", "hi", "--fleet", "mine", env=env)
    assert (code, "set ANTHROPIC_API_KEY in the environment" in err) == (2, True)
    env |= {"ANTHROPIC_API_KEY": "sk-a", "ANTHROPIC_BASE_URL": upstream.url}
    code, out, err = run("ask", "hi", "--fleet", "mine", env=env)
    assert code == 0
    assert "gpt-6-luna" in out
    assert "sk-" not in out + err
    code, out, _ = run("ask", "hi", "--fleet", "mine", "--offline", env=env)
    assert (code, out[:32]) == (0, "[simulated reply of gpt-6-luna] ")


def test_ask_reports_the_providers_error_in_one_line(upstream: Upstream) -> None:
    env = {"ANTHROPIC_API_KEY": "invalid", "ANTHROPIC_BASE_URL": upstream.url}
    code, _, err = run("ask", "hi", env=env)
    assert code == 2
    assert "AuthenticationError" in err


def test_demo_prints_every_step() -> None:
    code, out, _ = run("demo", "--calls", "30")
    assert code == 0
    steps = ["1. Decisions", "REPLIES ARE SIMULATED", "equals the upstream's bill", "below the tier they need"]
    for said in [*steps, "all Sonnet, uncached", "all Sonnet, cached 5m", "all Opus, cached", "openai SDK"]:
        assert said in out


def test_demo_json() -> None:
    report = json.loads(run("demo", "--calls", "12", "--json")[1])
    assert report["simulated"] is True
    assert report["routed"]["cost_usd"] > 0


@pytest.mark.parametrize("args", [["-h"], ["decide", "--help"], ["ask", "-h"], ["demo", "--help"], ["--version"]])
def test_help(args: list[str]) -> None:
    code, out, _ = run(*args)
    assert code == 0
    assert out


def test_catalog_check_lists_findings_and_exits_one() -> None:
    code, out, _ = run("catalog", "check", "--as-of", "2027-06-01", "--json")
    problems = {row["model"]: row["problem"] for row in json.loads(out)}
    assert code == 1
    assert "claude-haiku-4-5" in problems
    assert any("look again" in problem for problem in problems.values())
    code, _, err = run("catalog", "check", "--as-of", "soon")
    assert code == 2
    assert "soon" in err


def test_lint_prompt_names_place_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "prompt.md").write_text("You sell boats.\nToday is 2026-11-22.\n")
    code, out, err = run("lint-prompt", str(tmp_path / "prompt.md"))
    assert (code, err.strip()) == (1, "1 findings in 1 prompts")
    assert out.startswith("system:2 at 16  breaks  time\n")
    assert "last breakpoint" in out
    code, out, _ = run("lint-prompt", "-", stdin=b"You sell boats.")
    assert (code, out) == (0, "")


def test_lint_prompt_compares_requests(tmp_path: Path) -> None:
    rows = [{"system": f"Be brief. Order {n}", "messages": [{"role": "user", "content": "hi"}]} for n in "ab"]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, _ = run("lint-prompt", "--json", str(tmp_path / "rows.jsonl"))
    (found,) = json.loads(out)
    assert code == 1
    assert (found["path"], found["offset"], found["excerpt"], found["versus"]) == ("system", 16, "b", "a")
    for name, row in zip("ab", rows, strict=True):
        (tmp_path / f"{name}.json").write_text(json.dumps(row))
    code, out, _ = run("lint-prompt", "--json", str(tmp_path / "a.json"), str(tmp_path / "b.json"))
    assert (code, json.loads(out)) == (1, [found])


def test_lint_prompt_exits_zero_for_doubts_unless_strict() -> None:
    doubtful = b"Prices as of 1 March 2026."
    assert run("lint-prompt", "-", stdin=doubtful)[0] == 0
    code, out, _ = run("lint-prompt", "--strict", "-", stdin=doubtful)
    assert code == 1
    assert "maybe" in out


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff", "not UTF-8"),
        (b"{", "line 1"),
        (b"{}", "expected one of"),
        (b"[1]", "give a request body"),
        (None, "No such"),
    ],
)
def test_lint_prompt_cannot_read(data: bytes | None, message: str, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / "a.json").write_bytes(data)
    code, _, err = run("lint-prompt", str(tmp_path / "a.json"))
    assert code == 2
    assert message in err


WITHOUT_TRAIN = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pandas", "sklearn", "pyarrow", "scipy", "onnx", "tomlkit", "tqdm", "cleanlab"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from router.cli import main
main()
"""


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["models", "list"], 0, artifact.SHIPPED),
        (["models", "show", artifact.SHIPPED], 0, "complexity"),
        (["models", "rollback"], 2, "nothing to roll back to"),
        (["models", "diff", artifact.SHIPPED, artifact.SHIPPED], 2, "pip install 'tierwise[train]'"),
        (["retrain", "--labels", "labels.csv", "--out", "mine"], 2, "pip install 'tierwise[train]'"),
        (["label", "labels.csv", "--out", "out.jsonl"], 2, "pip install 'tierwise[train]'"),
        (["tune", "--labels", "labels.csv"], 2, "pip install 'tierwise[train]'"),
    ],
)
def test_without_the_train_extra_a_command_works_or_names_it(
    args: list[str], code: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").write_text("text,tier\nhi,simple\n")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRAIN, *args], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert "Traceback" not in done.stderr
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True)


def test_without_a_command_it_says_what_to_do_first() -> None:
    result = CliRunner().invoke(cli, [])
    assert result.exit_code == 0
    named = re.findall(r"^  tierwise (\w+)", result.output, re.MULTILINE)
    assert named == ["audit", "decide", "run"]
    assert all(cli.get_command(click.Context(cli), name) is not None for name in named)


def test_a_mistyped_command_is_told_the_nearest() -> None:
    result = CliRunner().invoke(cli, ["reprot"])
    assert result.exit_code == 2
    assert "No such command 'reprot'. Did you mean 'report'?" in result.output
