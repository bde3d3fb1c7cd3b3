"""`tierwise run -- COMMAND`: a program with a gateway of its own, through the real SDK, as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from router.offline import Upstream

PROGRAM = """
import sys, anthropic, openai
HI = [{"role": "user", "content": "hi"}]
if "claude" in sys.argv:
    client = anthropic.Anthropic(api_key="the program's own")
    print(client.messages.create(model="claude-opus-4-7", max_tokens=20, messages=HI).model)
if "gpt" in sys.argv:
    client = openai.OpenAI(api_key="any")
    print(client.chat.completions.create(model="gpt-5.5", messages=HI).model)
sys.exit(7 if "fails" in sys.argv else 0)
"""


@pytest.fixture
def ran(tmp_path: Path, upstream: Upstream) -> Any:
    (tmp_path / "program.py").write_text(PROGRAM)
    addresses = {"anthropic": upstream.url, "openai": f"{upstream.url}/v1"}
    lines = (f'[gateway.upstreams.{name}]\nurl = "{url}"\n' for name, url in addresses.items())
    (tmp_path / "tierwise.toml").write_text("".join(lines))

    def run(*arguments: str, program: tuple[str, ...] = (), **environ: str) -> subprocess.CompletedProcess[str]:
        known = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
        command = program or (sys.executable, "program.py", *[a for a in arguments if not a.startswith("-")])
        options = [a for a in arguments if a.startswith("-")]
        code = "from router import cli; from router.gateway.run import run; cli.cli.add_command(run); cli.main()"
        return subprocess.run(
            [sys.executable, "-c", code, "run", *options, "--", *command],
            env={**known, "XDG_STATE_HOME": str(tmp_path), **environ},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_what_it_names_is_decided_anew_and_told(ran: Any) -> None:
    done = ran("claude", "gpt", ANTHROPIC_API_KEY="the gateway's", OPENAI_API_KEY="the gateway's")
    assert (done.returncode, done.stdout.split()) == (0, ["claude-haiku-4-5", "gpt-6-luna"]), done.stderr
    assert "tierwise: 2 calls (" in done.stderr
    assert "saved $" in done.stderr


def test_without_a_key_here_its_own_is_passed_on(ran: Any) -> None:
    done = ran("claude", "--as-named")
    assert (done.returncode, done.stdout.split()) == (0, ["claude-opus-4-7"]), done.stderr
    assert "tierwise: 1 calls (claude-opus-4-7 1), $" in done.stderr
    assert "saved" not in done.stderr


def test_its_exit_status_is_the_programs(ran: Any) -> None:
    assert ran("fails").returncode == 7
    missing = ran(program=("no-such-program",))
    assert missing.returncode == 2
    assert "'no-such-program' cannot be run" in missing.stderr


def test_in_shadow_nothing_changes_and_the_saving_is_told(ran: Any) -> None:
    done = ran("claude", "--shadow", ANTHROPIC_API_KEY="the gateway's", OPENAI_API_KEY="the gateway's")
    assert (done.returncode, done.stdout.split()) == (0, ["claude-opus-4-7"]), done.stderr
    assert "tierwise: 1 calls (claude-opus-4-7 1), $" in done.stderr
    assert "; routed it would have cost $" in done.stderr and "saved $" not in done.stderr
