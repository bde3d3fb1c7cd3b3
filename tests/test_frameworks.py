"""The programs of examples/frameworks, against the real libraries where they are installed: `make frameworks`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from router.offline import Upstream
from tests.conftest import ROOT
from tests.gateway.conftest import KEYS, process, records

FOLDER = ROOT / "examples" / "frameworks"
GPT, CLAUDE = "gpt-6-luna", "claude-haiku-4-5"
SAID = {
    "dspy_program": ("dspy", [f"answered by {GPT}: True"]),
    "langchain_chat": ("langchain_openai", [f"simple -> {GPT}, suffices", "streamed: True"]),
    "litellm_sdk": (
        "litellm",
        [f"openai/auto was answered by {GPT}: True", f"anthropic/auto was answered by {CLAUDE}: True"],
    ),
    "llama_index_chat": ("llama_index", [f"answered by {GPT}: True", "streamed: True"]),
    "openai_agents": ("agents", ["answered: True, 1 call"]),
    "pydantic_ai_agent": ("pydantic_ai", [f"answered by {CLAUDE}: True"]),
}
WRAPPED = ("openai_agents", "pydantic_ai_agent")


def test_every_program_is_run() -> None:
    assert SAID.keys() == {path.stem for path in FOLDER.glob("*.py")}


@pytest.mark.parametrize("program", SAID)
def test_a_framework_is_routed_and_recorded(program: str, tmp_path: Path, upstream: Upstream) -> None:
    library, said = SAID[program]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: make frameworks")
    addresses = {"ANTHROPIC_BASE_URL": upstream.url, "OPENAI_BASE_URL": f"{upstream.url}/v1"}
    own = tmp_path / "own"
    shutil.copytree(ROOT / "examples", own)
    with process(tmp_path, upstream.url) as (_, url, _):
        done = subprocess.run(
            [sys.executable, str(FOLDER / f"{program}.py")],
            env={**os.environ, **KEYS, **addresses, "GATEWAY_URL": url, "PYTHONPATH": str(ROOT)},
            cwd=own,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        lines = done.stdout.splitlines()
        assert [line for line in lines if line in said] == said, lines
        kept = own / "ledger.db" if program in WRAPPED else tmp_path / "state/records.db"
        rows = records(kept, len(upstream.bills))
    assert len(rows) == len(upstream.bills) > 0
    assert {row["model"] for row in rows} <= {GPT, CLAUDE}
    assert all(row["reason"] == "suffices" and row["cost_picousd"] > 0 for row in rows)
