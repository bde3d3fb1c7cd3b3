"""The files of deploy/ name settings that there are, paths that are served, and a user who may start."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from router.settings import GatewaySettings, Settings
from tests.conftest import ROOT

FILES = sorted(path for path in (ROOT / "deploy").iterdir() if path.is_file())
KNOWN = {
    *(f"TIERWISE_{name.upper()}" for name in (*Settings.__struct_fields__, "config")),
    *(f"TIERWISE_GATEWAY_{name.upper()}" for name in GatewaySettings.__struct_fields__),
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_variable_is_a_setting(path: Path) -> None:
    assert set(re.findall(r"TIERWISE_[A-Z_]+", path.read_text("utf-8"))) <= KNOWN


def test_each_is_explained() -> None:
    page = (ROOT / "docs/deploy.md").read_text("utf-8")
    assert {path.name for path in FILES} <= set(re.findall(r"`([\w.]+)`", page))


def test_paths_are_served() -> None:
    app = (ROOT / "router/gateway/app.py").read_text("utf-8")
    for path in FILES:
        for probed in re.findall(r"/(?:healthz|readyz|metrics)\b", path.read_text("utf-8")):
            assert f'"{probed}"' in app


def test_the_image_holds_what_the_package_needs() -> None:
    kept = {line[1:] for line in (ROOT / ".containerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert {"pyproject.toml", "README.md", "LICENSE", "router", "training", "models", "data"} <= kept


def test_it_starts_as_the_image_does(tmp_path: Path) -> None:
    given = re.findall(r"(TIERWISE_\w+)=(\S+)", (ROOT / "deploy/Containerfile").read_text("utf-8"))
    environ = {**os.environ, **dict(given), "TIERWISE_GATEWAY_STATE_DIR": str(tmp_path), "ANTHROPIC_API_KEY": "k"}
    command = [sys.executable, "-m", "router.cli", "serve", "--check"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "access keys, provider keys: anthropic" in done.stdout
